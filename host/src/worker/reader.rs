//! The connection to a worker: starts it, reads what it sends, and tells when it ends.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, PipeReader},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use antiphon_core::AudioChunk;
use antiphon_plugin_api::{
    PluginManifest,
    abi::{EventHeaderV1, Outcome, SinkBox, WakerBox},
};
use tokio::sync::watch;

use super::{
    INTEREST_WORDS, Job, Spec, StartError,
    frame::{self, Frames, ToHost, ToWorker},
    outbox::Outbox,
    remote::{Output, Session},
};
use crate::child::{ChildError, Ending, NOT_BEGUN, Running, Task, spawn};

type Log = Box<dyn Fn(u32, &str, &str) + Send>;

/// A running worker, seen from the host. It ends with the last of its handles.
pub(crate) struct Connection {
    manifest: PluginManifest,
    process_id: u32,
    outbox: Arc<Outbox>,
    sessions: Mutex<Sessions>,
    /// Who waits for a pong, or for the plugin to be stopped.
    waiting: Mutex<HashMap<u64, WakerBox>>,
    numbers: AtomicU64,
    /// Why we end it.
    verdict: Mutex<Option<String>>,
    /// How it ended, for people: `crashed with SIGSEGV (invalid memory access)`.
    death: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Sessions {
    last: u32,
    open: HashMap<u32, Arc<Session>>,
    /// How the worker ended.
    dead: Option<Arc<str>>,
}

/// Time for a worker whose end of the socket is closed to end by itself, so that its own end can be told from ours.
const LAST_MOMENTS: Duration = Duration::from_millis(500);

pub(super) fn connect(
    spec: &Spec,
    job: Job,
    within: Duration,
    log: Log,
) -> Result<Arc<Connection>, StartError> {
    let mut running = spawn(&spec.program, spec.limits, Task::Work(Box::new(job)), &spec.environment)
        .map_err(ChildError::from)?;
    let last_words = running
        .output
        .take()
        .map(|output| LastWords::follow(output, spec.manifest.name.clone()))
        .transpose()
        .map_err(ChildError::from)?;
    let mut socket = running.socket.try_clone().map_err(ChildError::from)?;
    if let Err(error) = wait_for_start(&mut socket, within, &log) {
        return Err(match error {
            NotStarted::Refused { message, recoverable } => StartError::Refused { message, recoverable },
            NotStarted::TooLate => {
                StartError::Died(format!("did not start within {} s", within.as_secs_f32()))
            }
            NotStarted::Gone => StartError::Died(format!(
                "{} while it was started",
                last_moments(running, false, last_words.as_ref())
            )),
        });
    }
    let outbox =
        Outbox::start(running.socket.try_clone().map_err(ChildError::from)?).map_err(ChildError::from)?;
    let connection = Arc::new(Connection {
        manifest: spec.manifest.clone(),
        process_id: running.child.id(),
        outbox,
        sessions: Mutex::default(),
        waiting: Mutex::default(),
        numbers: AtomicU64::new(0),
        verdict: Mutex::default(),
        death: watch::Sender::new(None),
    });
    let weak = Arc::downgrade(&connection);
    let read = move || read(&weak, socket, running, last_words.as_ref(), &log);
    thread::Builder::new().name("worker-read".into()).spawn(read).map_err(ChildError::from)?;
    Ok(connection)
}

enum NotStarted {
    Refused { message: String, recoverable: bool },
    TooLate,
    Gone,
}

/// Reads, without reading further, until the plugin has started or not.
#[expect(clippy::disallowed_methods, reason = "another process takes real time, whatever clock the host has")]
fn wait_for_start(socket: &mut UnixStream, within: Duration, log: &Log) -> Result<(), NotStarted> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NotStarted::TooLate);
        }
        // Fails for a time of zero alone.
        let _ = socket.set_read_timeout(Some(left));
        let frame = match frame::read_one(socket) {
            Ok(Some(frame)) => frame,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(NotStarted::TooLate);
            }
            Ok(None) | Err(_) => return Err(NotStarted::Gone),
        };
        match rmp_serde::from_slice(&frame) {
            Ok(ToHost::Started) => {
                let _ = socket.set_read_timeout(None);
                return Ok(());
            }
            Ok(ToHost::Refused { message, recoverable }) => {
                return Err(NotStarted::Refused { message: message.to_owned(), recoverable });
            }
            Ok(ToHost::Log { level, target, message }) => log(level, target, message),
            Ok(_) | Err(_) => return Err(NotStarted::Gone),
        }
    }
}

