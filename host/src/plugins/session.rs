//! The host's end of a plugin's sessions: the sink that takes what the plugin produces, and commands with back-pressure.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use antiphon_core::{
    AudioChunk, PluginBaseEvent, SessionBus, TurnId, VideoFrame,
    bus::{PluginEmission, TryEmitError},
    event::{
        Envelope, EventPayload, EventType, Stamp,
        tts::TtsAudioEvent,
        values::{AudioFormat, PcmData},
    },
};
use antiphon_plugin_api::{
    LlmRequest, TtsRequest,
    abi::{
        AudioV1, EventHeaderV1, LayoutMismatch, LlmSessionBox, OUTPUT_AUDIO, Outcome, SinkBox, SinkV1,
        Status, SttSessionBox, TtsSessionBox, TurnSessionBox, VideoV1, VisionSessionBox, WakerBox,
        abi_stable::{erased_types::TD_Opaque, std_types::RSlice},
    },
    when_ready,
};
use serde::Serialize;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
};
use uuid::Uuid;

/// Events that the agent itself lives on: plugins send them whether or not anybody subscribes.
const NEEDED_BY_AGENT: [&str; 8] = [
    "turn.started",
    "turn.ended",
    "stt.transcript.utterance_final",
    "stt.error",
    "llm.response.delta",
    "llm.error",
    "tts.words",
    "tts.error",
];

/// An event type that a plugin declares.
#[derive(Debug, Clone)]
pub(super) struct PluginEvent {
    pub(super) event: Arc<EventType>,
    /// It is one of [`NEEDED_BY_AGENT`].
    pub(super) is_needed: bool,
}

impl From<Arc<EventType>> for PluginEvent {
    fn from(event: Arc<EventType>) -> Self {
        let is_needed = NEEDED_BY_AGENT.contains(&event.name());
        Self { event, is_needed }
    }
}

/// Events that may wait for the agent.
const EVENT_CAPACITY: usize = 1024;

/// Pieces of audio that may wait for the agent.
const AUDIO_CAPACITY: usize = 64;

/// Why a plugin's session did not take a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginSessionError {
    /// The plugin cannot do it.
    #[error("plugin {plugin} has no capability {kind} of version {version}")]
    NoCapability {
        /// The plugin.
        plugin: String,
        /// What was asked for.
        kind: &'static str,
        /// Version of the trait.
        version: u32,
    },
    /// The plugin was built with another idea of the capability.
    #[error("the plugin cannot be used")]
    Layout(#[source] LayoutMismatch),
    /// The session is closed, or its plugin has failed.
    #[error("the plugin's session is closed")]
    Closed,
    /// The plugin could not read the command.
    #[error("the plugin refused the command")]
    Refused,
}

/// What a plugin's session produces for the agent, beside what goes to the bus.
#[derive(Debug)]
pub struct Received {
    /// Events; those of one command in the order of their `seq`.
    pub events: mpsc::Receiver<Arc<Envelope>>,
    /// Audio by the token of its command.
    pub audio: mpsc::Receiver<Incoming>,
}

/// A piece of audio.
#[derive(Debug)]
pub struct Incoming {
    /// Token of the command that it belongs to.
    pub token: u64,
    /// The samples.
    pub audio: AudioChunk,
}

/// The sessions of a plugin that are open.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: Mutex<Open>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    sessions: Vec<Weak<Pending>>,
    count: usize,
    failed: bool,
}

impl Sessions {
    /// Fails what the plugin was asked for, and what it will be asked for.
    pub(super) fn fail(&self) {
        let sessions = {
            let mut open = lock(&self.open);
            open.failed = true;
            std::mem::take(&mut open.sessions)
        };
        sessions.iter().filter_map(Weak::upgrade).for_each(|session| session.fail());
    }

    /// Resolves when there are none.
    pub(super) async fn none(&self) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.open).count == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Commands of a session that are not finished yet.
#[derive(Debug)]
pub(super) struct Pending {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    /// The plugin answers no more.
    failed: AtomicBool,
    sessions: Arc<Sessions>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut open = lock(&self.sessions.open);
        open.count -= 1;
        // Those that are gone are few: each removes itself and its like.
        open.sessions.retain(|session| session.strong_count() > 0);
        drop(open);
        self.sessions.changed.notify_waiters();
    }
}

