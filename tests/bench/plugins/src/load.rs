//! A load of sessions: each hears 50 chunks a second and says as many, through the pair of pass-through plugins inside
//! the host. Paced in real time, in a fresh process.

use std::{sync::Arc, time::Duration};

use antiphon_bench_support::{cpu, stats::quantile};
use antiphon_core::{Clock, SystemClock};
use anyhow::{Context, Result};
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::{
    files::Place,
    pair::{Pair, Voice, chunk, number, plugin},
};

/// Chunks go in at each millisecond for a twentieth of the sessions.
const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);
const PERIOD: Duration = Duration::from_millis(20);

/// What comes back later than this after it was due counts as late.
const LATE: Duration = PERIOD;

/// Before anything counts, in periods.
const WARM: u32 = 50;

/// How long what has not come back is waited for.
const GRACE: Duration = Duration::from_secs(2);

/// The work of the fresh process.
pub(crate) fn child(sessions: usize, seconds: f64) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::spawn(load(sessions, seconds)).await? })
}

async fn load(sessions: usize, seconds: f64) -> Result<Value> {
    let place = Place::with_plugin()?;
    let host = place.host().start().await;
    let instance = plugin(&host)?;
    let mut open = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        open.push(Pair::open(&instance, host.bus()).await?);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let periods = WARM + (seconds / PERIOD.as_secs_f64()) as u32;
    // After what it takes to begin.
    let origin = clock.now().mono_ns + u64::try_from(PERIOD.as_nanos())?;
    let mut slots: Vec<Vec<Pair>> = (0..SLOTS).map(|_| Vec::new()).collect();
    let mut readers = Vec::with_capacity(sessions);
    for (number, (pair, voice)) in open.into_iter().enumerate() {
        let slot = number % SLOTS;
        slots[slot].push(pair);
        let due = origin + (SLOT * u32::try_from(slot)?).as_nanos() as u64;
        readers.push(tokio::spawn(read(voice, due, periods, Arc::clone(&clock))));
    }
    let mut ticks = tokio::time::interval_at(
        tokio::time::Instant::now() + Duration::from_nanos(origin - clock.now().mono_ns),
        SLOT,
    );
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut used, mut begin, mut dropped) = (Duration::ZERO, 0, 0_u64);
    for tick in 0..periods * SLOTS as u32 {
        ticks.tick().await;
        let period = tick / SLOTS as u32;
        if tick == WARM * SLOTS as u32 {
            (used, begin) = (cpu::used(), clock.now().mono_ns);
        }
        for pair in &slots[tick as usize % SLOTS] {
            // Live audio waits for nobody: what a plugin has no room for now is lost.
            match pair.stt.push_audio(&chunk(period)).now_or_never() {
                Some(pushed) => pushed?,
                None => dropped += u64::from(period >= WARM),
            }
        }
    }
    let (used, took) = (cpu::used() - used, Duration::from_nanos(clock.now().mono_ns - begin));
    let mut late = Vec::new();
    for reader in readers {
        late.extend(reader.await?);
    }
    for pair in slots.iter_mut().flatten() {
        pair.close().await;
    }
    host.shutdown().await;
    let expected = u64::from(periods - WARM) * sessions as u64;
    late.sort_by(f64::total_cmp);
    let over = late.iter().filter(|late| **late > LATE.as_secs_f64() * 1e3).count();
    Ok(json!({
        "cpu_s": used.as_secs_f64(),
        "wall_s": took.as_secs_f64(),
        "chunks": expected,
        "late": over,
        "dropped": expected.saturating_sub(late.len() as u64).max(dropped),
        "p50_ms": quantile(&late, 0.5),
        "p99_ms": quantile(&late, 0.99),
    }))
}

/// Takes what a session says; how late each chunk was, in milliseconds.
async fn read(mut voice: Voice, due: u64, periods: u32, clock: Arc<dyn Clock>) -> Vec<f64> {
    let mut late = Vec::with_capacity(periods as usize);
    let period = PERIOD.as_nanos() as u64;
    let end = Duration::from_nanos((due + period * u64::from(periods)).saturating_sub(clock.now().mono_ns));
    let all = async {
        while let Some(said) = voice.recv().await {
            let number = number(&said.audio);
            if number >= WARM {
                let due = due + period * u64::from(number);
                late.push(clock.now().mono_ns.saturating_sub(due) as f64 / 1e6);
            }
            if number + 1 == periods {
                break;
            }
        }
    };
    // The last one may have been dropped.
    let _ = tokio::time::timeout(end + GRACE, all).await;
    late
}

/// What a load answers: ours or a peer's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Processor time per second.
    pub(crate) load: f64,
    /// Part of the chunks that were late.
    pub(crate) late: f64,
    /// Part that never came.
    pub(crate) dropped: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Answer {
    pub(crate) fn of(answer: &Value) -> Result<Self> {
        let of = |name: &str| {
            answer[name].as_f64().with_context(|| format!("the answer {answer} has no number {name}"))
        };
        let chunks = of("chunks")?;
        Ok(Self {
            load: of("cpu_s")? / of("wall_s")?,
            late: of("late")? / chunks,
            dropped: of("dropped")? / chunks,
            p50_ms: of("p50_ms")?,
            p99_ms: of("p99_ms")?,
        })
    }

    /// Whether it keeps up with so many sessions: all chunks come, and half of them in time. One that does not falls
    /// further behind with each period; single chunks are late whenever somebody else uses the machine.
    pub(crate) fn keeps_up(&self) -> bool {
        self.p50_ms <= LATE.as_secs_f64() * 1e3 && self.dropped == 0.0
    }
}
