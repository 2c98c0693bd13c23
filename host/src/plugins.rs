//! Plugins: found in directories, opened, checked, started, and given out to sessions by what they can do.

mod budget;
mod instance;
mod policy;
mod provider;
mod registry;
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

pub use self::{
    instance::PluginInstance,
    policy::{Isolation, OnCrash, Policies, PolicyConfig},
    session::{
        Completion, Incoming, LlmSession, PluginSessionError, Received, SttSession, TtsSession, TurnSession,
        VisionSession,
    },
    settings::{SettingsError, SettingsProblem},
};
pub(crate) use self::{
    provider::{Down, Provider},
    registry::{Registry, Rules},
};
use crate::loader::Library;

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
    /// Where its code runs.
    pub isolation: Isolation,
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
            isolation: Isolation::None,
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

/// Opens every library of the directories, in their order. Files that are no plugins, and second plugins of one name, are
/// in the list with the reason. Blocks.
#[must_use]
pub fn load(directories: &[PathBuf], disabled: &[String]) -> Vec<Plugin> {
    let mut plugins: Vec<Plugin> = Vec::new();
    for directory in directories {
        let files = match crate::inspect::libraries(directory) {
            Ok(files) => files,
            Err(error) => {
                let text = format!("the plugin directory cannot be read: {error}");
                plugins.push(Plugin::failed(directory, directory.display().to_string(), text));
                continue;
            }
        };
        for path in files {
            let twin =
                |name: &str| plugins.iter().find(|other| other.manifest.is_some() && other.name == name);
            let plugin = load_one(&path, disabled, |name| twin(name).map(|other| other.path.clone()));
            plugins.push(plugin);
        }
    }
    plugins
}

/// Opens one library. Blocks.
#[must_use]
pub fn load_file(path: &Path) -> Plugin {
    load_one(path, &[], |_| None)
}

fn load_one(path: &Path, disabled: &[String], twin: impl Fn(&str) -> Option<PathBuf>) -> Plugin {
    let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let section = match crate::inspect::inspect(path) {
        Ok(section) => section,
        Err(error) => return Plugin::failed(path, stem(), chain(&error)),
    };
    if let Some(other) = twin(&section.name) {
        let text = format!("a plugin named {} was already found: {}", section.name, other.display());
        return Plugin::failed(path, section.name, text);
    }
    let is_disabled = disabled.contains(&section.name);
    match Library::open(path) {
        Ok(library) => Plugin {
            name: library.manifest().name.clone(),
            path: path.to_owned(),
            state: if is_disabled { PluginState::Stopped } else { PluginState::Loaded },
            error: is_disabled.then(|| DISABLED.to_owned()),
            manifest: Some(library.manifest().clone()),
            isolation: Isolation::None,
            restarts: 0,
            generation: 1,
            process_id: None,
            library: Some(library.path().to_owned()),
            instance: None,
        },
        Err(error) => Plugin::failed(path, section.name, chain(&error)),
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
