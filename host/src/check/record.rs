//! The sink of a session: remembers what the plugin says, holds it to the contract, and has as much room as a test wants.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use antiphon_core::{
    AudioChunk,
    event::{EventRegistry, EventType, catalogue},
};
use antiphon_plugin_api::{
    PluginManifest,
    abi::{AudioV1, EventHeaderV1, Outcome, SinkV1, Status, WakerBox, abi_stable::std_types::RSlice},
};
use jsonschema::Validator;
use serde_json::Value;

use super::Problem;
use crate::Kind;

/// The event types of a plugin, as the host knows them.
pub(super) struct Types(Vec<Declared>);

struct Declared {
    event: Arc<EventType>,
    schema: Value,
    validator: OnceLock<Option<Validator>>,
    validated: AtomicUsize,
}

/// Payloads of a type that are held to its schema; a flood of them need not be.
const VALIDATED: usize = 64;

impl Types {
    /// Events that the manifest declares wrongly are unknown here; another test tells of them.
    pub(super) fn of(manifest: &PluginManifest) -> Self {
        let registry = EventRegistry::with_catalogue();
        let core = catalogue();
        let declare = |event: &antiphon_plugin_api::EventDeclaration| {
            let known = core.iter().find(|info| info.name == event.name);
            let schema = known.map(|info| info.payload_schema()).or_else(|| event.schema.clone());
            let schema = schema.unwrap_or(Value::Bool(true));
            let event = registry.find(&event.name).unwrap_or_else(|| {
                registry.declare(&event.name, &event.extends, event.media, schema.clone())
            });
            Declared { event, schema, validator: OnceLock::new(), validated: AtomicUsize::new(0) }
        };
        Self(manifest.events.iter().map(declare).collect())
    }

    /// What is wrong with a payload by the schema of its type.
    fn misfit(&self, index: u32, payload: &Value) -> Option<String> {
        let declared = self.0.get(index as usize)?;
        if declared.validated.fetch_add(1, Ordering::Relaxed) >= VALIDATED {
            return None;
        }
        let validator =
            declared.validator.get_or_init(|| jsonschema::validator_for(&declared.schema).ok()).as_ref()?;
        let error = validator.iter_errors(payload).next()?;
        Some(format!("{error} at `{}`", error.instance_path()))
    }
}

/// Something that a plugin said.
#[derive(Debug, Clone)]
pub(super) enum Output {
    Event { index: u32, name: String, payload: Value },
    Audio { samples: usize },
    Finished { token: u64, outcome: Outcome },
}

/// Outputs of one session after which a plugin counts as one that floods.
const FLOOD: usize = 50_000;

/// How many outputs a sink takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Any,
    For(usize),
    /// The host has gone.
    Gone,
}

/// What came into a sink.
pub(super) struct Record {
    kind: Kind,
    types: Arc<Types>,
    state: Mutex<State>,
    changed: Condvar,
}

/// What was said so far.
pub(super) struct State {
    outputs: Vec<Output>,
    pub(super) room: Room,
    /// Commands that were sent and have not ended.
    running: BTreeSet<u64>,
    ended: BTreeSet<u64>,
    closing: BTreeSet<u64>,
    /// An utterance of a recogniser, which begins without a token.
    is_listening: bool,
    pub(super) is_closed: bool,
    pub(super) is_dropped: bool,
    turns: BTreeSet<u64>,
    waiting: Vec<WakerBox>,
    pub(super) in_vain: usize,
    problems: Vec<Problem>,
}

