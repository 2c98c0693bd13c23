//! A host that records what a plugin says, and has as much room for it as the test wants.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{AudioChunk, event::EventRegistry, event::EventType};
use antiphon_plugin_api::{
    __private::Exported,
    PluginManifest,
    abi::{
        AbiError, AudioV1, CAPABILITY_V1, Capability, EventHeaderV1, HostBox, HostV1, InterestV1,
        OUTPUT_AUDIO, Outcome, PluginBox, SinkBox, SinkV1, Status, WakerBox, WakerV1,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, RSlice, RStr},
        },
    },
    export::root,
};
use serde_json::Value;

/// What `export_plugin!` says of a plugin; the macro itself can be used once per library.
macro_rules! exported {
    ($plugin:ty, $name:literal, [$($capability:ident),+]) => {
        impl antiphon_plugin_api::__private::Exported for $plugin {
            const NAME: &'static str = $name;
            const VERSION: &'static str = "1.2.3";
            const DESCRIPTION: &'static str = "for tests";
            const LICENSE: &'static str = "MIT";
            const CAPABILITIES: &'static [antiphon_plugin_api::export::Capability<Self>] =
                &[$(antiphon_plugin_api::$capability::capability::<Self>()),+];
        }
    };
}
pub(crate) use exported;

/// Ends a test that would hang. No test waits for it to pass.
const HUNG: Duration = Duration::from_secs(30);

/// Something that a plugin said.
#[derive(Clone)]
pub(crate) enum Output {
    Event { name: String, turn_id: u64, payload: Value },
    Audio { token: u64, audio: AudioChunk },
    Finished { token: u64, outcome: Outcome },
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { name, .. } => f.write_str(name),
            Self::Audio { token, .. } => write!(f, "audio of {token}"),
            Self::Finished { token, outcome } => write!(f, "finished {token} {outcome:?}"),
        }
    }
}

/// A running plugin.
pub(crate) struct Running {
    pub(crate) plugin: PluginBox,
    pub(crate) interest: RArc<InterestV1>,
    types: Arc<[Arc<EventType>]>,
    manifest: PluginManifest,
}

pub(crate) fn manifest<E: Exported>() -> PluginManifest {
    serde_json::from_slice(&root::<E>().manifest()()).expect("a manifest")
}

pub(crate) fn start<E: Exported>() -> Running {
    try_start::<E>("{}").expect("starts")
}

pub(crate) fn try_start<E: Exported>(settings: &str) -> Result<Running, AbiError> {
    let manifest = manifest::<E>();
    let registry = EventRegistry::with_catalogue();
    let types = manifest.events.iter().map(|event| match (registry.find(&event.name), &event.schema) {
        (Some(known), _) => known,
        (None, schema) => {
            let schema = schema.clone().expect("events that are not of the core have a schema");
            registry.declare(&event.name, &event.extends, event.media, schema)
        }
    });
    let types = types.collect();
    let host = host();
    let interest = host.interest();
    let plugin = root::<E>().create()(host, RSlice::from_slice(settings.as_bytes())).into_result()?;
    Ok(Running { plugin, interest, types, manifest })
}

/// A host that wants all events.
pub(crate) fn host() -> HostBox {
    let interest = RArc::new(InterestV1::default());
    interest.words.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    HostBox::from_value(Host { interest }, TD_Opaque)
}

impl Running {
    /// A capability's object.
    pub(crate) fn capability<C: Capability>(&self) -> C {
        let object = self.plugin.query(RStr::from_str(C::NAME), CAPABILITY_V1).into_option();
        object.expect("declared").into_object().expect("of this very crate")
    }

    /// A new sink, and the record of what comes into it.
    pub(crate) fn sink(&self) -> (SinkBox, Arc<Record>) {
        let record = Arc::new(Record::default());
        let sink = Sink { record: Arc::clone(&record), types: Arc::clone(&self.types) };
        (SinkBox::from_value(sink, TD_Opaque), record)
    }

    /// Nobody wants events of this type any more.
    pub(crate) fn unwant(&self, name: &str) {
        let index = self.manifest.events.iter().position(|event| event.name == name).expect("declared");
        self.interest.words[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Relaxed);
    }
}

struct Host {
    interest: RArc<InterestV1>,
}

impl HostV1 for Host {
    fn interest(&self) -> RArc<InterestV1> {
        self.interest.clone()
    }

    fn log_level(&self) -> u32 {
        1
    }

    /// The panics of tests come here too.
    fn log(&self, _: u32, target: RStr<'_>, message: RStr<'_>) {
        eprintln!("{target}: {message}");
    }
}

/// What came into a sink.
#[derive(Default)]
pub(crate) struct Record {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    outputs: Vec<Output>,
    /// How many more outputs there is room for; none says any number.
    room: Option<usize>,
    waiting: Vec<(u32, WakerBox)>,
    /// Somebody who waits has tried once more since, in vain.
    waits: bool,
    closed: bool,
    dropped: bool,
}

impl Record {
    pub(crate) fn outputs(&self) -> Vec<Output> {
        self.lock().outputs.clone()
    }

    /// As text, for comparison at a glance.
    pub(crate) fn said(&self) -> Vec<String> {
        self.lock().outputs.iter().map(|output| format!("{output:?}")).collect()
    }

