//! Synthesisers: format, audio, words and counts.

use std::{
    future::pending,
    sync::{Arc, Mutex},
};

use antiphon_core::{AudioChunk, SpeechId};
use antiphon_plugin_api::{
    TtsRequest,
    abi::{
        Outcome, Status, TtsBox, TtsSessionBox,
        abi_stable::std_types::{RSlice, RStr},
    },
    prelude::{NoConfig, Plugin, PluginContext, PluginError, Tts, TtsOutput, WordTiming},
};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Output, Record, Running, exported, session_id, start};

/// Says each word as 10 ms of audio, or does what it says.
pub(crate) struct Script {
    kept: Mutex<Vec<TtsOutput>>,
}

impl Plugin for Script {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { kept: Mutex::default() })
    }
}

impl Tts for Script {
    async fn synthesize(&self, request: TtsRequest, output: TtsOutput) -> Result<(), PluginError> {
        for word in request.text.split_whitespace() {
            match word {
                "wait" => pending().await,
                "fail" => return Err(PluginError::new("voice_missing", "there is no such voice").fatal()),
                "keep" => self.kept.lock().expect("no panic under the lock").push(output.clone()),
                "late" => {
                    let kept = self.kept.lock().expect("no panic under the lock").pop().expect("kept");
                    let error = kept.audio(sound(80)).await.expect_err("it has ended");
                    return Err(error);
                }
                "nothing" => output.audio(sound(0)).await?,
                word => {
                    let timing = WordTiming { word: word.into(), start_ms: 0.0, end_ms: 10.0 };
                    output.words(vec![timing]).await?;
                    output.audio(sound(80)).await?;
                }
            }
        }
        Ok(())
    }
}

exported! { Script, "tts-script", [tts] }

/// Silence of so many frames at 8 kHz.
fn sound(frames: usize) -> AudioChunk {
    AudioChunk::new(vec![0; frames], 8_000, 1).expect("one channel")
}

pub(crate) struct Session {
    pub(crate) session: TtsSessionBox,
    pub(crate) record: Arc<Record>,
}

pub(crate) fn open(running: &Running) -> Session {
    let (sink, record) = running.sink();
    let session = running.capability::<TtsBox>().open(RStr::from_str(&session_id()), sink);
    Session { session, record }
}

impl Session {
    pub(crate) fn say(&self, token: u64, text: &str) -> Status {
        let request = TtsRequest {
            text: text.into(),
            synthesis_id: Uuid::from_u128(token.into()),
            speech_id: SpeechId(Uuid::from_u128(1)),
            chunk_id: 0,
        };
        let bytes = rmp_serde::to_vec_named(&request).expect("plain data");
        self.session.synthesize(token, 3, RSlice::from_slice(&bytes))
    }
}

#[test]
fn speech_comes_with_its_format_first_and_its_counts_last() {
    let Session { session: _session, record } = &speak(1, "nothing two words");
    assert_eq!(record.finished(1), Outcome::COMPLETED);
    assert_eq!(
        record.said(),
        [
            "tts.connected",
            "tts.synthesis.start",
            "tts.words",
            "tts.metadata",
            "audio of 1",
            "tts.words",
            "audio of 1",
            "tts.synthesis.complete",
            "finished 1 COMPLETED"
        ]
    );
    let audio = record.outputs().into_iter().filter_map(|output| match output {
        Output::Audio { audio, .. } => Some((audio.frames(), audio.sample_rate_hz())),
        _ => None,
    });
    assert_eq!(audio.collect::<Vec<_>>(), [(80, 8_000); 2]);
    let metadata = record.wait_for("tts.metadata");
    assert_eq!((&metadata["sample_rate"], &metadata["channels"]), (&json!(8_000), &json!(1)));
    let complete = record.wait_for("tts.synthesis.complete");
    assert_eq!(complete["text"], "nothing two words");
    assert_eq!(complete["synthesis_id"], json!(Uuid::from_u128(1)));
    let counts =
        json!([complete["total_audio_bytes"], complete["chunk_count"], complete["audio_duration_ms"]]);
    assert_eq!(counts, json!([320, 2, 20.0]));
    assert_eq!(complete["cancelled"], false);
}

fn speak(token: u64, text: &str) -> Session {
    let session = open(&start::<Script>());
    assert_eq!(session.say(token, text), Status::ACCEPTED);
    session
}

#[test]
fn speech_without_audio_has_counts_of_zero() {
    let session = speak(1, "nothing");
    assert_eq!(session.record.finished(1), Outcome::COMPLETED);
    let complete = session.record.wait_for("tts.synthesis.complete");
    let counts =
        json!([complete["total_audio_bytes"], complete["chunk_count"], complete["audio_duration_ms"]]);
    assert_eq!(counts, json!([0, 0, 0.0]));
    assert_eq!(complete["real_time_factor"], json!(null));
}

#[test]
fn an_error_becomes_tts_error_with_the_text() {
    let session = speak(1, "one fail");
    assert_eq!(session.record.finished(1), Outcome::FAILED);
    let event = session.record.wait_for("tts.error");
    let told = json!([event["error_code"], event["context"], event["is_recoverable"]]);
    assert_eq!(told, json!(["voice_missing", "one fail", false]));
    assert!(session.record.events("tts.synthesis.complete").is_empty());
}

#[test]
fn cancelled_speech_is_complete_and_says_so() {
    let session = speak(1, "one wait");
    session.record.wait_for("tts.metadata");
    session.session.cancel(1);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    assert_eq!(session.record.wait_for("tts.synthesis.complete")["cancelled"], true);
    assert!(matches!(session.record.outputs().last(), Some(Output::Finished { token: 1, .. })));
}

#[test]
fn a_clone_of_the_output_is_silent_once_its_request_has_ended() {
    let session = speak(1, "keep one");
    assert_eq!(session.record.finished(1), Outcome::COMPLETED);
    let before = session.record.outputs().len();
    session.say(2, "late");
    assert_eq!(session.record.finished(2), Outcome::FAILED);
    assert_eq!(session.record.wait_for("tts.error")["error_code"], "cancelled");
    assert_eq!(session.record.said()[before..], ["tts.synthesis.start", "tts.error", "finished 2 FAILED"]);
}

#[test]
fn a_request_that_cannot_be_read_is_refused() {
    let session = open(&start::<Script>());
    session.record.wait_for("tts.connected");
    assert_eq!(session.session.synthesize(1, 0, RSlice::from_slice(b"\x80")), Status::REFUSED);
    assert_eq!(session.record.said(), ["tts.connected"]);
}

#[test]
fn a_synthesiser_says_when_it_is_up_and_when_it_is_gone() {
    let session = open(&start::<Script>());
    session.record.wait_for("tts.connected");
    session.session.close(9);
    assert_eq!(session.record.finished(9), Outcome::COMPLETED);
    assert_eq!(session.record.said(), ["tts.connected", "tts.disconnected", "finished 9 COMPLETED"]);
}
