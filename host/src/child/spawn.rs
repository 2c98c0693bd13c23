//! Starts a child: its own process group, a cleaned environment, a socket for standard input, one pipe for its output.

use std::{
    ffi::OsString,
    io::{self, PipeReader},
    os::unix::{net::UnixStream, process::CommandExt},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use antiphon_plugin_api::abi::API_VERSION;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid},
};

use super::{ARGUMENT, ChildProgram, Job, Limits, PROTOCOL, Task, serve};

/// What a child keeps of the environment, beside what is named for it: where libraries, locales, zones, temporary files
/// and the user's own files are, and what tells sanitizers how to report. Secrets mostly come in variables, so the rest does not pass.
const KEPT: [&str; 16] = [
    "ASAN_OPTIONS",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LD_LIBRARY_PATH",
    "LSAN_OPTIONS",
    "PATH",
    "RUST_BACKTRACE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
];

/// A running child. It is killed with all that it has started when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) socket: UnixStream,
    /// Standard output and error.
    pub(crate) output: Option<PipeReader>,
}

/// Why no child runs.
#[derive(Debug, thiserror::Error)]
#[error("the child process {} cannot be started", program.path().display())]
pub struct SpawnError {
    program: ChildProgram,
    source: io::Error,
}

pub(crate) fn spawn(
    program: &ChildProgram,
    limits: Limits,
    task: Task,
    environment: &[String],
) -> Result<Running, SpawnError> {
    start(program, limits, task, environment)
        .map_err(|source| SpawnError { program: program.clone(), source })
}

fn start(program: &ChildProgram, limits: Limits, task: Task, environment: &[String]) -> io::Result<Running> {
    let (ours, theirs) = UnixStream::pair()?;
    let (output, writer) = io::pipe()?;
    // A backtrace takes memory; out of memory, a process that wants to print one waits for itself instead of ending.
    let is_kept = |name: &&str| limits.memory_bytes.is_none() || *name != "RUST_BACKTRACE";
    let named = KEPT.iter().copied().filter(is_kept).chain(environment.iter().map(String::as_str));
    let kept: Vec<(&str, OsString)> =
        named.filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
    let mut command = Command::new(program.path());
    command.arg(ARGUMENT).env_clear().envs(kept);
    // A group of its own: Ctrl-C in a terminal is for the host, and what a plugin starts ends with its child.
    command.process_group(0);
    command.stdin(serve::as_stdin(theirs)).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // The command holds copies of the child's ends; as long as they are open, the child's end cannot be seen.
    drop(command);
    let mut running = Running { child, socket: ours, output: Some(output) };
    let job = Job { protocol: PROTOCOL, version: API_VERSION.into(), limits, task };
    match serve::write_frame(&mut running.socket, &serde_json::to_vec(&job)?) {
        // It has ended already; how is of more use than that it could not be told.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(running),
        written => written.map(|()| running),
    }
}

impl Running {
    /// Kills the child and all that it has started. It must not have been waited for: its number may be another's then.
    pub(crate) fn kill(&self) {
        kill_group(self.child.id());
    }

    /// Whether the child ends within a time.
    pub(crate) fn ends_within(&self, time: Duration) -> io::Result<bool> {
        let Some(pid) = pid(self.child.id()) else { return Ok(true) };
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&time))? > 0)
    }

    /// Kills what the child has started, and says how it ended. Blocks until it has.
    pub(crate) fn finish(mut self) -> io::Result<ExitStatus> {
        if let Some(pid) = pid(self.child.id()) {
            // Its number stays taken until it is waited for below.
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
            self.kill();
        }
        self.child.wait()
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// Kills a child that nobody has waited for yet, and all of its group.
pub(super) fn kill_group(child: u32) {
    if let Some(group) = pid(child) {
        // It has ended by itself: fine.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // None when it was waited for.
        if let Ok(None) = self.child.try_wait() {
            self.kill();
            // Killed processes end at once; nothing of them stays behind.
            let _ = self.child.wait();
        }
    }
}
