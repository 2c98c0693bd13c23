//! Plugins: found in directories, opened, checked, started, and given out to sessions by what they can do.

mod instance;
mod session;
mod settings;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use antiphon_core::{
    EventBus, PluginBaseEvent,
    event::{Stamp, plugin::PluginLifecycleEvent, values::ErrorInfo},
};
use antiphon_plugin_api::PluginManifest;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub use antiphon_core::event::values::PluginState;

pub use self::{
    instance::PluginInstance,
    session::{
        Completion, Incoming, LlmSession, PluginSessionError, Received, SttSession, TtsSession, TurnSession,
        VisionSession,
    },
    settings::{SettingsError, SettingsProblem},
};
use crate::{
    loader::Library,
    scan::{Outcome, Scanned, Scanner},
};

/// What a plugin can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Turn detection.
    Turn,
    /// Speech to text.
    Stt,
    /// Language model.
    Llm,
    /// Text to speech.
    Tts,
    /// Vision.
    Vision,
}

impl Kind {
    /// All kinds, in the order of a conversation.
    pub const ALL: [Self; 5] = [Self::Turn, Self::Stt, Self::Llm, Self::Tts, Self::Vision];

    /// Its name in manifests and settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Stt => "stt",
            Self::Llm => "llm",
            Self::Tts => "tts",
            Self::Vision => "vision",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One plugin file that was found.
#[derive(Debug)]
pub struct Plugin {
    /// Name by its manifest; by its file, where that cannot be read.
    pub name: String,
    /// Where it was found.
    pub path: PathBuf,
    /// How far it has come.
    pub state: PluginState,
    /// Why it cannot be used, and what to do.
    pub error: Option<String>,
    /// What it declares.
    pub manifest: Option<PluginManifest>,
    /// SHA-256 of its library in hexadecimal digits, where it was opened.
    pub sha256: Option<String>,
    library: Option<Arc<Library>>,
    instance: Option<Arc<PluginInstance>>,
}

impl Plugin {
    /// The running plugin.
    #[must_use]
    pub fn instance(&self) -> Option<&Arc<PluginInstance>> {
        self.instance.as_ref()
    }

    fn failed(path: &Path, name: String, error: String) -> Self {
        let path = path.to_owned();
        Self {
            name,
            path,
            state: PluginState::Failed,
            error: Some(error),
            manifest: None,
            sha256: None,
            library: None,
            instance: None,
        }
    }

    fn fail(&mut self, error: String) {
        self.state = PluginState::Failed;
        self.error = Some(error);
    }

    /// Version by its manifest.
    #[must_use]
    pub fn version(&self) -> &str {
        self.manifest.as_ref().map_or("", |manifest| &manifest.version)
    }

