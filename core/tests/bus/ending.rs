//! Draining, closing and shutting down.

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use antiphon_core::{Event, EventBus, SystemClock, event::bus::ExceptionEvent};
use futures_util::poll;

use crate::support::{Gate, NoteEvent, log, note, number, settle, watch, watch_at_gate, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shutdown_ends_what_is_being_subscribed_meanwhile() {
    for _ in 0..50 {
        let bus = EventBus::new();
        let session = bus.open_session();
        let subscribers: Vec<_> = (0..3)
            .map(|_| {
                let session = session.clone();
                tokio::spawn(async move {
                    for _ in 0..20 {
                        session.subscribe(async |_: Event<NoteEvent>| ()).detach();
                        session.bus().subscribe(async |_: Event<NoteEvent>| ()).detach();
                        session.emit(note(1));
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        within(session.close()).await;
        within(bus.shutdown()).await;
        for subscriber in subscribers {
            within(subscriber).await.expect("no subscriber panics");
        }
        within(bus.shutdown()).await;
        assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
    }
}

#[tokio::test]
async fn what_fails_during_a_shutdown_is_still_told() {
    let bus = EventBus::new();
    let (told, mut failures) = log();
    bus.subscribe_with(
        Arc::new(told),
        async |told: Arc<tokio::sync::mpsc::UnboundedSender<String>>, event: Event<ExceptionEvent>| {
            told.send(event.exc.message.clone())
        },
    )
    .detach();
    bus.subscribe(async |_: Event<NoteEvent>| Err(std::io::Error::other("too late"))).detach();
    bus.emit(note(1));
    within(bus.shutdown()).await;
    assert_eq!(failures.so_far(), ["too late"]);
}

#[tokio::test]
async fn a_shutdown_that_is_given_up_ends_everything_all_the_same() {
    let bus = EventBus::new();
    bus.subscribe(async |_: Event<NoteEvent>| pending::<()>().await).detach();
    let mut failures = bus.stream::<Event<ExceptionEvent>>();
    bus.emit(note(1));
    let given_up = tokio::time::timeout(Duration::ZERO, bus.shutdown()).await;
    assert!(given_up.is_err(), "a handler hangs");
    assert!(within(failures.recv()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_handlers_until_the_deadline() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (guard, _seen) = watch_at_gate(bus.subscription(), &gate);
    assert!(bus.drain(Duration::ZERO).await, "nothing was emitted");
    bus.emit(note(1));
    assert!(!bus.drain(Duration::from_millis(20)).await);
    // Also when its guard is gone, as long as it runs.
    drop(guard);
    assert!(!bus.drain(Duration::from_millis(20)).await);
    gate.open();
    settle(&bus).await;
}

#[tokio::test(start_paused = true)]
async fn draining_ends_when_the_last_event_is_taken_from_a_stream() {
    let bus = EventBus::new();
    let mut stream = bus.stream::<Event<NoteEvent>>();
    bus.emit(note(1));
    let mut drained = pin!(bus.drain(Duration::from_millis(20)));
    assert!(poll!(drained.as_mut()).is_pending());
    assert!(stream.recv().await.is_some());
    assert!(drained.await);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_when_the_last_event_is_given_up() {
    let bus = EventBus::new();
    let stream = bus.stream::<Event<NoteEvent>>();
    bus.emit(note(1));
    let mut drained = pin!(bus.drain(Duration::from_millis(20)));
    assert!(poll!(drained.as_mut()).is_pending());
    drop(stream);
    assert!(drained.await);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_handles_what_waits_and_ends_everything() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let gate = Gate::new();
    let (_guard, mut seen) = watch_at_gate(bus.subscription(), &gate);
    let (_of_session, mut seen_in_session) = watch(session.subscription(), number);
    let mut stream = bus.stream::<Event<NoteEvent>>();
    session.emit(note(1));
    session.emit(note(2));
    gate.reached().await;
    let mut shutdown = pin!(bus.shutdown());
    assert!(poll!(shutdown.as_mut()).is_pending());
    session.emit(note(3));
    gate.open();
    within(shutdown).await;
    assert_eq!((seen.so_far(), seen_in_session.so_far()), (vec![1, 2], vec![1, 2]));
    assert!(seen.is_over().await && seen_in_session.is_over().await);
    assert_eq!(
        [stream.recv().await, stream.recv().await].map(|event| event.map(|e| e.number)),
        [Some(1), Some(2)]
    );
    assert!(within(stream.recv()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn each_of_several_waits_for_the_end_waits_for_it() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (guard, _seen) = watch_at_gate(bus.subscription(), &gate);
    let (of_dropped, _seen) = watch_at_gate(bus.subscription(), &gate);
    bus.emit(note(1));
    gate.reached().await;
    gate.reached().await;
    drop(of_dropped);
    // The first gives up.
    assert!(poll!(Box::pin(bus.shutdown())).is_pending());
    let (mut second, mut third) = (pin!(bus.shutdown()), pin!(guard.unsubscribe()));
    assert!(poll!(second.as_mut()).is_pending());
    assert!(poll!(third.as_mut()).is_pending());
    gate.open();
    within(second).await;
    within(third).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_the_session_closes_is_reported_in_the_session() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (_guard, mut exceptions) =
        watch(bus.subscription(), |event: &Event<ExceptionEvent>| (event.session_id(), event.seq()));
    session.subscribe(async |_: Event<NoteEvent>| -> () { panic!("on the way out") }).detach();
    session.emit(note(1));
    session.close().await;
    assert_eq!(exceptions.next().await, (Some(session.id()), 2));
}

#[tokio::test]
async fn nobody_waits_for_handlers_whose_runtime_is_gone() {
    let handlers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime needs only a thread");
    let bus = EventBus::with(handlers.handle().clone(), Arc::new(SystemClock::new()));
    let (reached, mut seen) = log();
    let guard = bus.subscription().capacity(1).subscribe(move |event: Event<NoteEvent>| {
        let _ = reached.send(event.number);
        pending::<()>()
    });
    bus.emit(note(1));
    assert_eq!(seen.next().await, 1);
    bus.emit_wait(note(2)).await;
    let mut emitted = pin!(bus.emit_wait(note(3)));
    assert!(poll!(emitted.as_mut()).is_pending());
    handlers.shutdown_background();
    assert!(seen.is_over().await);
    within(emitted).await;
    within(guard.unsubscribe()).await;
    within(bus.shutdown()).await;
    assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn draining_and_closing_leave_nothing_behind_a_call_that_waits() {
    let bus = EventBus::new();
    for _ in 0..200 {
        let session = bus.open_session();
        let guard = session.subscribe(async |event: Event<NoteEvent>| {
            if event.number.is_multiple_of(2) {
                tokio::task::yield_now().await;
            }
        });
        for number in 0..10 {
            session.emit(note(number));
        }
        settle(&bus).await;
        assert_eq!(guard.stats().delivered, 10, "drained");
        for number in 0..10 {
            session.emit(note(number));
        }
        within(session.close()).await;
        assert_eq!(guard.stats().delivered, 20, "closed");
    }
}
