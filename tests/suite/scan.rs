//! What happens to plugin files before they are opened: they are tried in child processes, and what came of it is
//! remembered, locked, and refused where others could have put it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use antiphon_host::{Host, PluginState, child::ChildProgram, inspect};
use antiphon_test_support::{
    built,
    conversation::Setup,
    plugins::PluginDir,
    program::{Outcome, Program, antiphon},
};
use object::{Object, ObjectSection};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::temporary;

/// A cache that knows nothing yet, and programs that use it.
struct Fresh(TempDir);

impl Fresh {
    fn new() -> Self {
        Self(temporary())
    }

    fn run(&self, arguments: &[&str], plugins: &PluginDir) -> Program {
        antiphon(arguments).plugins(plugins).env("ANTIPHON_CACHE_DIR", self.0.path())
    }

    #[track_caller]
    fn list(&self, plugins: &PluginDir) -> Value {
        self.run(&["plugins", "list", "--json"], plugins).run().ended_with(0).json()
    }

    #[track_caller]
    fn retry(&self, path: &Path) -> Outcome {
        let retry = antiphon(["plugins".as_ref(), "retry".as_ref(), path.as_os_str()]);
        retry.env("ANTIPHON_CACHE_DIR", self.0.path()).run()
    }

    /// The only file of a folder of the cache.
    #[track_caller]
    fn only(&self, folder: &str) -> PathBuf {
        let entries = self.0.path().join(folder).read_dir().expect("a folder of the cache");
        let files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
        let [file] = &files[..] else { panic!("one file: {files:?}") };
        file.clone()
    }
}

#[track_caller]
fn only(list: &Value) -> &Value {
    let plugins = list["plugins"].as_array().expect("a list");
    let [plugin] = &plugins[..] else { panic!("one plugin: {list}") };
    plugin
}

/// A plugin that looks like one, and on which the dynamic linker crashes: nothing says where its tables are.
fn crashing() -> Vec<u8> {
    let mut bytes = fs::read(built::plugin("llm-echo")).expect("a library");
    let tables = section(&bytes, ".dynamic");
    bytes[tables].fill(0);
    bytes
}

/// Where a file has a section.
#[track_caller]
fn section(bytes: &[u8], name: &str) -> std::ops::Range<usize> {
    let file = object::File::parse(bytes).expect("an ELF file");
    let range = file.section_by_name(name).and_then(|section| section.file_range());
    let (start, length) = range.expect("such a section");
    start as usize..(start + length) as usize
}

#[test]
fn a_library_that_needs_others_beside_it_is_told_by_its_names() {
    let plugins = PluginDir::empty();
    let mut bytes = fs::read(built::plugin("llm-echo")).expect("a library");
    plugins.write("as_it_is.so", &bytes);
    let names = section(&bytes, ".dynstr");
    // What is there otherwise does not matter: nothing opens this file.
    bytes[names.start..names.start + 8].copy_from_slice(b"\0$ORIGIN");
    plugins.write("beside.so", &bytes);
    let needs = |name: &str| inspect::needs_its_place(&plugins.file(name)).expect("a library");
    assert_eq!((needs("as_it_is.so"), needs("beside.so")), (false, true));
}

#[test]
fn a_directory_that_has_not_changed_is_neither_read_nor_tried_again() {
    let (fresh, plugins) = (Fresh::new(), PluginDir::all());
    let count = built::plugin_names().len();
    let scan = |list: Value| list["scan"].clone();
    let first = json!({ "files": count, "hashed": count, "remembered": 0, "children": count });
    assert_eq!(scan(fresh.list(&plugins)), first);
    let later = json!({ "files": count, "hashed": 0, "remembered": count, "children": 0 });
    assert_eq!(scan(fresh.list(&plugins)), later);
    // The verdict belongs to the content, wherever it lies.
    let moved = PluginDir::empty();
    moved.copy(&built::plugin("llm-echo"), "other.so");
    let moved = scan(fresh.list(&moved));
    assert_eq!(moved, json!({ "files": 1, "hashed": 1, "remembered": 1, "children": 0 }));
}

