//! Where cargo put what it built: beside the running test, whatever profile and target directory were chosen.

use std::path::{Path, PathBuf};

/// Root of the workspace.
///
/// # Panics
///
/// Never: this crate lies two levels below it.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is `tests/support`")
}

/// Cargo's output directory: `target/debug`, mostly.
///
/// # Panics
///
/// When the running program is no test that cargo built.
#[must_use]
pub fn directory() -> PathBuf {
    let program = std::env::current_exe().expect("the system knows which program runs");
    // target/debug/deps/suite-0123456789abcdef
    let directory = program.ancestors().nth(2).expect("cargo puts tests two levels below `target`");
    directory.to_owned()
}

/// The plugin cache of all tests: what was scanned once need not be scanned by every test, and the user's own cache stays
/// as it is.
#[must_use]
pub fn cache() -> PathBuf {
    directory().join("test-cache")
}

/// The command `antiphon`.
#[must_use]
#[track_caller]
pub fn program() -> PathBuf {
    existing("antiphon", "cargo build --workspace")
}

/// A program of this crate, which tests run as a child.
#[must_use]
#[track_caller]
pub fn helper(name: &str) -> PathBuf {
    existing(name, "cargo build --workspace")
}

/// An example of the host.
#[must_use]
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    existing(&format!("examples/{name}"), "cargo build --package antiphon-host --examples")
}

/// The library of a plugin, by the name of its folder: `tts-flite`.
#[must_use]
#[track_caller]
pub fn plugin(name: &str) -> PathBuf {
    existing(&file_name(name), "cargo build --workspace")
}

/// The library of a plugin that lies in `tests/fixtures`.
#[must_use]
#[track_caller]
pub fn fixture_plugin(name: &str) -> PathBuf {
    existing(&file_name(&format!("fixture-{name}")), "cargo build --workspace")
}

/// What a plugin's library is called: `libantiphon_tts_flite.so`.
#[must_use]
pub fn file_name(plugin: &str) -> String {
    format!("libantiphon_{}.so", plugin.replace('-', "_"))
}

/// Names of all plugins that we ship: the folders of `plugins/`, sorted.
///
/// # Panics
///
/// Without a source tree.
#[must_use]
pub fn plugin_names() -> Vec<String> {
    let folder = workspace().join("plugins");
    let entries = folder.read_dir().expect("the workspace has a folder `plugins`");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

#[track_caller]
fn existing(name: &str, command: &str) -> PathBuf {
    let path = directory().join(name);
    assert!(
        path.is_file(),
        "{} is missing: these tests run what was built before; `{command}`",
        path.display()
    );
    path
}
