//! Takes one plugin through its life in a process of its own: `try-plugin <file> <stage> [patience in ms [calls]]`.
//!
//! Stages are `open`, `create`, `ping`, `call`, `close`, `after-close` and `stop`; each includes those before it. What happens is
//! on stdout, line by line; a refusal is on stderr with exit code 1. With a patience, what takes longer is told by the line
//! `hangs`, and whoever waits for it ends the process.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{ExitCode, abort},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use antiphon_host::{
    core::event::values::{Message, Role},
    loader::Library,
};
use antiphon_plugin_api::{
    LlmRequest,
    abi::{
        AudioV1, CAPABILITY_V1, Capability, CapabilityObject, EventHeaderV1, HostBox, HostV1, InterestV1,
        LlmBox, LlmSessionBox, Outcome, PluginBox, SinkBox, SinkV1, Status, WakerBox, WakerV1,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, ROption, RSlice, RStr},
        },
    },
};
use antiphon_test_support::HANG;
use serde_json::Value;

/// Events after which a request is a flood, and is cancelled.
const FLOOD: usize = 10_000;

/// Events of one request that are shown.
const SHOWN: usize = 20;

const STAGES: [&str; 7] = ["open", "create", "ping", "call", "close", "after-close", "stop"];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(stage)) = (arguments.next(), arguments.next()) else { return usage() };
    let Some(stage) = STAGES.iter().position(|name| *name == stage) else { return usage() };
    let mut numbers = arguments.map_while(|number| number.parse().ok());
    let patience = numbers.next().map_or(HANG, Duration::from_millis);
    let calls = numbers.next().unwrap_or(1);
    let (sender, done) = channel();
    let life = Life { path: path.into(), last: stage, calls };
    // Both make thread-locals with destructors, for which the C library takes the lock of the dynamic linker: a library that
    // hangs in an initialiser holds it.
    let _ = (done.recv_timeout(Duration::from_millis(1)), std::io::stdout().flush());
    thread::spawn(move || sender.send(life.live()));
    match done.recv_timeout(patience) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(refusal)) => {
            let _ = writeln!(std::io::stderr(), "{refusal}");
            ExitCode::FAILURE
        }
        // It panicked, and has said so.
        Err(RecvTimeoutError::Disconnected) => ExitCode::from(101),
        Err(RecvTimeoutError::Timeout) => {
            say("hangs");
            // Whoever started this looks at the line and ends it; this is for the case that nobody does.
            let _ = done.recv_timeout(HANG);
            abort()
        }
    }
}

fn usage() -> ExitCode {
    let _ = writeln!(std::io::stderr(), "try-plugin <file> <{}> [patience in ms [calls]]", STAGES.join("|"));
    ExitCode::from(2)
}

fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout();
    // Nobody listens any more: fine.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

struct Life {
    path: PathBuf,
    last: usize,
    calls: u64,
}

impl Life {
    fn live(&self) -> Result<(), String> {
        let reaches =
            |stage: &str| STAGES.iter().position(|name| *name == stage).is_some_and(|at| at <= self.last);
        let library = Library::open(&self.path).map_err(|error| refusal(&self.path, &error))?;
        let manifest = library.manifest();
        say(format_args!("opened {} {}", manifest.name, manifest.version));
        if !reaches("create") {
            return Ok(());
        }
        let plugin = library.create(host(), b"{}").map_err(|error| error.message.into_string())?;
        let model: LlmBox = capability(&plugin)?;
        say("created");
        if reaches("ping") {
            wait_for(|waker| plugin.ping(waker));
            say("pinged");
        }
        if reaches("call") {
            let (sink, said) = sink();
            let mut session =
                Session { session: model.open(RStr::from_str("session"), sink), said, token: 0 };
            let before = memory_kb();
            for _ in 0..self.calls {
                session.ask("strike");
            }
            say(format_args!("grew {} kB", memory_kb().saturating_sub(before)));
            session.ask("hello");
            say("called");
            if reaches("close") {
                session.close(reaches("after-close") && !reaches("stop"));
            }
        }
        if reaches("stop") {
            wait_for(|waker| plugin.stop(waker));
            say("stopped");
        }
        Ok(())
    }
}

