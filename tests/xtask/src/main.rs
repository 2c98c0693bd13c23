//! `cargo xtask`: the jobs around the code that cargo has no word for.
//!
//! One file per command; nothing here is shipped, and nothing here is needed to build with plain cargo.

mod abi_fixture;
mod bench;
mod demo;
mod dist;
mod prove;
mod setup;
mod shell;
mod steps;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about = ABOUT, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Test(test::Args),
    Dist(dist::Args),
    Bench(bench::Args),
    Prove(prove::Args),
    Setup(setup::Args),
    AbiFixture(abi_fixture::Args),
}

const ABOUT: &str = "Sets up, builds, tries, tests, proves and measures Antiphon";

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo           hear Antiphon answer a recording; start here
  cargo xtask test           everything that CI checks
  cargo xtask test --quick   the part of it that is worth running after every change
  cargo xtask prove          what the event bus promises: after a change of core/src/bus
  cargo xtask dist           a release build that runs from anywhere: target/dist/antiphon
  cargo xtask abi-fixture    with a new version of the ABI: the plugin that later hosts must still load
  cargo xtask demo --help    what a command does in detail, with examples";

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::complain(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(args),
        Command::Dist(args) => dist::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Prove(args) => prove::run(args),
        Command::Setup(args) => setup::run(args),
        Command::AbiFixture(args) => abi_fixture::run(args),
    }
}
