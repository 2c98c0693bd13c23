//! Runs a short task in a child, and tells how it ended, whatever it did.

use std::{
    fmt,
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    ChildProgram, Limits, Task,
    serve::{self, NOT_BEGUN},
    spawn::{SpawnError, kill_group, spawn},
};

/// How a task went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All that the child reported.
    pub(crate) reports: Vec<Value>,
    /// How it ended.
    pub(crate) ending: Ending,
    /// The end of what it wrote to standard output and error.
    pub(crate) output: String,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it should.
    Done,
    /// With an exit code.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
    /// It was killed, because it had not ended by itself.
    TimedOut(Duration),
    /// It was killed, because it did not stop writing.
    TooMuchOutput,
    /// It was killed, because it reported what cannot be read.
    BadReport,
}

impl Ending {
    pub(crate) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(0), _) => Self::Done,
            (Some(code), _) => Self::Exited(code),
            (None, signal) => Self::Signalled(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Done => f.write_str("ended as it should"),
            Self::Exited(code) => write!(f, "ended the process with exit code {code}"),
            Self::Signalled(signal) => write!(f, "crashed with {}", signal_name(signal)),
            Self::TimedOut(after) => write!(f, "did not come to an end within {} s", after.as_secs_f32()),
            Self::TooMuchOutput => {
                write!(f, "wrote more than {} KiB to standard output and error", MAX_OUTPUT / 1024)
            }
            Self::BadReport => f.write_str("wrote into what belongs to the host"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    let known = match signal {
        4 => "SIGILL (illegal instruction)",
        5 => "SIGTRAP (a trap in its code)",
        6 => "SIGABRT (abort)",
        7 => "SIGBUS (memory that is not there)",
        8 => "SIGFPE (division by zero)",
        9 => "SIGKILL (killed, maybe for want of memory)",
        11 => "SIGSEGV (invalid memory access)",
        15 => "SIGTERM",
        24 => "SIGXCPU (too much processor time)",
        31 => "SIGSYS (a forbidden system call)",
        other => return format!("signal {other}"),
    };
    known.to_owned()
}

/// Bytes that a child may write to standard output and error.
const MAX_OUTPUT: usize = 1 << 20;

/// Bytes of its output that are kept.
const KEPT_OUTPUT: usize = 4096;

/// Bytes of one report: manifests are the longest, and have some kilobytes for each event.
const MAX_REPORT: u32 = 8 << 20;

/// Runs a task to its end, or to its time. Blocks.
///
/// # Errors
///
/// No child could be started, or it was of another version.
#[expect(clippy::disallowed_methods, reason = "another process takes real time, whatever clock the host has")]
pub(crate) fn run(
    program: &ChildProgram,
    limits: Limits,
    task: Task,
    environment: &[String],
    within: Duration,
) -> Result<Outcome, ChildError> {
    let deadline = Instant::now() + within;
    let mut running = spawn(program, limits, task, environment)?;
    let output =
        running.output.take().map(|output| Collector::start(output, running.child.id())).transpose()?;
    let mut reports = Vec::new();
    let cut = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Some(Ending::TimedOut(within));
        }
        running.socket.set_read_timeout(Some(left))?;
        match serve::read_frame(&mut running.socket, MAX_REPORT) {
            Ok(Some(report)) => match serde_json::from_slice(&report) {
                Ok(report) => reports.push(report),
                Err(_) => break Some(Ending::BadReport),
            },
            Ok(None) => break None,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break None,
            Err(_) => break Some(Ending::BadReport),
        }
    };
    // Its end of the socket is closed when the process is over; a plugin can have closed it as well.
    let left = deadline.saturating_duration_since(Instant::now());
    let cut = match cut {
        None if !running.ends_within(left)? => Some(Ending::TimedOut(within)),
        cut => cut,
    };
    if cut.is_some() {
        running.kill();
    }
    let status = running.finish()?;
    let (output, too_much) = output.map(Collector::finish).unwrap_or_default();
    let ending = match cut {
        _ if too_much => Ending::TooMuchOutput,
        Some(cut) => cut,
        None => Ending::of(status),
    };
    if ending == Ending::Exited(NOT_BEGUN) && reports.is_empty() {
        return Err(ChildError::NotBegun(output.trim().to_owned()));
    }
    Ok(Outcome { reports, ending, output })
}

/// Why a task did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// There is no child.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The child refused.
    #[error("the child process could not begin: {0}")]
    NotBegun(String),
    /// It ended in another way than it should.
    #[error("the child process {ending}: {output}")]
    Ended {
        /// How.
        ending: String,
        /// The end of what it wrote to standard output and error.
        output: String,
    },
    /// Talking to it failed.
    #[error("the child process cannot be reached")]
    Io(#[from] io::Error),
}

/// Takes a child's output, keeps the end of it, and kills a child that does not stop.
struct Collector {
    kept: mpsc::Receiver<String>,
    too_much: Arc<AtomicBool>,
}

/// Time for the end of the output to arrive once the child's group is gone. Only a process that has left the group can
/// keep the pipe open; nobody waits for it.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

impl Collector {
    fn start(mut output: impl Read + Send + 'static, child: u32) -> io::Result<Self> {
        let too_much = Arc::new(AtomicBool::new(false));
        let is_too_much = Arc::clone(&too_much);
        let (sender, receiver) = mpsc::channel();
        let collect = move || {
            let (mut kept, mut total, mut buffer) = (Vec::new(), 0, [0; 8192]);
            // An error is an end as well.
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                total += read;
                kept.extend_from_slice(&buffer[..read]);
                kept.drain(..kept.len().saturating_sub(KEPT_OUTPUT));
                if total > MAX_OUTPUT && !is_too_much.swap(true, Ordering::Relaxed) {
                    kill_group(child);
                }
            }
            let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
        };
        thread::Builder::new().name("child-output".into()).spawn(collect)?;
        Ok(Self { kept: receiver, too_much })
    }

    /// What was kept, and whether it was too much. The child and its group have ended.
    fn finish(self) -> (String, bool) {
        let kept = self.kept.recv_timeout(LAST_OUTPUT).unwrap_or_default();
        (kept, self.too_much.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_told_in_words() {
        assert_eq!(Ending::Signalled(11).to_string(), "crashed with SIGSEGV (invalid memory access)");
        assert_eq!(Ending::Exited(3).to_string(), "ended the process with exit code 3");
        assert_eq!(
            Ending::TimedOut(Duration::from_secs(10)).to_string(),
            "did not come to an end within 10 s"
        );
    }
}
