//! `cargo xtask test`: everything that CI checks, in the order in which failures are cheapest.

use anyhow::{Result, bail};

use crate::{
    prove::SHORT_MODELS,
    setup::{self, Ask, Outcome, Purpose},
    shell::complain,
    steps::{self, Step},
    workspace::Workspace,
};

/// Check everything that CI checks
///
/// Installs what the tests need (see `cargo xtask setup`), then runs the steps below and stops at the first that fails.
/// Each step is one cargo command, printed before it runs: copy it to repeat that step alone.
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    /// Only format, lints and unit tests: what is worth running after every change
    #[arg(long)]
    quick: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                     what .ci/run calls
  cargo xtask test --quick             leaves out whole-system tests and documentation examples
  cargo test --workspace lagged        tests with this in their name: plain cargo is enough once setup has run
  cargo test --workspace -- --ignored  tests that need accounts or devices; never run here";

fn after_help() -> String {
    format!("{}\n{EXAMPLES}", steps::list(STEPS))
}

/// In running order. A new check is a new row; CI and users get it at once.
const STEPS: &[Step] = &[
    Step::new("format", &["fmt", "--all", "--check"]),
    Step::new("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    // Before the tests, which load these libraries and run these programs.
    Step::new("build", &["build", "--workspace"]).full(),
    Step::new("examples", &["build", "--package", "antiphon-host", "--examples"]).full(),
    // Unit, crate, conformance and system tests, and the examples in the documentation.
    Step::new("tests", &["test", "--workspace"]).full(),
    // With other flags, so that core and what it needs are compiled once more.
    SHORT_MODELS.full(),
    Step::new("unit tests", &["test", "--workspace", "--exclude", "antiphon-tests", "--lib", "--bins"])
        .quick(),
];

pub(crate) fn run(args: Args) -> Result<()> {
    let workspace = Workspace::load()?;
    prepare()?;
    steps::run(&workspace, STEPS, args.quick)
}

/// Without the libraries on a system where we could have installed them, the result would mean nothing. Elsewhere the
/// tests that need them fail and say so, and all others are still worth running.
fn prepare() -> Result<()> {
    match setup::ensure(Purpose::Test, Ask::Password)? {
        Outcome::Ready => Ok(()),
        Outcome::NotDebian(missing) => {
            complain(format_args!("warning: tests that need {} will fail", setup::names(&missing)));
            Ok(())
        }
        Outcome::Failed(missing) => bail!("the tests need {}", setup::names(&missing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_leaves_out_and_never_skips_format_and_lints() {
        let names = |quick| STEPS.iter().filter(|step| step.runs(quick)).map(Step::name).collect::<Vec<_>>();
        assert_eq!(names(true), ["format", "lints", "unit tests"]);
        assert_eq!(names(false), ["format", "lints", "build", "examples", "tests", "models"]);
    }
}
