//! Plugins that were built long ago: every library of `tests/fixtures/abi` still does with this host what it did when it was
//! new.
//!
//! Not here: what the layouts of the ABI are; `plugin-api/tests/abi/layout.rs` says when one changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use antiphon_host::{
    Host, Kind, LlmRequest, Outcome, PluginState, TtsRequest,
    core::{
        AudioChunk, TurnId, VideoFrame,
        event::values::{Message, Role},
        video::PixelFormat,
    },
    inspect,
    plugins::{Completion, PluginInstance, Received},
};
use antiphon_test_support::{HANG, built, built::workspace, conversation::Recorder, plugins::PluginDir};
use serde_json::Value;
use tokio::time::timeout;

/// Every library, with the folder that says which ABI it speaks: `v1/x86_64-unknown-linux-gnu.so`.
fn libraries() -> Vec<PathBuf> {
    let folders =
        fs::read_dir(workspace().join("tests/fixtures/abi")).expect("the folder is in the repository");
    let folders = folders.map(|entry| entry.expect("a readable folder").path());
    let versions = folders.filter(|path| version(path).is_some());
    let mut found: Vec<_> =
        versions.flat_map(|folder| inspect::libraries(&folder).expect("a readable folder")).collect();
    found.sort();
    assert!(!found.is_empty(), "a library of at least one ABI is in the repository");
    found
}

/// The number of a folder `v1`.
fn version(folder: &Path) -> Option<u32> {
    folder.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()
}

/// Those for machines like this one. Where there are none, it says so: there is nothing to run.
fn libraries_for_this_machine() -> Vec<PathBuf> {
    let machine = format!("{}-unknown-linux-gnu.so", std::env::consts::ARCH);
    let found: Vec<_> = libraries().into_iter().filter(|path| path.ends_with(&machine)).collect();
    if found.is_empty() {
        // Tests say so by themselves only with `--nocapture`; what cannot run here runs where it can.
        eprintln!("skipped: there is no library in tests/fixtures/abi for {machine}");
    }
    found
}

/// An old plugin that runs in a host of today.
struct Old {
    host: Host,
    recorder: Recorder,
    _directory: PluginDir,
}

impl Old {
    async fn start(library: &Path) -> Self {
        let directory = PluginDir::empty();
        // A copy: a library that is opened twice is one library, with one runtime.
        directory.copy(library, "old.so");
        let bus = antiphon_host::core::EventBus::new();
        let recorder = Recorder::attach(&bus);
        let host = Host::builder().plugin_dir(directory.path()).cache_dir(built::cache()).bus(bus).set(
            "fixture-abi",
            "greeting",
            "You asked",
        );
        let host = host.start().await;
        let plugins = host.plugins();
        let [plugin] = &plugins[..] else { panic!("one plugin: {plugins:?}") };
        assert_eq!(plugin.state, PluginState::Ready, "{}: {:?}", library.display(), plugin.error);
        Self { host, recorder, _directory: directory }
    }

    fn instance(&self, kind: Kind) -> Arc<PluginInstance> {
        let found = self.host.provider(kind, Some("fixture-abi"));
        found.unwrap_or_else(|error| panic!("{kind}: {error}"))
    }

    /// The next event of a type.
    async fn event(&mut self, event_type: &str) -> Value {
        self.recorder.until(|event| event["type"] == event_type, event_type).await
    }
}

async fn done(completion: Completion) {
    let outcome = timeout(HANG, completion.finished()).await.expect("a command ends");
    assert_eq!(outcome, Outcome::COMPLETED);
}

/// The types of what came for the agent.
fn received(received: &mut Received) -> Vec<String> {
    let mut types = Vec::new();
    while let Ok(envelope) = received.events.try_recv() {
        types.push(envelope.to_json()["type"].as_str().expect("events have a type").to_owned());
    }
    types
}

