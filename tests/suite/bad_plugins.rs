//! Plugin directories as they are found in the wild: files that are no plugins, plugins that are there twice, and plugins
//! whose system library is missing. The rest works, and of each that does not the listing says why.

use std::fs;

use antiphon_test_support::{
    built,
    damaged::junk,
    events::EventLog,
    plugins::PluginDir,
    program::{Program, antiphon},
    recordings::go_forward,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{grammar_setting, temporary};

/// Plugins as `plugins list --json` has them, by the name of their file.
fn listed(list: &Value) -> Vec<(String, &Value)> {
    let plugins = list["plugins"].as_array().expect("a list");
    let name = |plugin: &Value| {
        let path = plugin["path"].as_str().expect("a path");
        path.rsplit('/').next().expect("a name").to_owned()
    };
    plugins.iter().map(|plugin| (name(plugin), plugin)).collect()
}

#[test]
fn what_is_no_plugin_is_listed_with_the_reason_and_the_rest_loads() {
    let plugins = PluginDir::all();
    let reasons = junk(&plugins);
    plugins.write("readme.txt", "Not looked at: it does not end in .so.");
    let list = antiphon(["plugins", "list", "--json"]).plugins(&plugins).run().ended_with(0).json();
    let listed = listed(&list);
    for (file, reason) in reasons {
        let (_, plugin) =
            listed.iter().find(|(name, _)| name == file).unwrap_or_else(|| panic!("no {file}: {list}"));
        assert_eq!(plugin["state"], "failed", "{plugin}");
        assert!(
            plugin["error"].as_str().is_some_and(|error| error.contains(reason)),
            "no {reason:?} in {plugin}"
        );
    }
    let mut started: Vec<_> = listed
        .iter()
        .filter(|(_, plugin)| plugin["state"] == "ready")
        .map(|(_, plugin)| &plugin["name"])
        .collect();
    started.sort_by_key(|name| name.to_string());
    assert_eq!(started, built::plugin_names().iter().collect::<Vec<_>>());
    assert_eq!(listed.len(), reasons.len() + started.len());

    // For people as well.
    let outcome = antiphon(["plugins", "list"]).plugins(&plugins).run().ended_with(0);
    for (file, reason) in reasons {
        assert!(
            outcome.stdout.contains(file) && outcome.stdout.contains(reason),
            "{file} {reason:?}: {outcome}"
        );
    }
}

#[test]
fn a_conversation_works_beside_what_is_no_plugin() {
    let plugins = PluginDir::all();
    junk(&plugins);
    let report = talk(&plugins).args(["--json"]).run().done().json();
    assert_eq!(report["recordings"][0]["conversation"][0]["user"], "go forward ten meters");
}

#[test]
fn each_file_can_be_inspected_alone() {
    let plugins = PluginDir::empty();
    for (file, reason) in junk(&plugins).into_iter().filter(|(file, _)| !file.starts_with("lib")) {
        let outcome = antiphon(["plugins".into(), "inspect".into(), plugins.file(file)]).run();
        outcome.complained(1, &[file, reason]);
    }
    let inspected =
        antiphon(["plugins".into(), "inspect".into(), built::plugin("tts-flite"), "--json".into()]);
    let inspected = inspected.run().done().json();
    assert!(inspected.to_string().contains("\"tts.words\""), "{inspected}");
}

#[test]
fn no_plugins_at_all_is_told_with_where_they_were_looked_for() {
    let directory = temporary();
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).expect("room for a folder");
    let recording = go_forward();
    let talk = || antiphon(["talk"]).args([&recording]).directory(directory.path());
    talk()
        .args(["--plugins", "none"])
        .run()
        .complained(1, &["no plugins were found", "none (--plugins; there is no such directory)"]);
    talk().args(["--plugins", "empty"]).run().complained(1, &["no plugins were found", "empty (--plugins)"]);
    talk().env("ANTIPHON_PLUGIN_PATH", &empty).run().complained(1, &["empty (ANTIPHON_PLUGIN_PATH)"]);
    fs::write(directory.path().join("a.toml"), "[plugins]\ndirs = ['empty']\n").expect("room for a file");
    talk().args(["--config", "a.toml"]).run().complained(1, &["empty (configuration file)"]);
}

#[test]
fn directories_are_searched_in_order_and_the_first_plugin_of_a_name_is_taken() {
    let [first, second, third] = [(); 3].map(|()| PluginDir::of(&["llm-echo"]));
    let directory = temporary();
    let config = format!("[plugins]\ndirs = ['{}']\n", third.path().display());
    fs::write(directory.path().join("a.toml"), config).expect("room for a file");
    let list = antiphon(["plugins", "list", "--json", "--config", "a.toml"]).directory(directory.path());
    let list = list.plugins(&first).env("ANTIPHON_PLUGIN_PATH", second.path()).run().ended_with(0).json();
    let plugins: Vec<_> = list["plugins"].as_array().expect("a list").iter().collect();
    let states: Vec<_> = plugins.iter().map(|plugin| plugin["state"].as_str()).collect();
    assert_eq!(states, [Some("ready"), Some("failed"), Some("failed")]);
    for (plugin, place) in plugins.iter().zip([&first, &second, &third]) {
        let path = plugin["path"].as_str().expect("a path");
        assert!(path.starts_with(&*place.path().to_string_lossy()), "{path}");
    }
    let error = plugins[1]["error"].as_str().expect("a reason");
    assert!(error.contains(&*first.path().to_string_lossy()), "{error}");
}

