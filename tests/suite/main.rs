//! The whole system: the real program, real plugins, real libraries, and recordings of real people.
//!
//! One file per subject; each test is a claim about what a user sees. What they run was built before: `cargo xtask test`
//! does it, `cargo build --workspace` is enough.
//!
//! Not here: how fast anything is (that is `cargo xtask bench`), and parts on their own (each crate tests its own).

mod isolation;

/// The grammar of the demo: what its robot understands.
fn grammar() -> String {
    let path = antiphon_test_support::built::workspace().join("tests/xtask/demo/commands.gram");
    path.to_str().expect("the path is text").to_owned()
}
