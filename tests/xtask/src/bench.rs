//! `cargo xtask bench`: measures a release build as it ships. What is measured and how is the bench package's business.

use anyhow::{Result, bail};

use crate::{
    dist::{self, Profile},
    shell::{run as run_command, step},
    workspace::Workspace,
};

/// Measure a release build
///
/// Builds everything (see `cargo xtask dist`), then runs the package antiphon-bench on it, which prints a table and writes
/// target/bench/results.json. Close what else uses the processor before you trust a number.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Passed on to antiphon-bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench             all of it
  cargo xtask bench -- --help   what else antiphon-bench can do";

const PACKAGE: &str = "antiphon-bench";

pub(crate) fn run(args: Args) -> Result<()> {
    let workspace = Workspace::load()?;
    if workspace.package(PACKAGE).is_none() {
        bail!("there is no package {PACKAGE} in the workspace");
    }
    dist::build(&workspace, Profile::Release)?;
    step("bench plugin", || {
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--package", "antiphon-bench-plugin"]);
        run_command(&mut command)
    })?;
    step("bench", || {
        let mut command = workspace.cargo();
        command.args(["run", "--release", "--package", PACKAGE, "--", "--dist"]);
        command.arg(workspace.dist()).args(args.arguments);
        run_command(&mut command)
    })
}
