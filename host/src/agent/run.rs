//! The conversation's one loop: takes what was heard, generated, synthesised, played and asked for, and decides.
//!
//! Everything that happens goes through here, so that order is a matter of this one task. It never waits for a plugin
//! longer than the turn's timeout, nor for a subscriber longer than [`PATIENCE`].

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    Clock, PluginBaseEvent, SessionBus, SpeechId, TurnId,
    event::{
        Envelope, EventPayload, Stamp,
        agent::{
            AgentErrorEvent, AgentFinishEvent, AgentReadyEvent, AgentStateChangedEvent, AgentTranscriptEvent,
            AgentTurnEndedEvent, AgentTurnStartedEvent, AgentWarningEvent, HistoryUpdatedEvent,
            SpeechCompleteEvent, SpeechInterruptedEvent, SpeechStartEvent, TurnMetricsEvent,
            UserTranscriptEvent, UserTurnEndedEvent, UserTurnStartedEvent,
        },
        audio::{AudioPlaybackEndEvent, AudioPlaybackErrorEvent, AudioPlaybackStartEvent},
        llm::{LlmErrorEvent, LlmResponseDeltaEvent},
        session::{SessionClosedEvent, SessionReadyEvent},
        tts::{TtsChunkQueuedEvent, TtsErrorEvent, TtsWordsEvent},
        values::{
            AgentState, CloseReason, ComponentKind, ErrorInfo, FinishReason, InterruptReason, InterruptScope,
            Message, Modality, PluginRef, Role, TranscriptMode, TurnSource,
        },
    },
};
use antiphon_plugin_api::{LlmRequest, TtsRequest, abi::Outcome};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    AgentConfig, AgentError, AudioOutput, Command, Pace, Providers, Summary,
    ear::{Ear, Heard},
    mouth::{Opening, Reply, Times, ToSynthesise},
    output::{Piece, Played, Player},
};
use crate::plugins::{Incoming, LlmSession, PluginInstance, PluginSessionError, Received, TtsSession};

/// How long an event waits for a subscriber that must not lose it. The subscriber's queue takes as much again before it
/// loses anything; a conversation must not hang because of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a plugin may take to close its session.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Messages from the ear that may wait.
const HEARD_CAPACITY: usize = 16;

type Ending = Pin<Box<dyn Future<Output = (Ended, Outcome)> + Send + Sync>>;

/// What has ended.
#[derive(Debug, Clone, Copy)]
enum Ended {
    Llm { generation: u64 },
    Tts { generation: u64, chunk: usize },
}

/// What happened next.
enum Next {
    Heard(Option<Heard>),
    Llm(Option<Arc<Envelope>>),
    Tts(Option<Arc<Envelope>>),
    Audio(Option<Incoming>),
    Ended(Ended, Outcome),
    Room(mpsc::OwnedPermit<Piece>),
    Played(Option<Played>),
    Command(Option<Command>),
    Stalled,
}

/// A user's turn that waits for its reply.
struct Question {
    turn_id: TurnId,
    text: String,
    modality: Modality,
    answered: Option<oneshot::Sender<()>>,
    times: Times,
}

enum Queued {
    Answer(Question),
    Say(String),
}

pub(super) struct Conversation {
    session: SessionBus,
    clock: Arc<dyn Clock>,
    config: AgentConfig,
    pace: Pace,
    components: Vec<PluginRef>,
    heard: mpsc::Receiver<Heard>,
    ear: JoinHandle<()>,
    llm: Option<(LlmSession, Received)>,
    tts: Option<(TtsSession, Received)>,
    tts_base: Option<Arc<PluginBaseEvent>>,
    player: Player,
    commands: mpsc::Receiver<Command>,
    turns: Arc<AtomicU64>,
    endings: FuturesUnordered<Ending>,
    state: AgentState,
    generations: u64,
    reply: Option<Reply>,
    queue: VecDeque<Queued>,
    history: Vec<Message>,
    turn_end: Option<antiphon_core::clock::Now>,
    user_speaks: bool,
    deadline: Instant,
    ear_ended: bool,
    finishing: Option<oneshot::Sender<()>>,
    broken: bool,
    summary: Summary,
}