fn read(
    connection: &Weak<Connection>,
    socket: UnixStream,
    running: Running,
    last_words: Option<&LastWords>,
    log: &Log,
) {
    let mut frames = Frames::new(socket);
    let mut nonsense = false;
    // An error is an end as well; so is that nobody has the connection any more.
    while let Ok(Some(bytes)) = frames.next() {
        let Some(connection) = connection.upgrade() else { break };
        match rmp_serde::from_slice(bytes) {
            Ok(frame) => connection.take(frame, log),
            Err(_) => {
                nonsense = true;
                break;
            }
        }
    }
    let verdict = connection.upgrade().and_then(|connection| lock(&connection.verdict).take());
    let is_ours = verdict.is_some() || nonsense || connection.upgrade().is_none();
    let ending = last_moments(running, is_ours, last_words);
    if let Some(connection) = connection.upgrade() {
        let reason = match verdict {
            Some(verdict) => verdict,
            None if nonsense => "wrote into what belongs to the host".to_owned(),
            None => ending,
        };
        connection.die(reason);
    }
}

/// Lets a worker end, or ends it; tells how it did.
fn last_moments(running: Running, at_once: bool, last_words: Option<&LastWords>) -> String {
    if at_once || !running.ends_within(LAST_MOMENTS).unwrap_or(false) {
        running.kill();
    }
    let words = |ending: &dyn std::fmt::Display| match last_words.map(LastWords::get) {
        Some(words) if !words.is_empty() => format!("{ending}; its last words: {words}"),
        _ => ending.to_string(),
    };
    match running.finish() {
        Ok(status) => match Ending::of(status) {
            Ending::Exited(NOT_BEGUN) => words(&"could not begin"),
            Ending::Done => words(&"ended by itself"),
            ending => words(&ending),
        },
        Err(error) => format!("cannot be waited for: {error}"),
    }
}

impl Connection {
    pub(super) fn manifest(&self) -> &PluginManifest {
        &self.manifest
    }

    /// Number of the worker's process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Tells the worker which events are wanted.
    pub(crate) fn set_interest(&self, words: [u64; INTEREST_WORDS]) {
        self.outbox.send(&ToWorker::Interest(words));
    }

    /// How the worker has ended, if it has.
    pub(crate) fn end_reason(&self) -> Option<Arc<str>> {
        lock(&self.sessions).dead.clone()
    }

    /// Whether the worker has ended.
    pub(crate) fn has_died(&self) -> bool {
        lock(&self.sessions).dead.is_some()
    }

    /// Kills the worker; its sessions tell the reason.
    pub(crate) fn kill(&self, reason: impl Into<String>) {
        lock(&self.verdict).get_or_insert(reason.into());
        self.outbox.close();
    }

    /// Resolves when the worker has ended, and says how.
    pub(crate) async fn died(&self) -> String {
        let mut death = self.death.subscribe();
        let known = death.wait_for(Option::is_some).await;
        known.ok().and_then(|death| death.clone()).unwrap_or_else(|| "ended".into())
    }

    pub(super) fn open(&self, kind: &'static str, session_id: &str, sink: SinkBox) -> Arc<Session> {
        let error = format!("{kind}.error");
        let error_index = self.manifest.events.iter().position(|event| event.name == error);
        let error_index = error_index.and_then(|index| u32::try_from(index).ok());
        let (session, dead) = {
            let mut sessions = lock(&self.sessions);
            sessions.last += 1;
            let id = sessions.last;
            let session = Session::new(id, &self.outbox, sink, error_index);
            if sessions.dead.is_none() {
                sessions.open.insert(id, Arc::clone(&session));
                // Under the lock, so that the worker hears of sessions in the order of their numbers.
                self.outbox.send(&ToWorker::Open { session: id, kind, session_id });
            }
            (session, sessions.dead.clone())
        };
        if let Some(reason) = dead {
            session.die(&reason);
        }
        session
    }

    pub(super) fn ping(&self, done: WakerBox) {
        self.ask(done, |number| ToWorker::Ping { number });
    }

    pub(super) fn stop(&self, done: WakerBox) {
        self.ask(done, |number| ToWorker::Stop { number });
    }

