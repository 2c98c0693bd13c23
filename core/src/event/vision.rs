//! Frames and what vision plugins see in them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{
    BaseEvent, Event, EventInfo, EventPayload, PluginBaseEvent,
    values::{DetectedObject, Dimensions, FrameTriggerReason},
};

pub(super) const EVENTS: &[&EventInfo] =
    &[FrameReceivedEvent::INFO, VideoProcessorDetectionEvent::INFO, DetectionCompletedEvent::INFO];

/// A picture came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "vision.frame.received", base = BaseEvent)]
pub struct FrameReceivedEvent {
    /// Number of the frame in its session, from 0.
    pub sequence: u64,
    /// When it was captured, in milliseconds since 1970.
    pub frame_timestamp: i64,
    /// Why it was captured.
    pub trigger_reason: FrameTriggerReason,
    /// Bytes that came in, encoded.
    pub size: u64,
    /// Width and height in pixels.
    pub dimensions: Dimensions,
}

/// A vision plugin looked at a picture. Subscribing to it also brings every event that extends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "vision.detection", base = PluginBaseEvent)]
pub struct VideoProcessorDetectionEvent {
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    /// Milliseconds that looking took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_time_ms: Option<f64>,
    /// Objects found.
    pub detection_count: u32,
}

/// A vision plugin found objects, each with its box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "vision.detection.completed", base = VideoProcessorDetectionEvent)]
pub struct DetectionCompletedEvent {
    /// What every detection tells.
    #[event(base)]
    #[serde(flatten)]
    pub detection: VideoProcessorDetectionEvent,
    /// The objects.
    pub objects: Vec<DetectedObject>,
    /// Width of the picture in pixels.
    pub image_width: u32,
    /// Height of the picture in pixels.
    pub image_height: u32,
    /// What the provider said, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
}
