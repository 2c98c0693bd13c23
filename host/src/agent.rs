//! One conversation: hears, thinks and speaks, through plugins.
//!
//! `audio in -> turn detector -> STT -> LLM -> sentence chunker -> TTS -> playback ledger -> audio out`. Listening
//! (`ear`) and speaking (`mouth`) run beside each other; all stages of a reply overlap: the first sentence is spoken
//! while the second is generated.

mod chunker;
mod ear;
mod ledger;
mod mouth;
mod output;
mod run;
mod stage;

use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::{AudioChunk, SessionBus, SessionId, event::values::InterruptReason};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

pub use self::output::{AudioOutput, Discard, OutputError};
use crate::{
    Host, Kind, NoProvider,
    host::HANDLERS_DEADLINE,
    plugins::{PluginInstance, PluginSessionError, Provider},
};

/// How a conversation is held.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Turn detection plugin; default: the one of the highest rank.
    pub turn: Option<String>,
    /// Speech-to-text plugin; default: the one of the highest rank.
    pub stt: Option<String>,
    /// Language model plugin; default: the one of the highest rank.
    pub llm: Option<String>,
    /// Text-to-speech plugin; default: the one of the highest rank.
    pub tts: Option<String>,
    /// Plugins that stand in while the ones above are down.
    pub fallback: Fallback,
    /// What the language model is told to be.
    pub instructions: String,
    /// Audio before the detected start of a turn that the recogniser gets too, in milliseconds.
    #[schemars(range(max = 5000))]
    pub pre_roll_ms: u64,
    /// Time without any progress after which a turn is given up, in milliseconds.
    #[schemars(range(min = 100))]
    pub turn_timeout_ms: u64,
    /// Messages of the history that the language model gets.
    #[schemars(range(min = 1))]
    pub max_messages: usize,
}

/// Plugins that stand in: from when the chosen one is down until it runs again. Default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fallback {
    /// For turn detection.
    pub turn: Option<String>,
    /// For speech to text.
    pub stt: Option<String>,
    /// For the language model.
    pub llm: Option<String>,
    /// For text to speech.
    pub tts: Option<String>,
}

impl Fallback {
    fn provider(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Turn => self.turn.as_deref(),
            Kind::Stt => self.stt.as_deref(),
            Kind::Llm => self.llm.as_deref(),
            Kind::Tts => self.tts.as_deref(),
            Kind::Vision => None,
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            turn: None,
            stt: None,
            llm: None,
            tts: None,
            fallback: Fallback::default(),
            instructions: "You are a helpful voice assistant. Answer in one or two short sentences.".into(),
            // A turn is noticed 200 ms after it began; the rest is for soft beginnings.
            pre_roll_ms: 500,
            turn_timeout_ms: 30_000,
            // As VoiceAgent's default.
            max_messages: 100,
        }
    }
}

impl AgentConfig {
    fn provider(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Turn => self.turn.as_deref(),
            Kind::Stt => self.stt.as_deref(),
            Kind::Llm => self.llm.as_deref(),
            Kind::Tts => self.tts.as_deref(),
            Kind::Vision => None,
        }
    }
}

/// How fast audio goes in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// As fast as the plugins can: for recordings. The agent answers each turn to its end before it hears on, as
    /// when the user waits politely, and what it says counts as heard at once.
    #[default]
    Fast,
    /// As time passes: audio is played at its speed, and a user who speaks meanwhile interrupts.
    RealTime,
}

/// Why an agent cannot be started or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// No plugin does a kind of work.
    #[error(transparent)]
    NoProvider(#[from] NoProvider),
    /// A plugin did not open its session.
    #[error("{plugin} did not open its session")]
    Open {
        /// The plugin.
        plugin: String,
        /// Why.
        source: PluginSessionError,
    },
    /// The agent has ended.
    #[error("the agent has ended")]
    Ended,
}

/// An agent in the making.
#[must_use = "a builder does nothing until `start`"]
pub struct AgentBuilder<'a> {
    host: &'a Host,
    config: AgentConfig,
    pace: Pace,
    output: Box<dyn AudioOutput>,
}

/// A running agent: one conversation, one session.
#[derive(Debug)]
pub struct Agent {
    session: SessionBus,
    commands: mpsc::Sender<Command>,
    audio: mpsc::Sender<Option<AudioChunk>>,
    missing: Vec<NoProvider>,
    /// None once its end was waited for.
    task: Mutex<Option<JoinHandle<Summary>>>,
}

/// What a conversation came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Turns of the user.
    pub turns: u64,
    /// Turns that were answered to the end or to an interruption.
    pub answered: u64,
    /// Turns that failed.
    pub failed: u64,
    /// Milliseconds of speech that were played.
    pub spoken_ms: f64,
}

enum Command {
    Text(String),
    Say(String),
    Interrupt(InterruptReason),
    Finish(oneshot::Sender<()>),
}

/// Chunks of audio that may wait to be heard: five seconds.
const AUDIO_CAPACITY: usize = 250;

/// Commands that may wait.
const COMMAND_CAPACITY: usize = 16;

/// The plugins of an agent; stages without one are passed over.
#[derive(Debug, Clone, Default)]
struct Providers {
    turn: Option<Chosen>,
    stt: Option<Chosen>,
    llm: Option<Chosen>,
    tts: Option<Chosen>,
}

/// A plugin that runs, and who takes its place when it does not any more.
type Chosen = (Provider, Arc<PluginInstance>);

