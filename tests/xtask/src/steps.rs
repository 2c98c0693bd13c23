//! Steps one after the other: a table of commands, each of which can be repeated alone, and a summary in the end.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;

use crate::{
    shell::{render, run as run_command, say, seconds, step, timed},
    workspace::Workspace,
};

/// One command.
pub(crate) struct Step {
    name: &'static str,
    env: &'static [(&'static str, &'static str)],
    toolchain: Toolchain,
    cargo: &'static [&'static str],
    when: When,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    /// The one that runs us.
    Ours,
    /// Only where it is installed.
    Nightly,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Full,
    Quick,
}

#[derive(Clone, Copy)]
enum Verdict {
    Passed(Duration),
    Failed(Duration),
    NotRun,
    NoToolchain,
}

/// The nightly that is asked for, by its full name: what its programs are built for has to be said to cargo.
const NIGHTLY: &str = "nightly-x86_64-unknown-linux-gnu";

impl Step {
    pub(crate) const fn new(name: &'static str, cargo: &'static [&'static str]) -> Self {
        Self { name, env: &[], toolchain: Toolchain::Ours, cargo, when: When::Always }
    }

    pub(crate) const fn env(self, env: &'static [(&'static str, &'static str)]) -> Self {
        Self { env, ..self }
    }

    pub(crate) const fn on_nightly(self) -> Self {
        Self { toolchain: Toolchain::Nightly, ..self }
    }

    /// Not with `--quick`.
    pub(crate) const fn full(self) -> Self {
        Self { when: When::Full, ..self }
    }

    /// With `--quick` only.
    pub(crate) const fn quick(self) -> Self {
        Self { when: When::Quick, ..self }
    }

    #[cfg(test)]
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn runs(&self, quick: bool) -> bool {
        match self.when {
            When::Always => true,
            When::Full => !quick,
            When::Quick => quick,
        }
    }

    /// As one would type it.
    pub(crate) fn text(&self) -> String {
        render(&self.command(Command::new("cargo")))
    }

    /// With the cargo that runs us in its place.
    fn command(&self, cargo: Command) -> Command {
        let mut command = cargo;
        if self.toolchain == Toolchain::Nightly {
            // By way of rustup: our cargo is a certain toolchain's, which cannot become another.
            let mut nightly = Command::new("rustup");
            nightly.args(["run", NIGHTLY, "cargo"]);
            command.get_current_dir().map(|directory| nightly.current_dir(directory));
            command = nightly;
        }
        command.envs(self.env.iter().copied()).args(self.cargo);
        command
    }
}

/// The steps for `--help`.
pub(crate) fn list(steps: &[Step]) -> String {
    let list = |quick| {
        let steps = steps.iter().filter(|step| step.runs(quick));
        steps.map(|step| format!("  {:<12} {}\n", step.name, step.text())).collect::<String>()
    };
    format!("Steps:\n{}\nSteps with --quick:\n{}", list(false), list(true))
}

/// Runs the steps up to the first that fails, then says how each of them went.
pub(crate) fn run(workspace: &Workspace, steps: &[Step], quick: bool) -> Result<()> {
    let steps: Vec<_> = steps.iter().filter(|step| step.runs(quick)).collect();
    let has_nightly = steps.iter().any(|step| step.toolchain == Toolchain::Nightly) && has_nightly();
    let mut verdicts = Vec::new();
    let mut failure = None;
    for current in &steps {
        if failure.is_some() {
            verdicts.push(Verdict::NotRun);
            continue;
        }
        if current.toolchain == Toolchain::Nightly && !has_nightly {
            say(format_args!("==> {}", current.name));
            say(format_args!(
                "    left out: rustup has no toolchain {NIGHTLY} (`rustup toolchain install nightly`)"
            ));
            verdicts.push(Verdict::NoToolchain);
            continue;
        }
        let mut command = current.command(workspace.cargo());
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

fn has_nightly() -> bool {
    let output = Command::new("rustup").args(["toolchain", "list"]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| lists_nightly(&String::from_utf8_lossy(&output.stdout)))
}

/// A line is a name, perhaps with remarks behind it.
fn lists_nightly(toolchains: &str) -> bool {
    toolchains.lines().any(|line| line.split_whitespace().next() == Some(NIGHTLY))
}

fn row(name: &str, verdict: Verdict) -> String {
    let (time, word) = match verdict {
        Verdict::Passed(time) => (seconds(time), "ok"),
        Verdict::Failed(time) => (seconds(time), "FAILED"),
        Verdict::NotRun => (String::new(), "not run"),
        Verdict::NoToolchain => (String::new(), "not run: no nightly toolchain"),
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
        assert_eq!(
            row("sanitizer", Verdict::NoToolchain),
            "    sanitizer                   not run: no nightly toolchain"
        );
    }

    #[test]
    fn a_step_can_be_pasted() {
        let step = Step::new("models", &["test", "--release"]).env(&[("RUSTFLAGS", "--cfg some_model")]);
        assert_eq!(step.text(), "RUSTFLAGS='--cfg some_model' cargo test --release");
        let step = Step::new("sanitizer", &["test"]).on_nightly();
        assert_eq!(step.text(), "rustup run nightly-x86_64-unknown-linux-gnu cargo test");
    }

    #[test]
    fn only_the_nightly_itself_counts() {
        assert!(lists_nightly(
            "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-x86_64-unknown-linux-gnu\n"
        ));
        assert!(lists_nightly("nightly-x86_64-unknown-linux-gnu (default)"));
        assert!(!lists_nightly(
            "stable-x86_64-unknown-linux-gnu\nnightly-2026-01-01-x86_64-unknown-linux-gnu"
        ));
        assert!(!lists_nightly(""));
    }
}
