//! Plugins and handlers that misbehave: what breaks is told, and nothing else breaks.

use std::{future::pending, time::Duration};

use antiphon_host::{
    AgentConfig, AudioOutput, Host, OutputError, PluginState,
    core::{
        AudioChunk, Event,
        event::{Overflow, agent::UserTranscriptEvent, llm::LlmResponseDeltaEvent},
    },
};
use antiphon_test_support::{
    built,
    conversation::{Conversation, Setup},
    events::EventLog,
    plugins::PluginDir,
    program::antiphon,
    recordings,
};

/// A time without progress after which tests give a turn up. Long enough for a busy machine to make some.
const SHORT_MS: u64 = 2_000;

/// A conversation whose language model misbehaves, and which is text only.
async fn with_bad_llm() -> Conversation {
    let config =
        AgentConfig { tts: Some("none".into()), turn_timeout_ms: SHORT_MS, ..AgentConfig::default() };
    misbehaving(PluginDir::empty()).config(config).start().await
}

/// A conversation whose voice misbehaves too.
async fn with_bad_voice() -> Conversation {
    let config = AgentConfig { turn_timeout_ms: SHORT_MS, ..AgentConfig::default() };
    misbehaving(PluginDir::empty()).config(config).start().await
}

fn misbehaving(plugins: PluginDir) -> Setup {
    Setup::with(plugins.with_misbehave()).set("misbehave", "start", "well")
}

/// The agent answers as if nothing had been.
#[track_caller]
fn assert_answered(turn: &EventLog, text: &str) {
    assert_eq!(turn.count("agent.error"), 0, "{turn}");
    assert_eq!(turn.only("turn.metrics")["interrupted"], false);
    let last = turn.of("agent.agent_transcript").last().unwrap_or_else(|| panic!("no answer in:\n{turn}"));
    assert_eq!((last["mode"].as_str(), last["text"].as_str()), (Some("final"), Some(text)), "{turn}");
}

/// The turn failed with this error of its plugin, and the agent says the same.
#[track_caller]
fn assert_failed(turn: &EventLog, kind: &str, code: &str, message: &str) {
    let error = turn.only(&format!("{kind}.error"));
    assert_eq!(error["error_code"], code, "{turn}");
    assert_eq!(error["plugin_name"], "misbehave");
    assert!(error["error_message"].as_str().is_some_and(|text| text.contains(message)), "{error}");
    let told = turn.only("agent.error");
    assert_eq!((told["component"].as_str(), told["fatal"].as_bool()), (Some(kind), Some(false)), "{told}");
    assert_eq!(told["error_message"], error["error_message"]);
    assert_eq!(turn.count("turn.metrics"), 1, "{turn}");
}

