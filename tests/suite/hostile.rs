//! The plugins without manners do what is said of them, each in a process of its own: what is tested against them is worth
//! what they are.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use antiphon_test_support::{
    built,
    damaged::{Damage, damaged},
    hostile::{Behaviour, Effect, Strikes, hostile},
    plugins::PluginDir,
    program::{Outcome, Program, Running},
};
use rustix::process::Signal;

/// Milliseconds after which something is said to hang. What does hang is found out whatever this is.
const PATIENCE: &str = "400";

/// What a flood has to write to be one. More than the system keeps in a pipe.
const FLOOD_BYTES: usize = 1 << 20;

/// A plugin's life up to a stage, in a process of its own.
fn life(plugin: &Path, stage: &str) -> Program {
    Program::new(&built::helper("try-plugin")).args([plugin.as_os_str(), stage.as_ref()])
}

/// The first stage in which something is to be seen.
fn stage(strikes: Strikes) -> &'static str {
    match strikes {
        Strikes::File | Strikes::Load | Strikes::Manifest => "open",
        Strikes::Create => "create",
        Strikes::Ping => "ping",
        Strikes::Call => "call",
        Strikes::Close => "close",
        Strikes::AfterClose => "after-close",
        Strikes::Never | Strikes::Stop => "stop",
    }
}

/// The stage before it, and the line that says that it was passed.
fn before(strikes: Strikes) -> Option<(&'static str, &'static str)> {
    match strikes {
        Strikes::Create => Some(("open", "opened ")),
        Strikes::Ping | Strikes::Call => Some(("create", "created")),
        Strikes::Close | Strikes::Stop => Some(("call", "called")),
        Strikes::AfterClose => Some(("close", "closed")),
        Strikes::Never | Strikes::File | Strikes::Load | Strikes::Manifest => None,
    }
}

/// Ends a process that says that it hangs; that it could be ended shows that it did not end before.
#[track_caller]
fn hung(mut running: Running) -> Outcome {
    running.until_line(|line| line == "hangs\n");
    running.signal(Signal::KILL);
    running.end().killed_by(Signal::KILL)
}

/// It wrote more to a pipe than fits, and went on until it was ended.
#[track_caller]
fn floods(plugin: &Path, stage: &str, is_stderr: bool) {
    let mut command = Command::new(built::helper("try-plugin"));
    command.arg(plugin).arg(stage).stdin(Stdio::null());
    match is_stderr {
        true => command.stderr(Stdio::piped()).stdout(Stdio::null()),
        false => command.stdout(Stdio::piped()).stderr(Stdio::null()),
    };
    let mut child = command.spawn().expect("the helper is built");
    let mut pipe: Box<dyn Read> = match is_stderr {
        true => Box::new(child.stderr.take().expect("asked for above")),
        false => Box::new(child.stdout.take().expect("asked for above")),
    };
    let read = pipe.read_exact(&mut vec![0; FLOOD_BYTES]);
    assert!(child.try_wait().expect("a child can be asked").is_none(), "it has ended by itself");
    child.kill().expect("it runs");
    child.wait().expect("a child can be waited for");
    read.unwrap_or_else(|error| panic!("{}: {error}", plugin.display()));
}

#[track_caller]
fn has_effect(plugin: &Path, stage: &str, effect: Effect) {
    let run = || life(plugin, stage).run();
    match effect {
        Effect::Signal(signal) => drop(run().killed_by(signal)),
        Effect::Exit(code) => {
            let outcome = run();
            assert_eq!(outcome.status.code(), Some(code), "{outcome}");
        }
        Effect::Refused(reason) => drop(run().complained(1, &[reason])),
        Effect::Hangs => drop(hung(life(plugin, stage).args([PATIENCE]).start())),
        Effect::FillsStdout => floods(plugin, stage, false),
        Effect::FillsStderr => floods(plugin, stage, true),
        Effect::Breach | Effect::Fine => drop(run().ended_with(0)),
    }
}

/// As `has_effect` says, for all that strike at such a moment; and what comes before is well.
#[track_caller]
fn all_that_strike(moment: Strikes) {
    let found = Behaviour::ALL.iter().filter(|behaviour| behaviour.strikes == moment);
    assert!(found.clone().count() > 0);
    for behaviour in found {
        let directory = PluginDir::empty();
        let plugin = hostile(&directory, *behaviour);
        if let Some((stage, line)) = before(moment) {
            let outcome = life(&plugin, stage).run().done();
            assert!(outcome.stdout.contains(line), "{}: {outcome}", behaviour.name);
        }
        has_effect(&plugin, stage(moment), behaviour.effect);
    }
}

#[test]
fn what_is_wrong_with_the_file_is_seen_before_it_is_loaded() {
    all_that_strike(Strikes::File);
}

#[test]
fn what_strikes_on_load_does() {
    all_that_strike(Strikes::Load);
}

#[test]
fn what_strikes_in_the_manifest_does() {
    all_that_strike(Strikes::Manifest);
}

#[test]
fn what_strikes_in_create_does_and_loads_well() {
    all_that_strike(Strikes::Create);
}

#[test]
fn what_strikes_in_a_call_does_and_starts_well() {
    all_that_strike(Strikes::Call);
}

#[test]
fn what_strikes_at_the_end_does_and_answers_well() {
    for moment in [Strikes::Ping, Strikes::Close, Strikes::AfterClose, Strikes::Stop] {
        all_that_strike(moment);
    }
}

