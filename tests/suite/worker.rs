//! Plugins in worker processes: what the process may do and hold, how it ends, and that a conversation does not show
//! where its plugins run.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
};

use antiphon_host::{
    Agent, AgentConfig, HostBuilder,
    core::{
        Event,
        event::{Overflow, llm::LlmResponseDeltaEvent, values::InterruptReason},
    },
    plugins::{Isolation, PolicyConfig},
};
use antiphon_test_support::{
    events::EventLog,
    hosted::{Hosted, finish},
    hostile::{Behaviour, hostile_as},
    plugins::PluginDir,
    process::Process,
    program::{Running, antiphon},
    recordings::{Wav, go_forward, samples, silence, write_raw},
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::Signal,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::{talk, temporary};

/// A language model that misbehaves, and one beside it that does not.
const BAD: &str = "llm-bad";
const GOOD: &str = "llm-good";

/// The plugins of a conversation.
const STAGES: [&str; 4] = ["turn-earshot", "stt-pocketsphinx", "llm-rules", "tts-flite"];

/// Time without an answer after which a plugin hangs. Long enough for one that works on a busy machine.
const HANG_MS: u64 = 2_000;

/// A conversation in writing.
fn writing(llm: &str) -> AgentConfig {
    AgentConfig { llm: Some(llm.into()), tts: Some("none".into()), ..AgentConfig::default() }
}

/// Both models in workers; what the bad one may use.
async fn beside(behaviour: Behaviour, policy: PolicyConfig) -> Hosted {
    let plugins = PluginDir::empty();
    hostile_as(&plugins, BAD, "1.0.0", behaviour);
    hostile_as(&plugins, GOOD, "1.0.0", Behaviour::WELL);
    let policy = PolicyConfig { isolation: Some(Isolation::Process), ..policy };
    Hosted::start(&plugins, |host| host.isolate("*").policy(BAD, policy)).await
}

/// The turn failed, because the worker is gone, and the conversation did not.
#[track_caller]
fn assert_crashed<'a>(turn: &'a EventLog, why: &str) -> &'a str {
    let told = turn.only("agent.error");
    assert_eq!(
        (told["error_code"].as_str(), told["component"].as_str()),
        (Some("plugin_crashed"), Some("llm"))
    );
    assert_eq!(
        (told["is_recoverable"].as_bool(), told["fatal"].as_bool()),
        (Some(true), Some(false)),
        "{told}"
    );
    let reason = told["error_message"].as_str().expect("a reason");
    assert!(reason.contains(why), "no {why:?} in {reason}");
    assert_eq!(turn.count("turn.metrics"), 1, "{turn}");
    reason
}

#[track_caller]
fn assert_answered(turn: &EventLog) {
    assert_eq!(turn.count("agent.error"), 0, "{turn}");
    assert_eq!(turn.only("llm.response.delta")["delta"], "You said: hello.", "{turn}");
}

/// After the end of a worker: it is gone, another one answers, and the plugin beside it has not noticed.
async fn is_replaced_alone(hosted: &mut Hosted, agent: &Agent, dead: &Process, beside: &Process) {
    block_in_place(|| dead.ended());
    hosted.lifecycle(BAD, "ready", 2).await;
    assert_ne!(hosted.worker(BAD).id(), dead.id());
    assert_answered(&hosted.ask(agent, "hello").await);
    assert_eq!(hosted.worker(GOOD).id(), beside.id());
    assert!(beside.is_alive());
    let other = hosted.agent(writing(GOOD)).await;
    assert_answered(&hosted.ask(&other, "hello").await);
    finish(other).await;
}

/// A conversation of the program that goes on for minutes, with all plugins in workers.
struct Long {
    running: Running,
    workers: Vec<Process>,
    _directory: TempDir,
}

fn long(policy: &str) -> Long {
    let directory = temporary();
    let [recording, config] = ["long.raw", "config.toml"].map(|name| directory.path().join(name));
    write_raw(&recording, samples(&go_forward()).into_iter().chain(silence(600_000)));
    fs::write(&config, format!("[plugins.policy.'*']\nisolation = 'process'\n{policy}"))
        .expect("room for a file");
    let program =
        talk(&[&recording], &PluginDir::of(&STAGES)).args(["--realtime", "--config"]).args([config]);
    let program = program.env("ANTIPHON_TEST_SECRET", "hush").env("ANTIPHON_TEST_NAMED", "open");
    let mut running = program.start();
    running.until_line(|line| line.contains("audio.playback.start") || line.contains("agent:"));
    let workers: Vec<_> = Process::children(running.id()).into_iter().map(Process::of).collect();
    assert_eq!(workers.len(), STAGES.len(), "{workers:?}");
    Long { running, workers, _directory: directory }
}

