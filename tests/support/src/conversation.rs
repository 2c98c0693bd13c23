//! An agent in the test's own process, with every event of its host on record.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use antiphon_host::{
    Agent, AgentConfig, AudioOutput, Host, OutputError, Pace, PluginState,
    agent::Summary,
    core::{AudioChunk, BaseEvent, Event, EventBus, Subscription, event::Overflow},
    media::{AudioSource, RawFormat},
};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use crate::{HANG, built, events::EventLog, plugins::PluginDir};

/// A conversation in the making.
#[must_use = "nothing happens before `start`"]
pub struct Setup {
    plugins: PluginDir,
    settings: Vec<(String, String, Value)>,
    config: AgentConfig,
    pace: Pace,
    output: Option<Box<dyn AudioOutput>>,
    bus: EventBus,
}

/// A conversation that is going on.
#[derive(Debug)]
pub struct Conversation {
    /// What it runs on.
    pub host: Host,
    /// Who answers.
    pub agent: Agent,
    recorder: Recorder,
    spoken: Spoken,
    /// Kept, because what is loaded lies in it.
    _plugins: PluginDir,
}

/// What a conversation came to.
#[derive(Debug)]
pub struct Finished {
    /// Every event of the host and of the session.
    pub events: EventLog,
    /// What the agent counted.
    pub summary: Summary,
    /// What was played.
    pub spoken: Vec<AudioChunk>,
}

impl Setup {
    /// A conversation with these plugins, at the pace of the machine. Needs a tokio runtime.
    pub fn with(plugins: PluginDir) -> Self {
        let (config, pace) = (AgentConfig::default(), Pace::Fast);
        Self { plugins, settings: Vec::new(), config, pace, output: None, bus: EventBus::new() }
    }

    /// Sets a setting of a plugin.
    pub fn set(mut self, plugin: &str, key: &str, value: impl Into<Value>) -> Self {
        self.settings.push((plugin.to_owned(), key.to_owned(), value.into()));
        self
    }

    /// How the conversation is held.
    pub fn config(mut self, config: AgentConfig) -> Self {
        self.config = config;
        self
    }

    /// As time passes.
    pub fn in_real_time(mut self) -> Self {
        self.pace = Pace::RealTime;
        self
    }

    /// Where the voice goes. Default: into [`Finished::spoken`].
    pub fn output(mut self, output: impl AudioOutput + 'static) -> Self {
        self.output = Some(Box::new(output));
        self
    }

    /// The bus, for subscriptions of the test's own.
    #[must_use]
    pub fn bus(&self) -> &EventBus {
        &self.bus
    }

    /// Starts the plugins and the agent.
    ///
    /// # Panics
    ///
    /// When a plugin or the agent does not start.
    #[track_caller]
    pub fn start(self) -> impl Future<Output = Conversation> {
        let caller = std::panic::Location::caller();
        async move {
            let Self { plugins, settings, config, pace, output, bus } = self;
            let recorder = Recorder::attach(&bus);
            let mut host = Host::builder().plugin_dir(plugins.path()).cache_dir(built::cache()).bus(bus);
            // As the program does: all tests can be run with plugins in processes of their own.
            for plugin in std::env::var("ANTIPHON_ISOLATE").iter().flat_map(|list| list.split(',')) {
                host = host.isolate(plugin);
            }
            for (plugin, key, value) in settings {
                host = host.set(plugin, key, value);
            }
            let host = host.start().await;
            // Said at once, and not by whatever does not happen later.
            for plugin in host.plugins() {
                let error = plugin.error.as_deref().unwrap_or("it does not run");
                assert!(plugin.state == PluginState::Ready, "{caller}: {}: {error}", plugin.name);
            }
            let spoken = Spoken::default();
            let output = output.unwrap_or_else(|| Box::new(spoken.clone()));
            let agent = host.agent().config(config).pace(pace).output(Boxed(output)).start().await;
            let agent = agent.unwrap_or_else(|error| panic!("{caller}: {error}"));
            Conversation { host, agent, recorder, spoken, _plugins: plugins }
        }
    }
}