    /// The events with their turns.
    pub(crate) fn turns(&self) -> Vec<(String, u64)> {
        let turn = |output| match output {
            Output::Event { name, turn_id, .. } => Some((name, turn_id)),
            _ => None,
        };
        self.outputs().into_iter().filter_map(turn).collect()
    }

    /// The commands that have ended, in this order.
    pub(crate) fn ended(&self) -> Vec<u64> {
        let token = |output| match output {
            Output::Finished { token, .. } => Some(token),
            _ => None,
        };
        self.outputs().into_iter().filter_map(token).collect()
    }

    /// Payloads of the events of a type.
    pub(crate) fn events(&self, wanted: &str) -> Vec<Value> {
        let payload = |output| match output {
            Output::Event { name, payload, .. } if name == wanted => Some(payload),
            _ => None,
        };
        self.outputs().into_iter().filter_map(payload).collect()
    }

    /// Waits until an event of this type came.
    pub(crate) fn wait_for(&self, wanted: &str) -> Value {
        self.wait(wanted, |state| {
            state.outputs.iter().find_map(|output| match output {
                Output::Event { name, payload, .. } if name == wanted => Some(payload.clone()),
                _ => None,
            })
        })
    }

    /// Waits until so many events of this type came.
    pub(crate) fn wait_for_count(&self, wanted: &str, count: usize) {
        let is_wanted = |output: &&Output| matches!(output, Output::Event { name, .. } if name == wanted);
        self.wait(wanted, |state| (state.outputs.iter().filter(is_wanted).count() >= count).then_some(()));
    }

    /// Waits until a command has ended.
    pub(crate) fn finished(&self, wanted: u64) -> Outcome {
        self.wait("finished", |state| {
            state.outputs.iter().find_map(|output| match output {
                Output::Finished { token, outcome } if *token == wanted => Some(*outcome),
                _ => None,
            })
        })
    }

    /// Waits until the plugin waits for room, and says for what.
    pub(crate) fn waits_for_room(&self) -> u32 {
        self.wait("somebody who waits for room", |state| {
            state.waiting.last().filter(|_| state.waits).map(|(output, _)| *output)
        })
    }

    /// Waits until the plugin has let go of the sink.
    pub(crate) fn dropped(&self) {
        self.wait("the sink to be dropped", |state| state.dropped.then_some(()));
    }

    /// Has room for so many outputs; none says for any number.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        let waiting = {
            let mut state = self.lock();
            state.room = room;
            state.waits = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let waited = self.changed.wait_timeout(state, HUNG);
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            assert!(!timeout.timed_out(), "waited for {what}, found {:?}", state.outputs);
        }
    }

    fn take(&self, output: Output) -> Status {
        let mut state = self.lock();
        if state.closed {
            return Status::CLOSED;
        }
        match &mut state.room {
            Some(0) => {
                state.waits = !state.waiting.is_empty();
                self.changed.notify_all();
                return Status::FULL;
            }
            Some(room) => *room -= 1,
            None => {}
        }
        state.outputs.push(output);
        self.changed.notify_all();
        Status::ACCEPTED
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed is no reason for the sink to fail too, which would end the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sink {
    record: Arc<Record>,
    types: Arc<[Arc<EventType>]>,
}

impl SinkV1 for Sink {
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status {
        let Some(event) = self.types.get(header.type_index as usize) else { return Status::REFUSED };
        match event.decode(payload.as_slice()) {
            Ok(payload) => self.record.take(Output::Event {
                name: event.name().to_owned(),
                turn_id: header.turn_id,
                payload: payload.to_json(),
            }),
            Err(error) => {
                eprintln!("{error}");
                Status::REFUSED
            }
        }
    }

    fn audio(&self, token: u64, audio: AudioV1) -> Status {
        match AudioChunk::try_from(audio) {
            Ok(audio) => self.record.take(Output::Audio { token, audio }),
            Err(_) => Status::REFUSED,
        }
    }

    fn finished(&self, token: u64, outcome: Outcome) {
        self.record.lock().outputs.push(Output::Finished { token, outcome });
        self.record.changed.notify_all();
    }

    fn wake_when_ready(&self, output: u32, waker: WakerBox) {
        assert!(output == OUTPUT_AUDIO || (output as usize) < self.types.len());
        self.record.lock().waiting.push((output, waker));
        self.record.changed.notify_all();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.record.lock().dropped = true;
        self.record.changed.notify_all();
    }
}

/// A waker that counts.
#[derive(Clone, Default)]
pub(crate) struct Bell {
    rung: Arc<(Mutex<u64>, Condvar)>,
}

impl WakerV1 for Bell {
    fn wake(&self) {
        *self.rung.0.lock().expect("no panic under the lock") += 1;
        self.rung.1.notify_all();
    }
}

impl Bell {
    pub(crate) fn waker(&self) -> WakerBox {
        WakerBox::from_value(self.clone(), TD_Opaque)
    }

    pub(crate) fn wait(&self) {
        let rung = self.rung.0.lock().expect("no panic under the lock");
        let waited = self.rung.1.wait_timeout_while(rung, HUNG, |rung| *rung == 0);
        assert!(!waited.expect("no panic under the lock").1.timed_out(), "waited for a waker");
    }
}

/// A session id that no other test has.
pub(crate) fn session_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("session-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A panic while it is dropped.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}