    fn ask(&self, done: WakerBox, frame: impl Fn(u64) -> ToWorker<'static>) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(number, done);
        self.outbox.send(&frame(number));
    }

    fn session(&self, id: u32) -> Option<Arc<Session>> {
        lock(&self.sessions).open.get(&id).cloned()
    }

    /// What the worker says. About sessions that are gone there is nothing to say.
    fn take(&self, frame: ToHost<'_>, log: &Log) {
        let put_out = |id: u32, output: Output| {
            if let Some(session) = self.session(id) {
                session.put_out(output);
            }
        };
        match frame {
            ToHost::Event { session, event } => {
                let header = EventHeaderV1 {
                    type_index: event.type_index,
                    reserved: 0,
                    emitted_unix_ns: event.emitted_unix_ns,
                    turn_id: event.turn_id,
                    causation_id: event.causation_id,
                };
                put_out(session, Output::Event { header, payload: event.payload.to_vec() });
            }
            ToHost::Audio { session, token, rate, channels, samples } => {
                match AudioChunk::new(frame::samples_of(samples), rate, channels) {
                    Ok(audio) => put_out(session, Output::Audio { token, audio }),
                    Err(error) => tracing::error!(plugin = self.manifest.name, "audio was refused: {error}"),
                }
            }
            ToHost::Finished { session, token, outcome } => {
                let outcome = match outcome {
                    0 => Outcome::COMPLETED,
                    2 => Outcome::CANCELLED,
                    _ => Outcome::FAILED,
                };
                put_out(session, Output::Finished { token, outcome });
            }
            ToHost::Taken { session, commands } => {
                if let Some(session) = self.session(session) {
                    session.commands.taken(commands);
                }
            }
            ToHost::Gone { session } => drop(lock(&self.sessions).open.remove(&session)),
            ToHost::Log { level, target, message } => log(level, target, message),
            ToHost::Pong { number } | ToHost::Stopped { number } => {
                let waiting = lock(&self.waiting).remove(&number);
                if let Some(waker) = waiting {
                    waker.wake();
                }
            }
            ToHost::Started | ToHost::Refused { .. } => {}
        }
    }

    fn die(&self, reason: String) {
        self.outbox.close();
        let sessions = {
            let mut sessions = lock(&self.sessions);
            sessions.dead = Some(reason.as_str().into());
            std::mem::take(&mut sessions.open)
        };
        sessions.values().for_each(|session| session.die(&reason));
        // A plugin that is gone is stopped; whoever asked whether it answers learns of its end otherwise.
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_values().for_each(|waker| waker.wake());
        self.death.send_replace(Some(reason));
    }
}

impl Drop for Connection {
    /// The worker's end follows: the reader sees the end of the stream.
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// The end of what a worker writes to standard output and error; each line is logged as well.
struct LastWords {
    kept: Arc<Mutex<String>>,
    /// Closed at the end of the output.
    ended: mpsc::Receiver<()>,
}

/// Time for the end of the output to arrive once the worker is gone: it is read by a thread of its own.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Bytes of last words that are kept.
const KEPT: usize = 300;

impl LastWords {
    fn follow(output: PipeReader, plugin: String) -> io::Result<Self> {
        let words = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&words);
        let (end, ended) = mpsc::channel::<()>();
        let follow = move || {
            let _end = end;
            let mut lines = BufReader::new(output);
            let mut line = Vec::new();
            let mut is_backtrace = false;
            loop {
                line.clear();
                // A line without end is cut: what it says is not worth the memory.
                let read = io::Read::take(&mut lines, 4096).read_until(b'\n', &mut line);
                if !matches!(read, Ok(1..)) {
                    return;
                }
                let text = String::from_utf8_lossy(&line);
                let text = text.trim();
                if !text.is_empty() {
                    tracing::info!(target: "antiphon::plugin", plugin, "{text}");
                    // What a panic says last is how to make it say more; what it says before is of use.
                    is_backtrace |=
                        text == "stack backtrace:" || text.starts_with("note: run with `RUST_BACKTRACE");
                    if !is_backtrace {
                        *lock(&kept) = text.chars().take(KEPT).collect();
                    }
                }
            }
        };
        thread::Builder::new().name("worker-output".into()).spawn(follow)?;
        Ok(Self { kept: words, ended })
    }

    /// All of them. The worker has ended.
    fn get(&self) -> String {
        let _ = self.ended.recv_timeout(LAST_OUTPUT);
        lock(&self.kept).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