impl Conversation {
    /// Waits for the next event of a type that has not been waited past.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub async fn until(&mut self, event_type: &str) -> Value {
        self.until_one(|event| event["type"] == event_type, event_type).await
    }

    /// Waits for the next event that `is_wanted`.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub async fn until_one(&mut self, is_wanted: impl Fn(&Value) -> bool, what: &str) -> Value {
        self.recorder.until(is_wanted, what).await
    }

    /// Types a text and waits for the end of its turn: the events of that turn.
    ///
    /// # Panics
    ///
    /// When the turn does not end.
    pub async fn ask(&mut self, text: &str) -> EventLog {
        self.agent.send_text(text).await.expect("the agent takes text");
        let transcript = self.until_one(|event| event["type"] == "agent.user_transcript", "a question").await;
        let turn_id = transcript["turn_id"].as_u64().expect("a question has a turn");
        self.until_one(|event| event["type"] == "turn.metrics" && event["turn_id"] == turn_id, "its end")
            .await;
        self.recorder.log.turn(turn_id)
    }

    /// Plays a recording to the agent.
    ///
    /// # Panics
    ///
    /// When it cannot be read, or the agent has ended.
    pub async fn play(&self, recording: &Path) {
        let mut source = AudioSource::open(recording, RawFormat::default()).expect("a recording");
        while let Some(samples) = source.next_chunk().expect("a recording") {
            self.agent.push_audio(AudioChunk::mono(samples)).await.expect("the agent listens");
        }
    }

    /// Everything that was waited past so far.
    #[must_use]
    pub fn so_far(&self) -> &EventLog {
        &self.recorder.log
    }

    /// Ends it.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn finish(self) -> Finished {
        let Self { host, agent, mut recorder, spoken, _plugins } = self;
        let ending = async {
            let summary = agent.finish().await;
            host.shutdown().await;
            summary
        };
        let ended = timeout(HANG, ending).await;
        recorder.rest();
        let summary = ended.unwrap_or_else(|_| panic!("the conversation does not end:\n{}", recorder.log));
        let summary = summary.unwrap_or_else(|error| panic!("{error}:\n{}", recorder.log));
        Finished { events: recorder.log, summary, spoken: spoken.take() }
    }
}

impl Finished {
    /// Milliseconds that were played.
    #[must_use]
    pub fn spoken_ms(&self) -> f64 {
        self.spoken.iter().map(|audio| audio.duration().as_secs_f64() * 1e3).sum()
    }
}

/// Every event of a bus.
#[derive(Debug)]
pub struct Recorder {
    events: mpsc::UnboundedReceiver<Value>,
    /// What was received so far.
    pub log: EventLog,
    _subscription: Subscription,
}

impl Recorder {
    /// Begins to record. Unbounded: what a test wants to see must not depend on when it looks.
    #[must_use]
    pub fn attach(bus: &EventBus) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let subscription = bus.subscription().name("recorder").overflow(Overflow::Wait).subscribe_with(
            Arc::new(sender),
            async |sender: Arc<mpsc::UnboundedSender<Value>>, event: Event<BaseEvent>| {
                // The test is over.
                let _ = sender.send(event.to_json());
            },
        );
        Self { events, log: EventLog::default(), _subscription: subscription }
    }

    /// Waits for the next event that `is_wanted`.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub async fn until(&mut self, is_wanted: impl Fn(&Value) -> bool, what: &str) -> Value {
        loop {
            let event = timeout(HANG, self.events.recv()).await.ok().flatten();
            let Some(event) = event else { panic!("{what} did not come:\n{}", self.log) };
            self.log.0.push(event.clone());
            if is_wanted(&event) {
                return event;
            }
        }
    }

    /// Takes what has been recorded by now.
    pub fn rest(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.log.0.push(event);
        }
    }
}

/// An output whose kind is known only when it runs.
struct Boxed(Box<dyn AudioOutput>);

impl AudioOutput for Boxed {
    fn play(&mut self, audio: &AudioChunk) -> Result<(), OutputError> {
        self.0.play(audio)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        self.0.finish()
    }
}

/// An output that keeps what it is given.
#[derive(Debug, Clone, Default)]
struct Spoken(Arc<Mutex<Vec<AudioChunk>>>);

impl Spoken {
    fn take(&self) -> Vec<AudioChunk> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AudioOutput for Spoken {
    fn play(&mut self, audio: &AudioChunk) -> Result<(), OutputError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(audio.clone());
        Ok(())
    }
}
