//! Whether a delivery costs more where there are more event types or sessions. Subscribers are `delivery.rs`'s.

use std::sync::Arc;

use antiphon_core::{
    BaseEvent, Event, EventBus, PluginBaseEvent, SessionBus, Subscription, SystemClock, bus::PluginEmission,
    event::EventType,
};
use anyhow::Result;
use serde_json::json;
use tokio::sync::mpsc::Sender;

use crate::{
    Bench,
    contest::{BURST, Contender, Entry, Publish, Reach, add, compare, find, round, runtime},
    event::{SmallEvent, Stamper},
    report::Report,
    rivals::{self, MPSC, OURS, Small},
    stats::{Target, median, ratio},
    tally::Tally,
};

/// How much dearer the dearest size may be than the cheapest.
const LIMIT: f64 = 1.5;

pub(crate) const TYPES: [u64; 4] = [1, 10, 100, 500];
pub(crate) const SESSIONS: [u64; 4] = [1, 100, 10_000, 50_000];

/// An empty map in MessagePack.
const NO_FIELDS: &[u8] = &[0x80];

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let types = TYPES.into_iter().map(types).collect::<Result<_>>()?;
    let entries = compare(types, &bench.settings)?;
    add(&mut bench.report, "growth", "types", "ns CPU per event", &entries);
    claim(&mut bench.report, "event types, 1 to 500", &medians(&entries));

    let mut contenders = Vec::new();
    for count in SESSIONS {
        contenders.push(channels(count)?);
        contenders.push(sessions(count)?);
    }
    let entries = compare(contenders, &bench.settings)?;
    add(&mut bench.report, "growth", "sessions", "ns CPU per event", &entries);
    claim(&mut bench.report, "sessions, 1 to 50,000", &medians(&entries));
    let of = |who| find(&entries, who, SESSIONS[3]).map_or(&[][..], |entry| &entry.ns);
    let name = format!("CPU per event with 50,000 sessions: ours / {MPSC}");
    bench.report.claim("growth", name, ratio(of(OURS), of(MPSC)), "x", None);
    Ok(())
}

/// Of ours.
fn medians(entries: &[Entry]) -> Vec<f64> {
    entries.iter().filter(|entry| entry.who == OURS).map(|entry| median(&entry.ns)).collect()
}

/// Holds the dearest size against the cheapest.
pub(crate) fn claim(report: &mut Report, what: &str, medians: &[f64]) {
    let lowest = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = medians.iter().copied().fold(0.0, f64::max);
    let name = format!("growth with {what}: dearest / cheapest");
    report.claim("growth", name, highest / lowest, "x", Some(Target::AtMost(LIMIT)));
}

/// One subscription for each of so many types that a plugin declares, and an event of each type in turn.
fn types(count: u64) -> Result<Contender> {
    let runtime = runtime()?;
    let tally = Tally::new(count as usize);
    let bus = EventBus::with(runtime.handle().clone(), Arc::new(SystemClock::new()));
    let declare = |number: u64| {
        let schema = json!({ "type": "object" });
        bus.registry().declare(&format!("bench.type{number}"), &["PluginBaseEvent".to_owned()], false, schema)
    };
    let types: Vec<Arc<EventType>> = (0..count).map(declare).collect();
    let subscribe = |(number, event): (usize, &Arc<EventType>)| {
        let counter = tally.counter(number);
        bus.subscription().patterns([event.name()]).subscribe(move |event: Event<BaseEvent>| async move {
            counter.one();
            drop(event);
        })
    };
    let subscriptions = types.iter().enumerate().map(subscribe).collect();
    let plugin = PluginBaseEvent {
        plugin_name: "bench".into(),
        plugin_version: "1.0.0".into(),
        plugin_instance: None,
    };
    let publisher = Types {
        session: bus.open_session(),
        types,
        next: 0,
        plugin: Arc::new(plugin),
        _subscriptions: subscriptions,
    };
    let round = round(runtime, tally, Reach::InTurn(count as usize), publisher);
    Ok(Contender::new(OURS, count, BURST, round))
}

struct Types {
    session: SessionBus,
    types: Vec<Arc<EventType>>,
    next: usize,
    plugin: Arc<PluginBaseEvent>,
    _subscriptions: Vec<Subscription>,
}

impl Publish for Types {
    fn publish(&mut self) {
        let emission = PluginEmission {
            event: &self.types[self.next],
            payload: NO_FIELDS,
            plugin: &self.plugin,
            turn_id: None,
            causation_id: None,
            emitted_at: None,
            always: false,
        };
        self.session.try_emit_plugin(&emission).expect("a burst fits the queues, and the payload its type");
        self.next = (self.next + 1) % self.types.len();
    }
}

/// One subscription in each of so many sessions, and an event in each session in turn.
fn sessions(count: u64) -> Result<Contender> {
    let runtime = runtime()?;
    let tally = Tally::new(count as usize);
    let bus = EventBus::with(runtime.handle().clone(), Arc::new(SystemClock::new()));
    let open = |number: u64| {
        let counter = tally.counter(number as usize);
        let session = bus.open_session();
        let subscription = session.subscribe(move |event: Event<SmallEvent>| async move {
            counter.one();
            drop(event);
        });
        (session, subscription)
    };
    let publisher = Sessions { open: (0..count).map(open).collect(), next: 0 };
    let round = round(runtime, tally, Reach::InTurn(count as usize), publisher);
    Ok(Contender::new(OURS, count, BURST, round))
}

struct Sessions {
    open: Vec<(SessionBus, Subscription)>,
    next: usize,
}

impl Publish for Sessions {
    fn publish(&mut self) {
        self.open[self.next].0.emit(SmallEvent::hello());
        self.next = (self.next + 1) % self.open.len();
    }
}

/// A channel and a task in place of each session: what waking so many costs in any case.
fn channels(count: u64) -> Result<Contender> {
    let runtime = runtime()?;
    let tally = Tally::new(count as usize);
    let open = |number: u64| rivals::mpsc(&runtime, tally.counter(number as usize));
    let publisher = Channels {
        senders: (0..count).map(open).collect(),
        next: 0,
        stamper: Stamper::new(Arc::new(SystemClock::new())),
    };
    let round = round(runtime, tally, Reach::InTurn(count as usize), publisher);
    Ok(Contender::new(MPSC, count, BURST, round))
}

struct Channels {
    senders: Vec<Sender<Small>>,
    next: usize,
    stamper: Stamper,
}

impl Publish for Channels {
    fn publish(&mut self) {
        let event = self.stamper.build(SmallEvent::hello());
        self.senders[self.next].try_send(event).expect("a burst fits the queue");
        self.next = (self.next + 1) % self.senders.len();
    }
}
