//! `antiphon config`: what a configuration file may hold, and whether one is right.

use std::path::PathBuf;

use antiphon_host::config::Config;
use anyhow::Result;
use clap::Subcommand;

use super::{Exit, output};

/// Show what a configuration file may hold, or check one
///
/// The file is TOML. Every key has a default, so that most people need none. It is used with --config FILE or
/// ANTIPHON_CONFIG; no file is read unless somebody names it. Settings of plugins stand in [plugin.NAME]; `antiphon
/// plugins inspect NAME` shows what there is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  antiphon config check antiphon.toml
  antiphon config schema > antiphon.schema.json

A whole file:
  [plugins]
  dirs = [\"my-plugins\"]        # relative to this file
  disabled = [\"llm-echo\"]

  [agent]
  llm = \"llm-rules\"            # else the one of the highest rank
  pre_roll_ms = 300

  [plugin.tts-flite]
  voice = \"slt\"";

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the JSON Schema of the file, for editors and other programs
    #[command(after_help = "Examples:\n  antiphon config schema > antiphon.schema.json")]
    Schema,
    /// Check a file; what is wrong is named with its line. Settings of plugins are checked when they start
    #[command(after_help = "Examples:\n  antiphon config check antiphon.toml")]
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) fn run(args: Args) -> Result<Exit> {
    match args.command {
        Command::Schema => output::print_json(&Config::schema())?,
        Command::Check { file } => {
            Config::load(&file)?;
            output::print(&format!("{} is fine\n", file.display()))?;
        }
    }
    Ok(Exit::Done)
}
