//! The whole system: the real program, real plugins, real libraries, and recordings of real people.
//!
//! One file per subject; each test is a claim about what a user sees. What they run was built before, by
//! `cargo xtask test`, or by `cargo build --workspace` and `cargo build --package antiphon-host --examples`.
//!
//! Not here: how fast anything is (that is `cargo xtask bench`), and parts on their own (each crate tests its own).

mod abi_years;
mod bad_input;
mod bad_plugins;
mod check;
mod conversation;
mod docs;
mod events;
mod hostile;
mod isolation;
mod library;
mod reload;
mod scaffold;
mod scan;
mod stand_in;
mod supervision;
mod tidy;
mod versions;
mod worker;

use std::path::{Path, PathBuf};

use antiphon_test_support::{
    built,
    plugins::PluginDir,
    program::{Program, antiphon},
};
use tempfile::TempDir;

/// `antiphon talk` with a recogniser that understands the demo's commands, and nothing else.
fn talk(recordings: &[&Path], plugins: &PluginDir) -> Program {
    antiphon(["talk"]).args(recordings).args(["--set", &grammar_setting()]).plugins(plugins)
}

/// What `--set` makes of it.
fn grammar_setting() -> String {
    format!("stt-pocketsphinx.grammar={}", grammar())
}

/// The grammar of the demo: what its robot understands.
fn grammar() -> String {
    let path = built::workspace().join("tests/xtask/demo/commands.gram");
    path.to_str().expect("the path is text").to_owned()
}

/// A file of `tests/fixtures/media`.
fn fixture(name: &str) -> PathBuf {
    built::workspace().join("tests/fixtures/media").join(name)
}

/// A directory that goes away with the value.
fn temporary() -> TempDir {
    TempDir::with_prefix("antiphon-test-").expect("room for temporary files")
}
