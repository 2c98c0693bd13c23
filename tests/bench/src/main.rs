//! What `cargo xtask bench` measures: what an event and a chunk of audio cost on their way across the plugin ABI, how long
//! the host takes to start, and where the time of a spoken reply goes.
//!
//! Costs are processor time of the whole process, all threads together, so that a busy machine does not blur them; only
//! start-up and the stages of a reply, which are latencies, are wall time.

mod abi;
mod cpu;
mod report;
mod talk;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Measure a release build
#[derive(Parser)]
#[command(after_help = "Example:\n  cargo xtask bench -- --runs 5")]
pub(crate) struct Args {
    /// The build to measure, as `cargo xtask dist` lays it out
    #[arg(long, default_value = "target/dist")]
    dist: PathBuf,
    /// Where the results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Runs of start-up and of the demo
    #[arg(long, default_value_t = 10)]
    runs: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut report = report::Report::default();
    abi::measure(&args, &mut report)?;
    talk::measure(&args, &mut report)?;
    report.finish(&args.out)
}