/// A command that is not finished yet.
#[derive(Debug)]
struct Waiting {
    finished: oneshot::Sender<Outcome>,
    /// What it says, where it is a synthesis.
    synthesis: Option<Synthesis>,
}

/// A synthesis, as its audio events tell of it.
#[derive(Debug, Clone, Copy)]
struct Synthesis {
    id: Uuid,
    turn_id: Option<TurnId>,
    /// Pieces of audio so far.
    pieces: u64,
}

impl Pending {
    /// Of a new session.
    pub(super) fn of(sessions: &Arc<Sessions>) -> Arc<Self> {
        let mut open = lock(&sessions.open);
        open.count += 1;
        let pending = Arc::new(Self {
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            failed: AtomicBool::new(open.failed),
            sessions: Arc::clone(sessions),
        });
        open.sessions.push(Arc::downgrade(&pending));
        pending
    }

    fn begin(&self) -> (u64, Completion) {
        let token = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        // Without a sender, the receiver fails at once.
        if !self.failed.load(Ordering::Relaxed) {
            waiting.insert(token, Waiting { finished: sender, synthesis: None });
        }
        drop(waiting);
        (token, Completion { token, receiver })
    }

    fn fail(&self) {
        let mut waiting = lock(&self.waiting);
        self.failed.store(true, Ordering::Relaxed);
        waiting.clear();
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn says(&self, token: u64, id: Uuid, turn_id: Option<TurnId>) {
        if let Some(waiting) = lock(&self.waiting).get_mut(&token) {
            waiting.synthesis = Some(Synthesis { id, turn_id, pieces: 0 });
        }
    }

    /// The synthesis of a command, and counts a piece of its audio.
    fn next_piece(&self, token: u64) -> Option<Synthesis> {
        let mut waiting = lock(&self.waiting);
        let synthesis = waiting.get_mut(&token)?.synthesis.as_mut()?;
        synthesis.pieces += 1;
        Some(*synthesis)
    }

    fn finish(&self, token: u64, outcome: Outcome) {
        if let Some(waiting) = lock(&self.waiting).remove(&token) {
            // Nobody waits for it any more: fine.
            let _ = waiting.finished.send(outcome);
        }
    }
}

/// The end of a command.
#[derive(Debug)]
pub struct Completion {
    token: u64,
    receiver: oneshot::Receiver<Outcome>,
}

impl Completion {
    /// The command's token.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Resolves when the command has ended; a plugin that is gone has failed it.
    pub async fn finished(self) -> Outcome {
        self.receiver.await.unwrap_or(Outcome::FAILED)
    }
}

/// Where a plugin's session puts what it produces.
struct Sink {
    session: SessionBus,
    plugin: Arc<PluginBaseEvent>,
    events: Arc<[PluginEvent]>,
    to_agent: mpsc::Sender<Arc<Envelope>>,
    audio: mpsc::Sender<Incoming>,
    pending: Weak<Pending>,
    runtime: Handle,
}

pub(super) fn sink(
    session: SessionBus,
    plugin: Arc<PluginBaseEvent>,
    events: Arc<[PluginEvent]>,
    runtime: Handle,
    pending: &Arc<Pending>,
) -> (SinkBox, Received) {
    let (to_agent, events_received) = mpsc::channel(EVENT_CAPACITY);
    let (audio, audio_received) = mpsc::channel(AUDIO_CAPACITY);
    let sink = Sink { session, plugin, events, to_agent, audio, pending: Arc::downgrade(pending), runtime };
    let received = Received { events: events_received, audio: audio_received };
    (SinkBox::from_value(sink, TD_Opaque), received)
}

impl Sink {
    /// Puts audio on the bus where somebody names the type.
    fn publish(&self, token: u64, audio: &AudioChunk) {
        if !self.session.is_wanted(TtsAudioEvent::event_type()) {
            return;
        }
        let synthesis = self.pending.upgrade().and_then(|pending| pending.next_piece(token));
        let event = TtsAudioEvent {
            synthesis_id: synthesis.map(|synthesis| synthesis.id),
            chunk_index: synthesis.map_or(0, |synthesis| synthesis.pieces - 1),
            audio: Some(PcmData(audio.clone())),
            format: AudioFormat::S16,
            text: None,
            final_chunk: false,
            sequence: None,
            words: None,
            whole_utterance: false,
        };
        let turn_id = synthesis.and_then(|synthesis| synthesis.turn_id);
        let stamp = Stamp { turn_id, plugin: Some(Arc::clone(&self.plugin)), ..Stamp::default() };
        let _ = self.session.emit_with(event, stamp);
    }
}

impl SinkV1 for Sink {
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status {
        let Some(event) = self.events.get(header.type_index as usize) else {
            tracing::error!(plugin = %self.plugin.plugin_name, index = header.type_index, "an event that is not in the manifest");
            return Status::REFUSED;
        };
        let PluginEvent { event, is_needed } = event;
        let permit = match is_needed.then(|| self.to_agent.try_reserve()) {
            Some(Ok(permit)) => Some(permit),
            Some(Err(mpsc::error::TrySendError::Full(()))) => return Status::FULL,
            // The agent has gone; the bus still wants what its subscribers want.
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => None,
        };
        let emission = PluginEmission {
            event,
            payload: payload.as_slice(),
            plugin: &self.plugin,
            turn_id: (header.turn_id != 0).then_some(TurnId(header.turn_id)),
            causation_id: (header.causation_id != [0; 16]).then(|| Uuid::from_bytes(header.causation_id)),
            emitted_at: chrono_from(header.emitted_unix_ns),
            always: permit.is_some(),
        };
        match self.session.try_emit_plugin(&emission) {
            Ok(envelope) => {
                if let (Some(permit), Some(envelope)) = (permit, envelope) {
                    permit.send(envelope);
                }
                Status::ACCEPTED
            }
            Err(TryEmitError::Full) => Status::FULL,
            Err(error) => {
                tracing::error!(plugin = %self.plugin.plugin_name, "an event was refused: {error}");
                Status::REFUSED
            }
        }
    }