    fn base(&self) -> Arc<PluginBaseEvent> {
        let (plugin_name, plugin_version) = (self.name.as_str().into(), self.version().into());
        Arc::new(PluginBaseEvent { plugin_name, plugin_version, plugin_instance: None })
    }
}

/// Why a plugin that its user has switched off is stopped.
const DISABLED: &str = "is disabled in the configuration";

/// Has every library of the directories scanned, in their order, and opens those that are accepted. Files that are no
/// plugins, and second plugins of one name, are in the list with the reason. Blocks.
#[must_use]
pub fn load(scanner: &Scanner, directories: &[PathBuf], disabled: &[String]) -> Vec<Plugin> {
    let mut plugins: Vec<Plugin> = Vec::new();
    for scanned in scanner.scan(directories) {
        let is_accepted = matches!(scanned.outcome, Outcome::Accepted { .. });
        let mut twins = plugins.iter().filter(|other| is_accepted && other.manifest.is_some());
        let plugin = match twins.find(|other| other.name == scanned.name) {
            Some(other) => {
                let text =
                    format!("a plugin named {} was already found: {}", other.name, other.path.display());
                Plugin::failed(&scanned.path, scanned.name, text)
            }
            None => load_one(scanned, disabled),
        };
        plugins.push(plugin);
    }
    plugins
}

/// Has one library scanned, and opens it if it is accepted. Blocks.
#[must_use]
pub fn load_file(scanner: &Scanner, path: &Path) -> Plugin {
    load_one(scanner.scan_file(path), &[])
}

fn load_one(scanned: Scanned, disabled: &[String]) -> Plugin {
    let Scanned { path, name, outcome } = scanned;
    let (library, sha256) = match outcome {
        Outcome::Accepted { library, sha256, .. } => (library, sha256),
        Outcome::Refused { state, reason } => return Plugin { state, ..Plugin::failed(&path, name, reason) },
    };
    let is_disabled = disabled.contains(&name);
    match Library::open(&library) {
        Ok(library) => Plugin {
            name: library.manifest().name.clone(),
            path,
            state: if is_disabled { PluginState::Stopped } else { PluginState::Loaded },
            error: is_disabled.then(|| DISABLED.to_owned()),
            manifest: Some(library.manifest().clone()),
            sha256: Some(sha256),
            library: Some(Arc::new(library)),
            instance: None,
        },
        Err(error) => Plugin::failed(&path, name, chain(&error)),
    }
}

/// Time that a plugin may take to start. Models are loaded when they are first used, so most take milliseconds.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Makes the plugins' event types known, checks the settings, and starts each plugin on a thread of its own.
pub(crate) async fn start(
    plugins: &mut [Plugin],
    bus: &EventBus,
    settings: &BTreeMap<String, Map<String, Value>>,
) {
    let none = Map::new();
    let mut starting = Vec::new();
    for (index, plugin) in plugins.iter_mut().enumerate() {
        let (Some(library), PluginState::Loaded) = (&plugin.library, plugin.state) else {
            announce(bus, plugin);
            continue;
        };
        let own = settings.get(&plugin.name).unwrap_or(&none);
        if let Err(error) = settings::check(&plugin.name, &library.manifest().settings, own) {
            plugin.fail(chain(&error));
            announce(bus, plugin);
            continue;
        }
        announce(bus, plugin);
        starting.push((index, start_one(Arc::clone(library), bus.clone(), own.clone())));
    }
    let deadline = Instant::now() + START_DEADLINE;
    for (index, outcome) in starting {
        let plugin = &mut plugins[index];
        match timeout_at(deadline, outcome).await {
            Ok(Ok(Ok(instance))) => {
                plugin.state = PluginState::Ready;
                plugin.instance = Some(instance);
            }
            Ok(Ok(Err(error))) => plugin.fail(error),
            Ok(Err(_)) => plugin.fail("ended its own start without a result".into()),
            Err(_) => plugin.fail(format!("did not start within {} s", START_DEADLINE.as_secs())),
        }
        announce(bus, plugin);
    }
}

/// Starts a plugin on a thread that nobody waits for: one that hangs keeps neither the host nor its end waiting.
fn start_one(
    library: Arc<Library>,
    bus: EventBus,
    settings: Map<String, Value>,
) -> oneshot::Receiver<Result<Arc<PluginInstance>, String>> {
    let (sender, receiver) = oneshot::channel();
    let start = move || {
        // A host that has stopped waiting drops the plugin here.
        let _ = sender.send(PluginInstance::start(&library, &bus, &settings));
    };
    if let Err(error) = std::thread::Builder::new().name("plugin-start".into()).spawn(start) {
        // The sender is dropped with the closure, so the receiver tells of it too.
        tracing::error!("there is no thread to start a plugin on: {error}");
    }
    receiver
}

fn announce(bus: &EventBus, plugin: &Plugin) {
    let error = plugin.error.clone().map(|message| ErrorInfo {
        kind: "error".into(),
        code: Some("plugin_failed".into()),
        message,
        recoverable: false,
        context: Some(serde_json::json!({ "path": plugin.path.display().to_string() })),
        source_chain: Vec::new(),
    });
    let stamp = Stamp { plugin: Some(plugin.base()), ..Stamp::default() };
    let _ = bus.emit_with(PluginLifecycleEvent { phase: plugin.state, error }, stamp);
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
