//! What the machine itself takes for the steps that no bus of this kind can do without.

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{Clock, SystemClock};
use anyhow::Result;

use crate::{
    Bench,
    contest::{BURST, Contender, add, compare},
    cpu,
};

/// The steps, as tables name them.
pub(crate) const STEPS: [&str; 5] = [
    "an atomic addition",
    "a lock and its release",
    "counting a shared pointer up and down",
    "a lock, a push and a pop of a queue",
    "reading the clock",
];

/// Events that a lane holds before it is emptied.
const LANE: usize = 64;

/// Nanoseconds of each step, on one thread, with everything in the nearest cache.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let counter = AtomicU64::new(0);
    let mutex = Mutex::new(0_u64);
    let shared = Arc::new(1_u64);
    let queue = Mutex::new(VecDeque::with_capacity(LANE));
    let clock = SystemClock::new();
    let steps: [Box<dyn FnMut()>; 5] = [
        Box::new(move || {
            black_box(&counter).fetch_add(1, Ordering::Relaxed);
        }),
        Box::new(move || *black_box(&mutex).lock().unwrap_or_else(PoisonError::into_inner) += 1),
        Box::new(move || drop(black_box(Arc::clone(black_box(&shared))))),
        Box::new(move || {
            let mut queue = black_box(&queue).lock().unwrap_or_else(PoisonError::into_inner);
            queue.push_back(black_box([1_u64; 3]));
            if queue.len() == LANE {
                queue.clear();
            }
        }),
        Box::new(move || {
            black_box(clock.mono_ns());
        }),
    ];
    let contender = |(name, mut step): (&str, Box<dyn FnMut()>)| {
        let round = move |bursts: u64| -> Result<Duration> {
            let begin = cpu::used();
            (0..bursts * BURST).for_each(|_| step());
            Ok(cpu::used() - begin)
        };
        Contender::new(name, 0, BURST, Box::new(round))
    };
    let contenders = STEPS.into_iter().zip(steps).map(contender).collect();
    let entries = compare(contenders, &bench.settings)?;
    add(&mut bench.report, "limits", "", "ns CPU per step", &entries);
    Ok(())
}
