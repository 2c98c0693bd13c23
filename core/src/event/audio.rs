//! Audio at the edges of the host: capture and playback.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    SpeechId,
    event::{
        BaseEvent, Event, EventInfo, EventPayload, PluginBaseEvent,
        values::{AudioFormatSpec, ErrorInfo, PcmData, StreamRef},
    },
};

pub(super) const EVENTS: &[&EventInfo] = &[
    AudioCaptureStartEvent::INFO,
    AudioCaptureStopEvent::INFO,
    AudioCaptureErrorEvent::INFO,
    AudioPlaybackStartEvent::INFO,
    AudioPlaybackEndEvent::INFO,
    AudioPlaybackErrorEvent::INFO,
    AudioReceivedEvent::INFO,
];

/// Audio begins to come in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "audio.capture.start", base = BaseEvent)]
pub struct AudioCaptureStartEvent {
    /// The device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRef>,
    /// Format of the audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<AudioFormatSpec>,
}

/// Audio has stopped coming in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "audio.capture.stop", base = BaseEvent)]
pub struct AudioCaptureStopEvent {}

/// Audio cannot be taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "audio.capture.error", base = BaseEvent)]
pub struct AudioCaptureErrorEvent {
    /// What failed, structured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Machine-readable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Which operation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Whether trying again may succeed.
    pub is_recoverable: bool,
    /// What failed, for people.
    pub error_message: String,
}

/// The first audio of a reply is played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "audio.playback.start", base = BaseEvent)]
pub struct AudioPlaybackStartEvent {
    /// The speech it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech_id: Option<SpeechId>,
}

/// The last audio of a reply was played, or playing it was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "audio.playback.end", base = BaseEvent)]
pub struct AudioPlaybackEndEvent {
    /// The speech it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech_id: Option<SpeechId>,
    /// Milliseconds of audio that were played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub played_ms: Option<f64>,
}

/// Audio cannot be played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "audio.playback.error", base = BaseEvent)]
pub struct AudioPlaybackErrorEvent {
    /// What failed, structured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Machine-readable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Which operation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Whether trying again may succeed.
    pub is_recoverable: bool,
    /// What failed, for people.
    pub error_message: String,
}

/// Audio that came in. Media: only subscribers that name the type receive it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "edge.audio_received", base = PluginBaseEvent, media)]
pub struct AudioReceivedEvent {
    /// The samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcm_data: Option<PcmData>,
    /// Bytes that came in, encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The format that was declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}
