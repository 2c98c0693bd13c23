//! The command line: what people type, which command that is, and how it ends.
//!
//! One file per command. Shared by them: `setup` (configuration and plugin directories), `record` (events into a
//! file), `stop` (Ctrl-C), `output` (the only place that prints).

mod config;
mod doctor;
mod events;
mod look;
mod output;
mod plugins;
mod record;
mod schema;
mod setting;
mod setup;
mod stage;
mod stop;
mod talk;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::setup::Global;

/// Voice agents from plugins: hears recordings, answers aloud, and shows every event on the way
///
/// Plugins (.so files) do the work: turn detection, speech to text, language model, text to speech, vision. They are
/// looked for in each --plugins, then in ANTIPHON_PLUGIN_PATH (directories, separated by colons), then where the
/// configuration file says (plugins.dirs), then in plugins/ beside this program.
#[derive(Debug, Parser)]
#[command(name = "antiphon", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  antiphon doctor                                  is everything there? what to do if not
  antiphon talk question.wav --out reply.wav       hear a recording, write the spoken answer
  antiphon talk question.wav --events events.jsonl keep every event, one JSON object per line
  antiphon look ticket.png                         what do the vision plugins see?
  antiphon plugins list                            what is installed, and does it work?
  antiphon events schema stt.transcript.final      what is in an event?

Exit codes: 0 the job was done, 1 it was not (standard error says why), 2 wrong arguments, 130 stopped with Ctrl-C.";

#[derive(Debug, Subcommand)]
enum Command {
    Talk(talk::Args),
    Look(look::Args),
    Plugins(plugins::Args),
    Events(events::Args),
    Config(config::Args),
    Doctor(doctor::Args),
}

/// How a command ended that did not fail on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// The job was done.
    Done,
    /// It was not, or not all of it; standard error says why.
    NotDone,
    /// A signal stopped it; the code that shells expect.
    Stopped(u8),
}

impl Exit {
    fn done_if(done: bool) -> Self {
        if done { Self::Done } else { Self::NotDone }
    }
}

/// How long threads of plugins may take to end when everything else has.
const LINGER: Duration = Duration::from_millis(100);

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    log_to_stderr(global.verbose);
    match run(&global, command) {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::NotDone) => ExitCode::FAILURE,
        Ok(Exit::Stopped(code)) => ExitCode::from(code),
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(global: &Global, command: Command) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads that this program needs")?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Talk(args) => talk::run(global, args).await,
            Command::Look(args) => look::run(global, args).await,
            Command::Plugins(args) => plugins::run(global, args).await,
            Command::Events(args) => events::run(global, args).await,
            Command::Config(args) => config::run(args),
            Command::Doctor(args) => doctor::run(global, args).await,
        }
    });
    // Not a drop: that would wait for a plugin that is still starting.
    runtime.shutdown_timeout(LINGER);
    outcome
}

/// Shows what is logged, by plugins too: warnings, more with `-v`, or what `RUST_LOG` says.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::new(level),
    };
    let ansi = output::has_colour(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| output::Stderr);
    let builder = builder.with_ansi(ansi).with_target(verbose > 1);
    if std::io::stderr().is_terminal() && verbose < 2 {
        builder.without_time().init();
    } else {
        builder.init();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_examples() {
        #[track_caller]
        fn check(command: &clap::Command) {
            if command.get_name() == "help" {
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  antiphon "), "{}: {help}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
