//! `cargo xtask prove`: the proofs of the event bus and of plugin safety that take too long for every change.

use anyhow::Result;

use crate::{
    steps::{self, Step},
    workspace::Workspace,
};

/// Prove what the event bus and the host promise
///
/// Models of its queues in every interleaving of a few threads, random sequences of steps against a model of the whole bus,
/// millions of events whose books must balance, memory errors and leaks; and every plugin that misbehaves, with a host that is
/// watched for memory errors. Run it after a change of core/src/bus, of the ABI, or of what runs plugins. Each step is
/// one command, printed before it runs: copy it to repeat that step alone. Stops at the first that fails.
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    /// Fewer cases, and a soak of a million events: some minutes, most of it for compiling
    #[arg(long)]
    quick: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask prove          all of it
  cargo xtask prove --quick  the same with small numbers
  PROPTEST_CASES=1000 PROPTEST_RNG_SEED=7 cargo test -p antiphon-core --test model
                             other sequences of steps than those that are always tried
  cargo run --release -p antiphon-core --example soak -- --events 1000000 --json
                             the totals of a soak for other programs";

fn after_help() -> String {
    format!("{}\n{EXAMPLES}", steps::list(STEPS))
}

// Two builds with other flags, each in a folder of its own, or every change would build everything again.

const MODELS: &[&str] =
    &["test", "--release", "--target-dir", "target/loom", "--package", "antiphon-core", "--lib", "bus::loom"];

/// The models as `cargo xtask test` runs them: within a second or two, once they are compiled.
pub(crate) const SHORT_MODELS: Step =
    Step::new("models", MODELS).env(&[("RUSTFLAGS", "--cfg antiphon_loom")]);

const PROPERTIES: &[&str] = &["test", "--package", "antiphon-core", "--test", "model"];

const SANITIZER: &[&str] = &[
    "test",
    "--target",
    "x86_64-unknown-linux-gnu",
    "--target-dir",
    "target/asan",
    "--package",
    "antiphon-core",
    "--test",
    "bus",
    "--test",
    "model",
];

const SANITIZER_ENV: &[(&str, &str)] =
    &[("ASAN_OPTIONS", "detect_leaks=1"), ("PROPTEST_CASES", "500"), ("RUSTFLAGS", "-Zsanitizer=address")];

const SANITIZED: &[&str] =
    &["build", "--target", "x86_64-unknown-linux-gnu", "--target-dir", "target/asan", "--workspace"];

const MISBEHAVIOUR: &[&str] = &[
    "test",
    "--target",
    "x86_64-unknown-linux-gnu",
    "--target-dir",
    "target/asan",
    "--package",
    "antiphon-tests",
    "--",
    "hostile",
    "supervision",
    "isolation",
    "versions",
    "bad_plugins",
];

/// Faults go to the kernel, as without a sanitizer, so that those that are meant are told by their signals. What plugins
/// leak is theirs.
const MISBEHAVIOUR_ENV: &[(&str, &str)] = &[
    (
        "ASAN_OPTIONS",
        "detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigtrap=0:allocator_may_return_null=1",
    ),
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
    // The plugins find the sanitizer in the program that opens them.
    ("RUSTFLAGS", "-Zsanitizer=address -Clink-arg=-Wl,--export-dynamic"),
];

/// In running order: what finds most in the least time comes first.
const STEPS: &[Step] = &[
    Step::new("properties", PROPERTIES).env(&[("PROPTEST_CASES", "50000")]).full(),
    Step::new("properties", PROPERTIES).env(&[("PROPTEST_CASES", "5000")]).quick(),
    Step::new("models", MODELS)
        .env(&[("LOOM_MAX_PREEMPTIONS", "3"), ("RUSTFLAGS", "--cfg antiphon_loom")])
        .full(),
    SHORT_MODELS.quick(),
    Step::new(
        "soak",
        &[
            "run",
            "--release",
            "--package",
            "antiphon-core",
            "--example",
            "soak",
            "--",
            "--events",
            "50000000",
        ],
    )
    .full(),
    Step::new(
        "soak",
        &["run", "--release", "--package", "antiphon-core", "--example", "soak", "--", "--events", "1000000"],
    )
    .quick(),
    Step::new("sanitizer", SANITIZER).env(SANITIZER_ENV).on_nightly(),
    Step::new("build", SANITIZED).env(MISBEHAVIOUR_ENV).on_nightly(),
    Step::new("misbehaviour", MISBEHAVIOUR).env(MISBEHAVIOUR_ENV).on_nightly(),
];

pub(crate) fn run(args: Args) -> Result<()> {
    steps::run(&Workspace::load()?, STEPS, args.quick)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_proves_the_same_with_smaller_numbers() {
        let names = |quick| STEPS.iter().filter(|step| step.runs(quick)).map(Step::name).collect::<Vec<_>>();
        assert_eq!(names(true), ["properties", "models", "soak", "sanitizer", "build", "misbehaviour"]);
        assert_eq!(names(false), names(true));
    }

    #[test]
    fn other_flags_have_a_target_directory_of_their_own() {
        for step in STEPS.iter().filter(|step| step.text().contains("RUSTFLAGS=")) {
            assert!(step.text().contains("--target-dir"), "{}", step.text());
        }
    }
}
