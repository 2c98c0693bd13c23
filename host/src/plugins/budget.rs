//! How often, and how soon, a plugin that broke is started again.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Delay before the second restart in a row; each further one waits twice as long. The first does not wait: most
/// crashes are accidents, and somebody may be in the middle of a conversation.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// No restart waits longer.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Restarts of one plugin.
#[derive(Debug)]
pub(super) struct Budget {
    max: u32,
    window: Duration,
    restarts: VecDeque<Instant>,
}

impl Budget {
    pub(super) fn new(max: u32, window: Duration) -> Self {
        Self { max, window, restarts: VecDeque::new() }
    }

    /// The delay before another restart, counted as the `attempt`-th in a row; none when there were too many.
    pub(super) fn next(&mut self, now: Instant) -> Option<Restart> {
        while self.restarts.front().is_some_and(|first| now.duration_since(*first) >= self.window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.max as usize {
            return None;
        }
        self.restarts.push_back(now);
        let attempt = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        let delay = match attempt {
            1 => Duration::ZERO,
            // Up to half of it is left to chance, so that many plugins that lost one server do not come back as one.
            _ => backoff(attempt - 2).mul_f64(1.0 - fastrand::f64() / 2.0),
        };
        Some(Restart { attempt, delay })
    }
}

/// Another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Restart {
    /// Which it is within the window, from 1.
    pub(super) attempt: u32,
    /// How long to wait before it.
    pub(super) delay: Duration,
}

fn backoff(doublings: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_longer_each_time_and_are_given_up_at_last() {
        let mut budget = Budget::new(4, Duration::from_secs(60));
        let now = Instant::now();
        let delays: Vec<_> = (0..4).map(|_| budget.next(now).expect("within the budget").delay).collect();
        assert_eq!(delays[0], Duration::ZERO);
        for (delay, longest) in delays[1..].iter().zip([100, 200, 400].map(Duration::from_millis)) {
            assert!(*delay <= longest && *delay >= longest / 2, "{delay:?} of {longest:?}");
        }
        assert_eq!(budget.next(now), None);
        let later = now + Duration::from_secs(60);
        assert_eq!(budget.next(later), Some(Restart { attempt: 1, delay: Duration::ZERO }));
        assert_eq!(backoff(30), LONGEST_DELAY);
    }
}
