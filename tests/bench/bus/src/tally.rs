//! Counts deliveries and tells the publisher when a burst has arrived everywhere.
//!
//! The publisher waits without turning: while another process has one of the two workers' cores, a publisher that asks
//! again and again would burn processor time that the design under test is then blamed for.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::sync::Notify;

/// Time after which events that have not come count as lost.
const HANG: Duration = Duration::from_secs(30);

/// Counters that the receivers share, at most. More than cores, so that two workers seldom meet at one.
const STRIPES: usize = 64;

/// On a cache line of its own, with the neighbour that the processor fetches along.
#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    left: AtomicU64,
}

/// Deliveries that a burst still has to make.
pub(crate) struct Tally {
    stripes: Box<[Stripe]>,
    open: AtomicUsize,
    done: Notify,
}

/// Where one receiver counts.
#[derive(Clone, Copy)]
pub(crate) struct Counter {
    tally: &'static Tally,
    stripe: &'static Stripe,
}

impl Tally {
    /// Never freed: handlers then hold it without counting references.
    pub(crate) fn new(receivers: usize) -> &'static Self {
        let stripes = (0..receivers.clamp(1, STRIPES)).map(|_| Stripe::default()).collect();
        Box::leak(Box::new(Self { stripes, open: AtomicUsize::new(0), done: Notify::new() }))
    }

    pub(crate) fn counter(&'static self, receiver: usize) -> Counter {
        Counter { tally: self, stripe: &self.stripes[receiver % self.stripes.len()] }
    }

    /// Announces a burst: how many deliveries each receiver will get.
    pub(crate) fn expect(&self, receivers: impl Iterator<Item = (usize, u64)>) {
        let mut counts = [0_u64; STRIPES];
        for (receiver, count) in receivers {
            counts[receiver % self.stripes.len()] += count;
        }
        self.open.store(counts.iter().filter(|count| **count > 0).count(), Ordering::Release);
        for (stripe, count) in self.stripes.iter().zip(counts) {
            stripe.left.store(count, Ordering::Release);
        }
    }

    /// Resolves when the burst has arrived.
    pub(crate) async fn done(&self) -> Result<()> {
        let arrived = async {
            while self.open.load(Ordering::Acquire) > 0 {
                self.done.notified().await;
            }
        };
        tokio::time::timeout(HANG, arrived).await.context("events were lost on the way")
    }
}

impl Counter {
    /// One more delivery.
    pub(crate) fn one(self) {
        if self.stripe.left.fetch_sub(1, Ordering::AcqRel) == 1
            && self.tally.open.fetch_sub(1, Ordering::AcqRel) == 1
        {
            self.tally.done.notify_one();
        }
    }
}
