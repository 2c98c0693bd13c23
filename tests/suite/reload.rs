//! Plugin files that change while a host runs: new versions take over, what is broken changes nothing, and nobody who is
//! talking notices.

use std::fs;

use antiphon_host::{
    Agent, AgentConfig, HostBuilder, PluginState,
    plugins::{Isolation, Reloaded},
};
use antiphon_test_support::{
    events::EventLog,
    hosted::{Hosted, finish},
    hostile::{Behaviour, hostile_as, version_of},
    plugins::PluginDir,
};
use rustix::process::Signal;
use tokio::task::block_in_place;

/// What the plugin of these tests is called.
const NAME: &str = "llm-changing";

/// Versions of one plugin that a host maps; as `MAX_GENERATIONS` of the host.
const MOST_VERSIONS: u32 = 16;

/// A conversation with it in writing.
fn writing() -> AgentConfig {
    AgentConfig { llm: Some(NAME.into()), tts: Some("none".into()), ..AgentConfig::default() }
}

fn version(number: u32) -> String {
    format!("{number}.0.0")
}

/// Its first version, in a directory.
#[track_caller]
fn first() -> PluginDir {
    let plugins = PluginDir::empty();
    write(&plugins, 1, Behaviour::WELL);
    plugins
}

#[track_caller]
fn write(plugins: &PluginDir, number: u32, behaviour: Behaviour) {
    hostile_as(plugins, NAME, &version(number), behaviour);
}

fn inside(host: HostBuilder) -> HostBuilder {
    host
}

fn isolated(host: HostBuilder) -> HostBuilder {
    host.isolate("*")
}

/// The turn was answered, by this version.
#[track_caller]
fn assert_answered_by(turn: &EventLog, number: u32) {
    assert_eq!(turn.count("agent.error"), 0, "{turn}");
    let delta = turn.only("llm.response.delta");
    assert_eq!(delta["plugin_version"], version(number), "{turn}");
}

async fn asks(hosted: &mut Hosted, agent: &Agent, number: u32) {
    let turn = hosted.ask(agent, "hello").await;
    assert_answered_by(&turn, number);
}

/// A new conversation is held by this version.
async fn talks(hosted: &mut Hosted, number: u32) {
    let agent = hosted.agent(writing()).await;
    asks(hosted, &agent, number).await;
    finish(agent).await;
}

/// The file was taken over.
#[track_caller]
fn assert_taken(changes: &[Reloaded]) {
    let [Reloaded { name, refused: None, .. }] = changes else { panic!("one that was taken: {changes:?}") };
    assert_eq!(name, NAME);
}

