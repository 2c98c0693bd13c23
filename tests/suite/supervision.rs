//! Plugins that break, and a host that goes on: every misbehaving plugin there is, at once and one by one, and workers that
//! are killed in the middle of what they do.

use std::{collections::BTreeMap, ffi::OsStr, fs, os::unix::process::ExitStatusExt, sync::Arc};

use antiphon_host::{
    Agent, AgentConfig, Host, HostBuilder, Plugin, PluginState,
    core::{
        AudioChunk, EventBus,
        event::{Event, agent::TurnMetricsEvent},
    },
    plugins::PolicyConfig,
};
use antiphon_test_support::{
    HANG, built,
    conversation::Recorder,
    damaged::{Damage, damaged, junk},
    events::EventLog,
    hostile::{Behaviour, Effect, Strikes, hostile},
    plugins::PluginDir,
    program::antiphon,
    recordings::{go_forward, samples},
};
use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{sync::Semaphore, time::timeout};

use crate::{grammar, grammar_setting, temporary};

/// Time in which a file is tried here; most of those below that hang use all of it.
const SCAN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(8);

/// A whole life in one process ends with the host that is inside of it, so these are not loaded into the host.
fn is_seen_by_the_scan(behaviour: Behaviour) -> bool {
    let is_early = behaviour.strikes <= Strikes::Ping || behaviour.strikes == Strikes::Stop;
    is_early && behaviour.strikes != Strikes::Never && behaviour.effect != Effect::Fine
}

/// Words of the reason that a listing gives for an effect.
fn words(effect: Effect) -> &'static [&'static str] {
    match effect {
        Effect::Signal(Signal::SEGV) => &["crashed with SIGSEGV"],
        Effect::Signal(Signal::ABORT) => &["crashed with SIGABRT"],
        Effect::Signal(Signal::BUS) => &["crashed with SIGBUS"],
        Effect::Signal(Signal::TRAP) => &["crashed with SIGTRAP"],
        Effect::Signal(_) => &["crashed with SIG"],
        Effect::Exit(0) => &["ended the process"],
        Effect::Exit(_) => &["ended the process with exit code"],
        Effect::Hangs => &["did not"],
        Effect::FillsStdout | Effect::FillsStderr => &["standard output"],
        Effect::Refused(_) | Effect::Breach | Effect::Fine => &[],
    }
}

