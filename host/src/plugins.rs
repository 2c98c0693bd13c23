//! Plugins: found in directories, opened, checked, started, and given out to sessions by what they can do.

mod budget;
mod capabilities;
mod entry;
mod instance;
mod journal;
mod ping;
mod policy;
mod provider;
mod registry;
mod reload;
mod session;
mod settings;
mod supervisor;
mod ticker;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use antiphon_core::PluginBaseEvent;
use antiphon_plugin_api::PluginManifest;
use serde::Serialize;

pub use antiphon_core::event::values::PluginState;

pub(crate) use self::{
    capabilities::{Capabilities, OTHER_MANIFEST},
    journal::{MOVED_OUT, Past},
    policy::Policy,
    provider::{Down, Provider},
    registry::{Registry, Rules},
    reload::Reloader,
};
pub use self::{
    instance::PluginInstance,
    policy::{Isolation, OnCrash, Policies, PolicyConfig},
    reload::{PluginWatch, Reloaded, WatchError},
    session::{
        Completion, Incoming, LlmSession, PluginSessionError, Received, SttSession, TtsSession, TurnSession,
        VisionSession,
    },
    settings::{SettingsError, SettingsProblem},
};
use crate::scan::{Outcome, Scanned, Scanner};

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

/// One plugin file that was found, as it is at a moment.
#[derive(Debug, Clone)]
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
    /// SHA-256 of its library in hexadecimal digits, where it was accepted.
    pub sha256: Option<String>,
    /// Where its code runs.
    pub isolation: Isolation,
    /// Whether it will be tried again by itself.
    pub recovering: bool,
    /// How often it was started again since it was found, or since its file was replaced.
    pub restarts: u32,
    /// Which version of its file this is, since the host began; counted from 1.
    pub generation: u32,
    /// The worker process that it runs in.
    pub process_id: Option<u32>,
    /// What is opened.
    library: Option<PathBuf>,
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
            isolation: Isolation::None,
            recovering: false,
            restarts: 0,
            generation: 1,
            process_id: None,
            library: None,
            instance: None,
        }
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

/// Has every library of the directories scanned, in their order. Files that are no plugins, and second plugins of one
/// name, are in the list with the reason. Opens none: the scan knows what they declare. Blocks.
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

/// Has one library scanned. Blocks.
#[must_use]
pub fn load_file(scanner: &Scanner, path: &Path) -> Plugin {
    load_one(scanner.scan_file(path), &[])
}

fn load_one(scanned: Scanned, disabled: &[String]) -> Plugin {
    let Scanned { path, name, outcome } = scanned;
    let (library, sha256, manifest) = match outcome {
        Outcome::Accepted { library, sha256, manifest, .. } => (library, sha256, manifest),
        Outcome::Refused { state, reason } => return Plugin { state, ..Plugin::failed(&path, name, reason) },
    };
    let is_disabled = disabled.contains(&name);
    Plugin {
        state: if is_disabled { PluginState::Stopped } else { PluginState::Loaded },
        error: is_disabled.then(|| DISABLED.to_owned()),
        manifest: Some(*manifest),
        sha256: Some(sha256),
        library: Some(library),
        ..Plugin::failed(&path, name, String::new())
    }
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