/// A plugin whose system library is hidden: the plugin, the library's file names, its package, and the stage.
const LIBRARIES: [(&str, &[&str], &str, &str); 3] = [
    ("tts-flite", &["libflite.so.1"], "libflite1", "text to speech"),
    ("tts-flite", &["libflite_cmu_us_slt.so.1"], "libflite1", "text to speech"),
    (
        "stt-pocketsphinx",
        &["libpocketsphinx.so.3", "libpocketsphinx.so.5", "libpocketsphinx.so"],
        "libpocketsphinx3",
        "speech to text",
    ),
];

/// Files that the dynamic linker finds first and cannot use.
fn hide(libraries: &[&str]) -> TempDir {
    let directory = temporary();
    for library in libraries {
        fs::write(directory.path().join(library), "").expect("room for a file");
    }
    directory
}

fn talk(plugins: &PluginDir) -> Program {
    crate::talk(&[&go_forward()], plugins)
}

#[test]
fn a_missing_system_library_is_told_with_its_package_and_the_others_go_on() {
    let plugins = PluginDir::all();
    for (plugin, libraries, package, stage) in LIBRARIES {
        let hidden = hide(libraries);
        let list = antiphon(["plugins", "list", "--json"]).plugins(&plugins);
        let list = list.env("LD_LIBRARY_PATH", hidden.path()).run().ended_with(0).json();
        for (_, listed) in listed(&list) {
            let is_hidden = listed["name"] == plugin;
            assert_eq!(listed["state"] == "failed", is_hidden, "{listed}");
            if is_hidden {
                assert!(listed["error"].as_str().is_some_and(|error| error.contains(package)), "{listed}");
            }
        }

        let directory = temporary();
        let events = directory.path().join("events.jsonl");
        let talk = talk(&plugins).args(["--events".as_ref(), events.as_path()]);
        let talk = talk.env("LD_LIBRARY_PATH", hidden.path()).run();
        talk.complained(1, &[plugin, package, "apt-get install", &format!("no plugin for {stage}")]);
        let events = EventLog::read(&events);
        assert_eq!((events.count("turn.started"), events.count("session.closed")), (1, 1), "{events}");
        let failed = events.of("plugin.lifecycle").find(|event| event["phase"] == "failed");
        assert_eq!(failed.map(|event| &event["plugin_name"]), Some(&plugin.into()));

        let doctor = antiphon(["doctor"]).plugins(&plugins).env("LD_LIBRARY_PATH", hidden.path()).run();
        let doctor = doctor.ended_with(1);
        assert!(doctor.stdout.contains(&format!("apt-get install {package}")), "{doctor}");
    }
}

#[test]
fn without_a_voice_the_answer_is_text() {
    let hidden = hide(&["libflite.so.1"]);
    let talk = talk(&PluginDir::all()).args(["--json"]).env("LD_LIBRARY_PATH", hidden.path());
    let report = talk.run().complained(1, &["text to speech"]).json();
    let turn = &report["recordings"][0]["conversation"][0];
    assert_eq!(turn["agent"], "Going forward ten meters. Tell me when to stop.");
}

#[test]
fn without_a_recogniser_each_turn_says_that_there_is_none() {
    let report = talk_without("stt-pocketsphinx").complained(1, &["no plugin for speech to text"]).json();
    assert_eq!(report["recordings"][0]["turns"], 1);
    assert!(report["recordings"][0]["errors"].to_string().contains("recogniser"), "{report}");
}

#[test]
fn a_plugin_that_is_switched_off_is_given_as_the_reason() {
    talk_without("llm-rules").ended_with(0);
    talk_without("tts-flite").complained(1, &["no plugin for text to speech", "tts-flite", "disabled"]);
}

/// A conversation with all plugins but one, which the configuration switches off.
#[track_caller]
fn talk_without(plugin: &str) -> antiphon_test_support::program::Outcome {
    let directory = temporary();
    let config = directory.path().join("a.toml");
    fs::write(&config, format!("[plugins]\ndisabled = ['{plugin}']\n")).expect("room for a file");
    let mut talk = antiphon(["talk", "--json"]).args([go_forward()]).plugins(&PluginDir::all());
    if plugin != "stt-pocketsphinx" {
        talk = talk.args(["--set", &grammar_setting()]);
    }
    talk.args(["--config".as_ref(), config.as_path()]).run()
}

#[test]
fn doctor_is_content_where_everything_is_there() {
    let outcome = antiphon(["doctor"]).plugins(&PluginDir::all()).run().done();
    for name in built::plugin_names() {
        assert!(outcome.stdout.contains(&name), "{name}: {outcome}");
    }
}