/// The turn was given up.
#[track_caller]
fn assert_stalled(turn: &EventLog) {
    let told = turn.only("agent.error");
    assert_eq!(told["error_code"], "turn_stalled", "{turn}");
    assert_eq!(turn.only("turn.metrics")["interrupted"], true, "{turn}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_answering_fails_that_turn_alone() {
    let mut talk = with_bad_llm().await;
    assert_answered(&talk.ask("hello").await, "You said: hello.");
    let turn = talk.ask("panic").await;
    assert_failed(&turn, "llm", "panic", "panicked while answering, as asked");
    assert_eq!(turn.only("llm.error")["error"]["kind"], "panic");
    assert_answered(&talk.ask("hello again").await, "You said: hello again.");
    let plugin = talk.host.plugins().into_iter().find(|plugin| plugin.name == "misbehave");
    assert_eq!(plugin.map(|plugin| plugin.state), Some(PluginState::Ready));
    let finished = talk.finish().await;
    assert_eq!((finished.summary.turns, finished.summary.answered, finished.summary.failed), (3, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_while_answering_fails_that_turn_alone() {
    let mut talk = with_bad_llm().await;
    assert_failed(&talk.ask("fail").await, "llm", "as_asked", "failed while answering, as asked");
    assert_answered(&talk.ask("hello").await, "You said: hello.");
    let finished = talk.finish().await;
    assert_eq!((finished.summary.answered, finished.summary.failed), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_not_declared_is_refused_by_name() {
    let mut talk = with_bad_llm().await;
    let turn = talk.ask("undeclared x").await;
    assert_failed(&turn, "llm", "undeclared_event", "misbehave.undeclared is not declared");
    let turn = talk.ask("declared x").await;
    let own = turn.only("misbehave.declared");
    assert_eq!((own["plugin_name"].as_str(), own["note"].as_str()), (Some("misbehave"), Some("x")));
    assert!(own["plugin_version"].is_string());
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_given_up_and_the_next_one_comes() {
    let mut talk = with_bad_llm().await;
    let turn = talk.ask("hang").await;
    assert_stalled(&turn);
    assert_eq!(turn.count("agent.agent_transcript"), 0, "{turn}");
    assert_answered(&talk.ask("hello").await, "You said: hello.");
    let finished = talk.finish().await;
    // The plugin was told to stop, and did.
    assert_eq!(finished.events.count("llm.response.aborted"), 1);
    assert_eq!((finished.summary.answered, finished.summary.failed), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_answer_that_hangs_in_the_middle_the_beginning_was_said() {
    let mut talk = with_bad_voice().await;
    let turn = talk.ask("begin").await;
    assert_stalled(&turn);
    let cut = turn.only("speech.interrupted");
    assert_eq!(cut["reason"], "turn_stalled");
    assert_eq!(cut["spoken_text"], "This is the first sentence.");
    let ended = turn.only("agent.agent_turn_ended");
    assert_eq!(ended["generated_text"], "This is the first sentence. This");
    assert_eq!(ended["spoken_text"], cut["spoken_text"]);
    assert_answered(&talk.ask("hello").await, "You said: hello.");
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_blocks_its_thread_costs_its_own_turns_and_not_the_end() {
    let mut talk = with_bad_llm().await;
    assert_stalled(&talk.ask("block").await);
    // Its only thread is gone, so it can never answer again; the agent still tells, turn by turn.
    assert_stalled(&talk.ask("hello").await);
    let finished = talk.finish().await;
    assert_eq!((finished.summary.turns, finished.summary.failed), (2, 2));
    assert_eq!(finished.events.count("session.closed"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_ends_the_turn() {
    let mut talk = with_bad_voice().await;
    let turn = talk.ask("nothing").await;
    assert_eq!((turn.count("speech.start"), turn.count("agent.agent_turn_started")), (0, 0), "{turn}");
    assert_eq!(turn.count("turn.metrics"), 1);
    assert_answered(&talk.ask("hello").await, "You said: hello.");
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_that_panics_or_fails_is_told_and_the_next_sentence_is_spoken() {
    for (word, code) in [("panic", "panic"), ("fail", "as_asked")] {
        let mut talk = with_bad_voice().await;
        let turn = talk.ask(&format!("say {word} now. This one is well.")).await;
        assert_failed(&turn, "tts", code, "while speaking, as asked");
        assert_eq!(turn.count("agent.agent_turn_started"), 1, "{turn}");
        assert_eq!(turn.count("agent.agent_turn_ended"), 1, "{turn}");
        assert_answered(&talk.ask("hello").await, "You said: hello.");
        let finished = talk.finish().await;
        assert_eq!(finished.spoken_ms(), 400.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_that_hangs_is_given_up_with_what_was_heard() {
    let mut talk = with_bad_voice().await;
    let turn = talk.ask("say begin speaking and never end").await;
    assert_stalled(&turn);
    // A fifth of a second of it was played, of a length that nobody knows.
    let ended = turn.only("agent.agent_turn_ended");
    assert_eq!((ended["interrupted"].as_bool(), ended["played_ms"].as_f64()), (Some(true), Some(200.0)));
    assert_answered(&talk.ask("hello").await, "You said: hello.");
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_voice_is_not_given_up_while_it_speaks() {
    let mut talk = with_bad_voice().await;
    // Takes twice as long in all as a turn may go without progress.
    let turn = talk.ask("say slow and steady").await;
    assert_answered(&turn, "slow and steady");
    assert_eq!(turn.only("agent.agent_turn_ended")["played_ms"], 200.0);
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_deltas_arrives_in_order_and_whole() {
    let mut talk = with_bad_llm().await;
    let turn = talk.ask("flood 3000").await;
    let text: String = turn.texts("llm.response.delta", "delta").concat();
    let want: String = (0..3000).map(|number| format!("{number} ")).collect();
    assert_eq!(text, want);
    let numbers: Vec<_> =
        turn.of("llm.response.delta").filter_map(|delta| delta["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..3000).collect::<Vec<_>>());
    assert_answered(&turn, want.trim());
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_subscriber_that_may_lose_events_delays_nobody_and_is_told() {
    let setup = misbehaving(PluginDir::empty())
        .config(AgentConfig { tts: Some("none".into()), ..AgentConfig::default() });
    let stuck = setup
        .bus()
        .subscription()
        .name("stuck")
        .capacity(8)
        .overflow(Overflow::DropOldest)
        .subscribe(async |_: Event<LlmResponseDeltaEvent>| pending::<()>().await);
    let mut talk = setup.start().await;
    let turn = talk.ask("flood 2000").await;
    assert_eq!((turn.count("llm.response.delta"), turn.count("agent.error")), (2000, 0));
    assert!(stuck.stats().dropped > 1900, "{:?}", stuck.stats());
    drop(stuck);
    let finished = talk.finish().await;
    let lagged = finished.events.of("bus.lagged").filter(|event| event["handler"]["name"] == "stuck");
    assert!(lagged.count() > 0, "nobody was told of the loss");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_subscriber_that_must_not_lose_events_is_given_up_and_told() {
    let config = AgentConfig { tts: Some("none".into()), ..AgentConfig::default() };
    let setup = misbehaving(PluginDir::empty()).config(config);
    let stuck = setup
        .bus()
        .subscription()
        .name("stuck")
        .capacity(8)
        .overflow(Overflow::Wait)
        .subscribe(async |_: Event<LlmResponseDeltaEvent>| pending::<()>().await);
    let mut talk = setup.start().await;
    // Everybody waits for it for a while, and not for ever.
    let turn = talk.ask("flood 2000").await;
    assert_eq!((turn.count("llm.response.delta"), turn.count("agent.error")), (2000, 0), "{turn}");
    assert_answered(&talk.ask("hello").await, "You said: hello.");
    assert!(stuck.stats().dropped > 1900, "{:?}", stuck.stats());
    drop(stuck);
    let finished = talk.finish().await;
    let lagged = finished.events.of("bus.lagged").filter(|event| event["handler"]["name"] == "stuck");
    assert!(lagged.count() > 0, "nobody was told of the loss");
}

async fn panic_at(_: Event<UserTranscriptEvent>) {
    panic!("as every handler may")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_or_hangs_is_an_exception_and_changes_nothing() {
    let setup = Setup::with(PluginDir::of(&["llm-rules"]));
    let panics = setup.bus().subscription().name("panics").subscribe(panic_at);
    let hangs = setup
        .bus()
        .subscription()
        .name("hangs")
        .timeout(Duration::from_millis(50))
        .subscribe(async |_: Event<UserTranscriptEvent>| pending::<()>().await);
    let mut talk = setup.start().await;
    let want = "Going forward ten meters. Tell me when to stop.";
    for _ in 0..2 {
        assert_answered(&talk.ask("go forward ten meters").await, want);
    }
    while talk.so_far().count("bus.exception") < 4 {
        talk.until("bus.exception").await;
    }
    let finished = talk.finish().await;
    let of = |name: &str| -> Vec<_> {
        finished.events.of("bus.exception").filter(|event| event["handler"]["name"] == name).collect()
    };
    assert_eq!((of("panics").len(), of("hangs").len()), (2, 2), "{}", finished.events);
    let transcripts: Vec<_> = finished.events.of("agent.user_transcript").collect();
    for (exception, transcript) in of("panics").iter().zip(transcripts) {
        assert_eq!(exception["exc"]["message"], "as every handler may");
        assert_eq!(exception["source_type"], "agent.user_transcript");
        assert_eq!(exception["source_event_id"], transcript["event_id"]);
        let place = exception["handler"].to_string();
        assert!(place.contains("isolation.rs"), "{place}");
    }
    assert_eq!((panics.stats().failures, hangs.stats().failures), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_panics_while_it_starts_is_listed_and_the_others_work() {
    let plugins = PluginDir::of(&["llm-rules"]).with_misbehave();
    let host = Host::builder()
        .plugin_dir(plugins.path())
        .cache_dir(built::cache())
        .set("misbehave", "start", "panic")
        .start()
        .await;
    let find =
        |name: &str| host.plugins().into_iter().find(|plugin| plugin.name == name).expect("it was found");
    assert_eq!(find("misbehave").state, PluginState::Failed);
    let error = find("misbehave").error.clone().unwrap_or_default();
    assert!(error.contains("panicked while starting, as asked"), "{error}");
    assert_eq!(find("llm-rules").state, PluginState::Ready);
    host.shutdown().await;
}

/// With a clock that is stopped, so that the time which a plugin has for its start is over at once.
#[tokio::test(start_paused = true)]
async fn a_plugin_that_does_not_start_is_given_up() {
    let plugins = PluginDir::empty().with_misbehave();
    let host = Host::builder()
        .plugin_dir(plugins.path())
        .cache_dir(built::cache())
        .set("misbehave", "start", "hang")
        .start()
        .await;
    let plugins = host.plugins();
    let [plugin] = &plugins[..] else { panic!("one plugin: {plugins:?}") };
    assert_eq!(plugin.state, PluginState::Failed);
    assert!(plugin.error.as_ref().is_some_and(|error| error.contains("did not start within")), "{plugin:?}");
    host.shutdown().await;
}

/// An output that breaks with its first piece.
#[derive(Clone, Copy)]
enum BrokenOutput {
    Fails,
    Panics,
}

impl AudioOutput for BrokenOutput {
    fn play(&mut self, _: &AudioChunk) -> Result<(), OutputError> {
        match self {
            Self::Fails => Err(OutputError::new("the loudspeaker is on fire")),
            Self::Panics => panic!("the loudspeaker is on fire"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_breaks_is_told_once_and_the_conversation_goes_on() {
    for output in [BrokenOutput::Fails, BrokenOutput::Panics] {
        let setup = Setup::with(PluginDir::of(&["llm-rules", "tts-flite"])).output(output);
        let mut talk = setup.start().await;
        for _ in 0..2 {
            let turn = talk.ask("go forward ten meters").await;
            assert_eq!(turn.count("turn.metrics"), 1, "{turn}");
        }
        let finished = talk.finish().await;
        let told = finished.events.only("audio.playback.error");
        assert!(told.to_string().contains("on fire") || matches!(output, BrokenOutput::Panics), "{told}");
        assert_eq!(finished.events.of("agent.error").filter(|error| error["component"] == "edge").count(), 1);
        assert_eq!(finished.summary.turns, 2);
    }
}

/// The beginning of a recording of speech, for ears that break.
async fn listen(talk: &Conversation) {
    talk.play(&recordings::go_forward()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_turn_detection_is_told_and_the_rest_is_one_turn() {
    for how in ["panic", "fail", "hang"] {
        let plugins = PluginDir::of(&["stt-pocketsphinx", "llm-rules"]).with_misbehave();
        let config = AgentConfig { turn: Some("misbehave".into()), ..AgentConfig::default() };
        let config = AgentConfig { stt: Some("stt-pocketsphinx".into()), tts: Some("none".into()), ..config };
        let setup = Setup::with(plugins).set("misbehave", "start", "well").set("misbehave", "hear", how);
        let mut talk =
            setup.set("stt-pocketsphinx", "grammar", crate::grammar()).config(config).start().await;
        listen(&talk).await;
        talk.agent.end_audio().await.expect("the agent listens");
        talk.until("turn.metrics").await;
        let finished = talk.finish().await;
        let told = finished.events.only("agent.error");
        assert_eq!(told["error_code"], "turn_detection", "{how}");
        assert_eq!(finished.events.only("agent.user_transcript")["text"], "go forward ten meters", "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recogniser_that_breaks_fails_the_turn_and_the_agent_still_takes_text() {
    for how in ["panic", "fail", "hang"] {
        let plugins = PluginDir::of(&["turn-earshot", "llm-rules"]).with_misbehave();
        let config = AgentConfig {
            stt: Some("misbehave".into()),
            tts: Some("none".into()),
            turn_timeout_ms: SHORT_MS,
            ..AgentConfig::default()
        };
        let setup = Setup::with(plugins).set("misbehave", "start", "well").set("misbehave", "hear", how);
        let mut talk = setup.config(config).start().await;
        listen(&talk).await;
        talk.agent.end_audio().await.expect("the agent listens");
        let told = talk.until("agent.error").await;
        assert_eq!(told["component"], "stt", "{how}: {told}");
        let want = "Going forward ten meters. Tell me when to stop.";
        assert_answered(&talk.ask("go forward ten meters").await, want);
        let finished = talk.finish().await;
        assert_eq!(
            (finished.summary.answered, finished.summary.failed),
            (1, 1),
            "{how}: {}",
            finished.events
        );
    }
}

#[test]
fn the_program_survives_a_plugin_that_panics_while_it_starts() {
    let plugins = PluginDir::of(&["turn-earshot"]).with_misbehave();
    let set = ["--set", "misbehave.start=panic"];
    let outcome = antiphon(["talk"]).args([recordings::go_forward()]).args(set).plugins(&plugins).run();
    outcome.complained(1, &["misbehave", "panicked while starting, as asked"]);
}
