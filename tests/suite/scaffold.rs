//! `antiphon plugins new`: what it makes builds, passes its own tests, and works in a conversation, without a change.
//!
//! Each crate is built as its author would build it, outside of the workspace; all of them into one target directory
//! within ours, so that only the first run compiles what they depend on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use antiphon_host::plugins::Kind;
use antiphon_test_support::{
    built,
    events::EventLog,
    plugins::PluginDir,
    program::{Outcome, antiphon},
    recordings::{Wav, go_forward},
};

use crate::{fixture, temporary};

/// Made and built once for all tests of this file.
static BUILT: LazyLock<BTreeMap<Kind, PathBuf>> = LazyLock::new(|| {
    let directory = temporary();
    Kind::ALL.into_iter().map(|kind| (kind, build(kind, directory.path()))).collect()
});

/// The library of the new plugin of a kind. It stays when its sources have gone.
fn built(kind: Kind) -> PathBuf {
    BUILT[&kind].clone()
}

fn name(kind: Kind) -> String {
    format!("{kind}-scaffold")
}

/// A directory with new plugins of these kinds.
fn plugins(kinds: &[Kind]) -> PluginDir {
    let plugins = PluginDir::empty();
    for kind in kinds {
        let library = built(*kind);
        let file = library.file_name().expect("a library has a name").to_string_lossy();
        plugins.copy(&library, &file);
    }
    plugins
}

fn new(kind: Kind, directory: &Path) -> Outcome {
    let (kind, name) = (kind.as_str(), name(kind));
    antiphon(["plugins", "new", "--kind", kind, &name, "--json"]).directory(directory).run()
}

/// Makes a plugin and does with it what its README says.
fn build(kind: Kind, directory: &Path) -> PathBuf {
    let made = new(kind, directory).done().json();
    let here = directory.join(name(kind));
    assert_eq!(made["directory"], here.canonicalize().expect("it is there").to_str().expect("text"));
    for file in made["files"].as_array().expect("a list") {
        assert!(here.join(file.as_str().expect("a path")).is_file(), "{file}");
    }
    // The versions that are here already, so that nothing needs to be fetched.
    fs::copy(built::workspace().join("Cargo.lock"), here.join("Cargo.lock")).expect("a lock file");
    let target = built::directory().join("scaffold");
    let cargo = |arguments: &[&str]| run_cargo(arguments, &here, &target);
    // What an earlier run left: each has sources in a place of its own, so it would never be used again.
    cargo(&["clean", "--offline", "--package", &name(kind)]);
    cargo(&["fmt", "--check"]);
    cargo(&["build", "--offline"]);
    cargo(&["test", "--offline"]);
    cargo(&["clippy", "--offline", "--all-targets", "--", "-D", "warnings"]);
    let library = Path::new(made["library"].as_str().expect("a path")).file_name().expect("a file");
    target.join("debug").join(library)
}

#[track_caller]
fn run_cargo(arguments: &[&str], directory: &Path, target: &Path) {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target)
        // A place that is used once gains nothing from it.
        .env("CARGO_INCREMENTAL", "0")
        .env_remove("RUSTFLAGS")
        .stdin(Stdio::null())
        .output()
        .expect("cargo runs, as it has built this test");
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "cargo {}\n{stdout}{stderr}", arguments.join(" "));
}

#[test]
fn a_new_plugin_of_each_kind_builds_passes_its_tests_and_starts() {
    let listed = antiphon(["plugins", "list", "--json"]).plugins(&plugins(&Kind::ALL)).run().done().json();
    assert_eq!(listed["usable"], Kind::ALL.len(), "{listed}");
    for kind in Kind::ALL {
        let plugins = listed["plugins"].as_array().expect("a list");
        let plugin = plugins.iter().find(|plugin| plugin["name"] == name(kind).as_str());
        let plugin = plugin.unwrap_or_else(|| panic!("{kind} is not in {listed}"));
        assert_eq!((plugin["state"].as_str(), &plugin["error"]), (Some("ready"), &serde_json::Value::Null));
        let can = plugin["manifest"]["capabilities"].as_array().expect("a list");
        assert_eq!((can.len(), can[0]["kind"].as_str()), (1, Some(kind.as_str())));
        let settings = plugin["manifest"]["settings"]["properties"].as_object().expect("a schema");
        assert!(settings.values().all(|setting| setting["description"].is_string()), "{kind}: {settings:?}");
        assert!(!settings.is_empty(), "{kind}");
    }
}