#[test]
fn a_file_that_changes_is_tried_again() {
    let (fresh, plugins) = (Fresh::new(), PluginDir::empty());
    plugins.copy(&built::plugin("llm-echo"), "echo.so");
    let first = fresh.list(&plugins);
    let mut bytes = fs::read(plugins.file("echo.so")).expect("readable");
    // Behind what the linker reads.
    bytes.push(0);
    plugins.write("echo.so", bytes);
    let second = fresh.list(&plugins);
    assert_eq!(second["scan"]["children"], 1, "{second}");
    assert_eq!(only(&second)["state"], "ready");
    assert_ne!(only(&first)["sha256"], only(&second)["sha256"]);
}

#[test]
fn a_file_that_crashes_the_linker_is_quarantined_and_the_rest_works() {
    let (fresh, plugins) = (Fresh::new(), PluginDir::of(&["llm-rules"]));
    plugins.write("crash.so", crashing());
    for children in [2, 0] {
        let list = fresh.list(&plugins);
        assert_eq!(list["scan"]["children"], children, "{list}");
        let [crash, rules] = [&list["plugins"][0], &list["plugins"][1]];
        assert_eq!((&crash["state"], &rules["state"]), (&"quarantined".into(), &"ready".into()), "{list}");
        let error = crash["error"].as_str().expect("a reason");
        assert!(error.contains("quarantined: crashed with SIG"), "{error}");
        assert!(error.contains("while its library was opened"), "{error}");
    }
    let list = fresh.run(&["plugins", "list"], &plugins).run().done();
    assert!(
        list.stdout.contains("antiphon plugins retry ") && list.stdout.contains("1 of 2 usable"),
        "{list}"
    );
    fresh.retry(&plugins.file("crash.so")).complained(1, &["crash.so is quarantined: crashed with SIG"]);
}

#[test]
fn what_was_quarantined_gets_another_chance_by_retry() {
    let (fresh, plugins) = (Fresh::new(), PluginDir::of(&["llm-echo"]));
    assert_eq!(only(&fresh.list(&plugins))["state"], "ready");
    // As if it had hung, because the machine was busy that day.
    let file = fresh.only("verdicts");
    let mut verdict: Value =
        serde_json::from_slice(&fs::read(&file).expect("readable")).expect("a verdict is JSON");
    verdict["judgement"] = "quarantined".into();
    verdict["reason"] = "did not come to an end".into();
    verdict["output"] = "waiting\n".into();
    fs::write(&file, verdict.to_string()).expect("writable");
    let list = fresh.list(&plugins);
    assert_eq!(only(&list)["state"], "quarantined", "{list}");
    assert!(only(&list)["error"].to_string().contains("did not come to an end; its last words"), "{list}");
    let outcome = fresh.retry(&plugins.file(&built::file_name("llm-echo"))).done();
    assert_eq!(outcome.stdout, "llm-echo 0.1.0 is accepted\n");
    assert_eq!(only(&fresh.list(&plugins))["state"], "ready");
}

#[test]
fn a_damaged_cache_costs_another_look_and_nothing_else() {
    let (fresh, plugins) = (Fresh::new(), PluginDir::of(&["llm-echo"]));
    fresh.list(&plugins);
    let copy = fresh.only("libraries");
    fs::set_permissions(&copy, Permissions::from_mode(0o700)).expect("it is ours");
    fs::write(&copy, "cut off").expect("writable");
    let list = fresh.list(&plugins);
    assert_eq!((&only(&list)["state"], &list["scan"]["hashed"]), (&"ready".into(), &1.into()), "{list}");
    fs::write(fresh.only("verdicts"), "{").expect("writable");
    let list = fresh.list(&plugins);
    assert_eq!((&only(&list)["state"], &list["scan"]["children"]), (&"ready".into(), &1.into()), "{list}");
}

