//! What a plugin said, and how much room there is for it.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use antiphon_core::{AudioChunk, event::EventType};
use antiphon_plugin_api::abi::{
    AudioV1, EventHeaderV1, OUTPUT_AUDIO, Outcome, SinkV1, Status, WakerBox, abi_stable::std_types::RSlice,
};
use serde_json::Value;

use super::HUNG;

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

pub(super) struct Sink {
    pub(super) record: Arc<Record>,
    pub(super) types: Arc<[Arc<EventType>]>,
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
