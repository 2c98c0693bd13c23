//! Failures that come in crowds, and ends that come from inside.

use std::time::Duration;

use antiphon_core::{
    BaseEvent, Event, EventBus, SessionBus,
    event::{
        EventPayload,
        bus::{ExceptionEvent, ManyListenersEvent},
    },
};

use crate::support::{Gate, NoteEvent, log, note, number, settle, watch, within};

fn failure() -> std::io::Error {
    std::io::Error::other("always")
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_failures_is_finite_and_exact() {
    const EVENTS: u64 = 1_000;
    let bus = EventBus::new();
    let session = bus.open_session();
    let capacity = 100_000;
    let of_exceptions = [(); 3].map(|()| {
        let builder = session.subscription().capacity(capacity);
        builder.subscribe(async |_: Event<ExceptionEvent>| Err(failure()))
    });
    let of_everything = [(); 2].map(|()| {
        let builder = bus.subscription().capacity(capacity);
        builder.subscribe(async |_: Event<BaseEvent>| -> () {
            tokio::task::yield_now().await;
            panic!("always")
        })
    });
    let of_notes = session.subscribe(async |_: Event<NoteEvent>| Err(failure()));
    for number in 0..EVENTS {
        session.emit_wait(note(number)).await;
    }
    settle(&bus).await;
    // Of each note three handlers fail, which makes three exceptions, and there it ends.
    assert_eq!(of_notes.stats().failures, EVENTS);
    for guard in &of_exceptions {
        assert_eq!((guard.stats().delivered, guard.stats().failures), (3 * EVENTS, 3 * EVENTS));
    }
    for guard in &of_everything {
        assert_eq!((guard.stats().delivered, guard.stats().failures), (4 * EVENTS, 4 * EVENTS));
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_of_a_session_is_heard_by_its_own_subscription() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (exceptions, mut told) = watch(session.subscription(), |event: &Event<ExceptionEvent>| {
        (event.session_id(), event.exc.message.clone())
    });
    exceptions.detach();
    let gate = Gate::new();
    {
        let gate = gate.clone();
        let handler = move |_: Event<NoteEvent>| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Err(failure())
            }
        };
        session.subscribe(handler).detach();
    }
    session.emit(note(1));
    gate.reached().await;
    let closing = tokio::spawn({
        let session = session.clone();
        async move { session.close().await }
    });
    tokio::task::yield_now().await;
    gate.open();
    within(closing).await.expect("it only closes");
    assert_eq!(told.so_far(), [(Some(session.id()), "always".to_owned())]);
    assert!(told.is_over().await);
    assert!(bus.subscriptions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_a_failing_handler_of_exceptions_ends_everything() {
    let bus = EventBus::new();
    let (sender, mut done) = log();
    let stopping = bus.clone();
    bus.subscribe(move |event: Event<ExceptionEvent>| {
        let (bus, sender) = (stopping.clone(), sender.clone());
        async move {
            bus.shutdown().await;
            let _ = sender.send(event.source_type.clone());
            Err(failure())
        }
    })
    .detach();
    bus.subscribe(async |_: Event<NoteEvent>| Err(failure())).detach();
    bus.emit(note(1));
    assert_eq!(done.next().await, "test.note");
    assert!(done.is_over().await);
    within(bus.shutdown()).await;
    assert!(bus.subscriptions().is_empty());
    assert!(!bus.is_wanted(NoteEvent::event_type()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_holds_its_session_weakly_does_not_keep_it_open() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (sender, mut seen) = log();
    let weak = session.downgrade();
    session
        .subscribe(move |event: Event<NoteEvent>| {
            let session = weak.upgrade().map(|session: SessionBus| session.id());
            let _ = sender.send((session == event.session_id(), event.number));
            std::future::ready(())
        })
        .detach();
    session.emit(note(1));
    assert_eq!(seen.next().await, (true, 1));
    let weak = session.downgrade();
    drop(session);
    assert!(seen.is_over().await);
    assert!(weak.upgrade().is_none());
    settle(&bus).await;
    assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
}

#[tokio::test(start_paused = true)]
async fn very_many_listeners_of_one_type_are_told_of_once() {
    let bus = EventBus::new();
    let (_warnings, mut warnings) = watch(bus.subscription(), |event: &Event<ManyListenersEvent>| {
        (event.event_type.clone(), event.listeners)
    });
    let mut guards: Vec<_> = (0..100).map(|_| watch(bus.subscription(), number)).collect();
    bus.emit(note(1));
    settle(&bus).await;
    assert_eq!(warnings.so_far(), [], "a hundred are not too many");
    guards.push(watch(bus.subscription(), number));
    bus.emit(note(2));
    bus.emit(note(3));
    guards.push(watch(bus.subscription(), number));
    bus.emit(note(4));
    settle(&bus).await;
    assert_eq!(warnings.so_far(), [("test.note".to_owned(), 101)]);
    for (_, seen) in &mut guards {
        assert_eq!(seen.so_far().last(), Some(&4), "they are served all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exception_in_the_middle_of_a_drain_is_waited_for_too() {
    let bus = EventBus::new();
    let (_exceptions, mut told) =
        watch(bus.subscription(), |event: &Event<ExceptionEvent>| event.exc.kind.clone());
    let _late = bus.subscription().timeout(Duration::from_secs(5)).subscribe(async |_: Event<NoteEvent>| {
        std::future::pending::<()>().await;
    });
    bus.emit(note(1));
    settle(&bus).await;
    assert_eq!(told.so_far(), ["timeout"]);
}
