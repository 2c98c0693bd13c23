//! `antiphon plugins check`: plugins that keep the contract pass, and of those that do not it says which test they fail.
//!
//! Not here: that every single test can fail; that is with the tests, in `host/src/check/fake/proofs.rs`.

use std::{fs, path::Path};

use antiphon_test_support::{
    built,
    plugins::PluginDir,
    program::{Outcome, Program, antiphon},
};
use serde_json::Value;

use crate::grammar_setting;

fn check(plugin: &Path) -> Program {
    antiphon(["plugins", "check", "--json"]).args([plugin])
}

/// The plugin that misbehaves, made to start.
fn misbehave(arguments: &[&str]) -> Program {
    check(&built::fixture_plugin("misbehave"))
        .args(["--set", "misbehave.start=well", "--timeout", "4"])
        .args(arguments)
}

/// Ids of the tests that came to a verdict.
fn with_verdict<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let tests = report["tests"].as_array().expect("a list of tests");
    let these = tests.iter().filter(|test| test["verdict"] == verdict);
    these.map(|test| test["id"].as_str().expect("an id")).collect()
}

/// What is told of a test.
#[track_caller]
fn test<'a>(report: &'a Value, id: &str) -> &'a Value {
    let tests = report["tests"].as_array().expect("a list of tests");
    tests.iter().find(|test| test["id"] == id).unwrap_or_else(|| panic!("no test {id} in {report}"))
}

/// Fails with just these tests, and tells of the first one with these words.
#[track_caller]
fn fails(outcome: &Outcome, ids: &[&str], words: &str) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    let report = outcome.json();
    assert_eq!(with_verdict(&report, "failed"), ids, "{outcome}");
    let problems = test(&report, ids[0])["problems"].to_string();
    assert!(problems.contains(words), "{problems}");
}

#[test]
fn every_plugin_that_we_ship_passes() {
    for name in built::plugin_names() {
        let check = check(&built::plugin(&name)).args(["--timeout", "60"]);
        let is_slow_without = name == "stt-pocketsphinx";
        let check = if is_slow_without { check.args(["--set", &grammar_setting()]) } else { check };
        let outcome = check.run();
        let report = outcome.json();
        assert_eq!(with_verdict(&report, "failed"), [""; 0], "{name}: {outcome}");
        assert_eq!(with_verdict(&report, "skipped"), [""; 0], "{name}: {outcome}");
        let outcome = outcome.ended_with(0);
        assert_eq!((&report["name"], &report["passed"]), (&name.as_str().into(), &true.into()), "{outcome}");
        let kind = name.split('-').next().expect("a name has a first word");
        assert_eq!(report["capabilities"], serde_json::json!([kind]));
        for id in ["starts", "ping", &format!("{kind}-exchange"), &format!("{kind}-memory-steady")] {
            assert!(
                test(&report, id)["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0),
                "{id}: {outcome}"
            );
        }
    }
}

#[test]
fn what_is_no_plugin_fails_as_a_file() {
    let plugins = PluginDir::empty();
    plugins.write("text.so", "This is no plugin.\n");
    let outcome = check(&plugins.file("text.so")).run();
    fails(&outcome, &["file"], "is a text file");
    assert_eq!(test(&outcome.json(), "starts")["skipped"], "is no plugin for this host");
    fails(&check(&plugins.file("nowhere.so")).run(), &["file"], "cannot be read");
}

/// A copy of a plugin with some bytes changed for others, as many.
fn changed(plugins: &PluginDir, from: &[u8], to: &[u8]) -> std::path::PathBuf {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(built::plugin("llm-echo")).expect("a library");
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "no {from:?} in the library");
    plugins.write("changed.so", bytes);
    plugins.file("changed.so")
}

#[test]
fn a_library_without_its_entry_does_not_open() {
    let plugins = PluginDir::empty();
    let library = changed(&plugins, b"antiphon_plugin_entry\0", b"antiphon_plugin_entrx\0");
    fails(&check(&library).run(), &["library-opens"], "has no entry symbol");
}

#[test]
fn a_section_that_lies_is_found() {
    let plugins = PluginDir::empty();
    let library = changed(&plugins, b"\"kinds\":\"llm\"}", b"\"kinds\":\"tts\"}");
    fails(&check(&library).run(), &["manifest-agrees"], "in the section");
}

