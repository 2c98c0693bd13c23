//! Plugins that were made for other versions than this host's: what can work does, and what cannot is told with what to do.

use antiphon_host::{Host, PluginState};
use antiphon_test_support::{
    built,
    conversation::Setup,
    hostile::{Behaviour, hostile},
    plugins::PluginDir,
    program::antiphon,
};

fn with(behaviour: Behaviour) -> PluginDir {
    let directory = PluginDir::empty();
    hostile(&directory, behaviour);
    directory
}

/// The plugin is there, does not run, and the listing says so with these words.
async fn is_refused(behaviour: Behaviour, words: &[&str]) {
    let directory = with(behaviour);
    let host = Host::builder().plugin_dir(directory.path()).cache_dir(built::cache()).start().await;
    let plugins = host.plugins();
    let [plugin] = &plugins[..] else { panic!("one plugin: {plugins:?}") };
    assert_eq!((plugin.name.as_str(), plugin.state), (&*behaviour.plugin_name(), PluginState::Failed));
    let error = plugin.error.clone().unwrap_or_default();
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    host.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_in_a_later_plugin_of_this_abi_is_passed_over_and_the_rest_works() {
    let config = antiphon_host::AgentConfig { tts: Some("none".into()), ..Default::default() };
    let mut talk = Setup::with(with(Behaviour::NEWER_MANIFEST)).config(config).start().await;
    let plugins = talk.host.plugins();
    let [plugin] = &plugins[..] else { panic!("one plugin: {plugins:?}") };
    let manifest = plugin.manifest.as_ref().expect("it was read");
    let capabilities: Vec<_> =
        manifest.capabilities.iter().map(|known| (known.kind.as_str(), known.version)).collect();
    assert_eq!(capabilities, [("llm", 1), ("llm", 2), ("telepathy", 1)]);
    assert!(manifest.events.iter().any(|event| event.name == "hostile.of_tomorrow"));
    for question in ["hello", "hello again"] {
        let turn = talk.ask(question).await;
        let answer = turn.of("agent.agent_transcript").last().expect("an answer").clone();
        assert_eq!(answer["text"], format!("You said: {question}."));
        assert_eq!(turn.count("agent.error"), 0, "{turn}");
    }
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_a_newer_abi_is_refused_with_both_versions_and_what_to_do() {
    let words = ["ABI 99", "antiphon-plugin-api 9.0.0", "ABI 1", "antiphon-plugin-api 0.", "update the host"];
    is_refused(Behaviour::NEWER_ABI, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_an_older_abi_is_refused_with_both_versions_and_what_to_do() {
    let words =
        ["ABI 0", "antiphon-plugin-api 0.0.1", "ABI 1", "antiphon-plugin-api 0.", "rebuild the plugin"];
    is_refused(Behaviour::OLDER_ABI, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_core_is_refused_by_its_name_and_with_what_to_do() {
    let words = [
        "emits core.of_tomorrow, an event of a newer core",
        "the plugin was built with antiphon-plugin-api 0.9.0",
        "this host with 0.",
        "update the host",
    ];
    is_refused(Behaviour::NEWER_EVENT, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_has_only_a_newer_capability_is_refused_with_both_versions_and_what_to_do() {
    let sentence = "has capability llm of version 2, this host knows version 1: update the host";
    is_refused(Behaviour::NEWER_CAPABILITY, &[sentence]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_roots_of_another_layout_are_refused() {
    is_refused(Behaviour::OTHER_CAPABILITY, &["llm object has another layout"]).await;
    is_refused(Behaviour::OTHER_ROOT, &["does not fit this host", "rebuild it with the host's"]).await;
    is_refused(Behaviour::OTHER_ABI_STABLE, &["does not fit this host", "rebuild it with the host's"]).await;
}

#[test]
fn a_file_of_another_version_can_be_inspected_for_the_reason() {
    let directory = with(Behaviour::NEWER_ABI);
    let path = directory.file(&Behaviour::NEWER_ABI.file_name());
    let outcome = antiphon(["plugins".into(), "inspect".into(), path]).run();
    outcome.complained(1, &["ABI 99", "antiphon-plugin-api 9.0.0", "update the host"]);
}