impl Conversation {
    pub(super) fn open(
        session: SessionBus,
        config: AgentConfig,
        pace: Pace,
        providers: &Providers,
        output: Box<dyn AudioOutput>,
        audio: mpsc::Receiver<Option<antiphon_core::AudioChunk>>,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, AgentError> {
        let opening = |provider: &Arc<PluginInstance>| {
            let plugin = provider.manifest().name.clone();
            move |source: PluginSessionError| AgentError::Open { plugin, source }
        };
        let turn = providers.turn.as_ref().map(|p| p.open_turn(&session).map_err(opening(p))).transpose()?;
        let stt = providers.stt.as_ref().map(|p| p.open_stt(&session).map_err(opening(p))).transpose()?;
        let llm = providers.llm.as_ref().map(|p| p.open_llm(&session).map_err(opening(p))).transpose()?;
        let tts = providers.tts.as_ref().map(|p| p.open_tts(&session).map_err(opening(p))).transpose()?;
        let (tell, heard) = mpsc::channel(HEARD_CAPACITY);
        let turns = Arc::new(AtomicU64::new(0));
        let timeout = Duration::from_millis(config.turn_timeout_ms);
        let ear = Ear {
            session: session.clone(),
            turn,
            stt,
            audio,
            heard: tell,
            turns: Arc::clone(&turns),
            pace,
            pre_roll: Duration::from_millis(config.pre_roll_ms),
            stt_deadline: timeout,
            host: Arc::new(PluginBaseEvent {
                plugin_name: "antiphon-host".into(),
                plugin_version: env!("CARGO_PKG_VERSION").into(),
                plugin_instance: None,
            }),
        };
        Ok(Self {
            clock: Arc::clone(session.bus().clock()),
            components: components(providers),
            heard,
            ear: tokio::spawn(ear.run()),
            llm,
            tts,
            tts_base: providers.tts.as_ref().map(|provider| Arc::clone(provider.base())),
            player: Player::start(output, pace),
            commands,
            turns,
            endings: FuturesUnordered::new(),
            state: AgentState::Idle,
            generations: 0,
            reply: None,
            queue: VecDeque::new(),
            history: Vec::new(),
            turn_end: None,
            user_speaks: false,
            deadline: Instant::now() + timeout,
            ear_ended: false,
            finishing: None,
            broken: false,
            summary: Summary::default(),
            session,
            config,
            pace,
        })
    }

    pub(super) async fn run(mut self) -> Summary {
        self.tell(None, SessionReadyEvent {}).await;
        self.tell(None, AgentReadyEvent { components: self.components.clone() }).await;
        self.become_state(AgentState::Ready, "agent.ready").await;
        loop {
            self.advance().await;
            if self.reply.is_none() && self.queue.is_empty() && (self.finishing.is_some() && self.ear_ended) {
                break;
            }
            let next = self.next().await;
            self.take(next).await;
        }
        self.close().await
    }

    async fn next(&mut self) -> Next {
        let speaking = self.reply.is_some();
        let wants_audio = self.reply.as_ref().is_none_or(Reply::wants_audio);
        let has_piece = self.reply.as_mut().is_some_and(Reply::has_next_piece);
        let pieces = self.player.pieces.clone();
        tokio::select! {
            biased;
            command = self.commands.recv(), if self.finishing.is_none() => Next::Command(command),
            heard = self.heard.recv(), if !self.ear_ended => Next::Heard(heard),
            played = self.player.played.recv() => Next::Played(played),
            event = receive(&mut self.llm) => Next::Llm(event),
            next = receive_tts(&mut self.tts, wants_audio) => next,
            Some((ended, outcome)) = self.endings.next() => Next::Ended(ended, outcome),
            Ok(permit) = pieces.reserve_owned(), if has_piece => Next::Room(permit),
            () = sleep_until(self.deadline), if speaking => Next::Stalled,
        }
    }

    async fn take(&mut self, next: Next) {
        match next {
            Next::Heard(Some(heard)) => self.heard(heard).await,
            Next::Heard(None) => self.ear_ended = true,
            Next::Llm(Some(event)) => self.llm_event(&event).await,
            Next::Tts(Some(event)) => self.tts_event(&event).await,
            Next::Audio(Some(incoming)) => self.audio(incoming),
            Next::Llm(None) | Next::Tts(None) | Next::Audio(None) => self.lost_plugin().await,
            Next::Ended(ended, outcome) => self.ended(ended, outcome).await,
            Next::Room(permit) => self.play(permit),
            Next::Played(Some(played)) => self.played(played).await,
            Next::Played(None) => tracing::error!("the player has ended before the conversation"),
            Next::Command(Some(command)) => self.command(command).await,
            // The agent's handle is gone: nobody will ask for anything any more.
            Next::Command(None) => {
                self.interrupt(InterruptReason::Shutdown).await;
                self.finishing = Some(oneshot::channel().0);
            }
            Next::Stalled => self.stalled().await,
        }
    }

    async fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::TurnStarted { turn_id } => {
                self.user_speaks = true;
                self.summary.turns += 1;
                self.tell(Some(turn_id), UserTurnStartedEvent { source: TurnSource::TurnDetector }).await;
                if self.pace == Pace::RealTime && self.reply.is_some() {
                    self.interrupt(InterruptReason::UserSpeaking).await;
                }
                self.become_state(AgentState::Listening, "turn.started").await;
            }
            Heard::TurnEnded { turn_id, duration_ms, trailing_silence_ms } => {
                self.user_speaks = false;
                self.turn_end = Some(self.clock.now());
                let event = UserTurnEndedEvent { duration_ms, trailing_silence_ms, confirmed: true };
                self.tell(Some(turn_id), event).await;
                self.become_state(AgentState::Thinking, "turn.ended").await;
            }
            Heard::Utterance { turn_id, text, confidence, language, answered } => {
                let mut times = Times { turn_end: self.turn_end.take(), ..Times::default() };
                times.stt_final = Some(self.clock.now());
                let question =
                    Question { turn_id, text, modality: Modality::Voice, answered: Some(answered), times };
                self.ask(question, confidence, language).await;
            }
            Heard::Failed { turn_id, code, message } => {
                self.summary.failed += 1;
                self.error(Some(turn_id), ComponentKind::Stt, code, message).await;
                self.settle("stt.error").await;
            }
            Heard::Broken { code, message } => {
                self.broken = true;
                self.error(None, ComponentKind::Stt, code, message).await;
            }
            Heard::Ended => self.ear_ended = true,
        }
    }

    /// The user said or typed something.
    async fn ask(&mut self, question: Question, confidence: Option<f64>, language: Option<String>) {
        let text = question.text.trim().to_owned();
        if text.is_empty() {
            let event = AgentWarningEvent {
                message: "nothing was understood".into(),
                code: Some("empty_transcript".into()),
                component: Some(ComponentKind::Stt),
            };
            self.tell(Some(question.turn_id), event).await;
            self.settle("empty_transcript").await;
            return;
        }
        let message_id = self.remember(Role::User, &text, false);
        let event = UserTranscriptEvent {
            text: text.clone(),
            modality: question.modality,
            has_image: false,
            language,
            confidence,
            message_id: Some(message_id),
        };
        self.tell(Some(question.turn_id), event).await;
        self.history_changed(Some(question.turn_id)).await;
        self.queue.push_back(Queued::Answer(Question { text, ..question }));
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Text(text) => {
                if self.reply.is_some() {
                    self.interrupt(InterruptReason::NewInput).await;
                }
                let turn_id = TurnId(self.turns.fetch_add(1, Ordering::Relaxed) + 1);
                self.summary.turns += 1;
                let now = Some(self.clock.now());
                let times = Times { turn_end: now, stt_final: now, ..Times::default() };
                let question = Question { turn_id, text, modality: Modality::Text, answered: None, times };
                self.ask(question, None, None).await;
            }
            Command::Say(text) => self.queue.push_back(Queued::Say(text)),
            Command::Interrupt(reason) => {
                self.queue.clear();
                self.interrupt(reason).await;
            }
            Command::Finish(done) => self.finishing = Some(done),
        }
    }

    /// Does what can be done without waiting for anything new: begins the next reply, asks for syntheses, ends a reply.
    async fn advance(&mut self) {
        loop {
            if self.reply.is_none() {
                match self.queue.pop_front() {
                    Some(Queued::Answer(question)) => self.answer(question).await,
                    Some(Queued::Say(text)) => self.say(&text).await,
                    None => return,
                }
            }
            while let Some(next) = self.reply.as_mut().and_then(Reply::next_synthesis) {
                self.synthesise(next).await;
            }
            let Some(reply) = &mut self.reply else { continue };
            if reply.is_handed_out() && !reply.handed_out {
                reply.handed_out = true;
                if reply.has_chunks() {
                    let (turn_id, speech_id) = (reply.turn_id, reply.speech_id);
                    let event =
                        SpeechCompleteEvent { speech_id, streaming: true, interrupted: false, text: None };
                    self.tell(turn_id, event).await;
                }
            }
            if !self.reply.as_mut().is_some_and(Reply::is_over) {
                return;
            }
            self.end_reply(None).await;
        }
    }

    fn open_reply(&mut self, question: Option<Question>) -> &mut Reply {
        self.generations += 1;
        let now = self.clock.now();
        let (turn_id, transcript, modality, answered, times) = match question {
            Some(Question { turn_id, text, modality, answered, times }) => {
                (Some(turn_id), text, modality, answered, times)
            }
            None => (None, String::new(), Modality::Voice, None, Times::default()),
        };
        self.touch();
        self.reply.insert(Reply::new(Opening {
            generation: self.generations,
            turn_id,
            speech_id: SpeechId(self.clock.uuid(now)),
            request_id: self.clock.uuid(now).to_string(),
            transcript,
            modality,
            answered,
            times: Times { llm_start: Some(now), ..times },
        }))
    }

    async fn answer(&mut self, question: Question) {
        let turn_id = question.turn_id;
        self.become_state_in(Some(turn_id), AgentState::Thinking, "agent.user_transcript").await;
        let instructions = self.config.instructions.clone();
        let from = self.history.len().saturating_sub(self.config.max_messages);
        let messages = self.history[from..].to_vec();
        let timeout = self.timeout();
        let reply = self.open_reply(Some(question));
        let generation = reply.generation;
        let request =
            LlmRequest { request_id: reply.request_id.clone(), instructions, messages, eager: false };
        let Some((llm, _)) = &self.llm else {
            let message = "there is no language model to answer".into();
            self.fail_reply(ComponentKind::Llm, "no_provider", message).await;
            return;
        };
        match tokio::time::timeout(timeout, llm.respond(Some(turn_id), &request)).await {
            Ok(Ok(completion)) => {
                let reply = self.reply.as_mut().expect("opened above");
                reply.llm_token = Some(completion.token());
                self.endings
                    .push(Box::pin(async move { (Ended::Llm { generation }, completion.finished().await) }));
            }
            Ok(Err(error)) => self.fail_reply(ComponentKind::Llm, "llm", crate::plugins::chain(&error)).await,
            Err(_) => {
                self.fail_reply(ComponentKind::Llm, "llm", "the language model takes no requests".into())
                    .await;
            }
        }
    }

    async fn say(&mut self, text: &str) {
        self.open_reply(None);
        self.generated(text).await;
        self.generation_ended().await;
    }

    async fn llm_event(&mut self, event: &Arc<Envelope>) {
        let request = self.reply.as_ref().map(|reply| reply.request_id.clone());
        if let Some(delta) = event.payload_as::<LlmResponseDeltaEvent>() {
            if delta.item_id == request {
                self.generated(&delta.delta).await;
            }
        } else if let Some(error) = event.payload_as::<LlmErrorEvent>()
            && error.request_id == request
        {
            self.fail_reply(ComponentKind::Llm, "llm", error.error_message.clone()).await;
        }
    }

    async fn generated(&mut self, delta: &str) {
        self.touch();
        let now = self.clock.now();
        let clock = Arc::clone(&self.clock);
        let Some(reply) = &mut self.reply else { return };
        reply.times.llm_first_token.get_or_insert(now);
        let chunks = reply.text(delta, || clock.uuid(now));
        self.queue_chunks(chunks).await;
    }

    async fn generation_ended(&mut self) {
        let now = self.clock.now();
        let clock = Arc::clone(&self.clock);
        let Some(reply) = &mut self.reply else { return };
        reply.times.llm_complete.get_or_insert(now);
        let chunks = reply.text_ended(|| clock.uuid(now));
        self.queue_chunks(chunks).await;
    }

    async fn queue_chunks(&mut self, chunks: Vec<ToSynthesise>) {
        for ToSynthesise { chunk, text, .. } in chunks {
            let Some(reply) = &self.reply else { return };
            let (turn_id, speech_id) = (reply.turn_id, reply.speech_id);
            if chunk == 0 {
                self.tell(turn_id, SpeechStartEvent { speech_id, streaming: true, text: None }).await;
            }
            let event = TtsChunkQueuedEvent { chunk_id: chunk as u64, text, speech_id };
            let stamp = Stamp { turn_id, plugin: self.tts_base.clone(), ..Stamp::default() };
            if stamp.plugin.is_some() {
                self.tell_with(stamp, event).await;
            }
        }
    }

    async fn synthesise(&mut self, next: ToSynthesise) {
        let ToSynthesise { chunk, text, synthesis_id } = next;
        let timeout = self.timeout();
        let Some(reply) = &mut self.reply else { return };
        let Some((tts, _)) = &self.tts else {
            reply.synthesis_ended(chunk);
            return;
        };
        let (generation, turn_id) = (reply.generation, reply.turn_id);
        let request = TtsRequest { text, synthesis_id, speech_id: reply.speech_id, chunk_id: chunk as u64 };
        match tokio::time::timeout(timeout, tts.synthesize(turn_id, &request)).await {
            Ok(Ok(completion)) => {
                reply.synthesis_running(chunk, completion.token());
                let ended = Ended::Tts { generation, chunk };
                self.endings.push(Box::pin(async move { (ended, completion.finished().await) }));
            }
            Ok(Err(error)) => {
                reply.synthesis_ended(chunk);
                reply.failed = true;
                let message = crate::plugins::chain(&error);
                self.error(turn_id, ComponentKind::Tts, "tts", message).await;
            }
            Err(_) => {
                reply.synthesis_ended(chunk);
                reply.failed = true;
                self.error(turn_id, ComponentKind::Tts, "tts", "the synthesiser takes no requests".into())
                    .await;
            }
        }
    }

    async fn tts_event(&mut self, event: &Arc<Envelope>) {
        if let Some(words) = event.payload_as::<TtsWordsEvent>() {
            if let Some(reply) = &mut self.reply {
                reply.words(words.synthesis_id, words.words.clone());
            }
        } else if let Some(error) = event.payload_as::<TtsErrorEvent>() {
            let turn_id = event.base().turn_id;
            if let Some(reply) = &mut self.reply {
                reply.failed = true;
            }
            self.error(turn_id, ComponentKind::Tts, "tts", error.error_message.clone()).await;
        }
    }

    fn audio(&mut self, Incoming { token, audio }: Incoming) {
        self.touch();
        let now = self.clock.now();
        if let Some(reply) = &mut self.reply
            && reply.audio(token, audio)
        {
            reply.times.tts_first_audio.get_or_insert(now);
        }
    }

    async fn ended(&mut self, ended: Ended, outcome: Outcome) {
        self.touch();
        let current = self.reply.as_ref().map(|reply| reply.generation);
        match ended {
            Ended::Llm { generation } if Some(generation) == current => {
                // The plugin has emitted everything by now, and the sink has queued it.
                while let Some(event) = try_receive(&mut self.llm) {
                    self.llm_event(&event).await;
                }
                if self.reply.as_ref().is_some_and(|reply| reply.generation == generation) {
                    if outcome != Outcome::COMPLETED {
                        let message = "the language model ended without an answer".into();
                        self.fail_reply(ComponentKind::Llm, "llm", message).await;
                    } else {
                        self.generation_ended().await;
                    }
                }
            }
            Ended::Tts { generation, chunk } if Some(generation) == current => {
                while let Some(incoming) = try_receive_audio(&mut self.tts) {
                    self.audio(incoming);
                }
                while let Some(event) = try_receive(&mut self.tts) {
                    self.tts_event(&event).await;
                }
                if let Some(reply) = &mut self.reply {
                    reply.failed |= outcome != Outcome::COMPLETED;
                    reply.synthesis_ended(chunk);
                }
            }
            // Of a reply that was interrupted.
            Ended::Llm { .. } | Ended::Tts { .. } => {}
        }
    }

    fn play(&mut self, permit: mpsc::OwnedPermit<Piece>) {
        let Some(reply) = &mut self.reply else { return };
        if let Some((chunk, audio)) = reply.next_piece() {
            permit.send(Piece { generation: reply.generation, chunk, audio });
        }
    }

    async fn played(&mut self, played: Played) {
        match played {
            Played::Some { generation, chunk, duration, done } => {
                self.touch();
                let now = self.clock.now();
                let Some(reply) = self.reply.as_mut().filter(|reply| reply.generation == generation) else {
                    return;
                };
                let first_of_chunk = !reply.ledger.has_played(chunk);
                reply.played(chunk, duration, done);
                let (turn_id, speech_id, request_id) =
                    (reply.turn_id, reply.speech_id, reply.request_id.clone());
                let text = reply.chunk_text(chunk).to_owned();
                if !std::mem::replace(&mut reply.audible, true) {
                    reply.times.playback_start = Some(now);
                    self.tell(turn_id, AudioPlaybackStartEvent { speech_id: Some(speech_id) }).await;
                    self.tell(turn_id, AgentTurnStartedEvent { speech_id }).await;
                    self.become_state_in(turn_id, AgentState::Speaking, "audio.playback.start").await;
                }
                if first_of_chunk {
                    let event = transcript(text, TranscriptMode::Delta, request_id, Some(chunk), false);
                    self.tell(turn_id, event).await;
                }
            }
            Played::Failed(error) => {
                self.broken = true;
                let error_message = crate::plugins::chain(&error);
                let event = AudioPlaybackErrorEvent {
                    error: Some(ErrorInfo::from_error(&error, false)),
                    error_code: Some("output".into()),
                    context: None,
                    is_recoverable: false,
                    error_message: error_message.clone(),
                };
                self.tell(None, event).await;
                self.error(None, ComponentKind::Edge, "output", error_message).await;
            }
        }
    }

    /// The reply cannot go on. What of it was handed to synthesis is still spoken.
    async fn fail_reply(&mut self, component: ComponentKind, code: &str, message: String) {
        let Some(reply) = &mut self.reply else { return };
        if reply.failed && !reply.is_generating() {
            return;
        }
        reply.failed = true;
        let turn_id = reply.turn_id;
        self.error(turn_id, component, code, message).await;
        self.generation_ended().await;
    }

    async fn stalled(&mut self) {
        let turn_id = self.reply.as_ref().and_then(|reply| reply.turn_id);
        let message = format!("nothing happened in this turn for {} ms", self.config.turn_timeout_ms);
        self.error(turn_id, ComponentKind::Agent, "turn_stalled", message).await;
        if let Some(reply) = &mut self.reply {
            reply.failed = true;
        }
        self.interrupt(InterruptReason::Other("turn_stalled".into())).await;
    }

    /// A plugin's session ended by itself, which no plugin should do.
    async fn lost_plugin(&mut self) {
        let llm_gone = self.llm.as_ref().is_some_and(|(_, received)| received.events.is_closed());
        let (component, what) = if llm_gone {
            self.llm = None;
            (ComponentKind::Llm, "language model")
        } else {
            self.tts = None;
            (ComponentKind::Tts, "synthesiser")
        };
        self.broken = true;
        self.error(None, component, "plugin_gone", format!("the {what} has ended its session")).await;
        self.interrupt(InterruptReason::Other("plugin_gone".into())).await;
    }

    /// Stops the reply at once: no further audio leaves.
    async fn interrupt(&mut self, reason: InterruptReason) {
        let Some(reply) = &self.reply else { return };
        self.player.flush_before(reply.generation + 1);
        if let (Some((llm, _)), Some(token)) = (&self.llm, reply.llm_token) {
            llm.cancel(token);
        }
        if let Some((tts, _)) = &self.tts {
            reply.running_syntheses().into_iter().for_each(|token| tts.cancel(token));
        }
        self.end_reply(Some(reason)).await;
    }

    /// Says how the reply ended, and what of it was heard.
    async fn end_reply(&mut self, interrupted: Option<InterruptReason>) {
        let Some(mut reply) = self.reply.take() else { return };
        let now = self.clock.now();
        let (turn_id, speech_id) = (reply.turn_id, reply.speech_id);
        // Without a synthesiser the reply is text, and all of it arrived.
        let spoken =
            if self.tts.is_some() { reply.ledger.heard() } else { reply.generated.trim().to_owned() };
        let played = reply.ledger.played_total();
        let played_ms = played.as_secs_f64() * 1e3;
        let was_cut = interrupted.is_some();
        if let Some(reason) = &interrupted
            && reply.has_chunks()
        {
            let event = SpeechInterruptedEvent {
                speech_id,
                reason: reason.clone(),
                scope: InterruptScope::Response,
                spoken_text: Some(spoken.clone()),
                played_ms: Some(played_ms),
                discarded_bytes: None,
            };
            self.tell(turn_id, event).await;
        }
        if reply.audible {
            reply.times.playback_end = Some(now);
            let event = AudioPlaybackEndEvent { speech_id: Some(speech_id), played_ms: Some(played_ms) };
            self.tell(turn_id, event).await;
        }
        if !spoken.is_empty() {
            let event =
                transcript(spoken.clone(), TranscriptMode::Final, reply.request_id.clone(), None, was_cut);
            self.tell(turn_id, event).await;
            self.remember_as(reply.request_id.clone(), Role::Assistant, &spoken, was_cut);
        }
        if reply.audible {
            let event = AgentTurnEndedEvent {
                interrupted: was_cut,
                speech_id,
                reason: interrupted,
                generated_text: Some(reply.generated.clone()),
                spoken_text: Some(spoken.clone()),
                played_ms: Some(played_ms),
            };
            self.tell(turn_id, event).await;
        }
        if !spoken.is_empty() {
            self.history_changed(turn_id).await;
        }
        if turn_id.is_some() {
            let event = TurnMetricsEvent {
                transcript: reply.transcript.clone(),
                modality: reply.modality,
                eager_used: false,
                interrupted: was_cut,
                timestamps: reply.times.timestamps(now),
                durations: reply.times.durations(now),
                tool_time_ms: None,
            };
            self.tell(turn_id, event).await;
            if reply.failed {
                self.summary.failed += 1;
            } else {
                self.summary.answered += 1;
            }
        }
        self.summary.spoken_ms += played_ms;
        self.settle_in(turn_id, "agent.agent_turn_ended").await;
        drop(reply.answered.take());
    }

    async fn close(mut self) -> Summary {
        let player_errors = {
            let Self { player, .. } = &mut self;
            let ended = std::mem::replace(player, Player::start(Box::new(super::Discard), Pace::Fast));
            ended.finish().await
        };
        for error in player_errors {
            self.played(Played::Failed(error)).await;
        }
        let closing =
            [self.llm.as_ref().map(|(llm, _)| llm.close()), self.tts.as_ref().map(|(tts, _)| tts.close())];
        for completion in closing.into_iter().flatten() {
            if tokio::time::timeout(CLOSE_DEADLINE, completion.finished()).await.is_err() {
                tracing::warn!("a plugin did not close its session within {} s", CLOSE_DEADLINE.as_secs());
            }
        }
        if let Err(error) = (&mut self.ear).await {
            tracing::error!("listening failed: {error}");
        }
        self.become_state(AgentState::Idle, "finish").await;
        let reason = if self.broken { FinishReason::Error } else { FinishReason::Completed };
        self.tell(None, AgentFinishEvent { reason }).await;
        self.tell(None, SessionClosedEvent { reason: CloseReason::SdkRequest }).await;
        if let Some(done) = self.finishing.take() {
            // Whoever asked has stopped waiting: fine.
            let _ = done.send(());
        }
        self.summary
    }

    // ---- small things ----

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.config.turn_timeout_ms)
    }

    /// Something happened: the turn is not stalled.
    fn touch(&mut self) {
        self.deadline = Instant::now() + self.timeout();
    }

    fn remember(&mut self, role: Role, content: &str, interrupted: bool) -> String {
        let id = self.clock.uuid(self.clock.now()).to_string();
        self.remember_as(id.clone(), role, content, interrupted);
        id
    }

    fn remember_as(&mut self, id: String, role: Role, content: &str, interrupted: bool) {
        self.history.push(Message { id, role, content: content.to_owned(), interrupted });
    }

    async fn history_changed(&mut self, turn_id: Option<TurnId>) {
        let messages = self.history.clone();
        let last_message_id = messages.last().map(|message| message.id.clone());
        self.tell(turn_id, HistoryUpdatedEvent { messages, last_message_id }).await;
    }

    async fn error(
        &mut self,
        turn_id: Option<TurnId>,
        component: ComponentKind,
        code: &str,
        message: String,
    ) {
        let event = AgentErrorEvent {
            error: None,
            error_code: Some(code.into()),
            context: None,
            is_recoverable: true,
            error_message: message,
            component: Some(component),
            fatal: false,
        };
        self.tell(turn_id, event).await;
    }

    /// Nothing is being said: listening or ready.
    async fn settle(&mut self, cause: &str) {
        self.settle_in(None, cause).await;
    }

    async fn settle_in(&mut self, turn_id: Option<TurnId>, cause: &str) {
        if self.reply.is_none() {
            let state = if self.user_speaks { AgentState::Listening } else { AgentState::Ready };
            self.become_state_in(turn_id, state, cause).await;
        }
    }

    async fn become_state(&mut self, state: AgentState, cause: &str) {
        self.become_state_in(None, state, cause).await;
    }

    async fn become_state_in(&mut self, turn_id: Option<TurnId>, state: AgentState, cause: &str) {
        let previous_state = std::mem::replace(&mut self.state, state);
        if previous_state != state {
            let cause = Some(cause.to_owned());
            self.tell(turn_id, AgentStateChangedEvent { state, previous_state, cause }).await;
        }
    }

    async fn tell<T: EventPayload>(&self, turn_id: Option<TurnId>, event: T) {
        self.tell_with(Stamp::turn(turn_id), event).await;
    }

    async fn tell_with<T: EventPayload>(&self, stamp: Stamp, event: T) {
        let told = self.session.emit_wait_with(event, stamp);
        if tokio::time::timeout(PATIENCE, told).await.is_err() {
            tracing::warn!(event = T::NAME, "a subscriber has not made room for {} ms", PATIENCE.as_millis());
        }
    }
}