#[test]
fn a_plugin_that_does_not_start_says_why_and_what_needs_it_is_skipped() {
    let library = built::fixture_plugin("misbehave");
    let outcome = check(&library).run();
    fails(&outcome, &["starts"], "does not start: is a fixture of Antiphon's tests");
    let report = outcome.json();
    assert_eq!(test(&report, "tts-exchange")["skipped"], "does not start");
    assert!(with_verdict(&report, "passed").contains(&"manifest-events"), "{outcome}");
    let set =
        |start: &str| check(&library).args(["--timeout", "2", "--set", &format!("misbehave.start={start}")]);
    fails(&set("panic").run(), &["starts"], "panicked while starting, as asked");
    fails(&set("hang").run(), &["starts"], "did not come to an end within 2 s, while starting the plugin");
}

#[test]
fn a_recogniser_without_an_utterance_fails_that_test_alone() {
    fails(&misbehave(&[]).run(), &["stt-exchange"], "utterance_final came 0 times");
}

#[test]
fn ears_that_fail_or_hang_are_found() {
    let hear = |how: &str| {
        misbehave(&[
            "--set",
            &format!("misbehave.hear={how}"),
            "--test",
            "turn-exchange",
            "--test",
            "turn-open-close",
        ])
        .run()
    };
    fails(&hear("fail"), &["turn-exchange"], "ended as");
    fails(&hear("panic"), &["turn-exchange"], "ended as");
    fails(&hear("hang"), &["turn-exchange"], "was not finished in time");
}

#[test]
fn answers_that_fail_hang_or_say_nothing_are_found() {
    let say = |text: &str, kind: &str| {
        misbehave(&[
            "--text",
            text,
            "--test",
            &format!("{kind}-exchange"),
            "--test",
            &format!("{kind}-cancel"),
        ])
        .run()
    };
    fails(&say("panic", "llm"), &["llm-exchange"], "panicked while answering, as asked");
    fails(&say("fail", "tts"), &["tts-exchange"], "failed while speaking, as asked");
    fails(&say("nothing", "tts"), &["tts-exchange"], "no audio came");
    fails(&say("nothing", "llm"), &["llm-exchange"], "no llm.response.delta came");
    // Cancelling it works, but the next request hangs as well.
    fails(&say("begin", "llm"), &["llm-exchange", "llm-cancel"], "was not finished in time");
}

#[test]
fn a_plugin_that_blocks_its_worker_answers_no_ping() {
    let outcome = misbehave(&["--text", "block", "--test", "ping"]).run();
    fails(&outcome, &["ping"], "while a command of llm ran was not answered");
}

#[test]
fn what_is_printed_is_a_warning() {
    let outcome = misbehave(&["--text", "print", "--test", "stdout-silent"]).run().ended_with(0);
    let report = outcome.json();
    assert_eq!(with_verdict(&report, "warning"), ["stdout-silent"], "{outcome}");
    assert!(report["tests"].to_string().contains("printed while answering, as asked"), "{outcome}");
}

#[test]
fn one_test_is_run_with_what_it_needs() {
    let echo = built::plugin("llm-echo");
    let report = check(&echo).args(["--test", "llm-cancel"]).run().ended_with(0).json();
    assert_eq!(with_verdict(&report, "passed"), ["file", "library-opens", "starts", "llm-cancel"]);
    check(&echo).args(["--test", "llm-cancl"]).run().complained(1, &["no test llm-cancl", "llm-cancel?"]);
    check(&echo)
        .args(["--test", "vision-cancel"])
        .run()
        .complained(1, &["vision-cancel is about a capability"]);
    check(&echo).args(["--set", "tts-flite.voice=slt"]).run().complained(1, &["is named llm-echo"]);
}

#[test]
fn people_are_told_what_was_seen_expected_and_is_to_be_done() {
    let library = built::fixture_plugin("misbehave");
    let outcome = antiphon(["plugins", "check"])
        .args([&library])
        .args(["--set", "misbehave.start=well", "--test", "stt-exchange"])
        .run()
        .ended_with(1);
    for words in ["FAIL  stt-exchange", "seen      stt.transcript", "to do     call", "3 passed, 1 failed in"]
    {
        assert!(outcome.stdout.contains(words), "no {words:?} in {outcome}");
    }
    let list = antiphon(["plugins", "check", "--list"]).run().done();
    assert!(
        list.stdout.contains("KIND-exchange") && list.stdout.contains("turn stt llm tts vision"),
        "{list}"
    );
}
