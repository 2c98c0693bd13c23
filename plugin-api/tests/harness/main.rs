//! The harness with which authors test their plugins.

mod puppet;

use std::future::Future;

use antiphon_core::{AudioChunk, VideoFrame, video::PixelFormat};
use antiphon_plugin_api::{
    __private::Exported,
    export::Capability,
    prelude::{Llm, LlmReply, LlmRequest, NoConfig, Plugin, PluginContext, PluginError},
    testing::{self, Detected, Harness, Heard, Outcome, Seen, json},
};

use self::puppet::Puppet;

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
