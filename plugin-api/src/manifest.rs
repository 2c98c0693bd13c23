//! What a plugin declares before it runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// ELF section that holds the [`SectionManifest`], so that a plugin can be listed without running any of it.
pub const SECTION_NAME: &str = ".antiphon_plugin";

/// The part of the manifest that can be read from the file: fixed when the plugin is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionManifest {
    /// Name, such as `tts-flite`.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Version of the root ABI.
    pub abi_version: u32,
    /// Version of `antiphon-plugin-api` that it was built with.
    pub api_version: String,
    /// Kinds of capabilities, separated by spaces.
    pub kinds: String,
}

/// All that a plugin declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginManifest {
    /// Name, such as `tts-flite`; unique among the plugins of a host.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// Licence of the plugin itself (SPDX).
    #[serde(default)]
    pub license: String,
    /// Version of the root ABI.
    pub abi_version: u32,
    /// Version of `antiphon-plugin-api` that it was built with.
    pub api_version: String,
    /// Which plugin a host takes where several can do the same and its user does not say: the highest.
    #[serde(default)]
    pub rank: u32,
    /// What it can do.
    pub capabilities: Vec<CapabilityDeclaration>,
    /// JSON Schema of its settings.
    pub settings: Value,
    /// Its event types; the position of each is its index at the ABI.
    pub events: Vec<EventDeclaration>,
}

/// A capability and the version of its trait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityDeclaration {
    /// `turn`, `stt`, `llm`, `tts` or `vision`.
    pub kind: String,
    /// Version of the capability's trait.
    pub version: u32,
}

/// An event type of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventDeclaration {
    /// Dotted wire name.
    #[serde(rename = "type")]
    pub name: String,
    /// Bases from the nearest to `BaseEvent`.
    pub extends: Vec<String>,
    /// High-rate media, for subscribers that name the type.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub media: bool,
    /// JSON Schema of the payload; none for events of the core catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

impl PluginManifest {
    /// Whether the plugin has a capability of this kind.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        self.capabilities.iter().any(|capability| capability.kind == kind)
    }
}
