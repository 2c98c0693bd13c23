//! How subscriptions, streams, sessions and the bus end.

use std::{future::pending, pin::pin, sync::Arc, time::Duration};

use antiphon_core::{
    Event, EventBus, SystemClock,
    event::{EventPayload, bus::ExceptionEvent, session::SessionReadyEvent},
};
use futures_util::{StreamExt, poll};

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

#[tokio::test(start_paused = true)]
async fn a_stream_gives_what_comes_and_ends_with_its_session() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let stream = session.stream::<Event<NoteEvent>>();
    let all = tokio::spawn(stream.map(|event| event.number).collect::<Vec<_>>());
    tokio::task::yield_now().await;
    session.emit(note(1));
    tokio::task::yield_now().await;
    session.emit(note(2));
    session.close().await;
    assert_eq!(within(all).await.expect("the stream does not panic"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_given_up_does_not_take_the_ring_from_the_next() {
    let bus = EventBus::new();
    let mut stream = bus.stream::<Event<NoteEvent>>();
    // As in `select!`: one branch begins to wait, another is ready.
    assert!(poll!(stream.next()).is_pending());
    let received = tokio::spawn(async move { (stream.recv().await.map(|event| event.number), stream) });
    tokio::task::yield_now().await;
    bus.emit(note(1));
    let (first, mut stream) = within(received).await.expect("it only receives");
    assert_eq!(first, Some(1));

    assert!(poll!(Box::pin(stream.recv())).is_pending());
    let received = tokio::spawn(async move { stream.next().await.map(|event| event.number) });
    tokio::task::yield_now().await;
    bus.emit(note(2));
    assert_eq!(within(received).await.expect("it only receives"), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_misses_no_wake_up() {
    let bus = EventBus::new();
    let mut stream = bus.subscription().capacity(1).stream::<Event<NoteEvent>>();
    let emitter = tokio::spawn(async move {
        for number in 0..2_000 {
            bus.emit_wait(note(number)).await;
        }
    });
    for number in 0..2_000 {
        // Now one way, now the other, and now given up in between.
        let event = match number % 3 {
            0 => within(stream.recv()).await,
            1 => within(stream.next()).await,
            _ => match poll!(Box::pin(stream.recv())) {
                std::task::Poll::Ready(event) => event,
                std::task::Poll::Pending => within(stream.recv()).await,
            },
        };
        assert_eq!(event.map(|event| event.number), Some(number));
    }
    within(emitter).await.expect("no emitter panics");
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

#[tokio::test(start_paused = true)]
async fn watchers_are_told_of_each_change_of_interest() {
    let bus = EventBus::new();
    let (changes, mut seen) = log();
    let watched = bus.downgrade();
    bus.on_interest_change(move || {
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
