//! What author code reaches the host by: the session's sink, and the plugin's event types.

use std::{any::TypeId, fmt, sync::Arc, sync::atomic::Ordering};

use abi_stable::std_types::{RArc, RSlice};
use antiphon_core::{
    AudioChunk,
    event::{EventInfo, EventPayload},
};

use crate::{
    PluginError,
    abi::{AudioV1, EventHeaderV1, InterestV1, MAX_EVENT_TYPES, Outcome, SinkBox, Status},
    runtime::when_ready,
};

/// The event types that a plugin declares, in the order of their indices.
#[derive(Debug, Default)]
pub struct EventDeclarations {
    types: Vec<(TypeId, &'static EventInfo)>,
}

impl EventDeclarations {
    /// Declares an event type; again is the same as once.
    ///
    /// # Panics
    ///
    /// At more than 256 types.
    pub fn declare<T: EventPayload>(&mut self) -> &mut Self {
        if self.index_of::<T>().is_none() {
            assert!(
                self.types.len() < MAX_EVENT_TYPES,
                "a plugin declares at most {MAX_EVENT_TYPES} event types"
            );
            self.types.push((TypeId::of::<T>(), T::INFO));
        }
        self
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = &'static EventInfo> {
        self.types.iter().map(|(_, info)| *info)
    }

    fn index_of<T: 'static>(&self) -> Option<usize> {
        // A dozen entries: faster than hashing.
        self.types.iter().position(|(id, _)| *id == TypeId::of::<T>())
    }
}

/// What all sessions of a plugin share.
pub(crate) struct PluginShared {
    pub(crate) events: EventDeclarations,
    pub(crate) interest: RArc<InterestV1>,
}

/// One session, as a plugin sees it. Clones are handles on the same session.
#[derive(Clone)]
pub struct SessionContext {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<PluginShared>,
    session_id: String,
    sink: SinkBox,
}

/// What an event of a plugin belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Belongs {
    /// 0 when not known.
    pub(crate) turn_id: u64,
}

impl SessionContext {
    pub(crate) fn new(shared: Arc<PluginShared>, session_id: String, sink: SinkBox) -> Self {
        Self { inner: Arc::new(Inner { shared, session_id, sink }) }
    }

    /// Id of the session.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.inner.session_id
    }

    /// Whether anybody wants events of a type; costs about a nanosecond. Ask before you compute what only goes into an
    /// event. `false` for types that the plugin did not declare.
    #[must_use]
    pub fn is_wanted<T: EventPayload>(&self) -> bool {
        self.inner.shared.events.index_of::<T>().is_some_and(|index| self.is_wanted_index(index))
    }

    fn is_wanted_index(&self, index: usize) -> bool {
        let word = self.inner.shared.interest.words[index / 64].load(Ordering::Relaxed);
        word & (1 << (index % 64)) != 0
    }

    /// Emits an event of a type that the plugin declared, if anybody wants it. Waits while the host has no room.
    ///
    /// # Errors
    ///
    /// `cancelled` when the session is closed; `undeclared_event` when [`Plugin::declare`](crate::Plugin::declare) does
    /// not name the type; `refused` when the host cannot read the event.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready drops the event.
    pub async fn emit<T: EventPayload>(&self, event: T) -> Result<(), PluginError> {
        self.emit_as(event, Belongs::default()).await
    }

    pub(crate) async fn emit_as<T: EventPayload>(
        &self,
        event: T,
        belongs: Belongs,
    ) -> Result<(), PluginError> {
        let Some(index) = self.inner.shared.events.index_of::<T>() else {
            let text = format!("{} is not declared: name it in `Plugin::declare`", T::NAME);
            return Err(PluginError::new("undeclared_event", text).fatal());
        };
        if !self.is_wanted_index(index) {
            return Ok(());
        }
        let payload = rmp_serde::to_vec_named(&event)?;
        let header = EventHeaderV1 {
            type_index: u32::try_from(index).expect("an index is below 256"),
            reserved: 0,
            emitted_unix_ns: unix_nanos(),
            turn_id: belongs.turn_id,
            causation_id: [0; 16],
        };
        let sink = &self.inner.sink;
        let status = when_ready(
            || sink.emit(&header, RSlice::from_slice(&payload)),
            |waker| sink.wake_when_ready(waker),
        );
        answer(status.await, T::NAME)
    }

    pub(crate) async fn audio(&self, token: u64, audio: &AudioChunk) -> Result<(), PluginError> {
        let sink = &self.inner.sink;
        let status = when_ready(
            || sink.audio(token, AudioV1::from(audio.clone())),
            |waker| sink.wake_when_ready(waker),
        );
        answer(status.await, "audio")
    }

    pub(crate) fn finished(&self, token: u64, outcome: Outcome) {
        if token != 0 {
            self.inner.sink.finished(token, outcome);
        }
    }
}

fn answer(status: Status, what: &str) -> Result<(), PluginError> {
    match status {
        Status::ACCEPTED => Ok(()),
        Status::CLOSED => Err(PluginError::cancelled()),
        _ => Err(PluginError::new("refused", format!("the host could not read {what}")).fatal()),
    }
}

#[expect(clippy::disallowed_methods, reason = "the plugin's own reading; the host keeps it within its own")]
fn unix_nanos() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or_default()
}

impl fmt::Debug for SessionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionContext").field("session_id", &self.inner.session_id).finish_non_exhaustive()
    }
}
