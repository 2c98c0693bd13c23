//! The same delivery in several designs: Antiphon's bus, and what one would write by hand with tokio or flume.
//!
//! Each gives an event that was built afresh, with the same fields and payload in an `Arc`, to the same async handler.

use std::sync::Arc;

use antiphon_core::{Event, EventBus, SessionBus, Subscription, SystemClock};
use anyhow::Result;
use tokio::{
    runtime::Runtime,
    sync::{broadcast, mpsc},
    task::JoinHandle,
};

use crate::{
    contest::{BURST, Contender, Publish, Reach, round, runtime},
    event::{SmallEvent, Stamped, Stamper},
    tally::{Counter, Tally},
};

/// How ours is called in tables.
pub(crate) const OURS: &str = "Antiphon";
/// The yardstick of the targets.
pub(crate) const MPSC: &str = "tokio mpsc per subscriber";
const BROADCAST: &str = "tokio broadcast";
const FLUME: &str = "flume per subscriber";
const SPAWN: &str = "a tokio task per delivery";

/// Places in a queue; what Antiphon gives a subscription too.
const CAPACITY: usize = 1024;

pub(crate) type Small = Arc<Stamped<SmallEvent>>;

/// All designs written in Rust; ours last.
pub(crate) const DESIGNS: [&str; 5] = [BROADCAST, FLUME, SPAWN, MPSC, OURS];

/// A design with so many subscribers.
pub(crate) fn contender(design: &str, subscribers: usize) -> Result<Contender> {
    let runtime = runtime()?;
    let tally = Tally::new(subscribers);
    let reach = Reach::All(subscribers);
    let stamper = Stamper::new(Arc::new(SystemClock::new()));
    let counters = (0..subscribers).map(|subscriber| tally.counter(subscriber));
    let round = match design {
        OURS => {
            let publisher = Antiphon::open(&runtime, counters);
            round(runtime, tally, reach, publisher)
        }
        MPSC => {
            let publisher =
                Mpsc { senders: counters.map(|counter| mpsc(&runtime, counter)).collect(), stamper };
            round(runtime, tally, reach, publisher)
        }
        FLUME => {
            let publisher =
                Flume { senders: counters.map(|counter| flume(&runtime, counter)).collect(), stamper };
            round(runtime, tally, reach, publisher)
        }
        BROADCAST => {
            let publisher = Broadcast::open(&runtime, counters, stamper);
            round(runtime, tally, reach, publisher)
        }
        _ => {
            let publisher = Spawn { counters: counters.collect(), running: Vec::new(), stamper };
            round(runtime, tally, reach, publisher)
        }
    };
    Ok(Contender::new(design, subscribers as u64, BURST * subscribers as u64, round))
}

async fn handle(counter: Counter, event: Small) {
    counter.one();
    drop(event);
}

struct Antiphon {
    session: SessionBus,
    _subscriptions: Vec<Subscription>,
}

impl Antiphon {
    fn open(runtime: &Runtime, counters: impl Iterator<Item = Counter>) -> Self {
        let bus = EventBus::with(runtime.handle().clone(), Arc::new(SystemClock::new()));
        let subscribe = |counter: Counter| {
            bus.subscribe(move |event: Event<SmallEvent>| async move {
                counter.one();
                drop(event);
            })
        };
        Self { _subscriptions: counters.map(subscribe).collect(), session: bus.open_session() }
    }
}

impl Publish for Antiphon {
    fn publish(&mut self) {
        self.session.emit(SmallEvent::hello());
    }
}

struct Mpsc {
    senders: Vec<mpsc::Sender<Small>>,
    stamper: Stamper,
}

/// A subscriber; also one of many sessions.
pub(crate) fn mpsc(runtime: &Runtime, counter: Counter) -> mpsc::Sender<Small> {
    let (sender, mut receiver) = mpsc::channel(CAPACITY);
    runtime.spawn(async move {
        while let Some(event) = receiver.recv().await {
            handle(counter, event).await;
        }
    });
    sender
}

impl Publish for Mpsc {
    fn publish(&mut self) {
        let event = self.stamper.build(SmallEvent::hello());
        for sender in &self.senders {
            sender.try_send(Arc::clone(&event)).expect("a burst fits the queue");
        }
    }
}

struct Flume {
    senders: Vec<flume::Sender<Small>>,
    stamper: Stamper,
}

fn flume(runtime: &Runtime, counter: Counter) -> flume::Sender<Small> {
    let (sender, receiver) = flume::bounded(CAPACITY);
    runtime.spawn(async move {
        while let Ok(event) = receiver.recv_async().await {
            handle(counter, event).await;
        }
    });
    sender
}

impl Publish for Flume {
    fn publish(&mut self) {
        let event = self.stamper.build(SmallEvent::hello());
        for sender in &self.senders {
            sender.try_send(Arc::clone(&event)).expect("a burst fits the queue");
        }
    }
}

struct Broadcast {
    sender: broadcast::Sender<Small>,
    stamper: Stamper,
}

impl Broadcast {
    fn open(runtime: &Runtime, counters: impl Iterator<Item = Counter>, stamper: Stamper) -> Self {
        let sender = broadcast::Sender::new(CAPACITY);
        for counter in counters {
            let mut receiver = sender.subscribe();
            runtime.spawn(async move {
                while let Ok(event) = receiver.recv().await {
                    handle(counter, event).await;
                }
            });
        }
        Self { sender, stamper }
    }
}

impl Publish for Broadcast {
    fn publish(&mut self) {
        let event = self.stamper.build(SmallEvent::hello());
        self.sender.send(event).expect("there are receivers");
    }
}

/// Vision Agents' way: a panic is told by the handle of the handler's task.
struct Spawn {
    counters: Vec<Counter>,
    running: Vec<JoinHandle<()>>,
    stamper: Stamper,
}

impl Publish for Spawn {
    fn publish(&mut self) {
        let event = self.stamper.build(SmallEvent::hello());
        for counter in &self.counters {
            self.running.push(tokio::spawn(handle(*counter, Arc::clone(&event))));
        }
    }

    async fn settle(&mut self) {
        for handler in self.running.drain(..) {
            handler.await.expect("the handler does not panic");
        }
    }
}
