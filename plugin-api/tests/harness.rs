//! The harness with which authors test their plugins.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    time::Duration,
};

use antiphon_core::{
    AudioChunk, PluginBaseEvent, VideoFrame,
    event::{
        Event,
        llm::LlmResponseFinalEvent,
        vision::{DetectionCompletedEvent, VideoProcessorDetectionEvent},
    },
    video::PixelFormat,
};
use antiphon_plugin_api::{
    __private::Exported,
    export::Capability,
    prelude::{
        EventDeclarations, Llm, LlmReply, LlmRequest, NoConfig, Plugin, PluginContext, PluginError, Stt,
        SttOutput, SttSession, Transcript, Tts, TtsOutput, TtsRequest, TurnDetector, TurnOutput, TurnSession,
        Vision, VisionFrame, VisionOutput, WordTiming,
    },
    testing::{self, Detected, Harness, Heard, Outcome, Seen, json},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Does everything, as well as it was told to.
struct Puppet {
    act: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    act: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { act: "well".into() }
    }
}

/// Readable for its author alone.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "puppet.private", base = PluginBaseEvent)]
struct PrivateEvent {
    numbers: BTreeMap<u64, u64>,
}

/// Readable for nobody.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "puppet.garbled", base = PluginBaseEvent)]
struct GarbledEvent {
    #[serde(rename(serialize = "written", deserialize = "read"))]
    value: u64,
}

impl Plugin for Puppet {
    type Config = Config;

    async fn start(Config { act }: Config, _: PluginContext) -> Result<Self, PluginError> {
        match act.as_str() {
            "refuse" => Err(PluginError::new("stage", "no stage").fatal()),
            _ => Ok(Self { act }),
        }
    }

    fn declare(events: &mut EventDeclarations) {
        events.declare::<PrivateEvent>().declare::<GarbledEvent>();
    }
}

impl Exported for Puppet {
    const NAME: &'static str = "puppet";
    const VERSION: &'static str = "1.2.3";
    const DESCRIPTION: &'static str = "";
    const LICENSE: &'static str = "MIT";
    const CAPABILITIES: &'static [Capability<Self>] = &[
        antiphon_plugin_api::turn::capability::<Self>(),
        antiphon_plugin_api::stt::capability::<Self>(),
        antiphon_plugin_api::llm::capability::<Self>(),
        antiphon_plugin_api::tts::capability::<Self>(),
        antiphon_plugin_api::vision::capability::<Self>(),
    ];
}

impl Llm for Puppet {
    async fn respond(&self, request: LlmRequest, reply: LlmReply) -> Result<(), PluginError> {
        match self.act.as_str() {
            "fail" => return Err(PluginError::new("memory", "forgot it")),
            "hang" => pending().await,
            "end twice" => reply.emit(LlmResponseFinalEvent::default()).await?,
            "private" => reply.emit(PrivateEvent { numbers: [(1, 2)].into() }).await?,
            "garbled" => reply.emit(GarbledEvent { value: 1 }).await?,
            _ => {}
        }
        for word in request.prompt().split_whitespace() {
            reply.text(word).await?;
        }
        Ok(())
    }
}

impl Tts for Puppet {
    async fn synthesize(&self, request: TtsRequest, output: TtsOutput) -> Result<(), PluginError> {
        for (at, word) in request.text.split_whitespace().enumerate() {
            let at = if self.act == "shuffle" { -(at as f64) } else { at as f64 };
            let (start_ms, end_ms) = (at * 10.0, at * 10.0 + 10.0);
            output.words(vec![WordTiming { word: word.into(), start_ms, end_ms }]).await?;
            let rate = if self.act == "change" && at > 0.0 { 16_000 } else { 8_000 };
            output.audio(AudioChunk::new(vec![7; 160], rate, 2)?).await?;
        }
        Ok(())
    }
}

struct Ear {
    output: SttOutput,
    act: String,
    chunks: usize,
}

impl Stt for Puppet {
    type Session = Ear;

    async fn open(&self, output: SttOutput) -> Result<Ear, PluginError> {
        Ok(Ear { output, act: self.act.clone(), chunks: 0 })
    }
}

impl SttSession for Ear {
    async fn begin(&mut self) -> Result<(), PluginError> {
        self.chunks = 0;
        Ok(())
    }

    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        assert!(audio.frames() <= 320);
        self.chunks += 1;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), PluginError> {
        let transcript = Transcript { text: format!("{} chunks", self.chunks), ..Transcript::default() };
        match self.act.as_str() {
            "fail" => return Err(PluginError::new("model", "deaf")),
            "mute" => return Ok(()),
            "hasty" => self.output.utterance(transcript.clone()).await?,
            _ => {}
        }
        self.output.transcript(transcript.clone()).await?;
        if self.act != "hasty" { self.output.utterance(transcript).await } else { Ok(()) }
    }
}

struct Detector {
    output: TurnOutput,
    act: String,
    speaking: bool,
}

impl TurnDetector for Puppet {
    type Session = Detector;

    async fn open(&self, output: TurnOutput) -> Result<Detector, PluginError> {
        Ok(Detector { output, act: self.act.clone(), speaking: false })
    }
}