#[test]
fn a_new_plugin_of_each_kind_keeps_the_contract() {
    for kind in Kind::ALL {
        let checked =
            antiphon(["plugins", "check", "--json", "--timeout", "60"]).args([built(kind)]).run().done();
        let report = checked.json();
        let tests = report["tests"].as_array().expect("a list of tests");
        assert!(
            tests.len() > 20 && tests.iter().all(|test| test["verdict"] != "failed"),
            "{kind}: {checked}"
        );
    }
}

#[test]
fn four_new_plugins_hold_a_whole_conversation() {
    let (plugins, directory) = (plugins(&[Kind::Turn, Kind::Stt, Kind::Llm, Kind::Tts]), temporary());
    let (reply, events) = (directory.path().join("reply.wav"), directory.path().join("events.jsonl"));
    antiphon(["talk"])
        .args([go_forward()])
        .args(["--out".as_ref(), reply.as_path()])
        .args(["--events".as_ref(), events.as_path()])
        .plugins(&plugins)
        .run()
        .done();
    let events = EventLog::read(&events);
    let heard = events.only("agent.user_transcript")["text"].as_str().expect("text").to_owned();
    assert!(heard.starts_with("I heard ") && heard.ends_with(" decibels"), "{heard}");
    let backwards: Vec<String> = heard.split_whitespace().map(|word| word.chars().rev().collect()).collect();
    assert_eq!(events.only("llm.response.final")["text"], backwards.join(" "));
    let said: Vec<&str> = events
        .of("tts.words")
        .flat_map(|event| event["words"].as_array().into_iter().flatten())
        .filter_map(|word| word["word"].as_str())
        .collect();
    assert_eq!(said, backwards);
    let reply = Wav::read(&reply);
    assert!(reply.audible_seconds() > 1.0, "{} of {} s", reply.audible_seconds(), reply.seconds());
}

#[test]
fn a_new_vision_plugin_tells_of_a_picture_in_an_event_of_its_own() {
    let directory = temporary();
    let events = directory.path().join("events.jsonl");
    antiphon(["look"])
        .args([fixture("go-forward.png")])
        .args(["--events".as_ref(), events.as_path()])
        .args(["--set", "vision-scaffold.dark_below=255.0"])
        .plugins(&plugins(&[Kind::Vision]))
        .run()
        .done();
    let events = EventLog::read(&events);
    let seen = events.only("vision_scaffold.brightness");
    let brightness = seen["brightness"].as_f64().expect("a number");
    assert!((1.0..255.0).contains(&brightness), "{brightness}");
    assert_eq!((&seen["is_dark"], seen["plugin_name"].as_str()), (&true.into(), Some("vision-scaffold")));
}

#[test]
fn what_is_there_already_is_never_overwritten() {
    let directory = temporary();
    let here = directory.path().join(name(Kind::Llm));
    new(Kind::Llm, directory.path()).done();
    fs::write(here.join("src/lib.rs"), "mine").expect("writable");
    new(Kind::Llm, directory.path()).complained(1, &["llm-scaffold", "--path"]);
    assert_eq!(fs::read_to_string(here.join("src/lib.rs")).expect("still there"), "mine");
}

#[test]
fn a_name_that_cannot_be_is_refused_with_one_that_can() {
    let directory = temporary();
    for (name, would_do) in [("My_Plugin", "tts-my-plugin"), ("match", "tts-match"), ("serde", "tts-serde")] {
        antiphon(["plugins", "new", "--kind", "tts", name])
            .directory(directory.path())
            .run()
            .complained(1, &[name, would_do]);
    }
    let kind = antiphon(["plugins", "new", "--kind", "ears", "ears"]).directory(directory.path());
    kind.run().complained(2, &["ears", "turn", "vision"]);
    let other = ["plugins", "new", "--kind", "llm", "llm-a", "--plugin-api", "no/such/place"];
    antiphon(other)
        .directory(directory.path())
        .run()
        .complained(1, &["no/such/place", "antiphon-plugin-api"]);
    assert_eq!(directory.path().read_dir().expect("readable").count(), 0, "nothing was made");
}

#[test]
fn people_are_told_what_was_made_and_what_to_type_next() {
    let directory = temporary();
    let made = antiphon(["plugins", "new", "--kind", "llm", "llm-a", "--plugin-api", "0.1"]);
    let made = made.directory(directory.path()).run().done();
    for words in [
        "llm-a, a plugin of the kind llm",
        "version 0.1 of the registry",
        "cd llm-a",
        "cargo test",
        "libllm_a.so",
    ] {
        assert!(made.stdout.contains(words), "no {words:?} in {made}");
    }
    let manifest = fs::read_to_string(directory.path().join("llm-a/Cargo.toml")).expect("written");
    assert!(manifest.contains("antiphon-plugin-api = { version = \"0.1\" }"), "{manifest}");
}
