//! Finds and reads QR codes in pictures and video frames.
//!
//! Not here: other bar codes, decoding of picture files (the host's), and tracking from frame to frame.
#![forbid(unsafe_code)]

pub mod config;
pub mod detect;
mod locate;
pub mod luma;

use std::time::Instant;

use antiphon_plugin_api::{
    core::{
        event::{values::DetectedObject, vision::VideoProcessorDetectionEvent},
        video::PixelFormat,
    },
    prelude::*,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{config::Settings, detect::Code};

/// What the codes of a picture say. Extends `vision.detection`, so its subscribers see it too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "vision_qr.codes", base = VideoProcessorDetectionEvent)]
struct QrCodesEvent {
    /// What every detection tells.
    #[event(base)]
    #[serde(flatten)]
    detection: VideoProcessorDetectionEvent,
    /// Number of the picture in its session.
    frame_sequence: u64,
    /// Each code's box; the label is its text, or `unreadable`.
    objects: Vec<DetectedObject>,
    /// Each code in detail, in the order of `objects`.
    codes: Vec<QrCode>,
}

/// One code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct QrCode {
    /// What it says; none when it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Its corners in pixels, x and y, clockwise from the one that is top left in the code itself.
    corners: Vec<(i32, i32)>,
    /// Size of the code, 1 to 40.
    version: u8,
}

struct Qr {
    settings: Settings,
}

impl Plugin for Qr {
    type Config = Settings;

    async fn start(settings: Settings, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { settings })
    }

    fn declare(events: &mut EventDeclarations) {
        events.declare::<QrCodesEvent>();
    }
}

impl Vision for Qr {
    async fn process(&self, frame: VisionFrame, output: VisionOutput) -> Result<(), PluginError> {
        let VisionFrame { frame, sequence } = frame;
        let settings = self.settings.clone();
        // Milliseconds of work: not for the runtime's thread.
        let event = tokio::task::spawn_blocking(move || look(&frame, sequence, &settings)).await??;
        output.emit(event).await
    }
}

#[expect(clippy::disallowed_methods, reason = "the time that the work takes, not the time of day")]
fn look(frame: &VideoFrame, frame_sequence: u64, settings: &Settings) -> Result<QrCodesEvent, PluginError> {
    let begin = Instant::now();
    let converted;
    let luma = match frame.format() {
        PixelFormat::Gray8 => frame.pixels(),
        PixelFormat::Rgb8 => {
            converted = luma::from_rgb(frame.pixels());
            &converted
        }
        PixelFormat::Rgba8 => {
            converted = luma::from_rgba(frame.pixels());
            &converted
        }
        other => {
            return Err(PluginError::new(
                "pixel_format",
                format!("pictures of {other:?} are not understood"),
            ));
        }
    };
    let codes = detect::detect(luma, frame.width(), frame.height(), settings)?;
    let detection = VideoProcessorDetectionEvent {
        model_id: Some("rqrr".into()),
        inference_time_ms: Some(begin.elapsed().as_secs_f64() * 1e3),
        detection_count: u32::try_from(codes.len()).unwrap_or(u32::MAX),
    };
    Ok(QrCodesEvent {
        detection,
        frame_sequence,
        objects: codes.iter().map(object).collect(),
        codes: codes.into_iter().map(QrCode::from).collect(),
    })
}

fn object(code: &Code) -> DetectedObject {
    let pixel = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    DetectedObject {
        label: code.text.clone().unwrap_or_else(|_| "unreadable".into()),
        // The error correction has either made sure or failed.
        confidence: code.text.is_ok().then_some(1.0),
        x1: pixel(code.x1),
        y1: pixel(code.y1),
        x2: pixel(code.x2),
        y2: pixel(code.y2),
    }
}

impl From<Code> for QrCode {
    fn from(code: Code) -> Self {
        let Code { text, corners, version, .. } = code;
        let error = text.as_ref().err().map(ToString::to_string);
        Self { text: text.ok(), error, corners: corners.to_vec(), version }
    }
}

export_plugin! { name: "vision-qr", plugin: Qr, capabilities: [vision] }
