//! The objects of what a plugin can do.

use antiphon_plugin_api::{
    PluginManifest,
    abi::{
        CAPABILITY_V1, Capability, LlmBox, PluginBox, SttBox, TtsBox, TurnBox, VisionBox,
        abi_stable::std_types::{ROption, RStr},
    },
};

use super::PluginSessionError;

/// Why a library is not taken that has changed its mind: what it declares decides which event is which.
pub(crate) const OTHER_MANIFEST: &str = "says something else of itself than when it was tried";

/// The objects of what a plugin can do, each checked once.
#[derive(Default)]
pub(crate) struct Capabilities {
    pub(crate) turn: Option<TurnBox>,
    pub(crate) stt: Option<SttBox>,
    pub(crate) llm: Option<LlmBox>,
    pub(crate) tts: Option<TtsBox>,
    pub(crate) vision: Option<VisionBox>,
}

impl Capabilities {
    /// A plugin whose idea of a capability is another one is refused now, not when a session is opened.
    pub(crate) fn of(plugin: &PluginBox, manifest: &PluginManifest) -> Result<Self, PluginSessionError> {
        let mut all = Self::default();
        for declared in &manifest.capabilities {
            match declared.kind.as_str() {
                TurnBox::NAME => all.turn = Some(query(plugin, manifest)?),
                SttBox::NAME => all.stt = Some(query(plugin, manifest)?),
                LlmBox::NAME => all.llm = Some(query(plugin, manifest)?),
                TtsBox::NAME => all.tts = Some(query(plugin, manifest)?),
                VisionBox::NAME => all.vision = Some(query(plugin, manifest)?),
                other => {
                    tracing::warn!(plugin = manifest.name, "this host has no use for the capability {other}");
                }
            }
        }
        Ok(all)
    }
}

fn query<C: Capability>(plugin: &PluginBox, manifest: &PluginManifest) -> Result<C, PluginSessionError> {
    match plugin.query(RStr::from_str(C::NAME), CAPABILITY_V1) {
        ROption::RSome(object) => object.into_object().map_err(PluginSessionError::Layout),
        ROption::RNone => Err(no_capability::<C>(manifest)),
    }
}

pub(super) fn no_capability<C: Capability>(manifest: &PluginManifest) -> PluginSessionError {
    let plugin = manifest.name.clone();
    PluginSessionError::NoCapability { plugin, kind: C::NAME, version: CAPABILITY_V1 }
}
