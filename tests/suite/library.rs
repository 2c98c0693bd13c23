//! The library in programs of one's own: the three examples of `host/examples`, run as they are.

use antiphon_test_support::{
    built,
    plugins::PluginDir,
    program::{Outcome, example},
    recordings::go_forward,
};

#[test]
fn a_program_can_load_a_directory_of_plugins() {
    let plugins = PluginDir::all();
    plugins.write("notes.so", "This is no plugin.\n");
    let outcome = example("load_plugins", [plugins.path()]).run().done();
    for name in built::plugin_names() {
        assert!(outcome.stdout.contains(&format!("{name} 0.1.0 works\n")), "{name}: {outcome}");
    }
    assert!(outcome.stdout.contains("notes.so is a text file"), "{outcome}");
}

#[test]
fn a_program_can_subscribe_to_a_union_of_event_types() {
    let plugins = PluginDir::of(&["llm-rules"]);
    let outcome = example("subscribe_union", [plugins.path()]).run().done();
    let user = position(&outcome, "user:  go forward ten meters\n");
    let agent = position(&outcome, "agent: Going forward ten meters. Tell me when to stop.\n");
    assert!(user < agent, "{outcome}");
    let failure = "on_said failed at agent.user_transcript: handlers may fail, and nobody else notices\n";
    position(&outcome, failure);
    assert_eq!(outcome.stdout.lines().last(), Some("2 said, 2 failures"), "{outcome}");
}

#[test]
fn a_program_can_embed_a_whole_agent() {
    let plugins = PluginDir::all();
    let outcome = example("embed_agent", [plugins.path(), &go_forward()]).run().done();
    // It listens from when it has the agent, so it may miss that the session began.
    let order = ["turn.started", "agent.user_transcript", "audio.playback.start", "session.closed"];
    let positions = order.map(|name| position(&outcome, &format!(" {name}\n")));
    assert!(positions.is_sorted(), "{outcome}");
    let last = outcome.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("1 turns, 1 answered, "), "{last}");
    let seconds = last.split_whitespace().nth(4).and_then(|number| number.parse::<f64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 1.0), "{last}");
}

#[track_caller]
fn position(outcome: &Outcome, text: &str) -> usize {
    outcome.stdout.find(text).unwrap_or_else(|| panic!("no {text:?} in {outcome}"))
}
