//! Who does the work of a plugin that is down, how often it is started again, and what becomes of one that hangs.

use std::fs;

use antiphon_host::{
    Agent, AgentConfig, PluginState,
    agent::Fallback,
    plugins::{Isolation, OnCrash, PolicyConfig},
};
use antiphon_test_support::{
    built,
    events::EventLog,
    hosted::{Hosted, finish},
    hostile::{Behaviour, hostile_as},
    plugins::PluginDir,
    recordings,
};
use rustix::process::Signal;
use serde_json::Value;

/// The language model that is chosen.
const FIRST: &str = "llm-first";

/// Its stand-in.
const SECOND: &str = "llm-second";

/// Time without an answer after which a plugin hangs. Long enough for one that works on a busy machine.
const HANG_MS: u64 = 2_000;

/// In a worker, which is started again so often.
fn worker(max_restarts: u32) -> PolicyConfig {
    PolicyConfig {
        isolation: Some(Isolation::Process),
        max_restarts: Some(max_restarts),
        ..PolicyConfig::default()
    }
}

/// Inside the host, and found when it hangs.
fn inside(on_crash: OnCrash) -> PolicyConfig {
    PolicyConfig { on_crash: Some(on_crash), hang_timeout_ms: Some(HANG_MS), ..PolicyConfig::default() }
}

/// A conversation in writing.
fn writing(llm: &str) -> AgentConfig {
    AgentConfig { llm: Some(llm.into()), tts: Some("none".into()), ..AgentConfig::default() }
}

fn with_stand_in() -> AgentConfig {
    AgentConfig { fallback: Fallback { llm: Some(SECOND.into()), ..Fallback::default() }, ..writing(FIRST) }
}

/// The one that is chosen crashes when it is told to; the other is well.
fn both() -> PluginDir {
    let plugins = PluginDir::empty();
    hostile_as(&plugins, FIRST, "1.0.0", Behaviour::SEGV_CALL);
    hostile_as(&plugins, SECOND, "1.0.0", Behaviour::WELL);
    plugins
}

/// A copy of a plugin that we ship, as a new version of it: other content, and nothing else.
#[track_caller]
fn renew(plugins: &PluginDir, name: &str, number: u8) {
    let mut library = fs::read(built::plugin(name)).expect("it is built");
    library.push(number);
    plugins.write(&built::file_name(name), library);
}

/// The turn was answered by this plugin.
#[track_caller]
fn assert_answered_by(turn: &EventLog, plugin: &str) {
    assert_eq!(turn.count("agent.error"), 0, "{turn}");
    assert_eq!(turn.only("llm.response.delta")["plugin_name"], plugin, "{turn}");
}

/// The turn failed with this error, and the conversation did not.
#[track_caller]
fn assert_failed<'a>(turn: &'a EventLog, component: &str, code: &str) -> &'a str {
    let told = turn.only("agent.error");
    assert_eq!(
        (told["error_code"].as_str(), told["component"].as_str()),
        (Some(code), Some(component)),
        "{turn}"
    );
    assert_eq!(
        (told["is_recoverable"].as_bool(), told["fatal"].as_bool()),
        (Some(true), Some(false)),
        "{turn}"
    );
    assert_eq!(turn.count("turn.metrics"), 1, "{turn}");
    told["error_message"].as_str().expect("a reason")
}

/// Events of a type that a conversation told, and not the host.
fn told(hosted: &mut Hosted, agent: &Agent, event_type: &str) -> Vec<Value> {
    let session = agent.session_id().to_string();
    let log = hosted.so_far();
    log.of(event_type).filter(|event| event["session_id"] == session.as_str()).cloned().collect()
}

/// So far, this one change of the plugin was told.
#[track_caller]
fn assert_one_fallback(hosted: &mut Hosted, agent: &Agent, role: &str, from: &str, to: &str, why: &str) {
    let all = told(hosted, agent, "provider.fallback");
    let [fallback] = &all[..] else { panic!("one change: {all:?}") };
    let field = |name: &str| fallback[name].as_str();
    assert_eq!((field("role"), field("from"), field("to")), (Some(role), Some(from), Some(to)), "{fallback}");
    let error = &fallback["error"];
    assert_eq!((error["code"].as_str(), error["recoverable"].as_bool()), (Some("provider_down"), Some(true)));
    assert!(error["message"].as_str().is_some_and(|text| text.contains(why)), "no {why:?} in {fallback}");
}