#[test]
fn workers_are_confined() {
    let long = long("environment = ['ANTIPHON_TEST_NAMED']\nmemory_mb = 2048\ncpu_seconds = 3600\n");
    for worker in &long.workers {
        let environment = worker.environment();
        assert!(environment.contains(&"ANTIPHON_TEST_NAMED=open".to_owned()), "{environment:?}");
        assert!(!environment.iter().any(|variable| variable.contains("hush")), "{environment:?}");
        let names = environment.iter().map(|variable| variable.split('=').next().unwrap_or_default());
        assert_eq!(names.filter(|name| name.starts_with("ANTIPHON_")).count(), 1, "{environment:?}");

        assert_eq!(worker.line("status", "NoNewPrivs:"), "1");
        let limit = |name: &str| worker.line("limits", name).split_whitespace().next().map(str::to_owned);
        assert_eq!(limit("Max core file size"), Some("0".into()));
        assert_eq!(limit("Max data size"), Some((2048_u64 << 20).to_string()));
        assert_eq!(limit("Max cpu time"), Some("3600".into()));

        assert_eq!(worker.group(), worker.id(), "a group of its own");
        for file in worker.open_files() {
            let name = file.to_string_lossy();
            let is_expected = name == "/dev/null"
                || ["pipe:", "socket:", "anon_inode:"].iter().any(|kind| name.starts_with(kind));
            assert!(is_expected, "{name} is open in a worker");
        }
    }
    long.running.signal(Signal::KILL);
    drop(long.running.end().killed_by(Signal::KILL));
}

#[test]
fn workers_end_with_a_host_that_was_killed() {
    let long = long("");
    long.running.signal(Signal::KILL);
    drop(long.running.end().killed_by(Signal::KILL));
    long.workers.iter().for_each(Process::ended);
}

