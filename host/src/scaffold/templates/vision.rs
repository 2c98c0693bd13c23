//! {{name}}: a vision plugin for Antiphon that sees how bright a picture is.
//!
//! Small but whole: a setting, an event of its own, work off the runtime's thread, tests. Put your model where
//! `brightness` is.
#![forbid(unsafe_code)]

use antiphon_plugin_api::{
    core::{event::vision::VideoProcessorDetectionEvent, video::PixelFormat},
    prelude::*,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What users can set: `--set {{name}}.dark_below=100`. Doc comments, defaults and ranges become the schema that
/// `antiphon plugins inspect` shows; the host refuses what does not fit before `start` is called.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Mean brightness, from 0 to 255, below which a picture counts as dark.
    #[schemars(range(min = 0.0, max = 255.0))]
    dark_below: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { dark_below: 64.0 }
    }
}

/// How bright a picture is. Whoever subscribes to `vision.detection` gets it too.
///
/// The type begins with the plugin's name (`-` becomes `_`); doc comments are its schema. The host adds who, when and in
/// which session, so no field may be called as one of those.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "{{snake}}.brightness", base = VideoProcessorDetectionEvent)]
struct BrightnessEvent {
    /// What every detection tells.
    #[event(base)]
    #[serde(flatten)]
    detection: VideoProcessorDetectionEvent,
    /// Number of the picture in its session.
    frame_sequence: u64,
    /// Mean of all pixels: 0 is black, 255 is white.
    brightness: f64,
    /// Whether that is less than `dark_below`.
    is_dark: bool,
}

/// Made once, shared by all sessions: what changes in it needs a lock that is never held across an `.await`.
struct Eye {
    dark_below: f64,
}

impl Plugin for Eye {
    type Config = Config;

    /// Has 30 seconds. Look here for what you need (a model, a library) and say in the error what is missing and what
    /// brings it; load what is large when it is first used.
    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self {
            dark_below: config.dark_below,
        })
    }

    /// Only what is declared can be emitted; the events of every vision plugin are declared already.
    fn declare(events: &mut EventDeclarations) {
        events.declare::<BrightnessEvent>();
    }
}

impl Vision for Eye {
    /// Pictures are looked at side by side, all on the one worker thread of this plugin: what computes for more than some
    /// hundred microseconds, as here, belongs into `spawn_blocking`.
    ///
    /// When the picture is of no interest any more, this future is dropped at the `.await` where it waits. What runs in
    /// `spawn_blocking` goes on to its end, and nobody hears of it. Every picture that was looked at has its detection,
    /// also one with nothing in it.
    async fn process(&self, frame: VisionFrame, output: VisionOutput) -> Result<(), PluginError> {
        let VisionFrame { frame, sequence } = frame;
        // The pixels are shared with the host, not copied, and live as long as `frame`.
        let work = tokio::task::spawn_blocking(move || brightness(&frame));
        let brightness = work.await??;
        // Waits while the host has no room, so you need no queue. Fails when nobody listens any more.
        output
            .emit(BrightnessEvent {
                detection: VideoProcessorDetectionEvent {
                    model_id: Some("mean".into()),
                    inference_time_ms: None,
                    detection_count: 0,
                },
                frame_sequence: sequence,
                brightness,
                is_dark: brightness < self.dark_below,
            })
            .await
    }
}

fn brightness(frame: &VideoFrame) -> Result<f64, PluginError> {
    let pixels = frame.pixels();
    // Without the alpha of RGBA.
    let (of_pixel, coloured) = match frame.format() {
        PixelFormat::Gray8 => (1, 1),
        PixelFormat::Rgb8 => (3, 3),
        PixelFormat::Rgba8 => (4, 3),
        other => {
            let text =
                format!("pictures of {other:?} are not understood: wanted gray, RGB or RGBA");
            return Err(PluginError::new("pixel_format", text));
        }
    };
    let of_one = |pixel: &[u8]| {
        pixel[..coloured]
            .iter()
            .map(|byte| u64::from(*byte))
            .sum::<u64>()
    };
    let sum: u64 = pixels.chunks_exact(of_pixel).map(of_one).sum();
    let count = (pixels.len() / of_pixel * coloured).max(1);
    Ok(sum as f64 / count as f64)
}

export_plugin! { name: "{{name}}", plugin: Eye, capabilities: [vision] }

#[cfg(test)]
mod tests {
    use antiphon_plugin_api::testing::{self, Harness, Outcome, json};

    use super::*;

    fn picture(pixel: [u8; 4]) -> VideoFrame {
        VideoFrame::new(pixel.repeat(6), 3, 2, PixelFormat::Rgba8).expect("6 pixels")
    }

    #[test]
    fn a_picture_is_as_bright_as_its_pixels_on_average() {
        testing::run(async {
            let mut plugin = Harness::<Eye>::start(json!({})).await.expect("starts");
            let seen = plugin.look(picture([30, 60, 90, 255])).await;
            assert_eq!(seen.outcome, Outcome::COMPLETED);
            let event = &seen.events[0];
            assert_eq!(
                (&event["brightness"], &event["is_dark"]),
                (&json!(60.0), &json!(true))
            );
        });
    }

    #[test]
    fn what_counts_as_dark_can_be_set() {
        testing::run(async {
            let settings = json!({ "dark_below": 10.0 });
            let mut plugin = Harness::<Eye>::start(settings).await.expect("starts");
            let seen = plugin.look(picture([30, 60, 90, 255])).await;
            assert_eq!(seen.events[0]["is_dark"], false);
        });
    }

    #[test]
    fn a_picture_that_is_cancelled_does_no_harm_to_the_next() {
        testing::run(async {
            let mut plugin = Harness::<Eye>::start(json!({})).await.expect("starts");
            // How far it comes is chance: it runs on a thread of its own.
            plugin.look(picture([0; 4])).cancel_after(0).await;
            let seen = plugin.look(picture([0; 4])).await;
            assert_eq!((seen.outcome, seen.events.len()), (Outcome::COMPLETED, 1));
        });
    }
}
