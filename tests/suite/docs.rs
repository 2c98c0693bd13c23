//! The documentation's promises: what it tells people to write builds and works, exactly as written.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use antiphon_test_support::{built, plugins::PluginDir, program};

use crate::temporary;

const GUIDE: &str = include_str!("../../docs/src/writing-a-plugin.md");

/// The path that the guide writes for a checkout beside the plugin.
const BESIDE: &str = "../antiphon/plugin-api";

/// The fenced block after the comment that names a file.
#[track_caller]
fn file(name: &str) -> &'static str {
    let mark = format!("<!-- file: {name} -->");
    let block = GUIDE
        .split_once(&mark)
        .and_then(|(_, rest)| rest.split_once("```"))
        .and_then(|(_, fence)| fence.split_once('\n'));
    let text = block.and_then(|(_, text)| text.split_once("\n```"));
    text.unwrap_or_else(|| panic!("writing-a-plugin.md has no block marked {mark}")).0
}

#[test]
fn the_plugin_of_the_guide_builds_outside_the_workspace_and_works_as_written() {
    let directory = temporary();
    let manifest = file("Cargo.toml");
    assert!(manifest.contains(BESIDE), "the guide depends on a checkout beside the plugin");
    let api = built::workspace().join("plugin-api");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a file in the directory")).expect("room for a crate");
        fs::write(path, text).expect("room for a crate");
    };
    write("Cargo.toml", &manifest.replace(BESIDE, api.to_str().expect("the path is text")));
    write("src/lib.rs", file("src/lib.rs"));
    // The versions that are here already, so that nothing needs to be fetched.
    fs::copy(built::workspace().join("Cargo.lock"), directory.path().join("Cargo.lock"))
        .expect("a lock file");
    let target = built::directory().join("guide");
    build(directory.path(), &target);

    let plugins = PluginDir::empty();
    plugins.copy(&target.join("debug/libantiphon_llm_spell.so"), "libantiphon_llm_spell.so");
    let listed = program::antiphon(["plugins", "list", "--json"]).plugins(&plugins).run().done().json();
    let text = listed.to_string();
    assert!(text.contains("llm-spell") && text.contains("\"ready\""), "{text}");
    let schema =
        program::antiphon(["events", "schema", "llm_spell.word"]).plugins(&plugins).run().done().json();
    assert_eq!(schema["title"], "llm_spell.word");
}

fn build(directory: &Path, target: &Path) {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--offline"])
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target)
        .env_remove("RUSTFLAGS")
        .stdin(Stdio::null())
        .output()
        .expect("cargo runs, as it has built this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
