//! One chunk of audio to a plugin and back: inside the host, in a worker, and beside them the same bytes over a bare
//! socket.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use antiphon_bench_support::stats::{Target, median, quantile, ratio};
use antiphon_core::{Clock, Event, Subscription, SystemClock, event::tts::TtsAudioEvent};
use antiphon_host::Host;
use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use crate::{
    Bench,
    files::{PLUGIN, Place},
    pair::{Pair, Voice, chunk, number, plugin},
    wire::Wire,
};

/// The ways, as tables name them.
pub(crate) const WIRE: &str = "bare Unix socket";
pub(crate) const HERE: &str = "inside the host";
pub(crate) const WORKER: &str = "in a worker";
pub(crate) const WAYS: [&str; 3] = [WIRE, HERE, WORKER];

/// Time between two chunks of speech.
const PERIOD: Duration = Duration::from_millis(20);

/// A way there and back.
enum Way {
    Wire(Wire),
    Plugin(Box<Loop>),
}

/// A plugin with one session.
struct Loop {
    host: Host,
    pair: Pair,
    voice: Voice,
    sent: u32,
    clock: Arc<SystemClock>,
    /// When the host's sink had the last chunk.
    sunk: Arc<AtomicU64>,
    _tap: Subscription,
    _place: Place,
}

/// Nanoseconds of a trip.
#[derive(Clone, Copy)]
struct Trip {
    /// Until the host's sink has the chunk; of the bare socket, until it was read.
    sink: f64,
    /// Until the task that waits for it goes on.
    task: f64,
}

impl Loop {
    async fn open(isolated: bool) -> Result<Self> {
        let place = Place::with_plugin()?;
        let builder = if isolated { place.host().isolate(PLUGIN) } else { place.host() };
        let host = builder.start().await;
        let instance = plugin(&host)?;
        ensure!(instance.process_id().is_some() == isolated, "the plugin does not run where it should");
        let (pair, voice) = Pair::open(&instance, host.bus()).await?;
        let (clock, sunk) = (Arc::new(SystemClock::new()), Arc::new(AtomicU64::new(0)));
        // Called by the sink itself, on the thread that brings the chunk.
        let tap = {
            let (clock, sunk) = (Arc::clone(&clock), Arc::clone(&sunk));
            host.bus().observe(move |_: Event<TtsAudioEvent>| sunk.store(clock.mono_ns(), Ordering::Release))
        };
        Ok(Self { host, pair, voice, sent: 0, clock, sunk, _tap: tap, _place: place })
    }

    async fn trip(&mut self) -> Result<Trip> {
        self.sent += 1;
        let begin = self.clock.mono_ns();
        self.pair.stt.push_audio(&chunk(self.sent)).await?;
        let back = self.voice.recv().await.context("the plugin has ended")?;
        let end = self.clock.mono_ns();
        ensure!(number(&back.audio) == self.sent, "another chunk came back");
        let sink = self.sunk.load(Ordering::Acquire);
        Ok(Trip { sink: (sink - begin) as f64, task: (end - begin) as f64 })
    }
}