#[track_caller]
fn refusal(changes: &[Reloaded]) -> &str {
    match changes {
        [Reloaded { refused: Some(reason), .. }] => reason,
        _ => panic!("one that was refused: {changes:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_holds_new_conversations_and_running_ones_keep_the_old_version() {
    for how in [inside, isolated] {
        let plugins = first();
        let mut hosted = Hosted::start(&plugins, how).await;
        let old = hosted.agent(writing()).await;
        asks(&mut hosted, &old, 1).await;
        write(&plugins, 2, Behaviour::WELL);
        assert_taken(&hosted.host.reload().await);
        let new = hosted.agent(writing()).await;
        asks(&mut hosted, &new, 2).await;
        asks(&mut hosted, &old, 1).await;
        let plugin = hosted.plugin(NAME);
        assert_eq!((plugin.version(), plugin.generation, plugin.state), ("2.0.0", 2, PluginState::Ready));
        finish(old).await;
        asks(&mut hosted, &new, 2).await;
        finish(new).await;
        hosted.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_stopped_when_its_last_conversation_ends() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, isolated).await;
    let (one, other) = (hosted.agent(writing()).await, hosted.agent(writing()).await);
    let old = hosted.worker(NAME);
    write(&plugins, 2, Behaviour::WELL);
    assert_taken(&hosted.host.reload().await);
    let new = hosted.worker(NAME);
    assert_ne!(old.id(), new.id());
    finish(one).await;
    asks(&mut hosted, &other, 1).await;
    finish(other).await;
    block_in_place(|| old.ended());
    assert!(new.is_alive());
    talks(&mut hosted, 2).await;
    hosted.stop().await;
    block_in_place(|| new.ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_that_nobody_uses_is_stopped_at_once() {
    let plugins = first();
    let hosted = Hosted::start(&plugins, isolated).await;
    let old = hosted.worker(NAME);
    write(&plugins, 2, Behaviour::WELL);
    assert_taken(&hosted.host.reload().await);
    block_in_place(|| old.ended());
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_ends_though_a_conversation_goes_on_with_an_old_version() {
    for how in [inside, isolated] {
        let plugins = first();
        let hosted = Hosted::start(&plugins, how).await;
        let agent = hosted.agent(writing()).await;
        write(&plugins, 2, Behaviour::WELL);
        assert_taken(&hosted.host.reload().await);
        hosted.stop().await;
        finish(agent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_is_found_and_used() {
    let plugins = PluginDir::empty();
    let mut hosted = Hosted::start(&plugins, inside).await;
    assert_eq!(hosted.host.reload().await, []);
    write(&plugins, 1, Behaviour::WELL);
    assert_taken(&hosted.host.reload().await);
    talks(&mut hosted, 1).await;
    // And it is not found again.
    assert_eq!(hosted.host.reload().await, []);
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_has_the_policy_and_the_settings_of_its_name_whatever_was_in_it_before() {
    let plugins = PluginDir::empty();
    plugins.write("new.so", "no library");
    let how = |host: HostBuilder| host.isolate(NAME).set(NAME, "key", "value");
    let mut hosted = Hosted::start(&plugins, how).await;
    plugins.write("new.so", version_of(NAME, "1.0.0", Behaviour::STRICT_SETTINGS));
    assert_taken(&hosted.host.reload().await);
    let plugin = hosted.plugin(NAME);
    assert_eq!((plugin.isolation, plugin.process_id.is_some()), (Isolation::Process, true), "{plugin:?}");
    talks(&mut hosted, 1).await;
    hosted.stop().await;
}

/// A new version that cannot be used for a reason changes nothing, and does not stand in the way of the next.
async fn does_no_harm(how: fn(HostBuilder) -> HostBuilder, library: &[u8], reason: &str) {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, how).await;
    let agent = hosted.agent(writing()).await;
    plugins.write(&format!("{NAME}.so"), library);
    let changes = hosted.host.reload().await;
    assert!(refusal(&changes).contains(reason), "no {reason:?} in {changes:?}");
    let told = hosted.lifecycle(NAME, "ready", 2).await;
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains(reason) && message.contains("the old one goes on"), "{told}");
    let plugin = hosted.plugin(NAME);
    assert_eq!((plugin.version(), plugin.generation, plugin.state), ("1.0.0", 1, PluginState::Ready));
    asks(&mut hosted, &agent, 1).await;
    talks(&mut hosted, 1).await;
    write(&plugins, 3, Behaviour::WELL);
    assert_taken(&hosted.host.reload().await);
    let plugin = hosted.plugin(NAME);
    assert_eq!((plugin.version(), plugin.generation, plugin.error.is_none()), ("3.0.0", 2, true));
    talks(&mut hosted, 3).await;
    asks(&mut hosted, &agent, 1).await;
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_new_version_changes_nothing() {
    let whole = version_of(NAME, "2.0.0", Behaviour::WELL);
    let half = &whole[..whole.len() / 2];
    does_no_harm(inside, half, "is truncated: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_crashes_when_it_is_tried_changes_nothing() {
    let library = version_of(NAME, "2.0.0", Behaviour::SEGV_CREATE);
    does_no_harm(inside, &library, "quarantined: crashed with SIGSEGV").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_the_settings_do_not_fit_changes_nothing() {
    for how in [inside, isolated] {
        let library = version_of(NAME, "2.0.0", Behaviour::STRICT_SETTINGS);
        does_no_harm(how, &library, "the settings of llm-changing do not fit: ").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_does_not_start_changes_nothing() {
    for how in [inside, isolated] {
        let library = version_of(NAME, "2.0.0", Behaviour::FAIL_CREATE);
        does_no_harm(how, &library, "failed while starting, as asked").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_file_is_told_once() {
    let plugins = first();
    let hosted = Hosted::start(&plugins, inside).await;
    plugins.write(&format!("{NAME}.so"), "no library");
    refusal(&hosted.host.reload().await);
    assert_eq!(hosted.host.reload().await, []);
    plugins.write("another.so", "no library either");
    refusal(&hosted.host.reload().await);
    assert_eq!(hosted.host.reload().await, []);
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_came_back_is_taken_again() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, inside).await;
    for number in [2, 1] {
        write(&plugins, number, Behaviour::WELL);
        assert_taken(&hosted.host.reload().await);
        talks(&mut hosted, number).await;
    }
    assert_eq!(hosted.plugin(NAME).generation, 3);
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_the_host_there_is_an_end_to_new_versions() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, inside).await;
    for number in 2..=MOST_VERSIONS {
        write(&plugins, number, Behaviour::WELL);
        assert_taken(&hosted.host.reload().await);
    }
    write(&plugins, MOST_VERSIONS + 1, Behaviour::WELL);
    let changes = hosted.host.reload().await;
    let reason = refusal(&changes);
    assert!(reason.contains("16 versions of it are mapped already"), "{reason}");
    assert!(reason.contains("isolation = \"process\""), "{reason}");
    assert_eq!(hosted.plugin(NAME).generation, MOST_VERSIONS);
    talks(&mut hosted, MOST_VERSIONS).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_workers_there_is_no_end_to_new_versions() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, isolated).await;
    for number in 2..=MOST_VERSIONS + 1 {
        write(&plugins, number, Behaviour::WELL);
        assert_taken(&hosted.host.reload().await);
    }
    assert_eq!(hosted.plugin(NAME).generation, MOST_VERSIONS + 1);
    talks(&mut hosted, MOST_VERSIONS + 1).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_followed_needs_nobody_to_reload() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, inside).await;
    let watch = hosted.host.watch().expect("a directory can be followed");
    let of = |name: &'static str, number: u32| {
        move |event: &serde_json::Value| {
            event["type"] == "plugin.lifecycle"
                && event["plugin_name"] == name
                && event["plugin_version"] == version(number)
                && event["phase"] == "ready"
        }
    };
    write(&plugins, 2, Behaviour::WELL);
    hosted.all(of(NAME, 2), 1, "the new version").await;
    talks(&mut hosted, 2).await;

    plugins.write(&format!("{NAME}.so"), "no library");
    let is_told = |event: &serde_json::Value| of(NAME, 2)(event) && event["error"].is_object();
    let told = hosted.all(is_told, 1, "what is wrong with the third version").await;
    assert!(told[0]["error"]["message"].as_str().is_some_and(|text| text.contains("the old one goes on")));

    write(&plugins, 4, Behaviour::WELL);
    hosted.all(of(NAME, 4), 1, "the good version after it").await;
    talks(&mut hosted, 4).await;

    hostile_as(&plugins, "llm-new", "1.0.0", Behaviour::WELL);
    hosted.all(of("llm-new", 1), 1, "the new plugin").await;

    // As installers do it: under another name first.
    let finished = plugins.file("llm-changing.so.part");
    fs::write(&finished, version_of(NAME, "5.0.0", Behaviour::WELL)).expect("room for a file");
    fs::rename(&finished, plugins.file("llm-changing.so")).expect("one directory");
    hosted.all(of(NAME, 5), 1, "the version that was moved there").await;
    talks(&mut hosted, 5).await;
    drop(watch);
    hosted.stop().await;
}

#[test]
fn a_directory_that_is_not_there_cannot_be_followed_and_is_named() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let host = antiphon_host::Host::builder().plugin_dir("/nowhere/plugins").start().await;
        let error = host.watch().expect_err("nothing is there").to_string();
        assert_eq!(error, "the plugin directory /nowhere/plugins cannot be followed");
        host.shutdown().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_reloads_at_once_one_takes_the_new_version() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, isolated).await;
    let old = hosted.worker(NAME);
    write(&plugins, 2, Behaviour::WELL);
    let (one, other) = tokio::join!(hosted.host.reload(), hosted.host.reload());
    assert_taken(&[one, other].concat());
    assert_eq!(hosted.plugin(NAME).generation, 2);
    block_in_place(|| old.ended());
    talks(&mut hosted, 2).await;
    let log = hosted.stop().await;
    let phases = log.of("plugin.lifecycle").filter(|event| event["phase"] == "ready");
    assert_eq!(phases.count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_changes_nothing_not_even_when_its_plugin_has_to_be_started_again() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, isolated).await;
    let agent = hosted.agent(writing()).await;
    fs::remove_file(plugins.file("llm-changing.so")).expect("it is there");
    assert_eq!(hosted.host.reload().await, []);
    asks(&mut hosted, &agent, 1).await;
    talks(&mut hosted, 1).await;
    hosted.worker(NAME).signal(Signal::KILL);
    hosted.lifecycle(NAME, "ready", 2).await;
    asks(&mut hosted, &agent, 1).await;
    finish(agent).await;
    hosted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_new_version_does_not_end_the_restarts_of_the_old_one() {
    let plugins = first();
    let mut hosted = Hosted::start(&plugins, |host| {
        host.policy(
            NAME,
            antiphon_host::plugins::PolicyConfig {
                isolation: Some(Isolation::Process),
                max_restarts: Some(9),
                ..Default::default()
            },
        )
    })
    .await;
    // Each restart waits longer than the one before it; at last there is time to change the file meanwhile.
    for restart in 1..=5 {
        hosted.worker(NAME).signal(Signal::KILL);
        hosted.lifecycle(NAME, "ready", restart + 1).await;
    }
    hosted.worker(NAME).signal(Signal::KILL);
    let is_waiting = |event: &serde_json::Value| {
        event["type"] == "provider.recovery" && event["attempt"] == 6 && event["recovering"] == true
    };
    hosted.all(is_waiting, 1, "the sixth try").await;
    plugins.write(&format!("{NAME}.so"), "no library");
    refusal(&hosted.host.reload().await);
    let is_back = |event: &serde_json::Value| {
        event["type"] == "provider.recovery" && event["attempt"] == 6 && event["recovered"] == true
    };
    hosted.all(is_back, 1, "its end").await;
    talks(&mut hosted, 1).await;
    hosted.stop().await;
}
