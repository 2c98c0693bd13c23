//! A host whose plugins change, and the conversations on it. For one conversation, with plugins that stay, see
//! [`conversation`](crate::conversation).

use antiphon_host::{Agent, AgentConfig, Host, HostBuilder, Plugin, core::EventBus};
use serde_json::Value;
use tokio::time::timeout;

use crate::{HANG, built, conversation::Recorder, events::EventLog, plugins::PluginDir, process::Process};

/// A host in the test's own process, with every event on record.
#[derive(Debug)]
pub struct Hosted {
    /// The host.
    pub host: Host,
    recorder: Recorder,
    /// Kept, because what is loaded lies in it.
    plugins: PluginDir,
}

impl Hosted {
    /// Starts a host with the plugins of a directory; those that do not start are no failure.
    pub async fn start(plugins: &PluginDir, how: impl FnOnce(HostBuilder) -> HostBuilder) -> Self {
        let bus = EventBus::new();
        let recorder = Recorder::attach(&bus);
        let builder = Host::builder().plugin_dir(plugins.path()).cache_dir(built::cache()).bus(bus);
        Self { host: how(builder).start().await, recorder, plugins: plugins.clone() }
    }

    /// Begins a conversation.
    ///
    /// # Panics
    ///
    /// When a plugin refuses its session.
    pub async fn agent(&self, config: AgentConfig) -> Agent {
        self.host.agent().config(config).start().await.expect("its plugins take sessions")
    }

    /// Types a text and waits for the end of its turn: the events of that turn.
    ///
    /// # Panics
    ///
    /// When the turn does not end.
    pub async fn ask(&mut self, agent: &Agent, text: &str) -> EventLog {
        let session = agent.session_id().to_string();
        agent.send_text(text).await.expect("the agent takes text");
        let question = |event: &Value| {
            event["type"] == "agent.user_transcript" && event["session_id"] == session.as_str()
        };
        let turn_id = self.recorder.until(question, "a question").await["turn_id"].clone();
        self.end_of(agent, turn_id.as_u64().expect("a question has a turn")).await
    }

    /// Waits for the end of a turn: its events.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn end_of(&mut self, agent: &Agent, turn_id: u64) -> EventLog {
        let session = agent.session_id().to_string();
        let is_its = |event: &Value| event["session_id"] == session.as_str() && event["turn_id"] == turn_id;
        self.all(|event| event["type"] == "turn.metrics" && is_its(event), 1, "the end of a turn").await;
        EventLog(self.recorder.log.iter().filter(|event| is_its(event)).cloned().collect())
    }

    /// Waits until a plugin has come to a phase for the `nth` time, counted from 1.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn lifecycle(&mut self, plugin: &str, phase: &str, nth: usize) -> Value {
        let is_it = |event: &Value| {
            event["type"] == "plugin.lifecycle" && event["plugin_name"] == plugin && event["phase"] == phase
        };
        let what = format!("{plugin} {phase}, number {nth},");
        self.all(is_it, nth, &what).await.pop().expect("at least one was asked for")
    }

    /// Waits until so many events are such, from the beginning: those of the host and of a session come in no order.
    ///
    /// # Panics
    ///
    /// When they do not come.
    pub async fn all(&mut self, is_wanted: impl Fn(&Value) -> bool, count: usize, what: &str) -> Vec<Value> {
        loop {
            let found: Vec<Value> =
                self.recorder.log.iter().filter(|event| is_wanted(event)).cloned().collect();
            if found.len() >= count {
                return found.into_iter().take(count).collect();
            }
            self.recorder.until(&is_wanted, what).await;
        }
    }

    /// What has been waited past so far.
    pub fn so_far(&mut self) -> &EventLog {
        self.recorder.rest();
        &self.recorder.log
    }

    /// A plugin as it is now.
    ///
    /// # Panics
    ///
    /// When it was not found.
    #[must_use]
    #[track_caller]
    pub fn plugin(&self, name: &str) -> Plugin {
        let plugins = self.host.plugins();
        let found = plugins.iter().find(|plugin| plugin.name == name);
        found.unwrap_or_else(|| panic!("{name} is not among {plugins:?}")).clone()
    }

    /// The worker of a plugin.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn worker(&self, name: &str) -> Process {
        let plugin = self.plugin(name);
        Process::of(plugin.process_id.unwrap_or_else(|| panic!("it has no worker: {plugin:?}")))
    }

    /// Why a plugin does not run, or not as it should.
    #[must_use]
    #[track_caller]
    pub fn error(&self, name: &str) -> String {
        self.plugin(name).error.unwrap_or_default()
    }

    /// Ends the host: all events.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn stop(self) -> EventLog {
        let Self { host, mut recorder, plugins } = self;
        let ended = timeout(HANG, host.shutdown()).await;
        recorder.rest();
        drop(plugins);
        ended.unwrap_or_else(|_| panic!("the host does not end:\n{}", recorder.log));
        recorder.log
    }
}

/// Ends a conversation.
///
/// # Panics
///
/// When it does not end.
pub async fn finish(agent: Agent) {
    let ended = timeout(HANG, agent.finish()).await;
    ended.expect("the conversation ends").expect("it runs");
}
