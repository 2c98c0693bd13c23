//! Processor time and memory of this process.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

/// What all threads of this process have used so far.
///
/// # Panics
///
/// Never: no clock shows more nanoseconds than a second has.
#[must_use]
pub fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).expect("below a second's nanoseconds"),
    )
}

/// Bytes of this process that are in memory.
///
/// # Errors
///
/// When there is no `/proc`.
pub fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/statm").context("cannot read /proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).context("the second field of statm")?;
    Ok(pages.parse::<u64>()? * page_size() as u64)
}
