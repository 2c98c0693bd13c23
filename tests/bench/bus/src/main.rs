//! What `cargo xtask bench bus` measures: what an event costs on Antiphon's bus, beside what one would write by hand with
//! tokio, beside Vision Agents and beside Node, all in one run.
//!
//! Costs are processor time of the whole process, all threads together, so that a busy machine does not blur them; only
//! latencies are wall time. Not here: the plugin ABI and whole conversations, which the package antiphon-bench measures.

mod contest;
mod delivery;
mod event;
mod growth;
mod instructions;
mod latency;
mod limits;
mod memory;
mod page;
mod peers;
mod rivals;
mod sessions;
mod tally;

use std::{path::PathBuf, time::Duration};

use antiphon_bench_support::{cpu, machine, markdown, plot, report, stats};
use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    machine::Machine,
    peers::Peer,
    report::{Report, say},
};

/// Measure the event bus beside its rivals
///
/// Contenders do their rounds in turn (A, B, ours, A, B, ours, ..), and medians are compared round by round, so that what
/// disturbs the machine disturbs all alike. A full run takes about ten minutes. Close what else uses the processor.
///
/// Node is measured if `node` is on the PATH. For Vision Agents a virtual environment of Python is made below --out, once
/// (some hundred megabytes are downloaded). Either is skipped, with a message, if that is not possible.
#[derive(Parser)]
#[command(name = "cargo xtask bench bus --", after_help = HELP)]
struct Args {
    /// Small counts: a look at the figures within two minutes or so; not good enough to be quoted
    #[arg(long)]
    quick: bool,
    /// Only measurements whose name contains this; leaves the documentation alone
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
    /// Leave docs/src/performance.md and its plots alone
    #[arg(long)]
    no_docs: bool,
    /// Count instructions per delivery too; needs valgrind
    #[arg(long)]
    callgrind: bool,
    /// Leave out the peers in other languages
    #[arg(long)]
    no_peers: bool,
    /// Where bus.json goes
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Where performance.md goes
    #[arg(long, default_value = "docs/src")]
    docs: PathBuf,
    #[command(subcommand)]
    hidden: Option<Hidden>,
}

const HELP: &str = "\
Measurements:
  delivery      CPU per delivery to 1 .. 1,000 subscribers, by design: tokio channels, flume, tasks, ours
  throughput    events per CPU second to 1 and 10 async handlers, beside the peers
  observer      an event with one sync observer, beside Node
  unwanted      an event that nobody wants
  latency       from emit to handler at 1,000 events a second
  sessions      sessions with audio that one core carries
  memory        an idle session; 100,000 events behind a stuck handler
  growth        CPU per event with more event types and more sessions
  limits        what the machine itself takes for an atomic addition, a lock, a clock
  instructions  instructions per delivery (--callgrind)

Examples:
  cargo xtask bench bus                         all of it; writes target/bench/bus.json and docs/src/performance.md
  cargo xtask bench bus -- --quick --no-docs    a first look
  cargo xtask bench bus -- --only delivery      one measurement
  cargo xtask bench bus -- --only growth --no-peers";

/// What this program does when it starts itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Hidden {
    /// Memory of idle sessions
    #[command(hide = true)]
    Idle { sessions: u64 },
    /// Memory behind a stuck handler
    #[command(hide = true)]
    Stuck,
    /// Bursts to count the instructions of
    #[command(hide = true)]
    Bursts { design: String, subscribers: usize, bursts: u64 },
}

/// How much is measured.
struct Settings {
    /// Rounds of each contender.
    rounds: usize,
    /// Processor time of one.
    round: Duration,
    /// Length of a round of latencies.
    latency: Duration,
    /// Length of the load with a number of sessions, in its own time.
    sessions: Duration,
    /// Ramps of each contender to its highest number of sessions.
    ramps: usize,
    /// Sessions whose memory is measured.
    idle_sessions: u64,
    /// Bursts under callgrind, which is slow.
    counted_bursts: u64,
}

impl Settings {
    const FULL: Self = Self {
        rounds: 9,
        round: Duration::from_millis(200),
        latency: Duration::from_secs(3),
        sessions: Duration::from_secs(4),
        ramps: 3,
        idle_sessions: 20_000,
        counted_bursts: 40,
    };
    const QUICK: Self = Self {
        rounds: 3,
        round: Duration::from_millis(40),
        latency: Duration::from_millis(500),
        sessions: Duration::from_secs(1),
        ramps: 1,
        idle_sessions: 20_000,
        counted_bursts: 10,
    };
}

/// What the measurements share.
struct Bench {
    settings: Settings,
    report: Report,
    node: Option<Peer>,
    vision_agents: Option<Peer>,
}

impl Bench {
    fn peers(&self) -> Vec<Peer> {
        self.node.iter().chain(&self.vision_agents).cloned().collect()
    }

    /// Finds the peers, or says why they are not measured.
    fn invite(&mut self, args: &Args) {
        say("==> peers");
        match peers::node() {
            Ok(peer) => {
                self.report.machine.versions.insert("node", Some(peer.version.clone()));
                self.node = Some(peer);
            }
            Err(error) => self.report.skip(peers::NODE, format_args!("{error:#}")),
        }
        match peers::vision_agents(&args.out) {
            Ok(peer) => {
                self.report.machine.versions.insert("vision_agents", Some(peer.version.clone()));
                self.vision_agents = Some(peer);
            }
            Err(error) => self.report.skip(peers::VISION_AGENTS, format_args!("{error:#}")),
        }
    }
}

/// Name, work, and whether peers take part.
type Measurement = (&'static str, fn(&mut Bench) -> Result<()>, bool);

const MEASUREMENTS: [Measurement; 10] = [
    ("delivery", delivery::delivery, false),
    ("throughput", delivery::throughput, true),
    ("observer", delivery::observer, true),
    ("unwanted", delivery::unwanted, true),
    ("latency", latency::measure, true),
    ("sessions", sessions::measure, true),
    ("memory", memory::measure, true),
    ("growth", growth::measure, false),
    ("limits", limits::measure, false),
    ("instructions", instructions::measure, false),
];

fn main() -> Result<()> {
    let args = Args::parse();
    match &args.hidden {
        None => measure(&args),
        Some(Hidden::Bursts { design, subscribers, bursts }) => {
            instructions::child(design, *subscribers, *bursts)
        }
        Some(memory) => {
            say(memory::child(memory)?);
            Ok(())
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    let settings = if args.quick { Settings::QUICK } else { Settings::FULL };
    let report = Report::new(Machine::here(&["tokio", "flume"]), args.quick);
    let mut bench = Bench { settings, report, node: None, vision_agents: None };
    let is_wanted = |name: &str| match &args.only {
        Some(pattern) => name.contains(pattern.as_str()),
        None => name != "instructions" || args.callgrind,
    };
    let wanted: Vec<_> = MEASUREMENTS.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    anyhow::ensure!(!wanted.is_empty(), "no measurement has that in its name; see --help");
    if !args.no_peers && wanted.iter().any(|(.., with_peers)| *with_peers) {
        bench.invite(args);
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
    bench.report.write(&args.out, "bus.json")?;
    anyhow::ensure!(failed.is_empty(), "not all could be measured: {}", failed.join(", "));
    if args.only.is_none() && !args.no_docs {
        page::write(&bench.report, &args.docs)?;
    }
    Ok(())
}
