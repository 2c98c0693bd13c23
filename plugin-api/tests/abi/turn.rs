//! Turn detectors: audio is answered when all is said about it.

use std::{sync::Arc, time::Duration};

use antiphon_core::AudioChunk;
use antiphon_plugin_api::{
    abi::{Outcome, Status, TurnBox, TurnSessionBox, abi_stable::std_types::RStr},
    prelude::{NoConfig, Plugin, PluginContext, PluginError, TurnDetector, TurnOutput, TurnSession},
};

use crate::support::{Record, exported, session_id, start};

/// Hears speech where samples are not zero, and fails at negative ones.
struct Loud;

struct Detector {
    output: TurnOutput,
    speaking: bool,
}

impl Plugin for Loud {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self)
    }
}

impl TurnDetector for Loud {
    type Session = Detector;

    async fn open(&self, output: TurnOutput) -> Result<Detector, PluginError> {
        if output.context().session_id() == "none" {
            return Err(PluginError::new("none", "no detector"));
        }
        Ok(Detector { output, speaking: false })
    }
}

impl TurnSession for Detector {
    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        match audio.samples()[0] {
            ..0 => Err(PluginError::new("negative", "a negative sample")),
            0 => self.flush().await,
            1.. => {
                self.speaking = true;
                self.output.speech_started(1.0).await?;
                self.output.turn_started(1.0).await
            }
        }
    }

    async fn flush(&mut self) -> Result<(), PluginError> {
        if std::mem::take(&mut self.speaking) {
            self.output.speech_ended(Duration::from_millis(20)).await?;
            self.output.turn_ended(1.0, Duration::from_millis(20), Duration::ZERO).await?;
        }
        Ok(())
    }
}

exported! { Loud, "turn-loud", [turn] }

fn open(id: &str) -> (TurnSessionBox, Arc<Record>) {
    let running = start::<Loud>();
    let (sink, record) = running.sink();
    (running.capability::<TurnBox>().open(RStr::from_str(id), sink), record)
}

fn hear(session: &TurnSessionBox, token: u64, sample: i16) {
    assert_eq!(session.push_audio(token, AudioChunk::mono(vec![sample; 320]).into()), Status::ACCEPTED);
}

#[test]
fn audio_is_finished_after_its_events() {
    let (session, record) = open(&session_id());
    for (token, sample) in [(1, 0), (2, 5), (3, 0), (4, 5)] {
        hear(&session, token, sample);
    }
    assert_eq!(session.flush(5), Status::ACCEPTED);
    record.finished(5);
    session.close(6);
    record.finished(6);
    let speech = ["vad.speech_start", "turn.started"].map(str::to_owned);
    let silence = ["vad.speech_end", "turn.ended"].map(str::to_owned);
    let want = [
        vec!["finished 1 COMPLETED".to_owned()],
        speech.to_vec(),
        vec!["finished 2 COMPLETED".to_owned()],
        silence.to_vec(),
        vec!["finished 3 COMPLETED".to_owned()],
        speech.to_vec(),
        vec!["finished 4 COMPLETED".to_owned()],
        silence.to_vec(),
        vec!["finished 5 COMPLETED".to_owned(), "finished 6 COMPLETED".to_owned()],
    ];
    assert_eq!(record.said(), want.concat());
}

#[test]
fn a_failing_chunk_fails_alone() {
    let (session, record) = open(&session_id());
    hear(&session, 1, -1);
    hear(&session, 2, 5);
    assert_eq!(record.finished(2), Outcome::COMPLETED);
    assert_eq!(record.finished(1), Outcome::FAILED);
}

#[test]
fn a_detector_that_cannot_be_opened_fails_every_command() {
    let (session, record) = open("none");
    hear(&session, 1, 5);
    session.flush(2);
    record.finished(2);
    assert_eq!(record.said(), ["finished 1 FAILED", "finished 2 FAILED"]);
}
