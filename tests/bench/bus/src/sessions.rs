//! How many sessions one core carries.
//!
//! A session is one of the bus's own with two subscriptions, and sends 50 chunks of audio and 10 small events a second,
//! spread over 20 slots of a millisecond. The clock is the processor time of the process plus the idle time that was
//! skipped, which is what an undisturbed core of this speed would show. Every event of a slot counts as delivered at
//! the end of its slot's work. A number of sessions passes if the 99th percentile is below 20 ms and the core is idle
//! for 3 % of the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    Event, EventBus, SessionBus, Subscription, SystemClock, event::audio::AudioReceivedEvent,
};
use anyhow::Result;
use serde_json::json;

use crate::{
    Bench, cpu,
    event::{SmallEvent, audio},
    peers::{NODE, Running, VISION_AGENTS, number},
    report::say,
    rivals::OURS,
    stats::{Target, median, quantile, ratio},
};

const SLOTS: usize = 20;
/// Before anything counts.
const WARM: u32 = 1000;
/// Further behind than this there is no catching up.
const HOPELESS: Duration = Duration::from_secs(2);
/// Sessions whose cost is compared: few enough for every contender.
pub(crate) const THOUSAND: u64 = 1_000;
/// Rounds with that number.
const ROUNDS: usize = 5;
/// A ramp is done when it knows the number this well.
const PRECISION: f64 = 0.05;

/// How a number of sessions went.
struct Step {
    p99_ms: f64,
    load: f64,
}

impl Step {
    fn passes(&self) -> bool {
        self.p99_ms < 20.0 && self.load < 0.97
    }
}

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let time = bench.settings.sessions;
    let mut found: Vec<(&str, u64, Vec<f64>)> = Vec::new();
    for peer in bench.peers() {
        found.push((peer.who, if peer.who == NODE { 4_000 } else { 400 }, Vec::new()));
    }
    found.push((OURS, 8_000, Vec::new()));
    same_number(bench, time)?;
    for _ in 0..bench.settings.ramps {
        for (who, start, found) in &mut found {
            let peer = bench.peers().into_iter().find(|peer| peer.who == *who);
            let mut running = peer.map(|peer| peer.start()).transpose()?;
            let most = ramp(who, *start, |number| match &mut running {
                Some(running) => theirs(running, number, time),
                None => ours(number, time),
            })?;
            found.push(most as f64);
            // The next ramp has not so far to go.
            *start = (most - most / 8).max(1);
        }
    }
    for (who, _, values) in &found {
        bench.report.figure("sessions", "", who, 0, "sessions per core", values);
    }
    let of = |wanted: &str| found.iter().find(|(who, ..)| *who == wanted).map(|(.., values)| median(values));
    let Some(ours) = of(OURS) else { return Ok(()) };
    bench.report.claim("sessions", "sessions per core", ours, "", Some(Target::AtLeast(20_000.0)));
    for (who, factor) in [(NODE, 1.0), (VISION_AGENTS, 13.0)] {
        if let Some(theirs) = of(who) {
            let name = format!("sessions per core: ours / {who}");
            bench.report.claim("sessions", name, ours / theirs, "x", Some(Target::AtLeast(factor)));
        }
    }
    Ok(())
}

/// What the same number of sessions costs each. Steadier than the highest number, because the rounds are in turn.
fn same_number(bench: &mut Bench, time: Duration) -> Result<()> {
    let mut found: Vec<(&str, Option<Running>, Vec<f64>)> = Vec::new();
    for peer in bench.peers() {
        found.push((peer.who, Some(peer.start()?), Vec::new()));
    }
    found.push((OURS, None, Vec::new()));
    for _ in 0..bench.settings.rounds.min(ROUNDS) {
        for (_, running, found) in &mut found {
            let step = match running {
                Some(running) => theirs(running, THOUSAND, time)?,
                None => ours(THOUSAND, time)?,
            };
            found.push(step.load * 100.0);
        }
    }
    let unit = "% of a core for 1,000 sessions";
    for (who, _, values) in &found {
        bench.report.figure("sessions", "load", who, THOUSAND, unit, values);
    }
    let Some((_, _, ours)) = found.pop() else { return Ok(()) };
    for (who, _, theirs) in &found {
        let name = format!("CPU for 1,000 sessions: {who} / ours");
        bench.report.claim("sessions", name, ratio(theirs, &ours), "x", None);
    }
    Ok(())
}

