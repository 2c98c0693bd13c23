//! The clock that everything asks, so that tests can stop and step it.
//!
//! [`SystemClock`] is the only code of the workspace's libraries that reads the real time.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// One reading of a [`Clock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Calendar time, for people and for other machines.
    pub utc: DateTime<Utc>,
    /// Nanoseconds since the clock was made; never goes back. For latencies.
    pub mono_ns: u64,
}

/// A source of time and of ids that carry it.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Reads calendar and monotonic time together.
    fn now(&self) -> Now;

    /// Makes a fresh UUIDv7 for something that happened at `now`.
    fn uuid(&self, now: Now) -> Uuid;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Starts the monotonic count at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the real time")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the real time")]
    fn now(&self) -> Now {
        let mono_ns = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { utc: Utc::now(), mono_ns }
    }

    fn uuid(&self, _: Now) -> Uuid {
        Uuid::now_v7()
    }
}

/// A clock that stands still until it is stepped; its ids count up, so that two runs give the same events.
#[derive(Debug, Default)]
pub struct ManualClock {
    mono_ns: AtomicU64,
    ids: AtomicU64,
}

impl ManualClock {
    /// Moves the time forward.
    pub fn step(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.mono_ns.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        let mono_ns = self.mono_ns.load(Ordering::Relaxed);
        let since_epoch = TimeDelta::nanoseconds(i64::try_from(mono_ns).unwrap_or(i64::MAX));
        Now { utc: DateTime::UNIX_EPOCH + since_epoch, mono_ns }
    }

    fn uuid(&self, now: Now) -> Uuid {
        let count = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut random = [0_u8; 10];
        random[2..].copy_from_slice(&count.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(now.mono_ns / 1_000_000, &random).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_gives_the_same_ids_and_times_in_every_run() {
        let run = || {
            let clock = ManualClock::default();
            clock.step(Duration::from_millis(1500));
            let now = clock.now();
            (now, clock.uuid(now), clock.uuid(now))
        };
        assert_eq!(run(), run());
        assert_ne!(run().1, run().2);
        assert_eq!(run().0.utc.to_rfc3339(), "1970-01-01T00:00:01.500+00:00");
    }
}
