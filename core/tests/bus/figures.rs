//! What the bus shows of itself: listings and counters.

use std::{sync::Arc, time::Duration};

use antiphon_core::{
    BaseEvent, Event, EventBus, EventUnion, clock::ManualClock, event::session::SessionReadyEvent,
};
use tokio::runtime::Handle;

use crate::support::{AnswerEvent, Gate, NoteEvent, log, note, settle, watch_at_gate};

#[tokio::test(start_paused = true)]
async fn the_slowest_call_is_the_one_that_took_longest() {
    let clock = Arc::new(ManualClock::default());
    let bus = EventBus::with(Handle::current(), Arc::<ManualClock>::clone(&clock));
    let guard = {
        let clock = Arc::clone(&clock);
        bus.subscribe(move |event: Event<NoteEvent>| {
            let clock = Arc::clone(&clock);
            async move {
                tokio::task::yield_now().await;
                clock.step(Duration::from_secs(event.number));
            }
        })
    };
    for (number, slowest) in [(1, 1), (3, 3), (2, 3)] {
        bus.emit(note(number));
        settle(&bus).await;
        assert_eq!(guard.stats().slowest_ns, slowest * 1_000_000_000);
    }
    let quick = {
        let clock = Arc::clone(&clock);
        bus.subscribe(move |event: Event<AnswerEvent>| {
            clock.step(Duration::from_secs(event.number));
            std::future::ready(())
        })
    };
    bus.emit(AnswerEvent { number: 3 });
    settle(&bus).await;
    assert_eq!(quick.stats().slowest_ns, 3_000_000_000, "a call that awaits nothing is timed too");
}

#[derive(EventUnion)]
#[expect(dead_code, reason = "only what it receives is of interest")]
enum Either {
    Note(Event<NoteEvent>),
    Ready(Event<SessionReadyEvent>),
}

#[tokio::test(start_paused = true)]
async fn a_listing_says_who_receives_what_and_how_they_are_doing() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let gate = Gate::new();
    let (_stuck, _seen) = watch_at_gate(bus.subscription().name("stuck").capacity(2), &gate);
    let _union = session.subscription().name("union").subscribe(async |_: Either| ());
    let _all = bus.subscription().name("all").subscribe(async |_: Event<BaseEvent>| ());
    let _patterns =
        bus.subscription().name("patterns").patterns(["tts.*", "acme.face"]).stream::<Event<BaseEvent>>();
    let here = (file!(), line!() - 1);
    bus.emit(note(1));
    gate.reached().await;
    for number in 2..=5 {
        bus.emit(note(number));
    }
    let list = bus.subscriptions();
    let find = |name: &str| list.iter().find(|report| report.handler.name == name).expect("it is subscribed");
    let stuck = find("stuck");
    assert_eq!((stuck.stats.depth, stuck.stats.dropped), (2, 2));
    let receives: Vec<_> =
        ["stuck", "union", "all", "patterns"].map(|name| find(name).receives.clone()).into();
    assert!(receives[0].contains("test.note"), "{receives:?}");
    assert!(receives[1].contains("test.note") && receives[1].contains("session.ready"), "{receives:?}");
    assert!(receives[2].contains("BaseEvent"), "{receives:?}");
    assert!(receives[3].contains("tts.*") && receives[3].contains("acme.face"), "{receives:?}");
    let location = &find("patterns").handler.location;
    assert!(location.starts_with(&format!("{}:{}:", here.0, here.1)), "{location}");
    gate.open();
    settle(&bus).await;
    let list = bus.subscriptions();
    let stuck = list.iter().find(|report| report.handler.name == "stuck").expect("it is subscribed");
    assert_eq!((stuck.stats.depth, stuck.stats.delivered), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn without_a_subscriber_of_tracing_a_call_is_no_span() {
    let bus = EventBus::new();
    let (sender, mut inside) = log();
    let _guard = bus.subscribe(move |_: Event<NoteEvent>| {
        let sender = sender.clone();
        async move {
            tokio::task::yield_now().await;
            let _ = sender.send(tracing::Span::current().is_none());
        }
    });
    bus.emit(note(1));
    assert!(inside.next().await);
}
