//! Latency of single events, a thousand in a second: from just before it is emitted to the first line of the handler.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use antiphon_core::{Clock, Event, EventBus, SystemClock};
use anyhow::Result;
use serde_json::json;
use tokio::{runtime::Runtime, sync::mpsc, time::MissedTickBehavior};

use crate::{
    Bench,
    contest::runtime,
    event::{Stamped, Stamper, TimedEvent},
    peers::{NODE, Peer, VISION_AGENTS, number},
    rivals::{MPSC, OURS},
    stats::{Target, median, quantile},
};

/// Between two events.
const PERIOD: Duration = Duration::from_millis(1);

/// What a round found, in microseconds.
#[derive(Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

type Round = Box<dyn FnMut(Duration) -> Result<Latency>>;

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let mut rounds: Vec<(&str, Round)> = Vec::new();
    for peer in bench.peers() {
        rounds.push((peer.who, theirs(&peer)?));
    }
    rounds.push((MPSC, channel()?));
    rounds.push((OURS, ours()?));
    let mut found = vec![Vec::new(); rounds.len()];
    // The first time round is the warm-up.
    for warm in 0..=bench.settings.rounds {
        for ((_, round), found) in rounds.iter_mut().zip(&mut found) {
            let time = if warm == 0 { bench.settings.latency / 4 } else { bench.settings.latency };
            let latency = round(time)?;
            if warm > 0 {
                found.push(latency);
            }
        }
    }
    let mut middle = Vec::new();
    for ((who, _), found) in rounds.iter().zip(&found) {
        let (p50, p99): (Vec<f64>, Vec<f64>) = found.iter().map(|latency| (latency.p50, latency.p99)).unzip();
        bench.report.figure("latency", "p50", who, 0, "us wall", &p50);
        bench.report.figure("latency", "p99", who, 0, "us wall", &p99);
        middle.push((*who, Latency { p50: median(&p50), p99: median(&p99) }));
    }
    let of = |wanted: &str| middle.iter().find(|(who, _)| *who == wanted).map(|(_, latency)| *latency);
    let Some(ours) = of(OURS) else { return Ok(()) };
    if let Some(vision) = of(VISION_AGENTS) {
        let name = "latency: our p99 / p50 of Vision Agents";
        bench.report.claim("latency", name, ours.p99 / vision.p50, "x", Some(Target::AtMost(1.0)));
    }
    for who in [NODE, MPSC] {
        if let Some(other) = of(who) {
            let name = format!("latency: our p99 / p99 of {who}");
            bench.report.claim("latency", name, ours.p99 / other.p99, "x", None);
        }
    }
    Ok(())
}

fn theirs(peer: &Peer) -> Result<Round> {
    let mut running = peer.start()?;
    Ok(Box::new(move |time| {
        let answer = running.ask(&json!(["latency", time.as_secs_f64()]))?;
        Ok(Latency { p50: number(&answer, "p50_us")?, p99: number(&answer, "p99_us")? })
    }))
}

/// Latencies in nanoseconds, one handler's.
type Taken = Arc<Mutex<Vec<f64>>>;

fn note(taken: &Taken, clock: &dyn Clock, sent_ns: u64) {
    let latency = clock.now().mono_ns - sent_ns;
    taken.lock().unwrap_or_else(PoisonError::into_inner).push(latency as f64);
}

fn ours() -> Result<Round> {
    let runtime = runtime()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let bus = EventBus::with(runtime.handle().clone(), Arc::clone(&clock));
    let taken = Taken::default();
    let state = Arc::new((Arc::clone(&taken), Arc::clone(&clock)));
    let subscription =
        bus.subscribe_with(state, async |state: Arc<(Taken, Arc<dyn Clock>)>, event: Event<TimedEvent>| {
            note(&state.0, &*state.1, event.sent_ns);
        });
    let session = Arc::new(bus.open_session());
    Ok(Box::new(move |time| {
        // Kept as long as the round.
        let _ = &subscription;
        let (session, clock) = (Arc::clone(&session), Arc::clone(&clock));
        let send =
            move || session.emit(TimedEvent { text: "hello".to_owned(), sent_ns: clock.now().mono_ns });
        run(&runtime, time, &taken, send)
    }))
}

fn channel() -> Result<Round> {
    let runtime = runtime()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (sender, mut receiver) = mpsc::channel::<Arc<Stamped<TimedEvent>>>(1024);
    let taken = Taken::default();
    let (noting, reading) = (Arc::clone(&taken), Arc::clone(&clock));
    runtime.spawn(async move {
        while let Some(event) = receiver.recv().await {
            note(&noting, &*reading, event.payload.sent_ns);
        }
    });
    Ok(Box::new(move |time| {
        let (sender, clock) = (sender.clone(), Arc::clone(&clock));
        let mut stamper = Stamper::new(Arc::clone(&clock));
        let send = move || {
            let event = TimedEvent { text: "hello".to_owned(), sent_ns: clock.now().mono_ns };
            sender.try_send(stamper.build(event)).expect("the receiver keeps up");
        };
        run(&runtime, time, &taken, send)
    }))
}

/// Sends one event per period from a task of its own; the first tenth is warm-up.
fn run(
    runtime: &Runtime,
    time: Duration,
    taken: &Taken,
    mut send: impl FnMut() + Send + 'static,
) -> Result<Latency> {
    let count = (time.as_secs_f64() / PERIOD.as_secs_f64()) as usize;
    runtime.block_on(runtime.spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for _ in 0..count {
            ticks.tick().await;
            send();
        }
        // For the last event.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }))?;
    let mut taken = std::mem::take(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner));
    anyhow::ensure!(taken.len() == count, "{} of {count} events arrived", taken.len());
    let mut taken = taken.split_off(count / 10);
    taken.sort_by(f64::total_cmp);
    Ok(Latency { p50: quantile(&taken, 0.5) / 1e3, p99: quantile(&taken, 0.99) / 1e3 })
}
