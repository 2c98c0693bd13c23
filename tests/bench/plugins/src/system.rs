//! What the system says of processes.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::param::clock_ticks_per_second;
use serde_json::Value;

/// Processor time of the children of this process that have ended.
pub(crate) fn used_by_children() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The name, in brackets, may have spaces; cutime and cstime are the 14th and 15th field behind it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// A size in bytes of `/proc/PID/FILE` (`status`, `smaps_rollup`) by its name: `VmRSS`.
pub(crate) fn size(process: &str, file: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}"))
        .with_context(|| format!("cannot read the {file} of a process"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{file} has no {name}"))? * 1024.0)
}

/// Starts this program with arguments, and reads the JSON that it prints: what is measured begins in a fresh process.
pub(crate) fn fresh(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start myself")?;
    ensure!(output.status.success(), "`{}` of myself failed ({})", arguments.join(" "), output.status);
    serde_json::from_slice(&output.stdout).context("I answered no JSON")
}