/// An error with its causes, as the host shows it.
fn refusal(path: &Path, error: &dyn std::error::Error) -> String {
    let mut text = format!("{} {error}", path.display());
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn capability<C: Capability>(plugin: &PluginBox) -> Result<C, String> {
    let object = plugin.query(RStr::from_str(C::NAME), CAPABILITY_V1).into_option();
    let object = object.ok_or_else(|| format!("no object for {}", C::NAME))?;
    object.into_object().map_err(|error| error.to_string())
}

/// Kilobytes that are in memory for this process.
fn memory_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

struct Session {
    session: LlmSessionBox,
    said: Receiver<Said>,
    token: u64,
}

impl Session {
    /// Asks, and says what comes until the request is finished.
    fn ask(&mut self, prompt: &str) {
        self.token += 1;
        let (id, request_id, content) = (self.token.to_string(), format!("r{}", self.token), prompt.into());
        let messages = vec![Message { id, role: Role::User, content, interrupted: false }];
        let request = LlmRequest { request_id, messages, ..LlmRequest::default() };
        let bytes = rmp_serde::to_vec_named(&request).expect("requests are plain data");
        let status = self.session.respond(self.token, 1, RSlice::from_slice(&bytes));
        say(format_args!("asked {} {prompt} {status:?}", self.token));
        let mut events = 0;
        while let Ok(said) = self.said.recv() {
            events += 1;
            if events <= SHOWN {
                say(&said);
            }
            if events == FLOOD {
                say("cancels a flood");
                self.session.cancel(self.token);
            }
            if said == Said::Finished(self.token) {
                say(format_args!("ended {}", self.token));
                return;
            }
        }
    }

    /// Closes; with `and_on` waits for something that comes afterwards.
    fn close(&mut self, and_on: bool) {
        self.token += 1;
        self.session.close(self.token);
        while let Ok(said) = self.said.recv() {
            say(&said);
            if said == Said::Finished(self.token) {
                break;
            }
        }
        say("closed");
        if and_on && let Ok(said) = self.said.recv() {
            say(format_args!("afterwards {said}"));
        }
    }
}

/// What a sink was told.
#[derive(Debug, PartialEq)]
enum Said {
    Event(u32, Option<Value>),
    Audio(u64),
    Finished(u64),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(index, Some(payload)) => write!(f, "event {index} {payload}"),
            Self::Event(index, None) => write!(f, "event {index} unreadable"),
            Self::Audio(token) => write!(f, "audio {token}"),
            Self::Finished(token) => write!(f, "finished {token}"),
        }
    }
}

struct Sink(Sender<Said>);

impl Sink {
    fn note(&self, said: Said) -> Status {
        match self.0.send(said) {
            Ok(()) => Status::ACCEPTED,
            Err(_) => Status::CLOSED,
        }
    }
}

impl SinkV1 for Sink {
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status {
        self.note(Said::Event(header.type_index, rmp_serde::from_slice(payload.as_slice()).ok()))
    }

    fn audio(&self, token: u64, _: AudioV1) -> Status {
        self.note(Said::Audio(token))
    }

    fn finished(&self, token: u64, _: Outcome) {
        self.note(Said::Finished(token));
    }

    fn wake_when_ready(&self, _: u32, waker: WakerBox) {
        waker.wake();
    }
}

fn sink() -> (SinkBox, Receiver<Said>) {
    let (sender, said) = channel();
    (SinkBox::from_value(Sink(sender), TD_Opaque), said)
}

struct Bell(Sender<()>);

impl WakerV1 for Bell {
    fn wake(&self) {
        // Nobody waits any more: fine.
        let _ = self.0.send(());
    }
}

/// Waits until the waker is called. One that is dropped was not called.
fn wait_for(register: impl FnOnce(WakerBox)) {
    let (sender, rung) = channel();
    register(WakerBox::from_value(Bell(sender), TD_Opaque));
    if rung.recv().is_err() {
        say("dropped a waker");
    }
}

struct Host;

impl HostV1 for Host {
    fn interest(&self) -> RArc<InterestV1> {
        RArc::new(InterestV1::default())
    }

    fn log_level(&self) -> u32 {
        0
    }

    fn log(&self, _: u32, _: RStr<'_>, _: RStr<'_>) {}

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}

fn host() -> HostBox {
    HostBox::from_value(Host, TD_Opaque)
}
