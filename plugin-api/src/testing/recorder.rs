//! The sink of a plugin under test: takes everything, checks each piece for itself, and cancels when it was told to.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex},
};

use abi_stable::{erased_types::TD_Opaque, std_types::RSlice};
use antiphon_core::{
    AudioChunk,
    event::{CATALOGUE_NAMES, EventInfo, EventRegistry, EventType},
};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    abi::{AudioV1, EventHeaderV1, Outcome, SinkBox, SinkV1, Status, WakerBox},
    runtime::lock,
};

/// The event types that a plugin declares, as itself knows them and as a host does.
pub(super) struct EventTypes(Vec<(&'static EventInfo, Arc<EventType>)>);

impl EventTypes {
    pub(super) fn new(infos: impl Iterator<Item = &'static EventInfo>) -> Self {
        let registry = EventRegistry::with_catalogue();
        let as_host = |info: &'static EventInfo| {
            let bases: Vec<String> = info.lineage().iter().skip(1).map(ToString::to_string).collect();
            registry
                .find(info.name)
                .unwrap_or_else(|| registry.declare(info.name, &bases, info.media, info.payload_schema()))
        };
        Self(infos.map(|info| (info, as_host(info))).collect())
    }

    /// Whether an event is, or extends, one of the core's.
    pub(super) fn extends(&self, name: &str, base: &str) -> bool {
        self.0.iter().any(|(_, known)| known.name() == name && known.derives_from(base))
    }

    /// An event as a flat object.
    fn read(&self, index: u32, payload: &[u8]) -> Result<Value, String> {
        let (info, known) =
            self.0.get(index as usize).ok_or_else(|| format!("event {index} is not in the manifest"))?;
        let decoded = known
            .decode(payload)
            .map_err(|error| format!("{}: a host cannot read it: {error}", info.name))?;
        if !CATALOGUE_NAMES.contains(&info.name) {
            info.decode(payload)
                .map_err(|error| format!("{}: it cannot be read back: {error}", info.name))?;
        }
        let mut event = decoded.to_json();
        event["type"] = info.name.into();
        Ok(event)
    }
}

/// What counts as a piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// An event of this type.
    Event(&'static str),
    /// Any event.
    AnyEvent,
    /// Audio.
    Audio,
}

/// Cancels when so many pieces have come.
pub(super) struct CancelAfter {
    pub(super) of: Piece,
    pub(super) left: usize,
    pub(super) cancel: Box<dyn FnOnce() + Send>,
}

/// What a session under test said.
pub(super) struct Recorder {
    types: Arc<EventTypes>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    said: Said,
    outcomes: HashMap<u64, Outcome>,
    cancel: Option<CancelAfter>,
    closed: bool,
}

/// What came since it was last taken.
#[derive(Default)]
pub(super) struct Said {
    pub(super) events: Vec<Value>,
    pub(super) audio: Vec<(u64, AudioChunk)>,
    pub(super) faults: Vec<String>,
}

impl Recorder {
    pub(super) fn new(types: &Arc<EventTypes>) -> Arc<Self> {
        Arc::new(Self { types: Arc::clone(types), state: Mutex::default(), changed: Notify::new() })
    }

    pub(super) fn sink(self: &Arc<Self>) -> SinkBox {
        SinkBox::from_value(Sink(Arc::clone(self)), TD_Opaque)
    }

    pub(super) fn types(&self) -> &EventTypes {
        &self.types
    }

    pub(super) fn cancel_after(&self, cancel: Option<CancelAfter>) {
        lock(&self.state).cancel = cancel;
    }

    /// Waits until a command has ended.
    pub(super) async fn finished(&self, token: u64) -> Outcome {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(outcome) = lock(&self.state).outcomes.remove(&token) {
                return outcome;
            }
            changed.await;
        }
    }

    /// Nothing may come any more.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
    }

    pub(super) fn take(&self) -> Said {
        std::mem::take(&mut lock(&self.state).said)
    }

    fn record(&self, what: &str, is_piece: impl Fn(Piece) -> bool, record: impl FnOnce(&mut Said)) {
        let cancel = {
            let mut state = lock(&self.state);
            if state.closed {
                state.said.faults.push(format!("`{what}` came after the session had ended"));
            }
            record(&mut state.said);
            if let Some(cancel) = &mut state.cancel
                && is_piece(cancel.of)
            {
                cancel.left = cancel.left.saturating_sub(1);
            }
            // Nothing to wait for: at the first sign of life.
            state.cancel.take_if(|cancel| cancel.left == 0)
        };
        // The session takes its own locks.
        if let Some(cancel) = cancel {
            (cancel.cancel)();
        }
    }
}

struct Sink(Arc<Recorder>);

impl SinkV1 for Sink {
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status {
        match self.0.types.read(header.type_index, payload.as_slice()) {
            Ok(event) => {
                let name = super::events::type_of(&event).to_owned();
                let is_piece =
                    |of| of == Piece::AnyEvent || matches!(of, Piece::Event(wanted) if wanted == name);
                self.0.record(&name, is_piece, |said| said.events.push(event));
                Status::ACCEPTED
            }
            Err(fault) => {
                lock(&self.0.state).said.faults.push(fault);
                Status::REFUSED
            }
        }
    }

    fn audio(&self, token: u64, audio: AudioV1) -> Status {
        match AudioChunk::try_from(audio) {
            Ok(audio) => {
                self.0.record("audio", |of| of == Piece::Audio, |said| said.audio.push((token, audio)));
                Status::ACCEPTED
            }
            Err(error) => {
                lock(&self.0.state).said.faults.push(format!("a host cannot play it: {error}"));
                Status::REFUSED
            }
        }
    }

    fn finished(&self, token: u64, outcome: Outcome) {
        let mut state = lock(&self.0.state);
        if state.outcomes.insert(token, outcome).is_some() {
            state.said.faults.push(format!("command {token} ended twice"));
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    fn wake_when_ready(&self, _: u32, waker: WakerBox) {
        waker.wake();
    }
}
