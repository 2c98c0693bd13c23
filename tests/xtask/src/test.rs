//! `cargo xtask test`: everything that CI checks, in the order in which failures are cheapest.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    setup::{self, Ask, Outcome, Purpose},
    shell::{complain, run as run_command, say, seconds, step, timed},
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
    let list = |quick| {
        let steps = STEPS.iter().filter(|step| step.runs(quick));
        steps.map(|step| format!("  {:<12} cargo {}\n", step.name, step.cargo.join(" "))).collect::<String>()
    };
    format!("Steps:\n{}\nSteps with --quick:\n{}\n{EXAMPLES}", list(false), list(true))
}

struct Step {
    name: &'static str,
    cargo: &'static [&'static str],
    when: When,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Full,
    Quick,
}

/// In running order. A new check is a new row; CI and users get it at once.
const STEPS: &[Step] = &[
    Step { name: "format", cargo: &["fmt", "--all", "--check"], when: When::Always },
    Step {
        name: "lints",
        cargo: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        when: When::Always,
    },
    // Before the tests, which load these libraries and run these programs.
    Step { name: "build", cargo: &["build", "--workspace"], when: When::Full },
    Step {
        name: "examples",
        cargo: &["build", "--package", "antiphon-host", "--examples"],
        when: When::Full,
    },
    // Unit, crate, conformance and system tests, and the examples in the documentation.
    Step { name: "tests", cargo: &["test", "--workspace"], when: When::Full },
    Step {
        name: "unit tests",
        cargo: &["test", "--workspace", "--exclude", "antiphon-tests", "--lib", "--bins"],
        when: When::Quick,
    },
];

#[derive(Clone, Copy)]
enum Verdict {
    Passed(Duration),
    Failed(Duration),
    NotRun,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let workspace = Workspace::load()?;
    prepare()?;

    let steps: Vec<_> = STEPS.iter().filter(|step| step.runs(args.quick)).collect();
    let mut verdicts = Vec::new();
    let mut failure = None;
    for current in &steps {
        if failure.is_some() {
            verdicts.push(Verdict::NotRun);
            continue;
        }
        let mut command = workspace.cargo();
        command.args(current.cargo);
        let (outcome, time) = timed(|| step(current.name, || run_command(&mut command)));
        verdicts.push(match outcome {
            Ok(()) => Verdict::Passed(time),
            Err(error) => {
                failure = Some(error.context(format!("step \"{}\"", current.name)));
                Verdict::Failed(time)
            }
        });
    }

    say("==> summary");
    for (step, verdict) in steps.iter().zip(&verdicts) {
        say(row(step.name, *verdict));
    }
    failure.map_or(Ok(()), Err)
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

impl Step {
    fn runs(&self, quick: bool) -> bool {
        match self.when {
            When::Always => true,
            When::Full => !quick,
            When::Quick => quick,
        }
    }
}

fn row(name: &str, verdict: Verdict) -> String {
    let (time, word) = match verdict {
        Verdict::Passed(time) => (seconds(time), "ok"),
        Verdict::Failed(time) => (seconds(time), "FAILED"),
        Verdict::NotRun => (String::new(), "not run"),
    };
    format!("    {name:<12} {time:>12}   {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_lines_up() {
        assert_eq!(
            row("lints", Verdict::Passed(Duration::from_millis(7_340))),
            "    lints               7.3 s   ok"
        );
        assert_eq!(
            row("tests", Verdict::Failed(Duration::from_secs(125))),
            "    tests          2 min 05 s   FAILED"
        );
        assert_eq!(row("examples", Verdict::NotRun), "    examples                    not run");
    }

    #[test]
    fn quick_leaves_out_and_never_skips_format_and_lints() {
        let names =
            |quick| STEPS.iter().filter(|step| step.runs(quick)).map(|step| step.name).collect::<Vec<_>>();
        assert_eq!(names(true), ["format", "lints", "unit tests"]);
        assert_eq!(names(false), ["format", "lints", "build", "examples", "tests"]);
    }
}