#[test]
fn two_hosts_can_scan_at_once() {
    let (fresh, plugins) = (Fresh::new(), PluginDir::all());
    let both = [(); 2].map(|()| fresh.run(&["plugins", "list", "--json"], &plugins).start());
    for running in both {
        let list = running.end().done().json();
        assert_eq!(list["usable"], built::plugin_names().len(), "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_is_overwritten_while_it_runs_goes_on() {
    let plugins = PluginDir::empty();
    plugins.copy(&built::plugin("llm-rules"), "rules.so");
    let mut talk = Setup::with(plugins.clone()).start().await;
    let file = plugins.file("rules.so");
    let length = file.metadata().expect("it is there").len();
    // In place, as `cp` does it: whoever has the file mapped sees the new bytes.
    fs::write(&file, vec![0xcc; length as usize]).expect("writable");
    let turn = talk.ask("go forward ten meters").await;
    let said = turn.of("agent.agent_transcript").last().expect("an answer");
    assert_eq!(said["text"], "Going forward ten meters. Tell me when to stop.");
    fs::write(&file, "").expect("writable");
    talk.ask("go forward ten meters").await;
    talk.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_child_process_nothing_is_loaded_that_was_not_tried_before() {
    let (cache, plugins) = (temporary(), PluginDir::of(&["llm-echo"]));
    let host = || Host::builder().plugin_dir(plugins.path()).cache_dir(cache.path());
    let states = |host: &Host| host.plugins().iter().map(|plugin| plugin.state).collect::<Vec<_>>();
    let childless = || host().child_program(ChildProgram::at("nowhere/antiphon")).start();
    let without = childless().await;
    assert_eq!(states(&without), [PluginState::Failed]);
    let error = without.plugins()[0].error.clone().expect("a reason");
    assert!(error.contains("was not tried, and is not loaded untried"), "{error}");
    assert!(error.contains("nowhere/antiphon cannot be started"), "{error}");
    without.shutdown().await;
    let with = host().start().await;
    assert_eq!((states(&with), with.scanned().children), (vec![PluginState::Ready], 1));
    with.shutdown().await;
    let without = childless().await;
    assert_eq!((states(&without), without.scanned().children), (vec![PluginState::Ready], 0));
    without.shutdown().await;
}

#[test]
fn with_a_lock_only_what_is_in_it_is_loaded() {
    let (fresh, plugins, here) = (Fresh::new(), PluginDir::empty(), temporary());
    plugins.copy(&built::plugin("llm-echo"), "echo.so");
    plugins.copy(&built::plugin("llm-rules"), "rules.so");
    let run = |arguments: &[&str]| fresh.run(arguments, &plugins).directory(here.path());
    run(&["--locked", "plugins", "list"]).run().complained(1, &["there is no lock at antiphon.lock"]);
    let locked = run(&["plugins", "lock"]).run().done();
    assert_eq!(locked.stdout, "2 plugins in antiphon.lock\n");
    let text = fs::read_to_string(here.path().join("antiphon.lock")).expect("a lock");
    assert!(text.starts_with("# ") && text.contains("file = \"rules.so\""), "{text}");
    let list = run(&["--locked", "plugins", "list", "--json"]).run().done().json();
    assert_eq!((&list["usable"], &list["scan"]["hashed"]), (&2.into(), &2.into()), "{list}");

    // Another content, a new plugin, and one that is gone.
    let mut bytes = fs::read(plugins.file("echo.so")).expect("readable");
    bytes.push(0);
    plugins.write("echo.so", bytes);
    plugins.copy(&built::plugin("vision-qr"), "qr.so");
    fs::remove_file(plugins.file("rules.so")).expect("it is there");
    let list = run(&["plugins", "list", "--json"]).run().ended_with(0).json();
    assert_eq!((&list["usable"], &list["scan"]["children"]), (&0.into(), &0.into()), "{list}");
    let [echo, qr] = [0, 1].map(|index| list["plugins"][index]["error"].as_str().expect("a reason"));
    assert!(echo.contains("antiphon.lock wants llm-echo with the content "), "{echo}");
    assert!(echo.contains("this one has ") && echo.contains("`antiphon plugins lock` accepts it"), "{echo}");
    assert!(qr.contains("antiphon.lock has no vision-qr"), "{qr}");
    let locked = run(&["--locked", "plugins", "list"]).run();
    locked.complained(1, &["of the plugins in antiphon.lock these cannot be loaded: llm-echo, llm-rules"]);

    run(&["plugins", "lock", "--output", "other.lock"]).run().done();
    let list = run(&["--lock", "other.lock", "--locked", "plugins", "list", "--json"]).run().done().json();
    assert_eq!(list["usable"], 2, "{list}");
    // Beside the configuration there is none.
    fs::create_dir(here.path().join("conf")).expect("room for a folder");
    fs::write(here.path().join("conf/a.toml"), "").expect("room for a file");
    let list = run(&["--config", "conf/a.toml", "plugins", "list", "--json"]).run().done().json();
    assert_eq!(list["usable"], 2, "{list}");
    fs::write(here.path().join("antiphon.lock"), "version = 1\n[[plugin").expect("writable");
    run(&["plugins", "list"]).run().complained(1, &["the lock antiphon.lock is damaged"]);
    run(&["plugins", "lock"]).run().done();
}

#[test]
fn what_everybody_can_write_is_refused_unless_it_is_meant() {
    let (fresh, plugins, here) = (Fresh::new(), PluginDir::empty(), temporary());
    plugins.copy(&built::plugin("llm-echo"), "echo.so");
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    };
    let check = |want: &str| {
        let list = fresh.list(&plugins);
        let error = only(&list)["error"].as_str().expect("a reason");
        assert!(error.contains(want) && error.contains("chmod o-w"), "{error}");
        assert_eq!(
            (&only(&list)["state"], &list["scan"]["children"]),
            (&"failed".into(), &0.into()),
            "{list}"
        );
    };
    mode(plugins.path(), 0o777);
    check("is a plugin directory that every user of this machine can write (mode 0777)");
    let inspect = antiphon(["plugins".into(), "inspect".into(), plugins.file("echo.so")]).run();
    inspect.complained(1, &["is in a directory that every user"]);
    let allowed = fresh.run(&["--allow-writable-dirs", "plugins", "list", "--json"], &plugins).run().done();
    assert_eq!(only(&allowed.json())["state"], "ready");
    let config = here.path().join("a.toml");
    fs::write(&config, "[plugins]\nallow_writable_dirs = true\n").expect("room for a file");
    let config = config.to_str().expect("the path is text");
    let allowed = fresh.run(&["--config", config, "plugins", "list", "--json"], &plugins).run().done();
    assert_eq!(only(&allowed.json())["state"], "ready");
    mode(plugins.path(), 0o755);
    mode(&plugins.file("echo.so"), 0o666);
    check("is a file that every user of this machine can write (mode 0666)");
}

#[test]
fn a_cache_that_others_can_write_is_refused_and_nothing_is_loaded() {
    let (fresh, plugins) = (Fresh::new(), PluginDir::of(&["llm-echo"]));
    fs::set_permissions(fresh.0.path(), Permissions::from_mode(0o777)).expect("it is ours");
    let list = fresh.list(&plugins);
    let error = only(&list)["error"].as_str().expect("a reason");
    assert!(error.contains("is not safe: others can write it (mode 0777)"), "{error}");
    let doctor = fresh.run(&["doctor", "--json"], &plugins).run().ended_with(1).json();
    assert!(doctor["cache"]["problem"].to_string().contains("is not safe"), "{doctor}");
    assert_eq!(doctor["child_processes"]["can_be_started"], true, "{doctor}");
}

#[test]
fn without_a_place_for_the_cache_a_temporary_one_stands_in() {
    let (plugins, temporary) = (PluginDir::of(&["llm-echo"]), temporary());
    let list = antiphon(["plugins", "list", "--json"]).plugins(&plugins);
    let list = list.env("ANTIPHON_CACHE_DIR", "").env("XDG_CACHE_HOME", "").env("HOME", "");
    let outcome = list.env("TMPDIR", temporary.path()).run();
    let outcome = outcome.complained(0, &["~/.cache/antiphon cannot be used", "scanned anew each time"]);
    assert_eq!(only(&outcome.json())["state"], "ready");
    let names: Vec<_> = temporary.path().read_dir().expect("readable").flatten().collect();
    assert_eq!(names.len(), 1);
    let mode = names[0].metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