#[track_caller]
fn is_accounted_for(plugin: &Plugin, states: &[PluginState], words: &[&str]) {
    let error = plugin.error.as_deref().unwrap_or_default();
    assert!(states.contains(&plugin.state), "{} is {:?}: {error}", plugin.name, plugin.state);
    assert!(plugin.state == PluginState::Ready || !error.is_empty(), "{} has no reason", plugin.name);
    for word in words {
        assert!(error.contains(word), "{}: no {word:?} in {error}", plugin.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_among_all_plugins_that_misbehave_and_each_is_accounted_for() {
    let (good, bad, cache) = (PluginDir::all(), PluginDir::empty(), temporary());
    for behaviour in Behaviour::ALL {
        hostile(&bad, *behaviour);
    }
    for damage in Damage::ALL {
        damaged(&bad, *damage);
    }
    let junk = junk(&bad);
    // The good ones have all the time that they need, however busy the machine is.
    let first = Host::builder().plugin_dir(good.path()).cache_dir(cache.path());
    let tried = tokio::task::spawn_blocking(move || first.load()).await.expect("a scan does not panic");
    assert_eq!(tried.1.children, built::plugin_names().len());

    let bus = EventBus::new();
    let mut recorder = Recorder::attach(&bus);
    let host =
        Host::builder().bus(bus).plugin_dir(good.path()).plugin_dir(bad.path()).cache_dir(cache.path());
    let host = host.scan_timeout(SCAN_TIMEOUT).set("stt-pocketsphinx", "grammar", grammar()).start().await;
    let agent = talker(&host, "llm-rules").await;
    agent.push_audio(AudioChunk::mono(samples(&go_forward()))).await.expect("the agent listens");
    let summary = timeout(HANG, agent.finish()).await.expect("the conversation ends").expect("as it should");
    assert_eq!((summary.turns, summary.answered, summary.failed), (1, 1, 0));

    let plugins: BTreeMap<_, _> = host
        .plugins()
        .into_iter()
        .map(|plugin| (plugin.path.file_name().unwrap_or_default().to_string_lossy().into_owned(), plugin))
        .collect();
    let broken = [PluginState::Quarantined, PluginState::Failed];
    for name in built::plugin_names() {
        is_accounted_for(&plugins[&built::file_name(&name)], &[PluginState::Ready], &[]);
    }
    for behaviour in Behaviour::ALL {
        let plugin = &plugins[&behaviour.file_name()];
        if *behaviour == Behaviour::STRICT_SETTINGS {
            is_accounted_for(plugin, &[PluginState::Failed], &["\"key\" is a required property"]);
        } else if is_seen_by_the_scan(*behaviour) {
            is_accounted_for(plugin, &broken, words(behaviour.effect));
        } else {
            // What it does in a session it does when it has one.
            is_accounted_for(plugin, &[PluginState::Ready], &[]);
        }
        if behaviour.is_deadly() && is_seen_by_the_scan(*behaviour) {
            assert_eq!(plugin.state, PluginState::Quarantined, "{}", plugin.name);
        }
    }
    for damage in Damage::ALL {
        is_accounted_for(&plugins[&damage.file_name()], &broken, words(damage.effect));
    }
    for (file, reason) in junk.into_iter().filter(|(file, _)| !file.starts_with("lib")) {
        is_accounted_for(&plugins[file], &broken, &[reason]);
    }
    host.shutdown().await;
    recorder.rest();
    let said = recorder.log.only("agent.user_transcript");
    assert_eq!(said["text"], "go forward ten meters");
    // On the bus as well: every one of them has its reason in an event.
    for plugin in plugins.values().filter(|plugin| broken.contains(&plugin.state)) {
        let is_told = |event: &&serde_json::Value| {
            event["type"] == "plugin.lifecycle"
                && event["plugin_name"] == plugin.name
                && event["error"]["message"] == plugin.error.clone().unwrap_or_default()
        };
        assert!(recorder.log.iter().any(|event| is_told(&event)), "nothing is told of {}", plugin.name);
    }
}

/// An agent of this host with the shipped plugins and a certain language model.
async fn talker(host: &Host, llm: &str) -> Agent {
    let config = AgentConfig {
        turn: Some("turn-earshot".into()),
        stt: Some("stt-pocketsphinx".into()),
        llm: Some(llm.into()),
        tts: Some("tts-flite".into()),
        ..AgentConfig::default()
    };
    host.agent().config(config).start().await.unwrap_or_else(|error| panic!("{llm}: {error}"))
}

/// An agent that reads and writes.
async fn writer(host: &Host, llm: &str, turn_timeout_ms: u64) -> Agent {
    // Stages that nobody has are passed over.
    let [turn, stt, tts] = ["turn", "stt", "tts"].map(|_| Some("none".to_owned()));
    let config =
        AgentConfig { turn, stt, tts, llm: Some(llm.into()), turn_timeout_ms, ..AgentConfig::default() };
    host.agent().config(config).start().await.unwrap_or_else(|error| panic!("{llm}: {error}"))
}

fn builder(plugins: &PluginDir) -> (HostBuilder, Recorder) {
    let bus = EventBus::new();
    let recorder = Recorder::attach(&bus);
    (Host::builder().bus(bus).plugin_dir(plugins.path()).cache_dir(built::cache()), recorder)
}

/// Asks, and waits for the end of the turn: its events.
async fn ask(agent: &Agent, recorder: &mut Recorder, text: &str) -> EventLog {
    agent.send_text(text).await.expect("the agent takes text");
    let session = agent.session_id().to_string();
    let is_question = |event: &serde_json::Value| {
        event["type"] == "agent.user_transcript" && event["session_id"] == session.as_str()
    };
    let question = recorder.until(is_question, "a question").await;
    let turn_id = question["turn_id"].as_u64().expect("a question has a turn");
    let is_end = |event: &serde_json::Value| {
        event["type"] == "turn.metrics"
            && event["turn_id"] == turn_id
            && event["session_id"] == session.as_str()
    };
    recorder.until(is_end, "the end of a turn").await;
    EventLog(
        recorder
            .log
            .iter()
            .filter(|event| event["turn_id"] == turn_id && event["session_id"] == session.as_str())
            .cloned()
            .collect(),
    )
}

#[track_caller]
fn is_answered(turn: &EventLog, question: &str) {
    let answers = turn.texts("agent.agent_transcript", "text");
    assert_eq!(answers.last().copied(), Some(&*format!("You said: {question}.")), "{turn}");
}

/// The plugins that misbehave in a session, each in a worker: what it strikes with costs its own turn, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_in_a_worker_does_in_a_call_costs_that_turn_alone() {
    let strikes_in_session =
        |behaviour: &Behaviour| (Strikes::Call..=Strikes::AfterClose).contains(&behaviour.strikes);
    let behaviours: Vec<_> = Behaviour::ALL.iter().copied().filter(strikes_in_session).collect();
    assert!(behaviours.len() > 15, "{behaviours:?}");
    let plugins = PluginDir::empty();
    for behaviour in &behaviours {
        hostile(&plugins, *behaviour);
    }
    let (host, mut recorder) = builder(&plugins);
    let policy = PolicyConfig {
        // The least that can be said: some of these hang.
        hang_timeout_ms: Some(1500),
        memory_mb: Some(512),
        ..PolicyConfig::default()
    };
    let host = host.policy("*", policy).isolate("*").start().await;
    for behaviour in &behaviours {
        let agent = writer(&host, &behaviour.plugin_name(), 4000).await;
        is_answered(&ask(&agent, &mut recorder, "hello").await, "hello");
        let struck = ask(&agent, &mut recorder, "strike").await;
        if behaviour.strikes == Strikes::Call && behaviour.is_deadly() {
            let error = struck.only("agent.error");
            assert_eq!(
                (error["error_code"].as_str(), error["is_recoverable"].as_bool()),
                (Some("plugin_crashed"), Some(true)),
                "{}: {struck}",
                behaviour.name
            );
        }
        is_answered(&ask(&agent, &mut recorder, "hello again").await, "hello again");
        let summary = timeout(HANG, agent.finish()).await;
        let summary = summary.unwrap_or_else(|_| panic!("{}: no end", behaviour.name));
        assert_eq!(summary.expect("an end").turns, 3, "{}", behaviour.name);
    }
    timeout(HANG, host.shutdown()).await.expect("the host ends");
}

/// How often a worker is killed.
const KILLS: u64 = 100;

/// Questions that the others ask meanwhile, each time.
const QUESTIONS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_in_the_middle_of_replies_costs_those_replies_alone() {
    let plugins = PluginDir::of(&["llm-echo"]).with_misbehave();
    let (host, mut recorder) = builder(&plugins);
    let policy =
        PolicyConfig { max_restarts: Some(1_000_000), restart_window_ms: Some(1), ..PolicyConfig::default() };
    let host =
        host.set("misbehave", "start", "well").policy("misbehave", policy).isolate("misbehave").start().await;
    let host = Arc::new(host);

    // Conversations that have nothing to do with it go on meanwhile.
    let questions = Arc::new(Semaphore::new(0));
    let others: Vec<_> =
        (0..4).map(|_| tokio::spawn(bystander(Arc::clone(&host), Arc::clone(&questions)))).collect();

    let agent = writer(&host, "misbehave", 30_000).await;
    for round in 0..KILLS {
        let before = process_of(&host);
        questions.add_permits(QUESTIONS);
        agent.send_text("begin").await.expect("the agent takes text");
        let session = agent.session_id().to_string();
        let is_ours = |event: &serde_json::Value, event_type: &str| {
            event["type"] == event_type && event["session_id"] == session.as_str()
        };
        let delta =
            recorder.until(|event| is_ours(event, "llm.response.delta"), "the beginning of an answer").await;
        kill_process(before, Signal::KILL).expect("it runs");
        let told = recorder.until(|event| is_ours(event, "llm.error"), "its end").await;
        assert_eq!(told["error_code"], "plugin_crashed");
        assert!(told["error_message"].as_str().is_some_and(|text| text.contains("SIGKILL")), "{told}");
        let error = recorder.until(|event| is_ours(event, "agent.error"), "what the agent says of it").await;
        assert_eq!(
            (error["error_code"].as_str(), error["is_recoverable"].as_bool(), &error["turn_id"]),
            (Some("plugin_crashed"), Some(true), &delta["turn_id"]),
        );
        recorder.until(|event| is_ours(event, "turn.metrics"), "the end of the turn").await;
        // The next one works, in another process.
        is_answered(&ask(&agent, &mut recorder, "hello").await, "hello");
        assert_ne!(process_of(&host), before, "round {round}");
    }
    let summary = timeout(HANG, agent.finish()).await.expect("an end").expect("as it should");
    assert_eq!((summary.turns, summary.answered, summary.failed), (2 * KILLS, KILLS, KILLS));

    questions.close();
    let mut asked = 0;
    for other in others {
        asked += timeout(HANG, other).await.expect("an end").expect("no panic");
    }
    let misbehave =
        host.plugins().into_iter().find(|plugin| plugin.name == "misbehave").expect("it was found");
    assert_eq!((misbehave.state, u64::from(misbehave.restarts)), (PluginState::Ready, KILLS));
    Arc::into_inner(host).expect("all have ended").shutdown().await;
    recorder.rest();
    counters_add_up(&recorder.log, asked);
}

#[track_caller]
fn process_of(host: &Host) -> Pid {
    let plugin = host.plugins().into_iter().find(|plugin| plugin.name == "misbehave").expect("it was found");
    let number = plugin.process_id.unwrap_or_else(|| panic!("it has no process: {plugin:?}"));
    Pid::from_raw(number.try_into().expect("a process number")).expect("not 0")
}

/// Asks llm-echo one question after the other, as long as there are any; says how many.
async fn bystander(host: Arc<Host>, questions: Arc<Semaphore>) -> u64 {
    let agent = writer(&host, "llm-echo", 30_000).await;
    let mut ends = agent.session().subscription().stream::<Event<TurnMetricsEvent>>();
    let mut asked = 0;
    while let Ok(question) = questions.acquire().await {
        question.forget();
        asked += 1;
        agent.send_text(format!("question {asked}")).await.expect("the agent takes text");
        timeout(HANG, ends.next()).await.expect("an answer").expect("the session is open");
    }
    let summary = timeout(HANG, agent.finish()).await.expect("an end").expect("as it should");
    assert_eq!((summary.turns, summary.answered, summary.failed), (asked, asked, 0));
    asked
}

/// Nothing is lost, nothing comes twice: by session, by turn and by restart.
#[track_caller]
fn counters_add_up(log: &EventLog, asked: u64) {
    let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
    for event in log.iter() {
        let Some(session) = event["session_id"].as_str() else { continue };
        let (seq, last) =
            (event["seq"].as_u64().expect("a number"), sequences.entry(session.to_owned()).or_default());
        assert!(seq > *last, "{seq} after {last} in {session}");
        *last = seq;
    }
    assert_eq!(sequences.len(), 5, "one conversation and four that go on beside it");
    let count = |event_type: &str| log.count(event_type) as u64;
    assert_eq!(count("agent.user_transcript"), asked + 2 * KILLS);
    assert_eq!(count("turn.metrics"), asked + 2 * KILLS);
    assert_eq!(count("llm.response.final"), asked + KILLS);
    assert_eq!((count("llm.error"), count("agent.error")), (KILLS, KILLS));
    assert_eq!((count("bus.lagged"), count("bus.exception")), (0, 0));
    let of_misbehave = |phase: &str| {
        log.iter().filter(|event| event["plugin_name"] == "misbehave" && event["phase"] == phase).count()
            as u64
    };
    assert_eq!(
        (of_misbehave("failed"), of_misbehave("ready"), of_misbehave("stopped")),
        (KILLS, KILLS + 1, 1)
    );
    let recoveries = |field: &str| {
        log.iter().filter(|event| event["type"] == "provider.recovery" && event[field] == true).count() as u64
    };
    assert_eq!((recoveries("recovering"), recoveries("recovered")), (KILLS, KILLS));
}

#[test]
fn a_plugin_that_took_its_host_down_runs_in_a_process_of_its_own_the_next_time() {
    let (plugins, directory) =
        (PluginDir::of(&["turn-earshot", "stt-pocketsphinx", "tts-flite"]), temporary());
    let library = hostile(&plugins, Behaviour::SEGV_CLOSE);
    let config = directory.path().join("a.toml");
    let text =
        "[plugins.policy.hostile-segv-close]\non_crash = 'isolate'\n[agent]\nllm = 'hostile-segv-close'\n";
    fs::write(&config, text).expect("room for a file");
    let cache = directory.path().join("cache");
    let run = |command: &[&OsStr]| {
        let program = antiphon(command).plugins(&plugins).args(["--config".as_ref(), config.as_path()]);
        program.env("ANTIPHON_CACHE_DIR", &cache).run()
    };
    let recording = go_forward();
    let grammar = grammar_setting();
    let talk = ["talk", "--set", &grammar].map(OsStr::new).into_iter().chain([recording.as_os_str()]);
    let talk: Vec<&OsStr> = talk.collect();

    // Inside, it ends the host when the session is closed.
    let ended = run(&talk);
    assert_eq!(ended.status.signal(), Some(Signal::SEGV.as_raw()), "{ended}");
    // The next host keeps it out, and lives.
    let second = run(&talk).done();
    assert!(second.stderr.contains("a host that ran it inside did not end properly"), "{second}");
    run(&talk).done();
    // Whoever believes in it can take it back.
    run(&["plugins".as_ref(), "retry".as_ref(), library.as_os_str()]).done();
    assert_eq!(run(&talk).status.signal(), Some(Signal::SEGV.as_raw()));
}