#[test]
fn damage_that_no_header_shows_takes_the_process_down_or_is_refused() {
    for damage in Damage::ALL {
        let directory = PluginDir::empty();
        let plugin = damaged(&directory, *damage);
        antiphon_host::inspect::inspect(&plugin).unwrap_or_else(|error| panic!("{}: {error}", damage.name));
        has_effect(&plugin, "open", damage.effect);
    }
}

#[test]
fn each_has_a_name_and_contents_of_its_own() {
    let directory = PluginDir::empty();
    let (one, other) = (hostile(&directory, Behaviour::WELL), hostile(&directory, Behaviour::SEGV_CALL));
    let read = |path| std::fs::read(path).expect("a file");
    assert!(read(&one) != read(&other));
    for behaviour in [Behaviour::WELL, Behaviour::SEGV_CALL] {
        let section = antiphon_host::inspect::inspect(&directory.file(&behaviour.file_name()));
        assert_eq!(section.expect("a plugin").name, behaviour.plugin_name());
        let outcome = life(&directory.file(&behaviour.file_name()), "open").run().done();
        assert_eq!(outcome.stdout, format!("opened {} 1.0.0\n", behaviour.plugin_name()));
    }
    let mut names: Vec<_> = Behaviour::ALL.iter().map(|behaviour| behaviour.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Behaviour::ALL.len());
}

#[test]
fn the_one_that_behaves_well_answers_from_beginning_to_end() {
    let outcome = told(Behaviour::WELL, "stop");
    let lines: Vec<_> = outcome.lines().filter(|line| !line.starts_with("grew")).collect();
    let want = [
        "opened hostile-well 1.0.0",
        "created",
        "pinged",
        "asked 1 strike ACCEPTED",
        r#"event 0 {"delta":"You said: strike.","is_first_chunk":true,"item_id":"r1"}"#,
        "finished 1",
        "ended 1",
        "asked 2 hello ACCEPTED",
        r#"event 0 {"delta":"You said: hello.","is_first_chunk":true,"item_id":"r2"}"#,
        "finished 2",
        "ended 2",
        "called",
        "finished 3",
        "closed",
        "stopped",
    ];
    assert_eq!(lines, want, "{outcome}");
}

/// What is seen of a plugin that lives on.
#[track_caller]
fn told(behaviour: Behaviour, stage: &str) -> String {
    let directory = PluginDir::empty();
    life(&hostile(&directory, behaviour), stage).run().done().stdout
}

/// Prompts without `strike` are answered whatever came before.
#[track_caller]
fn shows(behaviour: Behaviour, stage: &str, lines: &[&str]) {
    let told = told(behaviour, stage);
    for line in lines.iter().chain(&["ended 2", "called"]) {
        assert!(told.lines().any(|told| told == *line), "{}: no {line:?} in\n{told}", behaviour.name);
    }
}

#[test]
fn promises_about_events_and_tokens_are_broken_one_at_a_time() {
    shows(Behaviour::UNDECLARED_EVENT, "call", &[r#"event 4000 {"number":1}"#]);
    shows(Behaviour::MALFORMED_EVENT, "call", &["event 0 unreadable", "event 1 unreadable"]);
    shows(Behaviour::MISFIT_EVENT, "call", &[r#"event 0 {"delta":5}"#, r#"event 1 {"number":"five"}"#]);
    shows(Behaviour::FINISH_FOREIGN, "call", &["finished 1001"]);
    shows(Behaviour::FLOOD_CALL, "call", &["cancels a flood"]);
    shows(Behaviour::LATE_CLOSE, "after-close", &[r#"afterwards event 1 {"number":0}"#]);
    shows(Behaviour::OUTLIVE_CLOSE, "after-close", &[r#"afterwards event 1 {"number":0}"#]);

    let twice = told(Behaviour::FINISH_TWICE, "close");
    assert_eq!(twice.lines().filter(|line| *line == "finished 1").count(), 2, "{twice}");
    let late = told(Behaviour::LATE_EVENT, "close");
    let at = |line: &str| late.find(line).unwrap_or_else(|| panic!("no {line:?} in\n{late}"));
    assert!(at("finished 1\n") < at("And another thing."), "{late}");
}

#[test]
fn what_leaks_grows_with_each_call() {
    let directory = PluginDir::empty();
    let grown = |behaviour| {
        let path = hostile(&directory, behaviour);
        let outcome = life(&path, "call").args(["60000", "64"]).run().done();
        let line = outcome.stdout.lines().find_map(|line| line.strip_prefix("grew ")?.strip_suffix(" kB"));
        line.and_then(|number| number.parse::<u64>().ok()).unwrap_or_else(|| panic!("{outcome}"))
    };
    let (leaks, holds) = (grown(Behaviour::LEAK_CALL), grown(Behaviour::WELL));
    assert!(leaks > 60 * 1024, "{leaks} kB");
    assert!(holds < 16 * 1024, "{holds} kB");
}

#[test]
fn a_command_that_hangs_was_accepted() {
    let directory = PluginDir::empty();
    for behaviour in [Behaviour::HANG_CALL, Behaviour::THREAD_PANIC_CALL] {
        let mut running = life(&hostile(&directory, behaviour), "call").start();
        running.until_line(|line| line == "asked 1 strike ACCEPTED\n");
        running.signal(Signal::KILL);
        let outcome = running.end().killed_by(Signal::KILL);
        assert!(!outcome.stdout.contains("finished 1"), "{outcome}");
    }
}

#[test]
fn a_process_that_a_plugin_ends_with_success_has_not_come_to_its_end() {
    let directory = PluginDir::empty();
    let outcome = life(&hostile(&directory, Behaviour::EXIT_LOAD), "open").run().done();
    assert_eq!(outcome.stdout, "", "{outcome}");
}
