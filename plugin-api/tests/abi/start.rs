//! Settings, and starts that fail.

use antiphon_plugin_api::prelude::{Llm, LlmReply, LlmRequest, Plugin, PluginContext, PluginError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::support::{exported, try_start};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    volume: u8,
    voice: Voice,
    mood: String,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Voice {
    pitch_hz: f32,
}

impl Default for Config {
    fn default() -> Self {
        Self { volume: 100, voice: Voice { pitch_hz: 110.0 }, mood: "fine".into() }
    }
}

/// Starts as its mood is.
struct Moody;

impl Plugin for Moody {
    type Config = Config;

    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        tokio::task::yield_now().await;
        match config.mood.as_str() {
            "bad" => Err(PluginError::new("mood", format!("not at {} Hz", config.voice.pitch_hz)).fatal()),
            "worse" => panic!("at volume {}", config.volume),
            _ => Ok(Self),
        }
    }
}

impl Llm for Moody {
    async fn respond(&self, _: LlmRequest, _: LlmReply) -> Result<(), PluginError> {
        Ok(())
    }
}

exported! { Moody, "llm-moody", [llm] }

#[track_caller]
fn fails(settings: &str) -> (String, String, bool) {
    let error = try_start::<Moody>(settings).err().expect("an error");
    (error.code.into(), error.message.into(), error.recoverable)
}

#[track_caller]
fn names(settings: &str, wanted: &str) {
    let (code, message, recoverable) = fails(settings);
    assert_eq!((code.as_str(), recoverable), ("settings", false));
    assert!(message.contains(wanted), "{message}");
}

#[test]
fn an_error_in_the_settings_names_the_field() {
    names(r#"{"mood": "fine", "volume": "loud"}"#, "volume: invalid type: string \"loud\"");
    names(r#"{"volume": 300, "mood": "fine"}"#, "volume: invalid value: integer `300`");
    names(r#"{"voice": {"pitch_hz": "high"}}"#, "voice: invalid type: string \"high\"");
    names(r#"{"volum": 3}"#, "unknown field `volum`, expected one of `volume`");
    names("{", "EOF");
    names(r#"[50, {}, "fine"]"#, "expected an object");
}

#[test]
fn an_error_at_the_start_crosses_with_code_and_text() {
    let wanted = ("mood".to_owned(), "not at 110 Hz".to_owned(), false);
    assert_eq!(fails(r#"{"mood": "bad"}"#), wanted);
}

#[test]
fn a_panic_at_the_start_crosses_as_an_error() {
    let (code, message, _) = fails(r#"{"mood": "worse", "volume": 11}"#);
    assert_eq!(code, "panic");
    assert!(message.contains("at volume 11"), "{message}");
}

#[test]
fn a_plugin_that_failed_can_start_again() {
    fails(r#"{"mood": "worse"}"#);
    assert!(try_start::<Moody>("{}").is_ok());
}
