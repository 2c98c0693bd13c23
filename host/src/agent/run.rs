//! The conversation's one loop: takes what was heard, generated, synthesised, played and asked for, and decides.
//!
//! Everything that happens goes through here, so that order is a matter of this one task. It never waits for a plugin
//! longer than the turn's timeout, nor for a stuck subscriber longer than the bus does. What a reply goes through is in `speak`.

mod speak;
mod tell;

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
    AudioChunk, Clock, PluginBaseEvent, SessionBus, TurnId,
    clock::Now,
    event::{
        Envelope,
        agent::{
            AgentFinishEvent, AgentReadyEvent, AgentWarningEvent, SpeechCompleteEvent, UserTranscriptEvent,
            UserTurnEndedEvent, UserTurnStartedEvent,
        },
        plugin::ProviderFallbackEvent,
        session::{SessionClosedEvent, SessionReadyEvent},
        values::{
            AgentState, CloseReason, ComponentKind, FinishReason, InterruptReason, Message, Modality,
            PluginRef, Role, TurnSource,
        },
    },
};
use antiphon_plugin_api::abi::Outcome;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    AgentConfig, AgentError, AudioOutput, Chosen, Command, Pace, Providers, Summary,
    ear::{Ear, Heard},
    mouth::{Reply, Times},
    output::{Piece, Played, Player},
    stage::{Open, Stage, link},
};
use crate::plugins::{Incoming, LlmSession, PluginInstance, Received, TtsSession};

/// How long a plugin may take to close its session.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Messages from the ear that may wait.
const HEARD_CAPACITY: usize = 16;

/// What may wait to be answered or said.
const QUEUE_CAPACITY: usize = 64;

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
    Answer(Box<Question>),
    Say(String),
}

pub(super) struct Conversation {
    session: SessionBus,
    clock: Arc<dyn Clock>,
    config: AgentConfig,
    pace: Pace,
    components: Vec<PluginRef>,
    /// Who stands in from the beginning; told once.
    stand_ins: Vec<ProviderFallbackEvent>,
    heard: mpsc::Receiver<Heard>,
    ear: JoinHandle<()>,
    llm: Option<Stage<LlmSession>>,
    tts: Option<Stage<TtsSession>>,
    /// None once it was told to finish.
    player: Option<Player>,
    commands: mpsc::Receiver<Command>,
    turns: Arc<AtomicU64>,
    endings: FuturesUnordered<Ending>,
    state: AgentState,
    generations: u64,
    reply: Option<Reply>,
    queue: VecDeque<Queued>,
    history: Vec<Message>,
    turn_end: Option<Now>,
    user_speaks: bool,
    deadline: Instant,
    ear_ended: bool,
    commands_ended: bool,
    finishing: Option<oneshot::Sender<()>>,
    broken: bool,
    summary: Summary,
}

impl Conversation {
    pub(super) fn open(
        session: SessionBus,
        config: AgentConfig,
        pace: Pace,
        providers: Providers,
        output: Box<dyn AudioOutput>,
        audio: mpsc::Receiver<Option<AudioChunk>>,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, AgentError> {
        let Providers { turn, stt, llm, tts } = providers;
        let turn = stage(turn, &session, PluginInstance::open_turn)?;
        let stt = stage(stt, &session, PluginInstance::open_stt)?;
        let llm = stage(llm, &session, PluginInstance::open_llm)?;
        let tts = stage(tts, &session, PluginInstance::open_tts)?;
        let components = [
            turn.as_ref().map(Stage::component),
            stt.as_ref().map(Stage::component),
            llm.as_ref().map(Stage::component),
            tts.as_ref().map(Stage::component),
        ];
        let stand_ins = [
            turn.as_ref().and_then(Stage::stand_in),
            stt.as_ref().and_then(Stage::stand_in),
            llm.as_ref().and_then(Stage::stand_in),
            tts.as_ref().and_then(Stage::stand_in),
        ];
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
            components: components.into_iter().flatten().collect(),
            stand_ins: stand_ins.into_iter().flatten().collect(),
            heard,
            ear: tokio::spawn(ear.run()),
            llm,
            tts,
            player: Some(Player::start(output, pace)),
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
            commands_ended: false,
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
        for stand_in in std::mem::take(&mut self.stand_ins) {
            self.tell(None, stand_in).await;
        }
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
        let player = self.player.as_mut().expect("taken in `close`, after the loop");
        let pieces = player.pieces.clone();
        tokio::select! {
            biased;
            command = self.commands.recv(), if !self.commands_ended => Next::Command(command),
            heard = self.heard.recv(), if !self.ear_ended => Next::Heard(heard),
            played = player.played.recv() => Next::Played(played),
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
            Next::Played(None) => self.lost_player().await,
            Next::Command(Some(command)) => self.command(command).await,
            // The agent's handle is gone: nobody will ask for anything any more.
            Next::Command(None) => {
                self.commands_ended = true;
                self.queue.clear();
                self.interrupt(InterruptReason::Shutdown).await;
                self.finishing.get_or_insert_with(|| oneshot::channel().0);
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
            Heard::Broken { component, code, message, lasting } => {
                self.broken |= lasting;
                self.error(None, component, code, message).await;
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
        self.enqueue(Queued::Answer(Box::new(Question { text, ..question }))).await;
    }

    async fn enqueue(&mut self, queued: Queued) {
        if self.queue.len() < QUEUE_CAPACITY {
            self.queue.push_back(queued);
            return;
        }
        let event = AgentWarningEvent {
            message: format!("{QUEUE_CAPACITY} inputs wait already; this one is dropped"),
            code: Some("queue_full".into()),
            component: Some(ComponentKind::Agent),
        };
        self.tell(None, event).await;
    }

    async fn command(&mut self, command: Command) {
        match command {
            // Too late for anything new.
            Command::Text(_) | Command::Say(_) if self.finishing.is_some() => {}
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
            Command::Say(text) => self.enqueue(Queued::Say(text)).await,
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
                    Some(Queued::Answer(question)) => self.answer(*question).await,
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
}

impl Conversation {
    async fn close(mut self) -> Summary {
        let player = self.player.take().expect("taken here alone");
        for error in player.finish().await {
            self.played(Played::Failed(error)).await;
        }
        let llm = self.llm.as_ref().and_then(|stage| stage.link.as_ref());
        let tts = self.tts.as_ref().and_then(|stage| stage.link.as_ref());
        let closing = [llm.map(|(llm, _)| llm.close()), tts.map(|(tts, _)| tts.close())];
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
}

fn stage<S>(
    chosen: Option<Chosen>,
    session: &SessionBus,
    open: Open<S>,
) -> Result<Option<Stage<S>>, AgentError> {
    let Some((provider, instance)) = chosen else { return Ok(None) };
    let plugin = instance.manifest().name.clone();
    let stage = Stage::open(provider, instance, session, open);
    stage.map(Some).map_err(|source| AgentError::Open { plugin, source })
}

async fn receive<S>(stage: &mut Option<Stage<S>>) -> Option<Arc<Envelope>> {
    match link(stage) {
        Some((_, received)) => received.events.recv().await,
        None => std::future::pending().await,
    }
}

async fn receive_tts<S>(stage: &mut Option<Stage<S>>, wants_audio: bool) -> Next {
    let Some((_, Received { events, audio })) = link(stage) else { return std::future::pending().await };
    tokio::select! {
        biased;
        event = events.recv() => Next::Tts(event),
        incoming = audio.recv(), if wants_audio => Next::Audio(incoming),
    }
}
