//! Waiting for an event.

use std::{
    sync::Arc,
    task::{Context, Wake, Waker},
    time::Duration,
};

use antiphon_core::{
    Event, EventBus,
    bus::WaitError,
    event::{EventPayload, bus::ExceptionEvent},
};
use futures_util::poll;

use crate::support::{NoteEvent, note, settle, watch, within};

const MINUTE: Duration = Duration::from_secs(60);

fn any(_: &Event<NoteEvent>) -> bool {
    true
}

#[tokio::test(start_paused = true)]
async fn what_is_emitted_between_the_call_and_the_await_is_found() {
    let bus = EventBus::new();
    let first = bus.wait_for(any, MINUTE);
    bus.emit(note(1));
    bus.emit(note(2));
    assert_eq!(within(first).await.expect("it was emitted").number, 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_predicate_refuses_is_passed_over() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let even = session.wait_for(|event: &Event<NoteEvent>| event.number.is_multiple_of(2), MINUTE);
    for number in [1, 3, 4, 5, 6] {
        session.emit(note(number));
    }
    assert_eq!(within(even).await.expect("it was emitted").number, 4);
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_own_events_alone() {
    let bus = EventBus::new();
    let (session, other) = (bus.open_session(), bus.open_session());
    let own = session.wait_for(any, MINUTE);
    other.emit(note(1));
    bus.emit(note(2));
    session.emit(note(3));
    assert_eq!(within(own).await.expect("it was emitted").number, 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_in_vain_is_told_why() {
    let bus = EventBus::new();
    let waited = bus.wait_for(any, Duration::from_millis(250)).await;
    let error = waited.expect_err("nothing was emitted");
    assert_eq!(error, WaitError::Timeout(Duration::from_millis(250)));
    assert_eq!(error.to_string(), "no such event came within 250 ms");
    assert_eq!(WaitError::Closed.to_string(), "the session or the bus ended before such an event came");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_session_and_with_the_bus() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let mut waiting = Box::pin(session.wait_for(any, MINUTE));
    assert!(poll!(waiting.as_mut()).is_pending());
    session.close().await;
    assert_eq!(within(waiting).await.expect_err("the session is closed"), WaitError::Closed);
    let late = session.wait_for(any, MINUTE);
    assert_eq!(within(late).await.expect_err("the session is closed"), WaitError::Closed);

    let dropped = bus.open_session();
    let waiting = dropped.wait_for(any, MINUTE);
    drop(dropped);
    assert_eq!(within(waiting).await.expect_err("the session is gone"), WaitError::Closed);

    let waiting = bus.wait_for(any, MINUTE);
    bus.shutdown().await;
    assert_eq!(within(waiting).await.expect_err("the bus is shut down"), WaitError::Closed);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_wait_ends_its_subscription() {
    let bus = EventBus::new();
    let begun = bus.wait_for(any, MINUTE);
    let mut polled = Box::pin(bus.wait_for(any, MINUTE));
    assert!(poll!(polled.as_mut()).is_pending());
    assert_eq!(bus.subscriptions().len(), 2);
    drop((begun, polled));
    assert!(bus.subscriptions().is_empty());
    assert!(!bus.is_wanted(NoteEvent::event_type()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_is_missed_however_fast_they_come() {
    let bus = EventBus::new();
    let waits: Vec<_> = (0..10_000_u64)
        .step_by(100)
        .map(|wanted| bus.wait_for(move |event: &Event<NoteEvent>| event.number == wanted, MINUTE))
        .collect();
    let emitters = [0, 1].map(|start| {
        let bus = bus.clone();
        tokio::spawn(async move {
            for number in (start..10_000).step_by(2) {
                bus.emit(note(number));
            }
        })
    });
    for (waiting, wanted) in waits.into_iter().zip((0..).step_by(100)) {
        assert_eq!(within(waiting).await.expect("it was emitted").number, wanted);
    }
    for emitter in emitters {
        within(emitter).await.expect("no emitter panics");
    }
}

#[tokio::test(start_paused = true)]
async fn a_predicate_that_panics_is_an_exception_and_the_wait_goes_on() {
    let bus = EventBus::new();
    let (_exceptions, mut exceptions) =
        watch(bus.subscription(), |event: &Event<ExceptionEvent>| event.exc.kind.clone());
    let waiting = bus.wait_for(
        |event: &Event<NoteEvent>| {
            assert_ne!(event.number, 1, "not this one");
            true
        },
        MINUTE,
    );
    bus.emit(note(1));
    bus.emit(note(2));
    assert_eq!(within(waiting).await.expect("it was emitted").number, 2);
    settle(&bus).await;
    assert_eq!(exceptions.so_far(), ["panic"]);
}

/// Emits once more when it is woken.
struct EmitsWhenWoken(EventBus);

impl Wake for EmitsWhenWoken {
    fn wake(self: Arc<Self>) {
        self.0.emit(note(2));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_woken_may_emit_at_once() {
    let bus = EventBus::new();
    let mut waiting = Box::pin(bus.wait_for(any, MINUTE));
    let waker = Waker::from(Arc::new(EmitsWhenWoken(bus.clone())));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    bus.emit(note(1));
    assert_eq!(within(waiting).await.expect("it was emitted").number, 1);
}
