//! Vision: pictures side by side.

use std::{future::pending, sync::Arc};

use antiphon_core::{
    VideoFrame,
    event::vision::{DetectionCompletedEvent, VideoProcessorDetectionEvent},
    video::PixelFormat,
};
use antiphon_plugin_api::{
    VisionFrame,
    abi::{Outcome, Status, VideoV1, VisionBox, VisionSessionBox, abi_stable::std_types::RStr},
    prelude::{NoConfig, Plugin, PluginContext, PluginError, Vision, VisionOutput},
};
use std::{future::Future, sync::Mutex};

use crate::support::{Record, exported, session_id, start};

/// Counts bright pixels; the first decides whether it fails (1), panics (2), waits (3), or keeps its output (4) and uses
/// it late (5).
struct Bright {
    kept: Mutex<Vec<VisionOutput>>,
}

impl Plugin for Bright {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { kept: Mutex::default() })
    }
}

impl Vision for Bright {
    fn process(
        &self,
        VisionFrame { frame, sequence }: VisionFrame,
        output: VisionOutput,
    ) -> impl Future<Output = Result<(), PluginError>> + Send {
        assert_ne!(frame.pixels()[0], 2, "as told");
        async move {
            match frame.pixels()[0] {
                1 => return Err(PluginError::new("dark", "too dark")),
                3 => {
                    output.emit(detection(sequence, &frame)).await?;
                    pending().await
                }
                4 => self.kept.lock().expect("no panic under the lock").push(output.clone()),
                5 => {
                    let kept = self.kept.lock().expect("no panic under the lock").pop().expect("kept");
                    kept.emit(detection(sequence, &frame)).await.expect_err("it has ended");
                }
                _ => {}
            }
            output.emit(detection(sequence, &frame)).await
        }
    }
}

fn detection(sequence: u64, frame: &VideoFrame) -> DetectionCompletedEvent {
    let bright = frame.pixels().iter().filter(|pixel| **pixel > 127).count();
    DetectionCompletedEvent {
        detection: VideoProcessorDetectionEvent {
            model_id: Some(format!("frame {sequence}")),
            inference_time_ms: None,
            detection_count: u32::try_from(bright).expect("a small picture"),
        },
        objects: Vec::new(),
        image_width: frame.width(),
        image_height: frame.height(),
        raw: None,
    }
}

exported! { Bright, "vision-bright", [vision] }

fn open() -> (VisionSessionBox, Arc<Record>) {
    let running = start::<Bright>();
    let (sink, record) = running.sink();
    (running.capability::<VisionBox>().open(RStr::from_str(&session_id()), sink), record)
}

fn picture(first: u8) -> VideoV1 {
    VideoFrame::new(vec![first, 200, 0, 255], 2, 2, PixelFormat::Gray8).expect("four pixels").into()
}

#[test]
fn a_picture_is_finished_after_its_detection() {
    let (session, record) = open();
    assert_eq!(session.process(1, 42, picture(0)), Status::ACCEPTED);
    assert_eq!(record.finished(1), Outcome::COMPLETED);
    assert_eq!(record.said(), ["vision.detection.completed", "finished 1 COMPLETED"]);
    let event = record.wait_for("vision.detection.completed");
    assert_eq!((&event["model_id"], &event["detection_count"]), (&"frame 42".into(), &2.into()));
}

#[test]
fn errors_and_panics_fail_their_picture_alone() {
    let (session, record) = open();
    for (token, first, outcome) in
        [(1, 1, Outcome::FAILED), (2, 2, Outcome::FAILED), (3, 0, Outcome::COMPLETED)]
    {
        session.process(token, 0, picture(first));
        assert_eq!(record.finished(token), outcome);
    }
}

#[test]
fn a_picture_is_cancelled_and_silent_afterwards() {
    let (session, record) = open();
    session.process(1, 0, picture(3));
    record.wait_for("vision.detection.completed");
    session.cancel(1);
    assert_eq!(record.finished(1), Outcome::CANCELLED);
    session.process(2, 0, picture(4));
    assert_eq!(record.finished(2), Outcome::COMPLETED);
    session.process(3, 0, picture(5));
    assert_eq!(record.finished(3), Outcome::COMPLETED);
    assert_eq!(record.events("vision.detection.completed").len(), 3);
}
