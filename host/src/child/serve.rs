//! The child's side: gets its task, does it, and ends when the host does.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::atomic::Ordering,
    thread,
};

use antiphon_plugin_api::abi::API_VERSION;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Signal, kill_current_process_group},
};
use serde_json::Value;

use super::{ARGUMENT, Job, PROTOCOL, SERVES, Task, confine};
use crate::worker;

/// Exit code of a child that could not begin its task; its last output says why.
pub(crate) const NOT_BEGUN: i32 = 96;

/// Lets this program serve as its own child process, in which plugins are tried, checked and isolated. Call it first
/// thing in `main`, before threads are started or files opened. Returns at once, unless the program was started as such
/// a child; then it does what the host asks for, and the process ends here.
pub fn serve_if_asked() {
    if std::env::args_os().nth(1).is_none_or(|argument| argument != ARGUMENT) {
        SERVES.store(true, Ordering::Relaxed);
        return;
    }
    let code = match serve() {
        Ok(()) => 0,
        Err(error) => {
            // Standard error leads to the host.
            let _ = writeln!(io::stderr(), "{error}");
            NOT_BEGUN
        }
    };
    std::process::exit(code)
}

fn serve() -> io::Result<()> {
    #[expect(unsafe_code, reason = "as `close_inherited`")]
    // SAFETY: this is the beginning of `main`, and the standard library keeps no descriptors.
    unsafe {
        confine::close_inherited()?;
    }
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    end_with_host(socket.try_clone()?)?;
    let job = read_frame(&mut socket, MAX_JOB)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let job: Job = serde_json::from_slice(&job).map_err(|error| {
        io::Error::other(format!(
            "the host asks for what this version ({API_VERSION}) does not know: {error}"
        ))
    })?;
    if job.protocol != PROTOCOL || job.version != API_VERSION {
        return Err(io::Error::other(format!(
            "this program is antiphon {API_VERSION} (protocol {PROTOCOL}), the host is {} (protocol {}): install the \
             same version of both",
            job.version, job.protocol
        )));
    }
    confine::confine(&job.limits)?;
    match job.task {
        Task::Hello => Reporter(socket).report(&Value::Bool(true)),
        Task::Work(job) => worker::serve(socket, &job),
        Task::Scan(library) => crate::scan::try_library(&library, Reporter(socket)),
        Task::Check(job) => crate::check::serve(job, Reporter(socket)),
    }
}

/// Ends this process, and whatever it has started, when the host's end of the socket is closed: also by its death.
fn end_with_host(socket: UnixStream) -> io::Result<()> {
    let wait = move || {
        let mut hangup = [PollFd::new(&socket, PollFlags::empty())];
        // Only a hangup or an error ends the wait; whatever it is, there is no host any more.
        while matches!(poll(&mut hangup, None), Err(rustix::io::Errno::INTR)) {}
        let _ = kill_current_process_group(Signal::KILL);
    };
    thread::Builder::new().name("host-watch".into()).spawn(wait).map(drop)
}

/// Bytes that a job may have: settings of a plugin can be long.
const MAX_JOB: u32 = 64 << 20;

/// Tells the host how far the child has come.
#[derive(Debug)]
pub(crate) struct Reporter(UnixStream);

impl Reporter {
    /// Tells the host; when this returns, a crash can no longer lose it.
    pub(crate) fn report(&mut self, report: &Value) -> io::Result<()> {
        write_frame(&mut self.0, &serde_json::to_vec(report)?)
    }
}

pub(super) fn write_frame(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

/// Reads a message; none at the end of the stream.
pub(super) fn read_frame(from: &mut impl Read, max: u32) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length);
    if length > max {
        return Err(io::Error::other(format!("a message of {length} bytes; at most {max} are allowed")));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// A socket as what a child can have for standard input.
pub(super) fn as_stdin(socket: UnixStream) -> OwnedFd {
    OwnedFd::from(socket)
}