    fn audio(&self, token: u64, audio: AudioV1) -> Status {
        let audio = match AudioChunk::try_from(audio) {
            Ok(audio) => audio,
            Err(error) => {
                tracing::error!(plugin = %self.plugin.plugin_name, "audio was refused: {error}");
                return Status::REFUSED;
            }
        };
        match self.audio.try_reserve() {
            Ok(permit) => {
                self.publish(token, &audio);
                permit.send(Incoming { token, audio });
                Status::ACCEPTED
            }
            Err(mpsc::error::TrySendError::Full(())) => Status::FULL,
            Err(mpsc::error::TrySendError::Closed(())) => Status::CLOSED,
        }
    }

    fn finished(&self, token: u64, outcome: Outcome) {
        if let Some(pending) = self.pending.upgrade() {
            pending.finish(token, outcome);
        }
    }

    fn wake_when_ready(&self, output: u32, waker: WakerBox) {
        let (session, to_agent, audio) = (self.session.clone(), self.to_agent.clone(), self.audio.clone());
        let event = self.events.get(output as usize).cloned();
        // Ends with the wait; a closed channel or session ends the wait too.
        self.runtime.spawn(async move {
            if output == OUTPUT_AUDIO {
                drop(audio.reserve().await);
            } else if let Some(PluginEvent { event, is_needed }) = event {
                if is_needed {
                    drop(to_agent.reserve().await);
                }
                session.wait_for_room(&event).await;
            }
            waker.wake();
        });
    }
}

fn chrono_from(unix_ns: u64) -> Option<chrono::DateTime<chrono::Utc>> {
    let nanos = i64::try_from(unix_ns).ok().filter(|nanos| *nanos > 0)?;
    Some(chrono::DateTime::from_timestamp_nanos(nanos))
}

fn answer(status: Status) -> Result<(), PluginSessionError> {
    match status {
        Status::ACCEPTED => Ok(()),
        Status::REFUSED => Err(PluginSessionError::Refused),
        _ => Err(PluginSessionError::Closed),
    }
}

fn encode(request: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(request).expect("requests are plain data")
}

/// The sending side that all kinds of sessions share.
macro_rules! session {
    ($(#[$meta:meta])* $name:ident, $object:ty) => {
        $(#[$meta])*
        pub struct $name {
            object: $object,
            pending: Arc<Pending>,
        }

        impl $name {
            pub(super) fn new(object: $object, pending: Arc<Pending>) -> Self {
                Self { object, pending }
            }

            /// Sends a command, waiting while the plugin has no room.
            async fn send(&self, attempt: impl FnMut() -> Status) -> Result<(), PluginSessionError> {
                if self.pending.has_failed() {
                    return Err(PluginSessionError::Closed);
                }
                answer(when_ready(attempt, |waker| self.object.wake_when_ready(waker)).await)
            }

            /// Sends a command that will be finished.
            async fn ask(&self, mut attempt: impl FnMut(u64) -> Status) -> Result<Completion, PluginSessionError> {
                let (token, completion) = self.pending.begin();
                match self.send(|| attempt(token)).await {
                    Ok(()) => Ok(completion),
                    Err(error) => {
                        lock(&self.pending.waiting).remove(&token);
                        Err(error)
                    }
                }
            }

            /// Ends the session; resolves when the plugin has.
            pub fn close(&self) -> Completion {
                let (token, completion) = self.pending.begin();
                self.object.close(token);
                completion
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

session! {
    /// Turn detection of one session.
    TurnSession, TurnSessionBox
}
session! {
    /// Speech to text of one session.
    SttSession, SttSessionBox
}
session! {
    /// Language model of one session.
    LlmSession, LlmSessionBox
}
session! {
    /// Text to speech of one session.
    TtsSession, TtsSessionBox
}
session! {
    /// Vision of one session.
    VisionSession, VisionSessionBox
}

impl TurnSession {
    /// Gives audio: one channel, 16 kHz. Finished when all events of this audio are emitted.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn push_audio(&self, audio: &AudioChunk) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.push_audio(token, audio.clone().into())).await
    }

    /// Says that no more audio will come.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn flush(&self) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.flush(token)).await
    }
}

impl SttSession {
    /// Begins an utterance.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn begin(&self, turn_id: TurnId) -> Result<(), PluginSessionError> {
        self.send(|| self.object.begin(turn_id.0)).await
    }

    /// Gives audio of the utterance: one channel, 16 kHz.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn push_audio(&self, audio: &AudioChunk) -> Result<(), PluginSessionError> {
        self.send(|| self.object.push_audio(audio.clone().into())).await
    }

    /// Ends the utterance. Finished after its last event.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn end(&self) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.end(token)).await
    }

    /// Drops the utterance.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn cancel(&self) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.cancel(token)).await
    }
}

impl LlmSession {
    /// Asks for a reply.
    ///
    /// # Errors
    ///
    /// The session is closed, or the plugin cannot read the request.
    pub async fn respond(
        &self,
        turn_id: Option<TurnId>,
        request: &LlmRequest,
    ) -> Result<Completion, PluginSessionError> {
        let bytes = encode(request);
        let turn_id = turn_id.map_or(0, |turn| turn.0);
        self.ask(|token| self.object.respond(token, turn_id, RSlice::from_slice(&bytes))).await
    }

    /// Stops a request; nothing of it comes after its completion.
    pub fn cancel(&self, token: u64) {
        self.object.cancel(token);
    }
}

impl TtsSession {
    /// Asks for speech.
    ///
    /// # Errors
    ///
    /// The session is closed, or the plugin cannot read the request.
    pub async fn synthesize(
        &self,
        turn_id: Option<TurnId>,
        request: &TtsRequest,
    ) -> Result<Completion, PluginSessionError> {
        let bytes = encode(request);
        let number = turn_id.map_or(0, |turn| turn.0);
        self.ask(|token| {
            self.pending.says(token, request.synthesis_id, turn_id);
            self.object.synthesize(token, number, RSlice::from_slice(&bytes))
        })
        .await
    }

    /// Stops a request; nothing of it comes after its completion.
    pub fn cancel(&self, token: u64) {
        self.object.cancel(token);
    }
}

impl VisionSession {
    /// Gives a picture.
    ///
    /// # Errors
    ///
    /// The session is closed, or the plugin cannot read the picture.
    pub async fn process(&self, sequence: u64, frame: &VideoFrame) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.process(token, sequence, VideoV1::from(frame.clone()))).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