fn transcript(
    text: String,
    mode: TranscriptMode,
    message_id: String,
    chunk: Option<usize>,
    interrupted: bool,
) -> AgentTranscriptEvent {
    AgentTranscriptEvent {
        text,
        mode,
        message_id,
        content_index: chunk.map(|chunk| u32::try_from(chunk).unwrap_or(u32::MAX)),
        utterance_id: None,
        interrupted,
        end_of_speech: mode == TranscriptMode::Final,
        cue_tag: None,
        model: None,
    }
}

fn components(providers: &Providers) -> Vec<PluginRef> {
    let Providers { turn, stt, llm, tts } = providers;
    let kinds = [
        (turn, ComponentKind::TurnDetector),
        (stt, ComponentKind::Stt),
        (llm, ComponentKind::Llm),
        (tts, ComponentKind::Tts),
    ];
    let component = |(provider, kind): (&Option<Arc<PluginInstance>>, ComponentKind)| {
        let manifest = provider.as_ref()?.manifest();
        Some(PluginRef { name: manifest.name.clone(), version: manifest.version.clone(), kind })
    };
    kinds.into_iter().filter_map(component).collect()
}

async fn receive<S>(session: &mut Option<(S, Received)>) -> Option<Arc<Envelope>> {
    match session {
        Some((_, received)) => received.events.recv().await,
        None => std::future::pending().await,
    }
}

async fn receive_tts<S>(session: &mut Option<(S, Received)>, wants_audio: bool) -> Next {
    let Some((_, Received { events, audio })) = session else { return std::future::pending().await };
    tokio::select! {
        biased;
        event = events.recv() => Next::Tts(event),
        incoming = audio.recv(), if wants_audio => Next::Audio(incoming),
    }
}

fn try_receive<S>(session: &mut Option<(S, Received)>) -> Option<Arc<Envelope>> {
    session.as_mut()?.1.events.try_recv().ok()
}

fn try_receive_audio<S>(session: &mut Option<(S, Received)>) -> Option<Incoming> {
    session.as_mut()?.1.audio.try_recv().ok()
}
