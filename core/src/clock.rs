//! The clock that everything asks, so that tests can stop and step it.
//!
//! [`SystemClock`] is the only code of the workspace's libraries that reads the real time.

use std::{
    cell::Cell,
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
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

    /// Reads the monotonic time alone.
    fn mono_ns(&self) -> u64 {
        self.now().mono_ns
    }

    /// Makes a fresh UUIDv7 for something that happened at `now`.
    fn uuid(&self, now: Now) -> Uuid;
}

/// The machine's clock.
///
/// A reading costs one system clock, not two: the calendar is asked ten times a second, and in between it goes on with
/// the monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    /// Calendar time minus monotonic time, in nanoseconds, as it was when the calendar was last asked.
    offset_ns: AtomicI64,
    /// Monotonic time at which the calendar is asked again.
    ask_at_ns: AtomicU64,
}

/// How long the calendar is not asked. A clock that is set by hand shows in the events after that time.
const ASK_CALENDAR_EVERY_NS: u64 = 100_000_000;

impl SystemClock {
    /// Starts the monotonic count at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the real time")]
    pub fn new() -> Self {
        Self { origin: Instant::now(), offset_ns: AtomicI64::new(0), ask_at_ns: AtomicU64::new(0) }
    }

    /// Asks the calendar. Two threads may do so at a time; both are right.
    #[cold]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the real time")]
    fn ask_calendar(&self, mono_ns: u64) {
        let utc_ns = Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX);
        self.offset_ns.store(utc_ns.saturating_sub_unsigned(mono_ns), Ordering::Relaxed);
        // Release: who sees the new time to ask sees the offset too.
        self.ask_at_ns.store(mono_ns.saturating_add(ASK_CALENDAR_EVERY_NS), Ordering::Release);
    }
}

/// Calendar time of nanoseconds since 1970. The date is computed once a day, because that takes longer than the rest.
fn calendar(utc_ns: i64) -> DateTime<Utc> {
    const DAY_NS: i64 = 86_400_000_000_000;
    thread_local! {
        static TODAY: Cell<(i64, DateTime<Utc>)> = const { Cell::new((0, DateTime::UNIX_EPOCH)) };
    }
    let (day, rest_ns) = (utc_ns.div_euclid(DAY_NS), utc_ns.rem_euclid(DAY_NS));
    let (known, date) = TODAY.get();
    let midnight = if known == day {
        date
    } else {
        let midnight = DateTime::from_timestamp_nanos(day * DAY_NS);
        TODAY.set((day, midnight));
        midnight
    };
    let (seconds, nanos) = (rest_ns / 1_000_000_000, rest_ns % 1_000_000_000);
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds as u32, nanos as u32);
    midnight.date_naive().and_time(time.expect("the rest of a day is less than a day")).and_utc()
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mono_ns = self.mono_ns();
        if mono_ns >= self.ask_at_ns.load(Ordering::Acquire) {
            self.ask_calendar(mono_ns);
        }
        let utc_ns = self.offset_ns.load(Ordering::Relaxed).saturating_add_unsigned(mono_ns);
        Now { utc: calendar(utc_ns), mono_ns }
    }

    fn mono_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Orders ids of one thread to a quarter of a microsecond: the 12 bits after the milliseconds are their fraction (RFC
    /// 9562, section 6.2, method 3), the other 62 are random.
    fn uuid(&self, now: Now) -> Uuid {
        let unix_ns = u64::try_from(now.utc.timestamp_nanos_opt().unwrap_or(0)).unwrap_or(0);
        let (ms, rest) = (unix_ns / 1_000_000, unix_ns % 1_000_000);
        let fraction = u16::try_from((rest << 12) / 1_000_000).expect("a rest is smaller than what it is of");
        let mut random = [0_u8; 10];
        random[..2].copy_from_slice(&fraction.to_be_bytes());
        random[2..].copy_from_slice(&fastrand::u64(..).to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
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
