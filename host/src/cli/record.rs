//! Lines into a file or a pipe from a thread of their own, whole lines only: `--events`, and what a timeline prints.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use antiphon_core::{BaseEvent, Event, EventBus, Subscription, event::Overflow};
use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::mpsc;

use super::output;

/// Lines that may wait for the thread; after that, whoever produces them waits.
const LINES: usize = 1024;

/// Events that may wait to become lines. Many, because what the host emits in passing does not wait.
const EVENTS: usize = 16 * 1024;

/// Bytes that are written at a time. A process that is killed can only be hit between two writes.
const BATCH_BYTES: usize = 16 * 1024;

/// A thread that writes lines.
#[derive(Debug)]
pub(super) struct Lines {
    sender: mpsc::Sender<Option<String>>,
    thread: JoinHandle<io::Result<()>>,
    is_broken: Arc<AtomicBool>,
}

/// Where the lines go.
trait Sink: Send + 'static {
    /// Writes whole lines, and leaves nothing of them where that fails in the middle.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// Handles on a [`Lines`] that is open.
#[derive(Debug, Clone)]
pub(super) struct LineSender(mpsc::Sender<Option<String>>);

impl LineSender {
    /// Hands over a line, which ends in a newline. Waits while the thread has enough.
    pub(super) async fn send(&self, line: String) {
        // The thread has ended early only after a failure, which `finish` tells of.
        let _ = self.0.send(Some(line)).await;
    }
}

impl Lines {
    /// Lines that are printed, in their order with everything else that is.
    pub(super) fn to_stdout() -> Result<Self> {
        Self::start("timeline", Stdout)
    }

    /// Lines that are printed on standard error.
    pub(super) fn to_stderr() -> Result<Self> {
        Self::start("timeline", output::Stderr)
    }

    fn start(name: &str, mut sink: impl Sink) -> Result<Self> {
        let (sender, mut receiver) = mpsc::channel::<Option<String>>(LINES);
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&is_broken);
        let run = move || {
            let mut outcome = Ok(());
            while let Some(Some(mut batch)) = receiver.blocking_recv() {
                let mut ended = false;
                while batch.len() < BATCH_BYTES
                    && let Ok(next) = receiver.try_recv()
                {
                    let Some(line) = next else {
                        ended = true;
                        break;
                    };
                    batch.push_str(&line);
                }
                // After a failure the rest is dropped, so that nobody waits for it in vain.
                if outcome.is_ok() {
                    outcome = sink.write(batch.as_bytes());
                    broken.store(outcome.is_err(), Ordering::Relaxed);
                }
                if ended {
                    break;
                }
            }
            outcome
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.context("cannot start a thread")?;
        Ok(Self { sender, thread, is_broken })
    }

    pub(super) fn sender(&self) -> LineSender {
        LineSender(self.sender.clone())
    }

    /// Whether nobody reads what is printed, or nothing more can be written.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Ends after the lines that wait; what is sent later is dropped.
    pub(super) async fn finish(self) -> io::Result<()> {
        let Self { sender, thread, .. } = self;
        let _ = sender.send(None).await;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(outcome)) => outcome,
            _ => Err(io::Error::other("the writing thread failed")),
        }
    }
}

struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        output::BARS.suspend(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(lines).and_then(|()| stdout.flush())
        })
    }
}

impl Sink for output::Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.write_all(lines)
    }
}

/// A file, with the length up to which it holds whole lines; none for pipes and devices.
struct Appended {
    file: File,
    len: Option<u64>,
}

impl Sink for Appended {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let outcome = self.file.write_all(lines);
        if let Some(len) = &mut self.len {
            match &outcome {
                Ok(()) => *len += lines.len() as u64,
                // A full disk takes half a line: better none of it.
                Err(_) => self.file.set_len(*len)?,
            }
        }
        outcome
    }
}

/// Every event of a bus as JSON lines; media events are not among them.
#[derive(Debug)]
pub(super) struct EventsFile {
    path: PathBuf,
    lines: Lines,
    count: Arc<AtomicU64>,
    subscription: Option<Subscription>,
}

