//! What author code reaches the host by: the session's sink, and the plugin's event types.

use std::{
    any::TypeId,
    fmt,
    sync::{Arc, Mutex, atomic::Ordering},
};

use abi_stable::std_types::{RArc, RSlice};
use antiphon_core::{
    AudioChunk,
    event::{EventInfo, EventPayload},
};

use crate::{
    PluginError,
    abi::{AudioV1, EventHeaderV1, InterestV1, MAX_EVENT_TYPES, OUTPUT_AUDIO, Outcome, SinkBox, Status},
    gate::Gate,
    runtime::{lock, when_ready},
    wire,
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
    /// Closed as soon as the session is told to close.
    gate: Gate,
    /// Tokens of those who closed the session; none once it has ended.
    closers: Mutex<Option<Vec<u64>>>,
}

impl SessionContext {
    pub(crate) fn new(shared: Arc<PluginShared>, session_id: String, sink: SinkBox) -> Self {
        let closers = Mutex::new(Some(Vec::new()));
        Self { inner: Arc::new(Inner { shared, session_id, sink, gate: Gate::new(), closers }) }
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
        self.emit_through(&self.inner.gate, 0, event).await
    }

    /// Emits an event of a turn (0 when not known) as long as its gate is open.
    pub(crate) async fn emit_through<T: EventPayload>(
        &self,
        gate: &Gate,
        turn_id: u64,
        event: T,
    ) -> Result<(), PluginError> {
        self.emit_noting(gate, turn_id, event, || {}).await.map(drop)
    }

    /// As [`emit_through`](Self::emit_through), and notes that the host took the event before anything else passes the
    /// gate or the gate settles. `false` when nobody wants the event.
    pub(crate) async fn emit_noting<T: EventPayload>(
        &self,
        gate: &Gate,
        turn_id: u64,
        event: T,
        note: impl Fn(),
    ) -> Result<bool, PluginError> {
        if gate.is_closed() {
            return Err(PluginError::cancelled());
        }
        self.send(event, turn_id, |output| gate.pass_noting(output, &note)).await
    }

    /// Emits what this crate says of a command or session that author code has nothing to add to. Once the session is
    /// told to close, a host without room has to do without.
    pub(crate) async fn emit_last<T: EventPayload>(&self, turn_id: u64, event: T) {
        tokio::select! {
            biased;
            sent = self.send(event, turn_id, |output| output()) => {
                if let Err(error) = sent {
                    tracing::debug!("{} was not taken: {error}", T::NAME);
                }
            }
            () = self.inner.gate.closed() => {
                tracing::warn!("{} was dropped: its session was closed while the host had no room", T::NAME);
            }
        }
    }

    async fn send<T: EventPayload>(
        &self,
        event: T,
        turn_id: u64,
        pass: impl Fn(&dyn Fn() -> Status) -> Status,
    ) -> Result<bool, PluginError> {
        let Some(index) = self.inner.shared.events.index_of::<T>() else {
            let text = format!("{} is not declared: name it in `Plugin::declare`", T::NAME);
            return Err(PluginError::new("undeclared_event", text).fatal());
        };
        if !self.is_wanted_index(index) {
            return Ok(false);
        }
        let payload = wire::encode(&event)?;
        let header = EventHeaderV1 {
            type_index: u32::try_from(index).expect("an index is below 256"),
            reserved: 0,
            emitted_unix_ns: unix_nanos(),
            turn_id,
            causation_id: [0; 16],
        };
        let sink = &self.inner.sink;
        let status = when_ready(
            || pass(&|| sink.emit(&header, RSlice::from_slice(&payload))),
            |waker| sink.wake_when_ready(header.type_index, waker),
        );
        answer(status.await, T::NAME).map(|()| true)
    }

    /// Gives audio of a command as long as its gate is open, and notes that the host took it.
    pub(crate) async fn audio_noting(
        &self,
        gate: &Gate,
        token: u64,
        audio: &AudioChunk,
        note: impl Fn(),
    ) -> Result<(), PluginError> {
        let sink = &self.inner.sink;
        let status = when_ready(
            || gate.pass_noting(|| sink.audio(token, AudioV1::from(audio.clone())), &note),
            |waker| sink.wake_when_ready(OUTPUT_AUDIO, waker),
        );
        answer(status.await, "audio")
    }

    pub(crate) fn finished(&self, token: u64, outcome: Outcome) {
        if token != 0 {
            self.inner.sink.finished(token, outcome);
        }
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// Tells the session to end, and remembers whom to answer when it has. Whether this is the first to say so.
    pub(crate) fn close(&self, token: u64) -> bool {
        self.inner.gate.close();
        let closers = {
            let mut closers = lock(&self.inner.closers);
            closers.as_mut().map(|tokens| {
                tokens.push(token);
                tokens.len()
            })
        };
        if closers.is_none() {
            self.finished(token, Outcome::COMPLETED);
        }
        closers == Some(1)
    }

    /// The session has ended: nothing comes after this but the answers to who closed it.
    pub(crate) fn ended(&self) {
        self.inner.gate.settle();
        let tokens = lock(&self.inner.closers).take();
        tokens.into_iter().flatten().for_each(|token| self.finished(token, Outcome::COMPLETED));
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
