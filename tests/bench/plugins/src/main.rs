//! What `cargo xtask bench plugins` measures: what it takes to scan plugins, to speak with one in and out of process, to
//! bring one back after a crash, and to replace one; and how many sessions with audio a pair of them carries.
//!
//! Costs are processor time, latencies are wall time; what is compared is measured in turn, in one run. Not here: the
//! event bus (antiphon-bench-bus), and what crosses the ABI by itself (antiphon-bench).

mod chunk;
mod files;
mod generations;
mod load;
mod page;
mod pair;
mod peers;
mod restart;
mod scan;
mod sessions;
mod system;
mod wire;

use std::{path::PathBuf, time::Duration};

use antiphon_bench_support::{
    machine::{self, Machine},
    peers::Peer,
    report::{Report, say},
};
use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measure plugins: scanning, isolating, restarting and replacing them, and many sessions with audio
///
/// What is compared is measured in turn, and ratios are taken round by round, so that what disturbs the machine disturbs
/// all alike. A full run takes less than ten minutes. Close what else uses the processors.
///
/// For Pipecat a virtual environment of Python is made below --out, once (some hundred megabytes are downloaded). It is
/// skipped, with a message, if that is not possible.
#[derive(Parser)]
#[command(name = "cargo xtask bench plugins --", after_help = HELP)]
struct Args {
    /// Small counts: a look at the figures within a minute; not good enough to be quoted
    #[arg(long)]
    quick: bool,
    /// Only measurements whose name contains this; leaves the documentation alone
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Leave docs/src/performance-plugins.md and its plots alone
    #[arg(long)]
    no_docs: bool,
    /// Leave out the peers in other languages
    #[arg(long)]
    no_peers: bool,
    /// Where plugins.json goes
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Where performance-plugins.md goes
    #[arg(long, default_value = "docs/src")]
    docs: PathBuf,
    #[command(subcommand)]
    hidden: Option<Hidden>,
}

const HELP: &str = "\
Measurements:
  scan         100 plugin files, with an empty cache and with a full one
  chunk        20 ms of audio to a plugin and back: inside the host, in a worker, and over a bare socket
  restart      from the kill of a worker until its plugin is ready again
  generations  memory of a plugin's versions, and of its worker
  sessions     audio through a pair of pass-through plugins, 50 chunks a second each way, beside Pipecat

Examples:
  cargo xtask bench plugins                         all of it; writes target/bench/plugins.json and docs/src/performance-plugins.md
  cargo xtask bench plugins -- --quick --no-docs    a first look
  cargo xtask bench plugins -- --only chunk         one measurement";

/// What this program does when it starts itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Hidden {
    /// Gives back what comes over the socket that is its standard input
    #[command(hide = true)]
    Echo,
    /// Memory of a plugin's versions
    #[command(hide = true)]
    Generations {
        #[arg(long)]
        isolated: bool,
    },
    /// A load of sessions
    #[command(hide = true)]
    Load { sessions: usize, seconds: f64 },
}

/// How much is measured.
struct Settings {
    /// Scans with an empty cache, and with a full one.
    scans: (usize, usize),
    /// Rounds of each way of a chunk, and chunks in one.
    rounds: usize,
    chunks: usize,
    /// Chunks at the pace of speech.
    paced: u32,
    /// Kills of a worker.
    kills: usize,
    /// Length of a load of sessions.
    load: Duration,
    /// Rounds of the loads that are compared.
    loads: usize,
    /// Whether the highest number of sessions is looked for.
    ramps: bool,
}

impl Settings {
    const FULL: Self = Self {
        scans: (3, 9),
        rounds: 9,
        chunks: 4_000,
        paced: 500,
        kills: 100,
        load: Duration::from_secs(5),
        loads: 3,
        ramps: true,
    };
    const QUICK: Self = Self {
        scans: (1, 3),
        rounds: 3,
        chunks: 1_000,
        paced: 100,
        kills: 20,
        load: Duration::from_secs(2),
        loads: 1,
        ramps: false,
    };
}

/// What the measurements share.
struct Bench {
    settings: Settings,
    report: Report,
    out: PathBuf,
    pipecat: Option<Peer>,
}

/// Name, work, and whether peers take part.
type Measurement = (&'static str, fn(&mut Bench) -> Result<()>, bool);

const MEASUREMENTS: [Measurement; 5] = [
    ("scan", scan::measure, false),
    ("chunk", chunk::measure, false),
    ("restart", restart::measure, false),
    ("generations", generations::measure, false),
    ("sessions", sessions::measure, true),
];

fn main() -> Result<()> {
    // Plugins are tried and isolated in children of this program.
    antiphon_host::child::serve_if_asked();
    let args = Args::parse();
    match &args.hidden {
        None => measure(args),
        Some(Hidden::Echo) => wire::echo(),
        Some(Hidden::Generations { isolated }) => {
            say(generations::child(*isolated)?);
            Ok(())
        }
        Some(Hidden::Load { sessions, seconds }) => {
            say(load::child(*sessions, *seconds)?);
            Ok(())
        }
    }
}

fn measure(args: Args) -> Result<()> {
    let settings = if args.quick { Settings::QUICK } else { Settings::FULL };
    let report = Report::new(Machine::here(&["tokio"]), args.quick);
    std::fs::create_dir_all(&args.out)?;
    let mut bench = Bench { settings, report, out: args.out, pipecat: None };
    let is_wanted = |name: &str| args.only.as_ref().is_none_or(|pattern| name.contains(pattern.as_str()));
    let wanted: Vec<_> = MEASUREMENTS.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    anyhow::ensure!(!wanted.is_empty(), "no measurement has that in its name; see --help");
    if !args.no_peers && wanted.iter().any(|(.., with_peers)| *with_peers) {
        say("==> peers");
        match peers::pipecat(&bench.out) {
            Ok(peer) => {
                bench.report.machine.versions.insert("pipecat", Some(peer.version.clone()));
                bench.pipecat = Some(peer);
            }
            Err(error) => bench.report.skip(peers::PIPECAT, format_args!("not installed: {error:#}")),
        }
    }
    let mut failed = Vec::new();
    for (name, work, _) in wanted {
        say(format_args!("==> {name}"));
        // The others are worth having all the same.
        if let Err(error) = work(&mut bench) {
            bench.report.skip(name, format_args!("{error:#}"));
            failed.push(name);
        }
    }
    bench.report.machine.load_after = machine::load();
    bench.report.print();
    bench.report.write(&bench.out, "plugins.json")?;
    anyhow::ensure!(failed.is_empty(), "not all could be measured: {}", failed.join(", "));
    if args.only.is_none() && !args.no_docs {
        page::write(&bench.report, &args.docs)?;
    }
    Ok(())
}