/// So far, it was told once that the plugin is back.
#[track_caller]
fn assert_one_recovery(hosted: &mut Hosted, agent: &Agent, plugin: &str) {
    let all = told(hosted, agent, "provider.recovery");
    let [recovery] = &all[..] else { panic!("one recovery: {all:?}") };
    assert_eq!((recovery["provider"].as_str(), recovery["recovered"].as_bool()), (Some(plugin), Some(true)));
    assert_eq!(recovery["recovering"], false, "{recovery}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_of_a_language_model_answers_until_a_new_version_of_it_runs() {
    let plugins = both();
    let mut hosted = Hosted::start(&plugins, |host| host.policy(FIRST, worker(0))).await;
    let agent = hosted.agent(with_stand_in()).await;
    assert_answered_by(&hosted.ask(&agent, "hello").await, FIRST);

    let turn = hosted.ask(&agent, "strike").await;
    assert!(assert_failed(&turn, "llm", "plugin_crashed").contains("crashed with SIGSEGV"), "{turn}");
    hosted.lifecycle(FIRST, "failed", 1).await;
    assert_eq!(told(&mut hosted, &agent, "provider.fallback").len(), 0);

    for _ in 0..2 {
        assert_answered_by(&hosted.ask(&agent, "hello").await, SECOND);
        assert_one_fallback(&mut hosted, &agent, "llm", FIRST, SECOND, "crashed with SIGSEGV");
    }
    assert_eq!(told(&mut hosted, &agent, "provider.recovery").len(), 0);

    hostile_as(&plugins, FIRST, "2.0.0", Behaviour::WELL);
    hosted.host.reload().await;
    for _ in 0..2 {
        let turn = hosted.ask(&agent, "strike").await;
        assert_answered_by(&turn, FIRST);
        assert_eq!(turn.only("llm.response.delta")["plugin_version"], "2.0.0");
        assert_one_recovery(&mut hosted, &agent, FIRST);
    }
    assert_one_fallback(&mut hosted, &agent, "llm", FIRST, SECOND, "crashed with SIGSEGV");
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_model_that_was_started_again_has_its_next_turn_itself() {
    let mut hosted = Hosted::start(&both(), |host| host.policy(FIRST, worker(9))).await;
    let agent = hosted.agent(with_stand_in()).await;
    for crash in 1..=3 {
        assert_failed(&hosted.ask(&agent, "strike").await, "llm", "plugin_crashed");
        hosted.lifecycle(FIRST, "ready", crash + 1).await;
        assert_answered_by(&hosted.ask(&agent, "hello").await, FIRST);
    }
    assert_eq!(hosted.plugin(FIRST).restarts, 3);
    assert_eq!(told(&mut hosted, &agent, "provider.fallback").len(), 0);
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_begins_with_the_stand_in_of_what_does_not_run_and_says_so() {
    let plugins = both();
    hostile_as(&plugins, FIRST, "1.0.0", Behaviour::FAIL_CREATE);
    let mut hosted = Hosted::start(&plugins, |host| host).await;
    let agent = hosted.agent(with_stand_in()).await;
    assert_eq!(agent.missing().iter().filter(|missing| missing.kind == antiphon_host::Kind::Llm).count(), 0);
    assert_answered_by(&hosted.ask(&agent, "hello").await, SECOND);
    assert_one_fallback(&mut hosted, &agent, "llm", FIRST, SECOND, "failed while starting, as asked");
    hostile_as(&plugins, FIRST, "2.0.0", Behaviour::WELL);
    hosted.host.reload().await;
    assert_answered_by(&hosted.ask(&agent, "hello").await, FIRST);
    assert_one_recovery(&mut hosted, &agent, FIRST);
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_of_a_voice_speaks_until_a_new_version_of_it_runs() {
    let plugins = PluginDir::empty().with_misbehave();
    hostile_as(&plugins, FIRST, "1.0.0", Behaviour::WELL);
    renew(&plugins, "tts-flite", 1);
    let how = |host: antiphon_host::HostBuilder| {
        host.policy("tts-flite", worker(0)).set("misbehave", "start", "well")
    };
    let mut hosted = Hosted::start(&plugins, how).await;
    let config = AgentConfig {
        tts: Some("tts-flite".into()),
        fallback: Fallback { tts: Some("misbehave".into()), ..Fallback::default() },
        ..writing(FIRST)
    };
    let agent = hosted.agent(config).await;
    // What is queued is told before anybody speaks.
    let speaks = |turn: &EventLog, plugin: &str| {
        let voices =
            turn.iter().filter(|event| event["type"].as_str().is_some_and(|name| name.starts_with("tts.")));
        let mut voices = voices.filter(|event| event["type"] != "tts.chunk_queued").peekable();
        assert!(voices.peek().is_some(), "{turn}");
        assert!(voices.all(|event| event["plugin_name"] == plugin), "{turn}");
        assert_eq!(turn.count("agent.error"), 0, "{turn}");
        assert_eq!(turn.only("agent.agent_turn_ended")["spoken_text"], "You said: hello.");
    };
    speaks(&hosted.ask(&agent, "hello").await, "tts-flite");

    hosted.worker("tts-flite").signal(Signal::KILL);
    hosted.lifecycle("tts-flite", "failed", 1).await;
    for _ in 0..2 {
        speaks(&hosted.ask(&agent, "hello").await, "misbehave");
        assert_one_fallback(&mut hosted, &agent, "tts", "tts-flite", "misbehave", "SIGKILL");
    }

    renew(&plugins, "tts-flite", 2);
    hosted.host.reload().await;
    speaks(&hosted.ask(&agent, "hello").await, "tts-flite");
    assert_one_recovery(&mut hosted, &agent, "tts-flite");
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_of_a_recogniser_listens_until_a_new_version_of_it_runs() {
    let plugins = PluginDir::of(&["turn-earshot", "stt-pocketsphinx", "llm-rules"]).with_misbehave();
    let how = |host: antiphon_host::HostBuilder| {
        let host = host.policy("misbehave", worker(0)).set("misbehave", "start", "well");
        // By its error it can be told from the other.
        host.set("misbehave", "hear", "fail").set("stt-pocketsphinx", "grammar", crate::grammar())
    };
    let mut hosted = Hosted::start(&plugins, how).await;
    let config = AgentConfig {
        turn: Some("turn-earshot".into()),
        stt: Some("misbehave".into()),
        fallback: Fallback { stt: Some("stt-pocketsphinx".into()), ..Fallback::default() },
        ..writing("llm-rules")
    };
    let agent = hosted.agent(config).await;
    hosted.worker("misbehave").signal(Signal::KILL);
    hosted.lifecycle("misbehave", "failed", 1).await;
    for turn_id in 1..=2 {
        say(&agent).await;
        let turn = hosted.end_of(&agent, turn_id).await;
        assert_eq!(turn.only("agent.user_transcript")["text"], "go forward ten meters", "{turn}");
        let heard = turn.only("stt.transcript.utterance_final");
        assert_eq!(heard["plugin_name"], "stt-pocketsphinx", "{turn}");
        assert_one_fallback(&mut hosted, &agent, "stt", "misbehave", "stt-pocketsphinx", "SIGKILL");
    }

    let _ = plugins.clone().with_misbehave();
    hosted.host.reload().await;
    say(&agent).await;
    let is_its = |event: &Value| event["type"] == "stt.error" && event["plugin_name"] == "misbehave";
    hosted.all(is_its, 1, "an error of the recogniser that is back").await;
    assert_one_recovery(&mut hosted, &agent, "misbehave");
    finish(agent).await;
    hosted.stop().await;
}

/// Four words and the silence after them.
async fn say(agent: &Agent) {
    let samples: Vec<i16> = recordings::samples(&recordings::go_forward())
        .into_iter()
        .chain(recordings::silence(2_000))
        .collect();
    for chunk in samples.chunks(320) {
        let audio = antiphon_host::core::AudioChunk::mono(chunk.to_vec());
        agent.push_audio(audio).await.expect("the agent listens");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stand_in_a_turn_fails_and_the_agent_goes_on() {
    let plugins = both();
    let mut hosted = Hosted::start(&plugins, |host| host.policy(FIRST, worker(0))).await;
    let agent = hosted.agent(writing(FIRST)).await;
    assert_failed(&hosted.ask(&agent, "strike").await, "llm", "plugin_crashed");
    hosted.lifecycle(FIRST, "failed", 1).await;
    let turn = hosted.ask(&agent, "hello").await;
    let reason = assert_failed(&turn, "llm", "provider_down");
    assert!(reason.contains(FIRST) && reason.contains("crashed with SIGSEGV"), "{reason}");
    hostile_as(&plugins, FIRST, "2.0.0", Behaviour::WELL);
    hosted.host.reload().await;
    assert_answered_by(&hosted.ask(&agent, "hello").await, FIRST);
    assert_eq!(told(&mut hosted, &agent, "provider.fallback").len(), 0);
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_that_is_down_as_well_is_no_help_and_no_harm() {
    let mut hosted = Hosted::start(&both(), |host| host.policy("*", worker(0))).await;
    let agent = hosted.agent(with_stand_in()).await;
    for plugin in [FIRST, SECOND] {
        hosted.worker(plugin).signal(Signal::KILL);
        hosted.lifecycle(plugin, "failed", 1).await;
    }
    let turn = hosted.ask(&agent, "hello").await;
    assert!(assert_failed(&turn, "llm", "provider_down").contains(FIRST), "{turn}");
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_breaks_too_often_stays_down_and_the_reason_says_how_often() {
    let plugins = both();
    let mut hosted = Hosted::start(&plugins, |host| host.policy(FIRST, worker(2))).await;
    let agent = hosted.agent(writing(FIRST)).await;
    for crash in 1..=2 {
        assert_failed(&hosted.ask(&agent, "strike").await, "llm", "plugin_crashed");
        hosted.lifecycle(FIRST, "ready", crash + 1).await;
    }
    assert_failed(&hosted.ask(&agent, "strike").await, "llm", "plugin_crashed");
    let given_up = |event: &Value| {
        event["type"] == "provider.recovery" && event["recovering"] == false && event["recovered"] == false
    };
    let told = hosted.all(given_up, 1, "that it is given up").await.remove(0);
    assert_eq!((told["provider"].as_str(), told["max_attempts"].as_u64()), (Some(FIRST), Some(2)), "{told}");
    // Three crashes, and the end.
    let last = hosted.lifecycle(FIRST, "failed", 4).await;
    let reason = last["error"]["message"].as_str().expect("a reason");
    assert!(reason.contains("crashed with SIGSEGV"), "{reason}");
    assert!(reason.contains("given up after 2 restarts within 60 s"), "{reason}");
    let plugin = hosted.plugin(FIRST);
    assert_eq!((plugin.state, plugin.restarts, plugin.process_id), (PluginState::Failed, 2, None));
    assert_eq!(plugin.error.as_deref(), Some(reason));
    // It is tried again when that is asked for, and a new version begins anew.
    let [again] = &hosted.host.reload().await[..] else { panic!("one plugin has changed") };
    assert_eq!((again.name.as_str(), again.refused.as_deref()), (FIRST, None));
    hostile_as(&plugins, FIRST, "2.0.0", Behaviour::WELL);
    hosted.host.reload().await;
    let plugin = hosted.plugin(FIRST);
    assert_eq!((plugin.state, plugin.restarts, plugin.generation), (PluginState::Ready, 0, 3));
    assert_answered_by(&hosted.ask(&agent, "hello").await, FIRST);
    finish(agent).await;
    hosted.stop().await;
}

/// A host whose language model holds its only thread when it is told to, and a conversation in which it was.
async fn blocked(on_crash: OnCrash) -> (Hosted, Agent) {
    let plugins = PluginDir::empty().with_misbehave();
    let how = |host: antiphon_host::HostBuilder| {
        host.set("misbehave", "start", "well").policy("misbehave", inside(on_crash))
    };
    let mut hosted = Hosted::start(&plugins, how).await;
    let agent = hosted.agent(writing("misbehave")).await;
    let turn = hosted.ask(&agent, "block").await;
    assert_failed(&turn, "llm", "plugin_crashed");
    (hosted, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_inside_the_host_is_started_again_in_a_worker_where_that_is_wanted() {
    let (mut hosted, agent) = blocked(OnCrash::Isolate).await;
    let told = hosted.lifecycle("misbehave", "failed", 1).await;
    assert_eq!(told["error"]["message"], "did not answer for 2 s");
    hosted.lifecycle("misbehave", "ready", 2).await;
    let plugin = hosted.plugin("misbehave");
    assert_eq!(plugin.isolation, Isolation::Process);
    assert!(plugin.process_id.is_some(), "{plugin:?}");
    assert_answered_by(&hosted.ask(&agent, "hello").await, "misbehave");
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_stays_failed_where_that_is_wanted() {
    let (mut hosted, agent) = blocked(OnCrash::Fail).await;
    hosted.lifecycle("misbehave", "failed", 1).await;
    assert_eq!(hosted.error("misbehave"), "did not answer for 2 s");
    let turn = hosted.ask(&agent, "hello").await;
    let reason = assert_failed(&turn, "llm", "provider_down");
    assert_eq!(reason, "misbehave did not answer for 2 s");
    finish(agent).await;
    let log = hosted.stop().await;
    assert_eq!(log.count("provider.recovery"), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_inside_the_host_says_what_to_do() {
    let (mut hosted, agent) = blocked(OnCrash::Restart).await;
    hosted.lifecycle("misbehave", "failed", 1).await;
    let reason = hosted.error("misbehave");
    assert!(reason.starts_with("did not answer for 2 s; "), "{reason}");
    assert!(reason.contains("isolation = \"process\" (--isolate misbehave)"), "{reason}");
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_answers_again_in_time_is_ready_again() {
    let policy = PolicyConfig { hang_timeout_ms: Some(12_000), ..worker(0) };
    let mut hosted = Hosted::start(&both(), |host| host.policy(FIRST, policy)).await;
    let agent = hosted.agent(writing(FIRST)).await;
    let process = hosted.worker(FIRST);
    process.signal(Signal::STOP);
    let told = hosted.lifecycle(FIRST, "degraded", 1).await;
    assert!(
        told["error"]["message"].as_str().is_some_and(|text| text.contains("has not answered for")),
        "{told}"
    );
    process.signal(Signal::CONT);
    hosted.lifecycle(FIRST, "ready", 2).await;
    assert_answered_by(&hosted.ask(&agent, "hello").await, FIRST);
    let plugin = hosted.plugin(FIRST);
    assert_eq!((plugin.process_id, plugin.restarts, plugin.error), (Some(process.id()), 0, None));
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_is_ended_and_another_takes_its_place() {
    let policy = PolicyConfig { hang_timeout_ms: Some(HANG_MS), ..worker(5) };
    let mut hosted = Hosted::start(&both(), |host| host.policy(FIRST, policy)).await;
    let agent = hosted.agent(writing(FIRST)).await;
    let process = hosted.worker(FIRST);
    process.signal(Signal::STOP);
    let turn = hosted.ask(&agent, "hello").await;
    let reason = assert_failed(&turn, "llm", "plugin_crashed");
    assert!(reason.contains("did not answer for 2 s"), "{reason}");
    tokio::task::block_in_place(|| process.ended());
    hosted.lifecycle(FIRST, "ready", 2).await;
    assert_answered_by(&hosted.ask(&agent, "hello").await, FIRST);
    finish(agent).await;
    hosted.stop().await;
}