/// Does so many trips, one after the other.
fn trips(runtime: &Runtime, way: Way, count: usize, clock: &SystemClock) -> Result<(Way, Vec<Trip>)> {
    let mut taken = Vec::with_capacity(count);
    match way {
        Way::Wire(mut wire) => {
            for _ in 0..count {
                let begin = clock.mono_ns();
                wire.trip()?;
                let took = (clock.mono_ns() - begin) as f64;
                taken.push(Trip { sink: took, task: took });
            }
            Ok((Way::Wire(wire), taken))
        }
        Way::Plugin(mut plugin) => {
            // In a task, as an agent is.
            let work = async move {
                for _ in 0..count {
                    taken.push(plugin.trip().await?);
                }
                anyhow::Ok((Way::Plugin(plugin), taken))
            };
            runtime.block_on(runtime.spawn(work))?
        }
    }
}

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clock = SystemClock::new();
    let mut ways = vec![Way::Wire(Wire::open()?)];
    for isolated in [false, true] {
        ways.push(Way::Plugin(Box::new(runtime.block_on(Loop::open(isolated))?)));
    }
    let mut found = vec![Quantiles::default(); ways.len()];
    // The first round is the warm-up.
    for round in 0..=bench.settings.rounds {
        for found in &mut found {
            let (back, taken) = trips(&runtime, ways.remove(0), bench.settings.chunks, &clock)?;
            ways.push(back);
            if round > 0 {
                found.add(&taken);
            }
        }
    }
    for (who, found) in WAYS.iter().zip(&found) {
        for (what, values) in QUANTILES.iter().zip(&found.0) {
            bench.report.figure("chunk", what, who, 0, "us wall", values);
        }
    }
    let [wire, here, worker] = &found[..] else { unreachable!("there are three ways") };
    let target = Some(Target::AtMost(3.0));
    for (name, beside, which, target) in [
        ("in a worker / bare socket, p50", wire, 0, target),
        ("in a worker / bare socket, p99", wire, 1, None),
        ("in a worker / bare socket, p50 to the task", wire, 2, None),
        ("in a worker / inside the host, p50", here, 0, None),
    ] {
        let value = ratio(&worker.0[which], &beside.0[which]);
        bench.report.claim("chunk", format!("chunk: {name}"), value, "x", target);
    }
    paced(bench, &runtime, &mut ways, &clock)?;
    for way in ways {
        if let Way::Plugin(plugin) = way {
            runtime.block_on(plugin.host.shutdown());
        }
    }
    Ok(())
}

/// At the pace of speech, when whoever is to be woken has slept: one trip of each way every 20 ms.
fn paced(bench: &mut Bench, runtime: &Runtime, ways: &mut Vec<Way>, clock: &SystemClock) -> Result<()> {
    let mut found = vec![Vec::new(); ways.len()];
    for _ in 0..bench.settings.paced {
        for taken in &mut found {
            // Each after a pause of its own, so that none finds the processors awake.
            thread::sleep(PERIOD / u32::try_from(WAYS.len())?);
            let (back, trip) = trips(runtime, ways.remove(0), 1, clock)?;
            ways.push(back);
            taken.extend(trip);
        }
    }
    let mut medians = Vec::new();
    for (who, taken) in WAYS.iter().zip(&found) {
        let mut quantiles = Quantiles::default();
        quantiles.add(taken);
        medians.push(median(&quantiles.0[0]));
        for (what, values) in PACED.iter().zip(&quantiles.0) {
            bench.report.figure("chunk", what, who, 0, "us wall", values);
        }
    }
    let name = "chunk: in a worker / bare socket, p50 at the pace of speech";
    bench.report.claim("chunk", name, medians[2] / medians[0], "x", None);
    Ok(())
}

/// Microseconds that half and 99 % of the trips of each round are below: to the sink, then to the task.
#[derive(Clone, Default)]
struct Quantiles([Vec<f64>; 4]);

/// What those are, as figures are called; and at the pace of speech.
pub(crate) const QUANTILES: [&str; 4] = ["p50", "p99", "task p50", "task p99"];
pub(crate) const PACED: [&str; 4] = ["paced p50", "paced p99", "paced task p50", "paced task p99"];

impl Quantiles {
    fn add(&mut self, taken: &[Trip]) {
        let ends: [fn(&Trip) -> f64; 2] = [|trip| trip.sink, |trip| trip.task];
        for (end, values) in ends.into_iter().zip(self.0.chunks_exact_mut(2)) {
            let mut taken: Vec<f64> = taken.iter().map(end).collect();
            taken.sort_by(f64::total_cmp);
            values[0].push(quantile(&taken, 0.5) / 1e3);
            values[1].push(quantile(&taken, 0.99) / 1e3);
        }
    }
}
