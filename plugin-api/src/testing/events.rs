//! What comes back from a plugin under test.

use std::ops::Deref;

use antiphon_core::event::values::WordTiming;
use serde_json::Value;

use crate::abi::Outcome;

/// Events in their order, each a flat JSON object of its `type` and its payload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Events(pub(super) Vec<Value>);

impl Events {
    /// The type of each event.
    #[must_use]
    pub fn types(&self) -> Vec<&str> {
        self.0.iter().map(type_of).collect()
    }

    /// The events of one type.
    #[must_use]
    pub fn of(&self, name: &str) -> Vec<&Value> {
        self.0.iter().filter(|event| type_of(event) == name).collect()
    }

    /// Text of the first `llm.error`, `tts.error` or `stt.error`.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let is_error = |event: &&Value| matches!(type_of(event), "llm.error" | "tts.error" | "stt.error");
        self.0.iter().find(is_error)?["error_message"].as_str()
    }
}

impl Deref for Events {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.0
    }
}

pub(super) fn type_of(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// What a language model answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// All its pieces.
    pub text: String,
    /// What it emitted.
    pub events: Events,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a synthesiser said.
#[derive(Debug, Clone, PartialEq)]
pub struct Speech {
    /// All its audio: interleaved samples.
    pub audio: Vec<i16>,
    /// Audio frames per second; 0 when there was no audio.
    pub sample_rate_hz: u32,
    /// Samples per audio frame; 0 when there was no audio.
    pub channels: u16,
    /// When each word is said.
    pub words: Vec<WordTiming>,
    /// What it emitted.
    pub events: Events,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a recogniser heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Text of the complete utterance; empty when there is none.
    pub text: String,
    /// What it emitted.
    pub events: Events,
    /// How the utterance's `end` (or `cancel`) ended. Audio that failed is an `stt.error` among the events.
    pub outcome: Outcome,
}

/// What a turn detector noticed.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// What it emitted.
    pub events: Events,
    /// `FAILED` when any of the audio, or the end of it, failed.
    pub outcome: Outcome,
}

/// What a vision plugin saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What it emitted.
    pub events: Events,
    /// How it ended.
    pub outcome: Outcome,
}