impl EventsFile {
    /// Creates the file, or empties the one that is there; `-` is standard output.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let lines = if path == Path::new("-") {
            Lines::to_stdout()?
        } else {
            let file = File::create(path).map_err(|error| cannot_create(path, &error))?;
            let kind =
                file.metadata().with_context(|| format!("cannot write {}", path.display()))?.file_type();
            let is_stream = kind.is_char_device() || kind.is_fifo() || kind.is_socket();
            Lines::start("events", Appended { file, len: (!is_stream).then_some(0) })?
        };
        Ok(Self { path: path.to_owned(), lines, count: Arc::default(), subscription: None })
    }

    /// Begins to record; before the host starts, so that its events are recorded too.
    pub(super) fn record(&mut self, bus: &EventBus) {
        let state = Arc::new((self.lines.sender(), Arc::clone(&self.count)));
        let subscription = bus.subscription().name("events file").capacity(EVENTS).overflow(Overflow::Wait);
        self.subscription = Some(subscription.subscribe_with(
            state,
            async |state: Arc<(LineSender, Arc<AtomicU64>)>, event: Event<BaseEvent>| {
                let (lines, count) = &*state;
                count.fetch_add(1, Ordering::Relaxed);
                lines.send(format!("{}\n", event.to_json())).await;
            },
        ));
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is standard output, and nobody reads it any more.
    pub(super) fn is_pipe_broken(&self) -> bool {
        self.path == Path::new("-") && self.lines.is_broken()
    }

    /// Ends after everything that the bus has delivered is written; tells how many events that were.
    pub(super) async fn finish(self) -> Result<u64> {
        let Self { path, lines, count, subscription } = self;
        let dropped = subscription.map(|subscription| subscription.stats().dropped).unwrap_or_default();
        match lines.finish().await {
            Err(error) if path == Path::new("-") && error.kind() == io::ErrorKind::BrokenPipe => {}
            outcome => outcome.with_context(|| format!("cannot write all events to {}", path.display()))?,
        }
        if dropped > 0 {
            bail!(
                "{} are missing in {}: it was written too slowly",
                output::count(dropped, "event"),
                path.display()
            );
        }
        Ok(count.load(Ordering::Relaxed))
    }
}

fn cannot_create(path: &Path, error: &io::Error) -> anyhow::Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(path).display();
            anyhow!("cannot write {shown}: there is no directory {directory}; make it with mkdir -p")
        }
        io::ErrorKind::IsADirectory => anyhow!("wanted a file for the events, found a directory at {shown}"),
        io::ErrorKind::PermissionDenied => {
            anyhow!("no permission to write {shown}; check its owner and mode with ls -l")
        }
        _ => anyhow!("cannot write {shown}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use antiphon_core::event::session::SessionReadyEvent;

    use super::*;

    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Sink for Writes {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            self.0.lock().expect("not poisoned").push(lines.to_vec());
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_write_is_whole_lines() {
        let writes = Writes::default();
        let lines = Lines::start("test", writes.clone()).expect("a thread");
        let sender = lines.sender();
        for number in 0..5000 {
            sender.send(format!("line {number}\n")).await;
        }
        lines.finish().await.expect("all written");
        let writes = writes.0.lock().expect("not poisoned");
        assert!(writes.iter().all(|write| write.ends_with(b"\n")));
        assert_eq!(writes.concat().iter().filter(|byte| **byte == b'\n').count(), 5000);
    }

    #[tokio::test]
    async fn events_of_host_and_sessions_are_lines_of_json() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("events.jsonl");
        let mut file = EventsFile::create(&path).expect("writable");
        let bus = EventBus::new();
        file.record(&bus);
        bus.emit(SessionReadyEvent {});
        for _ in 0..2000 {
            bus.open_session().emit_wait(SessionReadyEvent {}).await;
        }
        bus.shutdown().await;
        assert_eq!(file.finish().await.expect("written"), 2001);
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.ends_with('\n'));
        let is_event = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["type"] == "session.ready"
        };
        assert_eq!(text.lines().filter(|line| is_event(line)).count(), 2001);
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_and_nobody_waits() {
        let lines =
            Lines::start("test", Appended { file: File::create("/dev/full").expect("Linux"), len: None });
        let lines = lines.expect("a thread");
        let sender = lines.sender();
        for _ in 0..5000 {
            sender.send("line\n".into()).await;
        }
        assert!(lines.is_broken());
        assert!(lines.finish().await.is_err());
    }

    #[test]
    fn outputs_that_cannot_be_made_say_why() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let error = |path: &Path| EventsFile::create(path).expect_err("refused").to_string();
        assert!(error(&directory.path().join("none/e.jsonl")).contains("mkdir -p"));
        assert!(error(directory.path()).contains("found a directory"));
    }
}
