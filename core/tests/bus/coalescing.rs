//! Queues that keep the newest event of each kind.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use antiphon_core::{
    BaseEvent, Event, EventBus, Subscription,
    bus::SubscriptionBuilder,
    event::{Overflow, bus::ExceptionEvent},
};

use crate::support::{AnswerEvent, Gate, Log, NoteEvent, log, note, settle, watch};

/// A handler that stands at the gate with its first event, and logs what each says.
async fn stuck(
    bus: &EventBus,
    builder: SubscriptionBuilder,
) -> (Arc<Gate>, Subscription, Log<(String, u64, u64)>) {
    let gate = Gate::new();
    let (sender, log) = log();
    let guard = {
        let gate = Arc::clone(&gate);
        builder.capacity(3).subscribe(move |event: Event<BaseEvent>| {
            let gate = Arc::clone(&gate);
            let number = event.to_json()["number"].as_u64().unwrap_or_default();
            let _ = sender.send((event.event_type().to_owned(), number, event.seq()));
            async move { gate.pass().await }
        })
    };
    bus.emit(note(0));
    gate.reached().await;
    (gate, guard, log)
}

#[tokio::test(start_paused = true)]
async fn without_a_key_the_newest_of_each_type_and_session_is_kept() {
    let bus = EventBus::new();
    let builder = bus.subscription().overflow(Overflow::Coalesce);
    let (gate, guard, mut seen) = stuck(&bus, builder).await;
    let session = bus.open_session();
    bus.emit(note(1)); // seq 2 of the host
    session.emit(note(10)); // seq 1 of the session
    bus.emit(AnswerEvent { number: 2 }); // seq 3
    for number in 3..=5 {
        bus.emit(note(number)); // seq 4, 5, 6
        session.emit(note(10 * number)); // seq 2, 3, 4
    }
    let stats = guard.stats();
    assert_eq!((stats.depth, stats.coalesced, stats.dropped), (3, 6, 0));
    gate.open();
    settle(&bus).await;
    let want = [("test.note", 0, 1), ("test.answer", 2, 3), ("test.note", 5, 6), ("test.note", 50, 4)];
    assert_eq!(seen.so_far(), want.map(|(name, number, seq)| (name.to_owned(), number, seq)));
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_each_key_is_kept_in_the_order_of_seq() {
    let bus = EventBus::new();
    let builder = bus.subscription().coalesce_by(|event: &NoteEvent| event.number % 3);
    let (gate, guard, mut seen) = stuck(&bus, builder).await;
    for number in 1..=100 {
        bus.emit(note(number));
    }
    gate.open();
    settle(&bus).await;
    let numbers: Vec<_> = seen.so_far().into_iter().map(|(_, number, seq)| (number, seq)).collect();
    assert_eq!(numbers, [(0, 1), (98, 99), (99, 100), (100, 101)]);
    let stats = guard.stats();
    assert_eq!((stats.delivered, stats.coalesced, stats.dropped), (4, 97, 0), "they add up");
}

#[tokio::test(start_paused = true)]
async fn what_has_a_key_of_its_own_pushes_the_oldest_out_and_that_is_a_loss() {
    let bus = EventBus::new();
    let builder = bus.subscription().coalesce_by(|event: &NoteEvent| event.number);
    let (gate, guard, mut seen) = stuck(&bus, builder).await;
    for number in [1, 2, 3, 4, 3, 4, 5] {
        bus.emit(note(number));
    }
    gate.open();
    settle(&bus).await;
    let numbers: Vec<_> = seen.so_far().into_iter().filter(|seen| seen.0 == "test.note").collect();
    let numbers: Vec<_> = numbers.into_iter().map(|(_, number, _)| number).collect();
    assert_eq!(numbers, [0, 3, 4, 5]);
    let stats = guard.stats();
    assert_eq!((stats.coalesced, stats.dropped), (2, 3), "two notes, and the notice of the first loss");
}

#[tokio::test(start_paused = true)]
async fn an_event_of_another_type_than_the_key_stands_for_its_type() {
    let bus = EventBus::new();
    let builder = bus.subscription().coalesce_by(|event: &NoteEvent| event.number);
    let (gate, guard, mut seen) = stuck(&bus, builder).await;
    bus.emit(note(1));
    bus.emit(note(2));
    for number in 1..=5 {
        bus.emit(AnswerEvent { number });
    }
    gate.open();
    settle(&bus).await;
    let numbers: Vec<_> = seen.so_far().into_iter().map(|(_, number, _)| number).collect();
    assert_eq!(numbers, [0, 1, 2, 5]);
    assert_eq!((guard.stats().coalesced, guard.stats().dropped), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_queue_with_room_coalesces_nothing() {
    let bus = EventBus::new();
    let (guard, mut seen) =
        watch(bus.subscription().coalesce_by(|_: &NoteEvent| 0), |event: &Event<NoteEvent>| event.number);
    for number in 1..=100 {
        bus.emit(note(number));
    }
    settle(&bus).await;
    assert_eq!(seen.so_far(), (1..=100).collect::<Vec<_>>());
    assert_eq!(guard.stats().coalesced, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn published_is_delivered_and_coalesced_and_dropped_and_muted() {
    const EMITTERS: u64 = 3;
    const EACH: u64 = 2_000;
    let bus = EventBus::new();
    let last = Arc::new(AtomicU64::new(0));
    let builder = bus.subscription().capacity(3).coalesce_by(|event: &NoteEvent| event.number % 5);
    let guard = {
        let last = Arc::clone(&last);
        builder.subscribe(move |event: Event<NoteEvent>| {
            let former = last.swap(event.seq(), Ordering::Relaxed);
            assert!(former < event.seq(), "{former} came before {}", event.seq());
            std::future::ready(())
        })
    };
    let emitters: Vec<_> = (0..EMITTERS)
        .map(|_| {
            let bus = bus.clone();
            tokio::spawn(async move { (0..EACH).for_each(|number| bus.emit(note(number))) })
        })
        .collect();
    guard.mute();
    guard.unmute();
    for emitter in emitters {
        emitter.await.expect("no emitter panics");
    }
    settle(&bus).await;
    let stats = guard.stats();
    assert_eq!(stats.delivered + stats.coalesced + stats.dropped + stats.muted, EMITTERS * EACH, "{stats:?}");
    assert_eq!(stats.failures, 0, "each came in the order of seq");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_panics_is_an_exception_and_does_not_reach_the_emitter() {
    let bus = EventBus::new();
    let (_exceptions, mut exceptions) =
        watch(bus.subscription(), |event: &Event<ExceptionEvent>| event.exc.kind.clone());
    let builder = bus.subscription().coalesce_by(|event: &NoteEvent| {
        assert_ne!(event.number, 2, "no key");
        event.number
    });
    let (gate, _guard, mut seen) = stuck(&bus, builder.overflow(Overflow::Wait).patterns(["test.*"])).await;
    for number in 1..=3 {
        bus.emit(note(number));
    }
    gate.open();
    settle(&bus).await;
    let notes = seen.so_far().into_iter().filter(|seen| seen.0 == "test.note");
    assert_eq!(notes.map(|(_, number, _)| number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(exceptions.so_far(), ["panic"]);
}