/// The highest number that passes: half as many more each time until one fails, then halving the gap. What fails gets a
/// second chance, because the machine may be shared.
fn ramp(who: &str, start: u64, mut step: impl FnMut(u64) -> Result<Step>) -> Result<u64> {
    let mut passes = |number: u64| -> Result<bool> {
        for _ in 0..2 {
            let outcome = step(number)?;
            let Step { p99_ms, load } = outcome;
            say(format_args!("    {who}: {number} sessions, p99 {p99_ms:.1} ms, load {load:.2}"));
            if outcome.passes() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let (mut good, mut bad) = (0, None);
    let mut next = start;
    loop {
        match (passes(next)?, bad) {
            (true, _) => good = next,
            (false, _) => bad = Some(next),
        }
        next = match bad {
            None => good + good / 2,
            Some(bad) if (bad - good) as f64 <= bad as f64 * PRECISION => return Ok(good),
            Some(bad) => good.midpoint(bad),
        };
    }
}

fn theirs(running: &mut Running, sessions: u64, time: Duration) -> Result<Step> {
    let answer = running.ask(&json!(["sessions", sessions, time.as_secs_f64()]))?;
    Ok(Step { p99_ms: number(&answer, "p99_ms")?, load: number(&answer, "load")? })
}

fn ours(sessions: u64, time: Duration) -> Result<Step> {
    // One core is one thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(load(sessions, time))
}

/// Deliveries so far; the runtime has one thread, so nobody else writes here at the same time.
type Seen = Arc<AtomicU64>;

/// One session of the load, also for the measurement of memory.
pub(crate) struct Loaded {
    pub(crate) session: SessionBus,
    ticks: usize,
    _subscriptions: [Subscription; 2],
}

impl Loaded {
    pub(crate) fn open(bus: &EventBus, number: usize, seen: &Seen) -> Self {
        let session = bus.open_session();
        let subscriptions = [
            session.subscribe_with(Arc::clone(seen), async |seen: Seen, event: Event<AudioReceivedEvent>| {
                seen.fetch_add(1, Ordering::Relaxed);
                drop(event);
            }),
            session.subscribe_with(Arc::clone(seen), async |seen: Seen, event: Event<SmallEvent>| {
                seen.fetch_add(1, Ordering::Relaxed);
                drop(event);
            }),
        ];
        Self { session, ticks: number % 5, _subscriptions: subscriptions }
    }
}

/// Lets the handlers run until so many deliveries have been made.
pub(crate) async fn delivered(seen: &Seen, count: u64) {
    while seen.load(Ordering::Relaxed) < count {
        tokio::task::yield_now().await;
    }
}

async fn load(sessions: u64, time: Duration) -> Result<Step> {
    let bus = EventBus::with(tokio::runtime::Handle::current(), Arc::new(SystemClock::new()));
    let seen = Seen::default();
    let mut slots: Vec<Vec<Loaded>> = (0..SLOTS).map(|_| Vec::new()).collect();
    for number in 0..sessions as usize {
        slots[number % SLOTS].push(Loaded::open(&bus, number, &seen));
    }
    let total = WARM + u32::try_from(time.as_millis())?;
    let (mut late, mut sent) = (Vec::new(), 0);
    let (mut skipped, mut before) = (Duration::ZERO, Duration::ZERO);
    let origin = cpu::used();
    for tick in 0..total {
        let due = origin + Duration::from_millis(1) * tick;
        skipped += due.saturating_sub(cpu::used() + skipped);
        if tick == WARM {
            before = cpu::used();
        }
        for loaded in &mut slots[tick as usize % SLOTS] {
            loaded.session.emit(audio());
            sent += 1;
            loaded.ticks += 1;
            if loaded.ticks % 5 == 0 {
                loaded.session.emit(SmallEvent::hello());
                sent += 1;
            }
        }
        delivered(&seen, sent).await;
        let lateness = (cpu::used() + skipped).saturating_sub(due);
        if tick >= WARM {
            late.push(lateness.as_secs_f64() * 1e3);
        }
        if lateness > HOPELESS {
            return Ok(Step { p99_ms: lateness.as_secs_f64() * 1e3, load: 1.0 });
        }
    }
    let load = (cpu::used() - before).as_secs_f64() / time.as_secs_f64();
    bus.shutdown().await;
    late.sort_by(f64::total_cmp);
    Ok(Step { p99_ms: quantile(&late, 0.99), load })
}
