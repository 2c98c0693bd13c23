//! Delivery: to many subscribers in several designs, beside the peers, to an observer, and to nobody.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use antiphon_core::{Event, EventBus, SystemClock, event::bus::ExceptionEvent};
use anyhow::{Result, ensure};

use crate::{
    Bench,
    contest::{BURST, Contender, add, compare, find, runtime},
    cpu,
    event::{SmallEvent, Stamper, UnwantedEvent},
    peers::TakesPart,
    report::many,
    rivals::{self, MPSC, OURS},
    stats::{Target, median, ratio},
};

/// Subscribers of one type that are compared.
pub(crate) const SUBSCRIBERS: [u64; 4] = [1, 10, 100, 1000];

/// How an event that is only built is called in tables.
pub(crate) const BUILT: &str = "only built, stamped and dropped";

/// Handlers beside the peers.
pub(crate) const HANDLERS: [u64; 2] = [1, 10];

/// Processor time per delivery, by design and number of subscribers.
pub(crate) fn delivery(bench: &mut Bench) -> Result<()> {
    let mut contenders = Vec::new();
    for subscribers in SUBSCRIBERS {
        for design in rivals::DESIGNS {
            contenders.push(rivals::contender(design, subscribers as usize)?);
        }
    }
    let entries = compare(contenders, &bench.settings)?;
    add(&mut bench.report, "delivery", "", "ns CPU per delivery", &entries);
    for subscribers in SUBSCRIBERS {
        let of = |who| find(&entries, who, subscribers).map_or(&[][..], |entry| &entry.ns);
        let limit = match subscribers {
            1 => Some(1.2),
            10 | 100 => Some(0.6),
            _ => None,
        };
        let name = format!("CPU per delivery to {}: ours / {MPSC}", many(subscribers, "subscriber"));
        bench.report.claim("delivery", name, ratio(of(OURS), of(MPSC)), "x", limit.map(Target::AtMost));
    }
    // With one subscriber, the whole price of building the event is on one delivery.
    let medians: Vec<f64> =
        SUBSCRIBERS[1..].iter().filter_map(|at| Some(median(&find(&entries, OURS, *at)?.ns))).collect();
    super::growth::claim(&mut bench.report, "subscribers, 10 to 1,000", &medians);
    Ok(())
}

/// Events per second of processor time, beside the peers.
pub(crate) fn throughput(bench: &mut Bench) -> Result<()> {
    let mut contenders = Vec::new();
    for handlers in HANDLERS {
        for peer in bench.peers() {
            contenders.push(peer.delivering(handlers)?);
        }
        contenders.push(rivals::contender(OURS, handlers as usize)?.per_event());
    }
    let mut entries = compare(contenders, &bench.settings)?;
    for entry in &mut entries {
        entry.ns.iter_mut().for_each(|ns| *ns = 1e9 / *ns);
    }
    add(&mut bench.report, "throughput", "", "events per CPU second", &entries);
    for handlers in HANDLERS {
        let Some(ours) = find(&entries, OURS, handlers) else { continue };
        for peer in bench.peers() {
            let Some(theirs) = find(&entries, peer.who, handlers) else { continue };
            let target = (peer.who == crate::peers::VISION_AGENTS)
                .then_some(Target::AtLeast(if handlers == 1 { 30.0 } else { 100.0 }));
            let handlers = many(handlers, "handler");
            let name = format!("events per CPU second to {handlers}: ours / {}", peer.who);
            bench.report.claim("throughput", name, ratio(&ours.ns, &theirs.ns), "x", target);
        }
    }
    Ok(())
}

/// One observer that runs inside of `emit`.
pub(crate) fn observer(bench: &mut Bench) -> Result<()> {
    let mut contenders = Vec::new();
    if let Some(node) = &bench.node {
        contenders.push(node.contender(0, BURST, vec!["observe".into()])?);
    }
    contenders.push(only_built());
    contenders.push(observed()?);
    let entries = compare(contenders, &bench.settings)?;
    add(&mut bench.report, "observer", "", "ns CPU per event", &entries);
    if let (Some(ours), Some(node)) = (find(&entries, OURS, 0), find(&entries, crate::peers::NODE, 0)) {
        let name = "events per CPU second to a sync observer: ours / Node EventEmitter";
        let target = Some(Target::AtLeast(2.0));
        bench.report.claim("observer", name, ratio(&node.ns, &ours.ns), "x", target);
    }
    Ok(())
}

fn observed() -> Result<Contender> {
    let runtime = runtime()?;
    let bus = EventBus::with(runtime.handle().clone(), Arc::new(SystemClock::new()));
    let seen = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&seen);
    let subscription = bus.observe(move |event: Event<SmallEvent>| {
        counting.fetch_add(1, Ordering::Relaxed);
        drop(event);
    });
    let session = bus.open_session();
    let round = move |bursts| {
        // Kept as long as the round.
        let _ = (&runtime, &subscription);
        seen.store(0, Ordering::Relaxed);
        let begin = cpu::used();
        for _ in 0..bursts * BURST {
            session.emit(SmallEvent::hello());
        }
        let took = cpu::used() - begin;
        ensure!(seen.load(Ordering::Relaxed) == bursts * BURST, "the observer missed events");
        Ok(took)
    };
    Ok(Contender::new(OURS, 0, BURST, Box::new(round)))
}

/// The floor: the event is stamped and dropped.
fn only_built() -> Contender {
    let mut stamper = Stamper::new(Arc::new(SystemClock::new()));
    let round = move |bursts| {
        let begin = cpu::used();
        for _ in 0..bursts * BURST {
            black_box(stamper.build(SmallEvent::hello()));
        }
        Ok(cpu::used() - begin)
    };
    Contender::new(BUILT, 0, BURST, Box::new(round))
}

/// An event that nobody wants, on a bus where others are wanted.
pub(crate) fn unwanted(bench: &mut Bench) -> Result<()> {
    let mut contenders = Vec::new();
    for peer in bench.peers() {
        contenders.push(peer.contender(0, BURST, vec!["unwanted".into()])?);
    }
    let runtime = runtime()?;
    let bus = EventBus::with(runtime.handle().clone(), Arc::new(SystemClock::new()));
    let subscription = bus.subscribe(async |_: Event<ExceptionEvent>| ());
    let session = bus.open_session();
    let round = move |bursts| {
        // Kept as long as the round.
        let _ = (&runtime, &subscription);
        let begin = cpu::used();
        for _ in 0..bursts * BURST {
            black_box(&session).emit(UnwantedEvent { level: 7 });
        }
        Ok(cpu::used() - begin)
    };
    contenders.push(Contender::new(OURS, 0, BURST, Box::new(round)));
    let entries = compare(contenders, &bench.settings)?;
    add(&mut bench.report, "unwanted", "", "ns CPU per event", &entries);
    if let Some(ours) = find(&entries, OURS, 0) {
        let value = median(&ours.ns);
        bench.report.claim("unwanted", "an event that nobody wants", value, "ns", Some(Target::AtMost(2.0)));
    }
    Ok(())
}
