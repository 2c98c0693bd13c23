//! How long subscriptions, sessions and the bus live.

use std::pin::pin;

use antiphon_core::{
    Event, EventBus,
    event::{EventPayload, session::SessionReadyEvent},
};
use futures_util::poll;

use crate::support::{AnswerEvent, Gate, NoteEvent, log, note, number, settle, watch, watch_at_gate, within};

#[tokio::test(start_paused = true)]
async fn dropping_the_guard_ends_the_subscription() {
    let bus = EventBus::new();
    let (guard, mut seen) = watch(bus.subscription(), number);
    bus.emit(note(1));
    settle(&bus).await;
    bus.emit(note(2));
    drop(guard);
    bus.emit(note(3));
    assert!(!bus.is_wanted(NoteEvent::event_type()));
    assert_eq!(seen.next().await, 1);
    assert!(seen.is_over().await, "neither what waited nor what came later is handled");
}

#[tokio::test(start_paused = true)]
async fn a_detached_subscription_goes_on() {
    let bus = EventBus::new();
    let (guard, mut seen) = watch(bus.subscription(), number);
    guard.detach();
    bus.emit(note(1));
    assert_eq!(seen.next().await, 1);
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_waits_for_the_running_call_and_drops_what_waits() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (guard, mut seen) = watch_at_gate(bus.subscription(), &gate);
    bus.emit(note(1));
    bus.emit(note(2));
    gate.reached().await;
    let mut unsubscribed = pin!(guard.unsubscribe());
    assert!(poll!(unsubscribed.as_mut()).is_pending());
    bus.emit(note(3));
    gate.open();
    within(unsubscribed).await;
    assert_eq!(seen.so_far(), [1]);
    assert!(seen.is_over().await, "the state of the handler is gone too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_unsubscribing_nothing_runs_however_many_emit() {
    let bus = EventBus::new();
    for _ in 0..50 {
        let (guard, mut seen) = watch(bus.subscription().capacity(4), number);
        let emitters: Vec<_> = (0..3)
            .map(|_| {
                let bus = bus.clone();
                tokio::spawn(async move {
                    for number in 0..50 {
                        bus.emit_wait(note(number)).await;
                    }
                })
            })
            .collect();
        seen.next().await;
        within(guard.unsubscribe()).await;
        seen.so_far();
        assert!(seen.is_over().await, "something was handled afterwards");
        for emitter in emitters {
            within(emitter).await.expect("no emitter panics");
        }
    }
    assert!(bus.subscriptions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_of_a_session_sees_that_session_and_ends_with_it() {
    let bus = EventBus::new();
    let (session, other) = (bus.open_session(), bus.open_session());
    let (_guard, mut seen) = watch(session.subscription(), number);
    other.emit(note(1));
    bus.emit(note(2));
    session.emit(note(3));
    session.close().await;
    assert_eq!(seen.so_far(), [3], "what waited was handled");
    session.emit(note(4));
    assert!(seen.is_over().await);
    assert!(!bus.is_wanted(NoteEvent::event_type()));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_last_handle_is_dropped() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (detached, mut seen) = watch(session.subscription(), number);
    detached.detach();
    let (_guard, mut seen_by_guard) = watch(session.subscription(), number);
    let mut stream = session.stream::<Event<NoteEvent>>();
    session.emit(note(1));
    drop(session);
    assert_eq!((seen.next().await, seen_by_guard.next().await), (1, 1));
    assert!(seen.is_over().await);
    assert!(seen_by_guard.is_over().await);
    assert_eq!(within(stream.recv()).await.map(|event| event.number), Some(1));
    assert!(within(stream.recv()).await.is_none());
    drop(stream);
    settle(&bus).await;
    assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
}

#[tokio::test(start_paused = true)]
async fn a_bus_ends_when_its_last_handle_is_dropped() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (detached, mut seen) = watch_at_gate(bus.subscription(), &gate);
    detached.detach();
    let (_guard, mut seen_by_guard) = watch(bus.subscription(), number);
    let mut stream = bus.stream::<Event<NoteEvent>>();
    bus.emit(note(1));
    bus.emit(note(2));
    gate.reached().await;
    drop(bus);
    gate.open();
    assert_eq!([seen.next().await, seen.next().await], [1, 2], "what waited is handled");
    assert!(seen.is_over().await);
    assert_eq!([seen_by_guard.next().await, seen_by_guard.next().await], [1, 2]);
    assert!(seen_by_guard.is_over().await);
    assert_eq!(within(stream.recv()).await.map(|event| event.number), Some(1));
    assert_eq!(within(stream.recv()).await.map(|event| event.number), Some(2));
    assert!(within(stream.recv()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_subscribed_too_late_ends_at_once() {
    let bus = EventBus::new();
    let session = bus.open_session();
    session.close().await;
    let (_guard, mut seen) = watch(session.subscription(), number);
    assert!(seen.is_over().await);
    assert!(within(session.stream::<Event<NoteEvent>>().recv()).await.is_none());

    bus.shutdown().await;
    let (_guard, mut seen) = watch(bus.subscription(), number);
    assert!(seen.is_over().await);
    let (_guard, mut seen) = watch(bus.open_session().subscription(), number);
    assert!(seen.is_over().await);
    assert!(within(bus.stream::<Event<NoteEvent>>().recv()).await.is_none());
    within(bus.shutdown()).await;
}

#[tokio::test(start_paused = true)]
async fn watchers_are_told_of_each_change_of_interest() {
    let bus = EventBus::new();
    let (changes, mut seen) = log();
    let watched = bus.downgrade();
    let _watch = bus.on_interest_change(move || {
        let bus = watched.upgrade().expect("the test holds it");
        let wanted = [NoteEvent::event_type(), AnswerEvent::event_type(), SessionReadyEvent::event_type()]
            .map(|event| bus.is_wanted(event));
        let _ = changes.send(wanted);
    });
    let session = bus.open_session();
    let note = bus.subscribe(async |_: Event<NoteEvent>| ());
    let answer = session.stream::<Event<AnswerEvent>>();
    session.subscribe(async |_: Event<SessionReadyEvent>| ()).detach();
    drop(answer);
    drop(note);
    session.close().await;
    let mut told = seen.so_far();
    told.dedup();
    assert_eq!(
        told,
        [
            [true, false, false],
            [true, true, false],
            [true, true, true],
            [true, false, true],
            [false, false, true],
            [false, false, false],
        ]
    );
}