impl Record {
    pub(super) fn new(kind: Kind, types: Arc<Types>) -> Self {
        let state = State {
            outputs: Vec::new(),
            room: Room::Any,
            running: BTreeSet::new(),
            ended: BTreeSet::new(),
            closing: BTreeSet::new(),
            is_listening: false,
            is_closed: false,
            is_dropped: false,
            turns: BTreeSet::new(),
            waiting: Vec::new(),
            in_vain: 0,
            problems: Vec::new(),
        };
        Self { kind, types, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A command is about to be sent.
    pub(super) fn begin(&self, token: u64, turn_id: u64) {
        let mut state = self.lock();
        state.running.insert(token);
        state.turns.insert(turn_id);
    }

    /// It was not taken.
    pub(super) fn not_taken(&self, token: u64) {
        let mut state = self.lock();
        if !state.running.remove(&token) {
            state.problem(
                format!("command {token} was answered with another status than ACCEPTED, and finished all the same"),
                "finished(token) for accepted commands alone",
                "either accept a command and finish its token once, or do neither",
            );
        }
    }

    pub(super) fn listen(&self, turn_id: u64) {
        let mut state = self.lock();
        state.is_listening = true;
        state.turns.insert(turn_id);
    }

    pub(super) fn close(&self, token: u64) {
        self.lock().closing.insert(token);
    }

    /// Makes room, or takes it away; whoever waits for some is woken.
    pub(super) fn set_room(&self, room: Room) {
        let waiting = {
            let mut state = self.lock();
            state.room = room;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|waker| waker.wake());
        self.changed.notify_all();
    }

    /// How often the plugin came and found no room.
    pub(super) fn in_vain(&self) -> usize {
        self.lock().in_vain
    }

    pub(super) fn outputs(&self) -> Vec<Output> {
        self.lock().outputs.clone()
    }

    pub(super) fn outcome(&self, wanted: u64) -> Option<Outcome> {
        self.lock().outcome(wanted)
    }

    pub(super) fn running(&self) -> Vec<u64> {
        self.lock().running.iter().copied().collect()
    }

    /// Payloads of the events of a type.
    pub(super) fn events(&self, wanted: &str) -> Vec<Value> {
        let payload = |output: &Output| match output {
            Output::Event { name, payload, .. } if name == wanted => Some(payload.clone()),
            _ => None,
        };
        self.lock().outputs.iter().filter_map(payload).collect()
    }

    /// Waits until something holds, and says whether it came to that.
    #[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
    pub(super) fn wait(&self, until: Instant, holds: impl Fn(&State) -> bool) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |state| !holds(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// All that is wrong with what was said, also by the schemas.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let state = self.lock();
        let mut problems = state.problems.clone();
        for output in &state.outputs {
            let Output::Event { index, name, payload } = output else { continue };
            let Some(misfit) = self.types.misfit(*index, payload) else { continue };
            problems.push(Problem::new(
                format!("a payload of {name} does not fit its schema: {misfit}"),
                "payloads that are valid against the schema in the manifest, or in the core's catalogue",
                "derive `JsonSchema` and `Serialize` from the same struct, without attributes for one of them alone",
            ));
        }
        problems.dedup();
        problems
    }

    fn take(&self, output: Output, about: Option<u64>, turn_id: u64, is_of_command: bool) -> Status {
        let mut state = self.lock();
        let what = match &output {
            Output::Event { name, .. } => name.clone(),
            Output::Audio { .. } => "audio".into(),
            Output::Finished { .. } => String::new(),
        };
        match state.room {
            Room::Gone => return Status::CLOSED,
            Room::For(0) => {
                state.in_vain += 1;
                self.changed.notify_all();
                return Status::FULL;
            }
            Room::For(left) => state.room = Room::For(left - 1),
            Room::Any => {}
        }
        state.hold_to_contract(&what, about, turn_id, is_of_command);
        if state.outputs.len() >= FLOOD {
            state.problem(
                format!("more than {FLOOD} outputs in one session"),
                "no more than a listener can use",
                "put pieces together, and stop when the command is done",
            );
            return Status::CLOSED;
        }
        state.outputs.push(output);
        self.changed.notify_all();
        Status::ACCEPTED
    }

    fn problem(&self, seen: String, expected: &str, advice: &str) {
        self.lock().problem(seen, expected, advice);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn has_ended(&self, token: u64) -> bool {
        self.ended.contains(&token)
    }

    pub(super) fn said(&self) -> usize {
        self.outputs.len()
    }

    fn outcome(&self, wanted: u64) -> Option<Outcome> {
        self.outputs.iter().find_map(|output| match output {
            Output::Finished { token, outcome } if *token == wanted => Some(*outcome),
            _ => None,
        })
    }

    fn problem(&mut self, seen: String, expected: &str, advice: &str) {
        // One of a sort says it.
        if self.problems.iter().all(|known| known.expected != expected) {
            self.problems.push(Problem::new(seen, expected, advice));
        }
    }

    fn hold_to_contract(&mut self, what: &str, about: Option<u64>, turn_id: u64, is_of_command: bool) {
        const GATE: &str = "check that the command or session still runs under the lock under which it ends; the traits of \
                            antiphon-plugin-api do so";
        if self.is_closed {
            self.problem(
                format!("{what} after `close` was finished"),
                "nothing after the finished of `close`",
                "end all that can speak for the session before you finish the token of `close`",
            );
        } else if let Some(token) = about.filter(|token| !self.running.contains(token)) {
            if self.ended.contains(&token) {
                let seen = format!("{what} of command {token} after its finished");
                self.problem(seen, "no output of a command after its finished", GATE);
            } else {
                self.problem(
                    format!("{what} of command {token}, which was never sent in this session"),
                    "outputs go to the session of their command",
                    "keep the sink with the session that it was opened with",
                );
            }
        } else if is_of_command && self.running.is_empty() && !self.is_listening {
            let seen = format!("{what} while no command was running");
            self.problem(seen, "no output of a command after its finished", GATE);
        }
        if turn_id != 0 && !self.turns.contains(&turn_id) {
            self.problem(
                format!("{what} of turn {turn_id}, which this session never had"),
                "events with the turn of their own session",
                "keep the number of the turn with the session or command that it came with",
            );
        }
    }

    fn finish(&mut self, token: u64) {
        if self.closing.contains(&token) {
            if self.ended.contains(&token) {
                self.twice(token);
            }
            self.is_closed = true;
        } else if self.running.remove(&token) {
            self.is_listening = false;
            if self.is_closed {
                self.problem(
                    format!("command {token} was finished after `close` was"),
                    "the finished of `close` comes last",
                    "finish what runs before you finish the token of `close`",
                );
            }
        } else if self.ended.contains(&token) {
            self.twice(token);
        } else {
            self.problem(
                format!("finished({token}), but no command with this token is open"),
                "finished for the tokens of accepted commands alone",
                "never finish token 0, nor what was answered with another status than ACCEPTED",
            );
        }
        self.ended.insert(token);
    }

    fn twice(&mut self, token: u64) {
        self.problem(
            format!("command {token} was finished twice"),
            "exactly one finished for each accepted command",
            "let one place own the end of a command",
        );
    }
}

impl Problem {
    pub(super) fn new(
        seen: impl Into<String>,
        expected: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { seen: seen.into(), expected: expected.into(), advice: advice.into() }
    }
}

/// The plugin's end of a record.
pub(super) struct Sink {
    pub(super) record: Arc<Record>,
    /// Command of a request or synthesis by the id that events name.
    pub(super) prefix: String,
}

impl Sink {
    /// The command that an event of a language model or a synthesiser names.
    fn about(&self, payload: &Value) -> Option<u64> {
        let named = match self.record.kind {
            Kind::Llm => payload.get("item_id").or_else(|| payload.get("request_id")),
            Kind::Tts => payload.get("synthesis_id"),
            _ => None,
        };
        let id = named.and_then(Value::as_str)?;
        if self.record.kind == Kind::Tts {
            return uuid::Uuid::parse_str(id).ok().and_then(|id| u64::try_from(id.as_u128()).ok());
        }
        match id.strip_prefix(&self.prefix) {
            Some(token) => token.parse().ok(),
            // The id of another session's request is the token of none in this one; an id of the plugin's own says nothing.
            None => id.starts_with("check-").then_some(0),
        }
    }

    /// Whether only a command can give rise to events of this type.
    fn is_of_command(&self, event: &EventType) -> bool {
        let name = event.name();
        let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        match self.record.kind {
            Kind::Turn => is(&["turn.", "vad."]),
            Kind::Stt => is(&["stt.transcript."]),
            Kind::Llm => is(&["llm.request.", "llm.response."]),
            Kind::Tts => is(&["tts.synthesis.", "tts.words", "tts.metadata"]),
            Kind::Vision => event.derives_from("vision.detection"),
        }
    }
}

impl SinkV1 for Sink {
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status {
        let (index, types) = (header.type_index, &self.record.types.0);
        let Some(Declared { event, .. }) = types.get(index as usize) else {
            self.record.problem(
                format!("an event with index {index}, and the manifest has {} types", types.len()),
                "declared events alone",
                "declare every event type in the manifest; its position there is its index",
            );
            return Status::REFUSED;
        };
        let payload = match event.decode(payload.as_slice()) {
            Ok(payload) => payload.to_json(),
            Err(error) => {
                self.record.problem(
                    format!("a payload that the host cannot read: {error}"),
                    "payloads as MessagePack maps with field names, of the declared type",
                    "encode with field names, ids as text, and with all fields of the type",
                );
                return Status::REFUSED;
            }
        };
        let core = event.name().starts_with(self.record.kind.as_str());
        let about = if core { self.about(&payload) } else { None };
        let is_of_command = self.is_of_command(event);
        let output = Output::Event { index, name: event.name().to_owned(), payload };
        self.record.take(output, about, header.turn_id, is_of_command)
    }

    fn audio(&self, token: u64, audio: AudioV1) -> Status {
        match AudioChunk::try_from(audio) {
            Ok(audio) if self.record.kind == Kind::Tts => {
                let output = Output::Audio { samples: audio.samples().len() };
                self.record.take(output, Some(token), 0, true)
            }
            Ok(_) => {
                self.record.problem(
                    format!("audio from a session of {}", self.record.kind),
                    "audio from synthesisers alone",
                    "emit an event instead",
                );
                Status::REFUSED
            }
            Err(error) => {
                self.record.problem(
                    format!("audio that the host cannot use: {error}"),
                    "16-bit samples of one or two channels, in whole frames, with a rate",
                    "make audio with `AudioChunk::new`",
                );
                Status::REFUSED
            }
        }
    }

    fn finished(&self, token: u64, outcome: Outcome) {
        let mut state = self.record.lock();
        state.finish(token);
        if state.outputs.len() < FLOOD * 2 {
            state.outputs.push(Output::Finished { token, outcome });
        }
        drop(state);
        self.record.changed.notify_all();
    }

    fn wake_when_ready(&self, _: u32, waker: WakerBox) {
        let mut state = self.record.lock();
        if matches!(state.room, Room::For(0)) {
            state.waiting.push(waker);
            drop(state);
        } else {
            drop(state);
            // There is room already, or there never will be. A host wakes from elsewhere, never from within this call.
            std::thread::spawn(move || waker.wake());
        }
        self.record.changed.notify_all();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.record.lock().is_dropped = true;
        self.record.changed.notify_all();
    }
}