#[test]
fn workers_end_with_a_host_that_was_interrupted() {
    let long = long("");
    long.running.signal(Signal::INT);
    drop(long.running.end());
    long.workers.iter().for_each(Process::ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_inherits_nothing_that_its_host_has_open() {
    let directory = temporary();
    let path = directory.path().join("secret");
    let file = File::create(&path).expect("room for a file");
    // As libraries open files that know nothing of children.
    fcntl_setfd(&file, FdFlags::empty()).expect("a descriptor");
    let hosted = beside(Behaviour::WELL, PolicyConfig::default()).await;
    let open = hosted.worker(BAD).open_files();
    assert!(!open.contains(&path), "{open:?}");
    let kind = |file: &PathBuf| file.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
    // Standard input; the output that the host reads; the way to the host.
    assert_eq!(open.iter().map(kind).collect::<Vec<_>>(), ["/dev/null", "pipe", "socket"], "{open:?}");
    drop(file);
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_takes_too_much_memory_dies_alone_and_is_told() {
    let policy = PolicyConfig { memory_mb: Some(64), ..PolicyConfig::default() };
    let mut hosted = beside(Behaviour::LEAK_CALL, policy).await;
    let agent = hosted.agent(writing(BAD)).await;
    let (bad, good) = (hosted.worker(BAD), hosted.worker(GOOD));
    // Each call takes one MiB of the 64.
    let mut calls = 0;
    let turn = loop {
        calls += 1;
        assert!(calls < 64, "the limit has no effect");
        let turn = hosted.ask(&agent, "strike").await;
        if turn.count("agent.error") > 0 {
            break turn;
        }
    };
    assert!(calls > 8, "after {calls} calls: {turn}");
    // What the last of the memory was wanted for is said in many ways: an allocation, a thread, its locals. It ends by that,
    // and not by being found.
    let reason = assert_crashed(&turn, "its last words: ");
    assert!(!reason.contains("did not answer"), "{reason}");
    is_replaced_alone(&mut hosted, &agent, &bad, &good).await;
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_takes_too_much_processor_time_dies_alone_and_is_told() {
    let policy = PolicyConfig { cpu_seconds: Some(1), ..PolicyConfig::default() };
    let mut hosted = beside(Behaviour::FLOOD_CALL, policy).await;
    let agent = hosted.agent(writing(BAD)).await;
    let (bad, good) = (hosted.worker(BAD), hosted.worker(GOOD));
    assert_crashed(&hosted.ask(&agent, "strike").await, "too much processor time");
    is_replaced_alone(&mut hosted, &agent, &bad, &good).await;
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_blocks_in_a_call_is_found_ended_and_replaced() {
    let policy = PolicyConfig { hang_timeout_ms: Some(HANG_MS), ..PolicyConfig::default() };
    let mut hosted = beside(Behaviour::BLOCK_CALL, policy).await;
    let agent = hosted.agent(writing(BAD)).await;
    let (bad, good) = (hosted.worker(BAD), hosted.worker(GOOD));
    assert_crashed(&hosted.ask(&agent, "strike").await, "did not answer for 2 s");
    is_replaced_alone(&mut hosted, &agent, &bad, &good).await;
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_has_no_room_for_stays_with_the_plugin_and_the_rest_keeps_its_order() {
    let mut hosted = beside(Behaviour::FLOOD_CALL, PolicyConfig::default()).await;
    let agent = hosted.agent(writing(BAD)).await;
    agent.send_text("strike").await.expect("the agent takes text");
    let is_noise = |event: &Value| event["type"] == "hostile.noise";
    hosted.all(is_noise, 2_000, "a flood").await;
    agent.interrupt(InterruptReason::Manual).await.expect("the agent speaks");
    let turn = hosted.end_of(&agent, 1).await;
    assert_eq!(turn.only("turn.metrics")["interrupted"], true);
    finish(agent).await;
    let another = hosted.agent(writing(BAD)).await;
    assert_answered(&hosted.ask(&another, "hello").await);
    finish(another).await;
    let log = hosted.stop().await;
    let numbers: Vec<u64> =
        log.iter().filter(|event| is_noise(event)).filter_map(|event| event["number"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "an order of its own");
    // It does not wait for room: whatever it emitted without any was refused before it left the worker.
    let (last, taken) = (numbers.last().copied().unwrap_or_default(), numbers.len() as u64);
    assert!(last + 1 > taken, "{taken} of {} events: nothing was ever refused", last + 1);
    assert_eq!(log.count("bus.lagged"), 0, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_waits_for_room_loses_nothing_across_processes() {
    let plugins = PluginDir::empty().with_misbehave();
    let how = |host: HostBuilder| host.set("misbehave", "start", "well").isolate("*");
    let mut hosted = Hosted::start(&plugins, how).await;
    // Takes one at a time, and others go first.
    let slow = hosted.host.bus().subscription().name("slow").capacity(8).overflow(Overflow::Wait).subscribe(
        async |_: Event<LlmResponseDeltaEvent>| {
            tokio::task::yield_now().await;
        },
    );
    let agent = hosted.agent(writing("misbehave")).await;
    let turn = hosted.ask(&agent, "flood 5000").await;
    let numbers: Vec<_> =
        turn.of("llm.response.delta").filter_map(|delta| delta["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..5_000).collect::<Vec<_>>());
    finish(agent).await;
    assert_eq!(slow.stats().dropped, 0, "{:?}", slow.stats());
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_reply_that_was_interrupted_nothing_comes_afterwards() {
    let plugins = PluginDir::empty().with_misbehave();
    let how = |host: HostBuilder| host.set("misbehave", "start", "well").isolate("*");
    let mut hosted = Hosted::start(&plugins, how).await;
    let agent = hosted.agent(writing("misbehave")).await;
    agent.send_text("flood 1000000").await.expect("the agent takes text");
    hosted.all(|event| event["type"] == "llm.response.delta", 100, "the beginning of a long reply").await;
    assert_answered(&hosted.ask(&agent, "hello").await);
    let first = hosted.end_of(&agent, 1).await;
    assert_eq!(first.only("turn.metrics")["interrupted"], true, "{first}");
    finish(agent).await;
    let log = hosted.stop().await;
    let of_turn = |turn_id: u64| {
        move |event: &&Value| event["type"] == "llm.response.delta" && event["turn_id"] == turn_id
    };
    let last = log.iter().filter(of_turn(1)).last().expect("it had begun");
    let aborted = log.only("llm.response.aborted");
    assert_eq!(aborted["turn_id"], 1);
    let answer = log.iter().find(of_turn(2)).expect("it was answered");
    for later in [aborted, answer] {
        assert!(last["seq"].as_u64() < later["seq"].as_u64(), "{last} after {later}");
    }
}

#[test]
fn the_list_says_where_each_plugin_runs() {
    let plugins = PluginDir::of(&["llm-rules", "tts-flite"]);
    let list = |options: &[&str]| {
        let list = antiphon(["plugins", "list", "--isolate", "tts-flite"]).args(options);
        list.plugins(&plugins).run().done()
    };
    for (options, runs) in [(&["--json"][..], true), (&["--json", "--no-start"], false)] {
        let json = list(options).json();
        let [inside, isolated] = [&json["plugins"][0], &json["plugins"][1]];
        assert_eq!(
            (&inside["isolation"], &isolated["isolation"]),
            (&"none".into(), &"process".into()),
            "{json}"
        );
        assert_eq!((inside["process_id"].is_u64(), isolated["process_id"].is_u64()), (false, runs), "{json}");
        for plugin in [inside, isolated] {
            assert_eq!((plugin["restarts"].as_u64(), plugin["generation"].as_u64()), (Some(0), Some(1)));
            assert!(plugin["sha256"].is_string(), "{plugin}");
        }
    }
    let text = list(&[]).stdout;
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("NAME").contains(" RUNS ") && line("llm-rules").contains(" host "), "{text}");
    assert!(line("tts-flite").contains(" process "), "{text}");
}

/// What can be seen of a conversation of the program.
#[derive(Debug, PartialEq)]
struct Seen {
    said: Vec<(String, String)>,
    /// How many events of each type each turn has.
    events: BTreeMap<(Option<u64>, String), usize>,
    spoken: Vec<i16>,
}

#[track_caller]
fn seen(voice: &str, options: &[&str]) -> Seen {
    let (plugins, directory) = (PluginDir::of(&STAGES).with_misbehave(), temporary());
    let [recording, reply, events] =
        ["two.raw", "reply.wav", "events.jsonl"].map(|name| directory.path().join(name));
    let command = samples(&go_forward());
    write_raw(&recording, command.iter().copied().chain(silence(1_500)).chain(command.iter().copied()));
    let voice = format!("agent.tts={voice}");
    let program = talk(&[&recording], &plugins).args(["--set", "misbehave.start=well", "--set", &voice]);
    let program = program.args(options);
    program.args(["--out".as_ref(), reply.as_path(), "--events".as_ref(), events.as_path()]).run().done();
    let log = EventLog::read(&events);
    let mut counts = BTreeMap::new();
    for event in log.iter().filter(|event| event["type"] != "plugin.lifecycle") {
        let of = (event["turn_id"].as_u64(), event["type"].as_str().unwrap_or_default().to_owned());
        *counts.entry(of).or_insert(0) += 1;
    }
    let users = log.of("agent.user_transcript");
    let agents = log.of("agent.agent_transcript").filter(|event| event["mode"] == "final");
    let text = |event: &Value| event["text"].as_str().unwrap_or_default().to_owned();
    let said = users.map(text).zip(agents.map(text)).collect();
    Seen { said, events: counts, spoken: Wav::read(&reply).samples }
}

#[test]
fn a_conversation_does_not_show_where_its_plugins_run() {
    for voice in ["tts-flite", "misbehave"] {
        let (inside, isolated) = (seen(voice, &[]), seen(voice, &["--isolate", "*"]));
        let (user, agent) = ("go forward ten meters", "Going forward ten meters. Tell me when to stop.");
        assert_eq!(inside.said, vec![(user.to_owned(), agent.to_owned()); 2]);
        assert_eq!(inside.said, isolated.said);
        assert_eq!(inside.events, isolated.events);
        // flite rolls dice for the noise in its consonants: one run of it is never the next, wherever it runs.
        let heard = |seen: &Seen| {
            seen.spoken.iter().map(|sample| (voice == "misbehave").then_some(*sample)).collect()
        };
        let (here, there): (Vec<_>, Vec<_>) = (heard(&inside), heard(&isolated));
        assert!(here == there, "{voice}: {} samples inside, {} from workers", here.len(), there.len());
        assert!(here.len() > 8_000, "{}", here.len());
    }
}
