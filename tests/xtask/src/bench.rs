//! `cargo xtask bench`: measures a release build as it ships. What is measured and how is the bench package's business.

use anyhow::{Result, bail};

use crate::{
    dist::{self, Profile},
    shell::{run as run_command, step},
    workspace::Workspace,
};

/// Measure a release build, the event bus, or plugins
///
/// Without a further word: builds everything (see `cargo xtask dist`), then runs the package antiphon-bench on it, which prints a table and writes
/// target/bench/results.json. Close what else uses the processor before you trust a number.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Passed on to antiphon-bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// What can be measured by itself.
#[derive(clap::Subcommand)]
enum Part {
    /// Measure the event bus beside its rivals
    ///
    /// Builds and runs the package antiphon-bench-bus alone, which prints tables, writes target/bench/bus.json and makes
    /// docs/src/performance.md anew, with its plots. Takes about ten minutes.
    Bus {
        /// Passed on to antiphon-bench-bus
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Measure scanning, isolating, restarting and replacing plugins
    ///
    /// Builds and runs the package antiphon-bench-plugins and the plugins that it needs, which prints tables, writes
    /// target/bench/plugins.json and makes docs/src/performance-plugins.md anew, with its plots. Takes less than ten minutes.
    Plugins {
        /// Passed on to antiphon-bench-plugins
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench                 plugins, start-up and the stages of a reply
  cargo xtask bench -- --help       what else antiphon-bench can do
  cargo xtask bench bus             the event bus beside tokio, Node and Vision Agents
  cargo xtask bench bus -- --help   what else antiphon-bench-bus can do
  cargo xtask bench plugins         scan, worker, restart and reload of plugins, and sessions beside Pipecat";

const PACKAGE: &str = "antiphon-bench";
const BUS_PACKAGE: &str = "antiphon-bench-bus";
const PLUGINS_PACKAGE: &str = "antiphon-bench-plugins";

/// Plugins that are measured with it; their libraries are to lie beside the program.
const MEASURED: [&str; 2] = ["antiphon-bench-plugin", "antiphon-fixture-hostile"];

pub(crate) fn run(args: Args) -> Result<()> {
    let workspace = Workspace::load()?;
    match args.part {
        Some(Part::Bus { arguments }) => return alone(&workspace, "bus", BUS_PACKAGE, arguments),
        Some(Part::Plugins { arguments }) => return plugins(&workspace, arguments),
        None => {}
    }
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

fn plugins(workspace: &Workspace, arguments: Vec<String>) -> Result<()> {
    step("plugins to measure", || {
        let mut command = workspace.cargo();
        command.args(["build", "--release"]).args(MEASURED.iter().flat_map(|name| ["--package", name]));
        run_command(&mut command)
    })?;
    alone(workspace, "plugins", PLUGINS_PACKAGE, arguments)
}

/// Builds and runs one package, which needs nothing else of the workspace.
fn alone(workspace: &Workspace, name: &str, package: &str, arguments: Vec<String>) -> Result<()> {
    step(format_args!("bench {name}"), || {
        let mut command = workspace.cargo();
        command.args(["run", "--release", "--package", package, "--", "--out"]);
        command.arg(workspace.target.join("bench")).args(arguments);
        run_command(&mut command)
    })
}
