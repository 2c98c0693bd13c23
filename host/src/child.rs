//! Child processes: this program, started again to run code of plugins where it cannot take the host down.
//!
//! Who uses them: `scan` tries a plugin before it is trusted, `check` runs one conformance test in each, `worker` keeps
//! a plugin for as long as it runs. All are started here, get their [`Task`] through a socket, and end with the host.

mod confine;
mod run;
mod serve;
mod spawn;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::worker;

pub use self::spawn::SpawnError;
pub(crate) use self::{
    confine::Limits,
    run::{Ending, Outcome, run},
    serve::{NOT_BEGUN, Reporter},
    spawn::{Running, spawn},
};
pub use self::{run::ChildError, serve::serve_if_asked};

/// First argument of a program that is started as a child.
const ARGUMENT: &str = "antiphon-child";

/// What the two sides of the socket must agree on, beside the version of the crate.
const PROTOCOL: u32 = 1;

/// What a child does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Says that children can be started.
    Hello,
    /// Runs a plugin for as long as the host does.
    Work(Box<worker::Job>),
    /// Tries a plugin library.
    Scan(PathBuf),
    /// Runs one conformance test.
    Check(crate::check::Job),
}

/// The first message to a child.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    protocol: u32,
    version: String,
    limits: Limits,
    task: Task,
}

/// The program that is started as a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildProgram(PathBuf);

/// There is no program that can be started as a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no program to start as a child process: call `antiphon_host::child::serve_if_asked()` first thing in \
     `main`, or put the command `antiphon` of the same version beside this program or into PATH"
)]
pub struct NoChildProgram;

/// Whether this program serves as a child when it is started as one.
static SERVES: AtomicBool = AtomicBool::new(false);

/// Time for a child that has nothing to do; it takes a few milliseconds.
const CHECK_DEADLINE: Duration = Duration::from_secs(10);

/// What our own command is called.
const COMMAND: &str = "antiphon";

impl ChildProgram {
    /// A certain program: one that calls [`serve_if_asked`], of the same version as this one.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// This program, if it calls [`serve_if_asked`]; else the command `antiphon`: beside this program, up to two
    /// directories above it (where cargo puts it, seen from tests and examples), or in `PATH`.
    ///
    /// # Errors
    ///
    /// [`NoChildProgram`] when there is none.
    pub fn find() -> Result<Self, NoChildProgram> {
        if SERVES.load(Ordering::Relaxed) {
            // What runs, also when its file has been replaced.
            return Ok(Self("/proc/self/exe".into()));
        }
        let own = std::env::current_exe().unwrap_or_default();
        let beside = own.ancestors().skip(1).take(3).map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = beside.chain(std::env::split_paths(&path)).map(|folder| folder.join(COMMAND));
        candidates.find(|candidate| candidate.is_file()).map(Self).ok_or(NoChildProgram)
    }

    /// Starts a child that does nothing. Blocks.
    ///
    /// # Errors
    ///
    /// Why no child can be started: the program is not there, or it is of another version.
    pub fn check(&self) -> Result<(), ChildError> {
        let outcome = run(self, Limits::default(), Task::Hello, &[], CHECK_DEADLINE)?;
        match outcome.ending {
            Ending::Done => Ok(()),
            ending => Err(ChildError::Ended { ending: ending.to_string(), output: outcome.output }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = ChildProgram::at("/nowhere/antiphon").check().expect_err("no such program");
        assert_eq!(error.to_string(), "the child process /nowhere/antiphon cannot be started");
    }

    #[test]
    fn a_program_that_is_no_child_is_told_apart() {
        let error = ChildProgram::at("/bin/false").check().expect_err("not ours");
        assert_eq!(error.to_string(), "the child process ended the process with exit code 1: ");
    }
}