impl<'a> AgentBuilder<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host, config: AgentConfig::default(), pace: Pace::default(), output: Box::new(Discard) }
    }

    /// How the conversation is held.
    pub fn config(mut self, config: AgentConfig) -> Self {
        self.config = config;
        self
    }

    /// How fast audio goes in and out. Default: [`Pace::Fast`].
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Where the agent's voice goes. Default: nowhere.
    pub fn output(mut self, output: impl AudioOutput + 'static) -> Self {
        self.output = Box::new(output);
        self
    }

    /// Opens the session and its plugins. A stage without a plugin does not keep the agent from starting:
    /// [`Agent::missing`] lists it.
    ///
    /// # Errors
    ///
    /// A plugin refuses its session.
    pub async fn start(self) -> Result<Agent, AgentError> {
        let Self { host, config, pace, output } = self;
        let mut missing = Vec::new();
        let mut find = |kind: Kind| {
            let (wanted, fallback) = (config.provider(kind), config.fallback.provider(kind));
            let stand_in = || fallback.and_then(|name| host.provider(kind, Some(name)).ok());
            match (host.provider(kind, wanted), stand_in) {
                (Ok(instance), _) => {
                    let chosen = wanted.unwrap_or(&instance.manifest().name);
                    Some((Provider::new(host.registry(), kind, chosen, fallback), instance))
                }
                (Err(error), stand_in) => match (wanted, stand_in()) {
                    // It may still come; until then its stand-in does the work.
                    (Some(chosen), Some(instance)) => {
                        Some((Provider::new(host.registry(), kind, chosen, fallback), instance))
                    }
                    (None, Some(instance)) => {
                        let chosen = &instance.manifest().name;
                        Some((Provider::new(host.registry(), kind, chosen, None), instance))
                    }
                    (_, None) => {
                        missing.push(error);
                        None
                    }
                },
            }
        };
        let (turn, stt, llm, tts) = (find(Kind::Turn), find(Kind::Stt), find(Kind::Llm), find(Kind::Tts));
        let providers = Providers { turn, stt, llm, tts };
        let session = host.bus().open_session();
        let (commands, command_receiver) = mpsc::channel(COMMAND_CAPACITY);
        let (audio, audio_receiver) = mpsc::channel(AUDIO_CAPACITY);
        let conversation = run::Conversation::open(
            session.clone(),
            config,
            pace,
            providers,
            output,
            audio_receiver,
            command_receiver,
        )?;
        let task = tokio::spawn(conversation.run());
        Ok(Agent { session, commands, audio, missing, task: Mutex::new(Some(task)) })
    }
}

impl Agent {
    /// Id of the session.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.session.id()
    }

    /// The session: its events, for subscriptions that end with it. Its first events may be out by now; subscribe on the
    /// host's bus before the start to see them all.
    #[must_use]
    pub fn session(&self) -> &SessionBus {
        &self.session
    }

    /// The stages that have no plugin, and why.
    #[must_use]
    pub fn missing(&self) -> &[NoProvider] {
        &self.missing
    }

    /// Gives the agent the user's next audio: one channel, 16 kHz, without gaps. Waits while the agent has enough.
    ///
    /// # Errors
    ///
    /// [`AgentError::Ended`].
    pub async fn push_audio(&self, audio: AudioChunk) -> Result<(), AgentError> {
        self.audio.send(Some(audio)).await.map_err(|_| AgentError::Ended)
    }

    /// Says that no more audio will come; a turn that is still open ends.
    ///
    /// # Errors
    ///
    /// [`AgentError::Ended`].
    pub async fn end_audio(&self) -> Result<(), AgentError> {
        self.audio.send(None).await.map_err(|_| AgentError::Ended)
    }

    /// Typed input: interrupts and is answered as if it were spoken.
    ///
    /// # Errors
    ///
    /// [`AgentError::Ended`].
    pub async fn send_text(&self, text: impl Into<String>) -> Result<(), AgentError> {
        self.commands.send(Command::Text(text.into())).await.map_err(|_| AgentError::Ended)
    }

    /// Says a text as it is, after what is being said.
    ///
    /// # Errors
    ///
    /// [`AgentError::Ended`].
    pub async fn say(&self, text: impl Into<String>) -> Result<(), AgentError> {
        self.commands.send(Command::Say(text.into())).await.map_err(|_| AgentError::Ended)
    }

    /// Stops what is being said.
    ///
    /// # Errors
    ///
    /// [`AgentError::Ended`].
    pub async fn interrupt(&self, reason: InterruptReason) -> Result<(), AgentError> {
        self.commands.send(Command::Interrupt(reason)).await.map_err(|_| AgentError::Ended)
    }

    /// Lets the turns that have begun come to their end, then ends the session and its plugins' sessions. Meanwhile the
    /// agent can be interrupted, which makes its end come sooner.
    ///
    /// # Errors
    ///
    /// [`AgentError::Ended`] when it had ended by itself, after a failure that its events tell of, or was finished before.
    ///
    /// # Cancel safety
    ///
    /// The agent ends all the same; its summary is lost.
    pub async fn finish(&self) -> Result<Summary, AgentError> {
        // The audio that waits is heard first; an agent that is gone says so below.
        let _ = self.audio.send(None).await;
        let (done, finished) = oneshot::channel();
        let _ = self.commands.send(Command::Finish(done)).await;
        let _ = finished.await;
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let summary = task.ok_or(AgentError::Ended)?.await.map_err(|_| AgentError::Ended)?;
        if tokio::time::timeout(HANDLERS_DEADLINE, self.session.close()).await.is_err() {
            tracing::warn!("a handler of the session did not end within {} s", HANDLERS_DEADLINE.as_secs());
        }
        Ok(summary)
    }
}
