//! Settings: voice, speed and pitch.

use antiphon_plugin_api::PluginError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::{Options, Voice};

/// How the agent sounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// One of flite's voices: `kal16` (robotic, fastest), `slt`, `rms` or `awb`.
    pub(crate) voice: VoiceName,

    /// Times the voice's own speed.
    #[schemars(range(min = 0.5, max = 2.0))]
    pub(crate) speed: f32,

    /// Mean pitch in hertz; none is the voice's own. `rms` does not heed it.
    #[schemars(range(min = 50.0, max = 500.0))]
    pub(crate) pitch_hz: Option<f32>,
}

/// A voice by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VoiceName {
    Kal16,
    Slt,
    Rms,
    Awb,
}

impl Default for Settings {
    fn default() -> Self {
        Self { voice: VoiceName::Slt, speed: 1.0, pitch_hz: None }
    }
}

impl From<VoiceName> for Voice {
    fn from(name: VoiceName) -> Self {
        match name {
            VoiceName::Kal16 => Self::Kal16,
            VoiceName::Slt => Self::Slt,
            VoiceName::Rms => Self::Rms,
            VoiceName::Awb => Self::Awb,
        }
    }
}

impl Settings {
    pub(crate) fn options(&self) -> Options {
        Options { speed: self.speed, pitch_hz: self.pitch_hz }
    }

    pub(crate) fn voice(&self) -> Voice {
        self.voice.into()
    }
}

/// What is missing, as the user is told.
pub(crate) fn missing(error: &dyn std::error::Error) -> PluginError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    PluginError::new("library_missing", text).fatal()
}