fn audio(samples: usize) -> AudioChunk {
    AudioChunk::mono(vec![1000_i16; samples])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_detected_by_plugins_of_every_age() {
    for library in libraries_for_this_machine() {
        let mut old = Old::start(&library).await;
        let session = old.host.bus().open_session();
        let (turn, mut heard) = old.instance(Kind::Turn).open_turn(&session).expect("it detects turns");
        done(turn.push_audio(&audio(320)).await.expect("it listens")).await;
        done(turn.flush().await.expect("it listens")).await;
        assert_eq!(received(&mut heard), ["turn.started", "turn.ended"]);
        done(turn.close()).await;
        let (started, ended) = (old.event("turn.started").await, old.event("turn.ended").await);
        assert_eq!((&started["confidence"], &ended["confidence"]), (&0.75.into(), &0.5.into()));
        assert_eq!((&ended["duration_ms"], &ended["trailing_silence_ms"]), (&40.0.into(), &0.0.into()));
        old.host.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_recognised_by_plugins_of_every_age() {
    for library in libraries_for_this_machine() {
        let mut old = Old::start(&library).await;
        let session = old.host.bus().open_session();
        let (stt, mut heard) = old.instance(Kind::Stt).open_stt(&session).expect("it recognises");
        stt.begin(TurnId(7)).await.expect("it listens");
        stt.push_audio(&audio(320)).await.expect("it listens");
        stt.push_audio(&audio(100)).await.expect("it listens");
        done(stt.end().await.expect("it listens")).await;
        assert_eq!(received(&mut heard), ["stt.transcript.utterance_final"]);
        done(stt.cancel().await.expect("it listens")).await;
        done(stt.close()).await;
        let utterance = old.event("stt.transcript.utterance_final").await;
        assert_eq!((&utterance["text"], &utterance["turn_id"]), (&"420 samples".into(), &7.into()));
        old.host.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_by_plugins_of_every_age() {
    for library in libraries_for_this_machine() {
        let mut old = Old::start(&library).await;
        let session = old.host.bus().open_session();
        let (llm, _received) = old.instance(Kind::Llm).open_llm(&session).expect("it answers");
        let (id, content) = ("1".into(), "what is it?".into());
        let messages = vec![Message { id, role: Role::User, content, interrupted: false }];
        let request = LlmRequest { request_id: "first".into(), messages, ..LlmRequest::default() };
        let completion = llm.respond(Some(TurnId(3)), &request).await.expect("it answers");
        done(completion).await;
        // Its own event, which this host knows from its manifest alone.
        let asked = old.event("fixture_abi.asked").await;
        assert_eq!((&asked["prompt"], &asked["turn_id"]), (&"what is it?".into(), &3.into()));
        assert_eq!(asked["plugin_name"], "fixture-abi");
        // The setting is in it.
        for (number, piece) in ["You asked: ", "what is it?"].into_iter().enumerate() {
            let delta = old.event("llm.response.delta").await;
            assert_eq!((&delta["delta"], &delta["sequence_number"]), (&piece.into(), &number.into()));
        }
        assert_eq!(old.event("llm.response.final").await["text"], "You asked: what is it?");
        // A command that is over can be cancelled without harm.
        llm.cancel(1);
        done(llm.close()).await;
        old.host.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_is_spoken_by_plugins_of_every_age() {
    for library in libraries_for_this_machine() {
        let old = Old::start(&library).await;
        let session = old.host.bus().open_session();
        let (tts, mut heard) = old.instance(Kind::Tts).open_tts(&session).expect("it speaks");
        // Ids as they are on the wire, so that this test needs no crate for them.
        let request = serde_json::json!({
            "text": "ten chars.", "synthesis_id": uuid(1), "speech_id": uuid(2), "chunk_id": 0,
        });
        let request: TtsRequest = serde_json::from_value(request).expect("a request");
        let completion = tts.synthesize(Some(TurnId(3)), &request).await.expect("it speaks");
        let token = completion.token();
        done(completion).await;
        let piece =
            timeout(HANG, heard.audio.recv()).await.expect("audio comes").expect("the session is open");
        assert_eq!((piece.token, piece.audio.sample_rate_hz(), piece.audio.channels()), (token, 16_000, 1));
        assert_eq!(piece.audio.samples(), [1000_i16; 1600]);
        done(tts.close()).await;
        old.host.shutdown().await;
    }
}

fn uuid(number: u8) -> String {
    format!("00000000-0000-7000-8000-0000000000{number:02}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_looked_at_by_plugins_of_every_age() {
    for library in libraries_for_this_machine() {
        let mut old = Old::start(&library).await;
        let session = old.host.bus().open_session();
        let (vision, _received) = old.instance(Kind::Vision).open_vision(&session).expect("it sees");
        let frame = VideoFrame::new(vec![0_u8, 9, 0, 9, 9, 0], 3, 2, PixelFormat::Gray8).expect("six pixels");
        done(vision.process(5, &frame).await.expect("it sees")).await;
        done(vision.close()).await;
        let seen = old.event("vision.detection").await;
        assert_eq!((&seen["detection_count"], &seen["model_id"]), (&3.into(), &"picture 5".into()));
        old.host.shutdown().await;
    }
}

#[test]
fn each_library_is_what_its_description_says() {
    for library in libraries() {
        let text =
            fs::read_to_string(library.with_extension("toml")).expect("each library has a description");
        let description: toml::Table = text.parse().expect("the description is TOML");
        let told = |key: &str| description[key].as_str().unwrap_or_default().to_owned();
        let sum = Command::new("sha256sum").arg(&library).output().expect("sha256sum can be started");
        let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
        assert_eq!(sum.split_whitespace().next(), Some(told("sha256").as_str()), "{}", library.display());
        assert!(
            !told("commit").contains("changes"),
            "{}: built of sources that are in no commit",
            library.display()
        );
        let is_for_this_machine =
            library.ends_with(format!("{}-unknown-linux-gnu.so", std::env::consts::ARCH));
        if is_for_this_machine {
            let section = inspect::inspect(&library).expect("a plugin for this host");
            assert_eq!(section.api_version, told("plugin_api"));
            assert_eq!(Some(section.abi_version), library.parent().and_then(version));
        }
    }
}