impl TurnSession for Detector {
    async fn audio(&mut self, _: AudioChunk) -> Result<(), PluginError> {
        if self.act == "fail" {
            return Err(PluginError::new("ear", "deaf"));
        }
        if !std::mem::replace(&mut self.speaking, true) || self.act == "start twice" {
            self.output.turn_started(1.0).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PluginError> {
        if std::mem::take(&mut self.speaking) && self.act != "never end" {
            self.output.turn_ended(1.0, Duration::from_secs(1), Duration::ZERO).await?;
        }
        Ok(())
    }
}

impl Vision for Puppet {
    async fn process(
        &self,
        VisionFrame { frame, .. }: VisionFrame,
        output: VisionOutput,
    ) -> Result<(), PluginError> {
        if self.act == "say nothing" {
            return Ok(());
        }
        let detection =
            VideoProcessorDetectionEvent { model_id: None, inference_time_ms: None, detection_count: 0 };
        output
            .emit(DetectionCompletedEvent {
                detection,
                objects: Vec::new(),
                image_width: frame.width(),
                image_height: frame.height(),
                raw: None,
            })
            .await?;
        if self.act == "hang" { pending().await } else { Ok(()) }
    }
}

/// Runs a test with a puppet that acts in this way.
fn with<T>(act: &str, test: impl AsyncFnOnce(Harness<Puppet>) -> T) -> T {
    testing::run(async { test(Harness::start(json!({ "act": act })).await.expect("starts")).await })
}

fn second() -> [AudioChunk; 1] {
    [AudioChunk::mono(vec![0_i16; 16_000])]
}

fn picture() -> VideoFrame {
    VideoFrame::new(vec![0; 4], 2, 2, PixelFormat::Gray8).expect("four pixels")
}

#[test]
fn a_reply_has_its_text_events_and_outcome() {
    with("well", async |mut puppet| {
        let reply = puppet.respond("to be or").await;
        assert_eq!((reply.text.as_str(), reply.outcome), ("tobeor", Outcome::COMPLETED));
        let want = ["llm.request.start", "llm.response.delta", "llm.response.delta", "llm.response.delta"];
        assert_eq!(reply.events.types()[..4], want);
        assert_eq!(
            reply.events[1],
            json!({ "type": "llm.response.delta", "delta": "to", "item_id": "request-1",
            "sequence_number": 0, "is_first_chunk": true, "time_to_first_token_ms": reply.events[1]["time_to_first_token_ms"] })
        );
        assert_eq!(reply.events.of("llm.response.final")[0]["text"], "tobeor");
        assert_eq!(reply.events.error(), None);
        // The next has only its own.
        assert_eq!(puppet.respond("not").await.events.types().len(), 3);
    });
}

#[test]
fn a_reply_is_cancelled_after_exactly_so_many_pieces() {
    with("well", async |mut puppet| {
        for pieces in 0..3 {
            let reply = puppet.respond("to be or not").cancel_after(pieces).await;
            assert_eq!(reply.outcome, Outcome::CANCELLED);
            assert_eq!(reply.events.of("llm.response.delta").len(), pieces);
            assert_eq!(reply.events.of("llm.response.aborted")[0]["partial_text"], reply.text);
        }
        assert_eq!(puppet.respond("to be").cancel_after(3).await.outcome, Outcome::COMPLETED);
    });
    with("hang", async |mut puppet| {
        assert_eq!(puppet.respond("to be").cancel_after(0).await.outcome, Outcome::CANCELLED);
    });
}

#[test]
fn errors_are_results() {
    let start =
        |settings| testing::run(async { Harness::<Puppet>::start(settings).await.err().expect("an error") });
    assert_eq!(start(json!({ "act": "refuse" })).code(), "stage");
    assert!(start(json!({ "act": 5 })).to_string().contains("act: invalid type"));
    with("fail", async |mut puppet| {
        let reply = puppet.respond("to be").await;
        assert_eq!((reply.outcome, reply.events.error()), (Outcome::FAILED, Some("forgot it")));
        let heard = puppet.listen(second()).await;
        assert_eq!((heard.outcome, heard.events.error()), (Outcome::FAILED, Some("deaf")));
        assert_eq!(puppet.detect(second()).await.outcome, Outcome::FAILED);
    });
}

#[test]
fn speech_has_all_its_audio_and_words() {
    with("well", async |mut puppet| {
        let speech = puppet.synthesize("to be").await;
        assert_eq!((speech.audio, speech.sample_rate_hz, speech.channels), (vec![7; 320], 8_000, 2));
        let words: Vec<_> = speech.words.iter().map(|word| (word.word.as_str(), word.start_ms)).collect();
        assert_eq!(words, [("to", 0.0), ("be", 10.0)]);
        let cut = puppet.synthesize("to be or not").cancel_after(1).await;
        assert_eq!((cut.audio.len(), cut.outcome), (160, Outcome::CANCELLED));
        assert_eq!(cut.events.of("tts.synthesis.complete")[0]["chunk_count"], 1);
        assert!(puppet.synthesize("").await.audio.is_empty());
    });
}

#[test]
fn an_utterance_is_heard_in_chunks_of_20_ms() {
    with("well", async |mut puppet| {
        let Heard { text, events, outcome } = puppet.listen(second()).await;
        assert_eq!((text.as_str(), outcome), ("50 chunks", Outcome::COMPLETED));
        assert_eq!(
            events.types(),
            ["stt.connected", "stt.transcript.final", "stt.transcript.utterance_final"]
        );
        let heard = puppet.listen([AudioChunk::mono(vec![0_i16; 330])]).await;
        assert_eq!((heard.text.as_str(), heard.events.len()), ("2 chunks", 2));
        let heard = puppet.listen(second()).cancel_after(10).await;
        assert_eq!((heard.text.as_str(), heard.outcome), ("", Outcome::COMPLETED));
        // More than may wait.
        let long = vec![AudioChunk::mono(vec![0_i16; 16_000]); 20];
        assert_eq!(puppet.listen(long).await.text, "1000 chunks");
    });
}

#[test]
fn turns_begin_and_end() {
    with("well", async |mut puppet| {
        for _ in 0..2 {
            let Detected { events, outcome } = puppet.detect(second()).await;
            assert_eq!((events.types(), outcome), (vec!["turn.started", "turn.ended"], Outcome::COMPLETED));
        }
    });
}

#[test]
fn pictures_are_looked_at() {
    with("well", async |mut puppet| {
        let Seen { events, outcome } = puppet.look(picture()).await;
        assert_eq!((events.types(), outcome), (vec!["vision.detection.completed"], Outcome::COMPLETED));
        assert_eq!(events[0]["image_width"], 2);
    });
    with("hang", async |mut puppet| {
        assert_eq!(puppet.look(picture()).cancel_after(1).await.outcome, Outcome::CANCELLED);
        assert_eq!(puppet.look(picture()).cancel_after(0).await.outcome, Outcome::CANCELLED);
    });
}

#[test]
fn a_plugin_says_goodbye() {
    with("well", async |mut puppet| {
        puppet.listen(second()).await;
        puppet.respond("to be").await;
        assert_eq!(puppet.manifest().name, "puppet");
        assert_eq!(puppet.stop().await.types(), ["stt.disconnected"]);
    });
}

/// What the panic says that a test with such a puppet ends in.
#[track_caller]
fn misbehaves<F: Future>(act: &str, test: impl FnOnce(Harness<Puppet>) -> F, want: &str) {
    let run =
        || testing::run(async { test(Harness::start(json!({ "act": act })).await.expect("starts")).await });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).err().expect("a panic");
    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(text.contains(want), "{text}");
    assert!(text.starts_with("puppet did what it may not:\n"), "{text}");
}

#[test]
fn each_misbehaviour_is_named() {
    let respond = |mut puppet: Harness<Puppet>| async move { puppet.respond("to be").await };
    misbehaves(
        "end twice",
        respond,
        "`llm.response.delta` came after `llm.response.final`, which ends the request",
    );
    misbehaves("end twice", respond, "Its events: llm.request.start, llm.response.final, llm.response.delta");
    misbehaves("private", respond, "puppet.private: a host cannot read it");
    misbehaves("garbled", respond, "puppet.garbled: it cannot be read back");

    let say = |mut puppet: Harness<Puppet>| async move { puppet.synthesize("to be or").await };
    misbehaves("change", say, "(8000, 2) to (16000, 2) within a request");
    misbehaves("shuffle", say, "\"be\"");

    let listen = |mut puppet: Harness<Puppet>| async move { puppet.listen(second()).await };
    misbehaves("mute", listen, "`end` returned without `stt.transcript.utterance_final`");
    misbehaves("hasty", listen, "`stt.transcript.final` came after `stt.transcript.utterance_final`");

    let detect = |mut puppet: Harness<Puppet>| async move { puppet.detect(second()).await };
    misbehaves("start twice", detect, "`turn.started` came twice without `turn.ended` in between");
    misbehaves("never end", detect, "`flush` returned without `turn.ended` for the last `turn.started`");

    let look = |mut puppet: Harness<Puppet>| async move { puppet.look(picture()).await };
    misbehaves("say nothing", look, "`process` returned without `vision.detection`");
}

/// Can answer, but does not say so.
struct Modest;

impl Plugin for Modest {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self)
    }
}

impl Llm for Modest {
    async fn respond(&self, _: LlmRequest, _: LlmReply) -> Result<(), PluginError> {
        Ok(())
    }
}

impl Exported for Modest {
    const NAME: &'static str = "modest";
    const VERSION: &'static str = "1.2.3";
    const DESCRIPTION: &'static str = "";
    const LICENSE: &'static str = "MIT";
    const CAPABILITIES: &'static [Capability<Self>] = &[];
}

#[test]
#[should_panic(expected = "modest implements `llm`, but `export_plugin!` does not list `llm`")]
fn a_capability_that_is_not_exported_is_named() {
    testing::run(async {
        let mut modest = Harness::<Modest>::start(json!({})).await.expect("starts");
        modest.respond("to be").await;
    });
}
