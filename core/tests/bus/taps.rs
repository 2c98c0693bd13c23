//! Functions that are called at once, on the thread that emits.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use antiphon_core::{
    BaseEvent, Event, EventBus, EventUnion,
    event::{
        EventPayload,
        bus::{ExceptionEvent, SubscriberLaggedEvent},
        session::SessionReadyEvent,
    },
};
use futures_util::poll;

use crate::support::{AnswerEvent, Log, NoteEvent, log, note, settle, watch, within};

/// A tap that logs what `read` finds.
fn tap<F: antiphon_core::event::FromEvent, T: Send + 'static>(
    bus: &EventBus,
    read: fn(&F) -> T,
) -> (antiphon_core::Subscription, Log<T>) {
    let (sender, log) = log();
    let guard = bus.observe(move |event: F| {
        let _ = sender.send(read(&event));
    });
    (guard, log)
}

#[derive(EventUnion)]
enum Either {
    Note(Event<NoteEvent>),
    Ready(Event<SessionReadyEvent>),
}

#[tokio::test(start_paused = true)]
async fn a_tap_has_seen_the_event_when_emit_returns() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (guard, mut seen) = tap(&bus, |event: &Event<NoteEvent>| (event.number, event.seq()));
    session.emit(note(7));
    assert_eq!(seen.so_far(), [(7, 1)]);
    session.emit_wait(note(8)).await;
    assert_eq!(seen.so_far(), [(8, 2)]);
    assert_eq!((guard.stats().delivered, guard.stats().depth), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tap_sees_bases_and_unions() {
    let bus = EventBus::new();
    let (_all, mut all) = tap(&bus, |event: &Event<BaseEvent>| event.event_type().to_owned());
    let (_either, mut either) = tap(&bus, |event: &Either| match event {
        Either::Note(event) => event.number,
        Either::Ready(event) => 10 * event.seq(),
    });
    bus.emit(note(1));
    bus.emit(AnswerEvent { number: 2 });
    bus.emit(SessionReadyEvent {});
    assert_eq!(all.so_far(), ["test.note", "test.answer", "session.ready"]);
    assert_eq!(either.so_far(), [1, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_tap_that_panics_becomes_an_exception_and_the_event_goes_on() {
    let bus = EventBus::new();
    let (_exceptions, mut exceptions) = watch(bus.subscription(), |event: &Event<ExceptionEvent>| {
        (event.handler.name.clone(), event.exc.kind.clone(), event.source_type.clone())
    });
    let bad = bus.subscription().name("bad tap").observe(|event: Event<NoteEvent>| {
        assert_ne!(event.number, 1, "refused");
    });
    let (_later, mut later) = tap(&bus, |event: &Event<NoteEvent>| event.number);
    let (_handler, mut handled) = watch(bus.subscription(), |event: &Event<NoteEvent>| event.number);
    bus.emit(note(1));
    bus.emit(note(2));
    assert_eq!(later.so_far(), [1, 2]);
    settle(&bus).await;
    assert_eq!(handled.so_far(), [1, 2]);
    assert_eq!(exceptions.so_far(), [("bad tap".to_owned(), "panic".to_owned(), "test.note".to_owned())]);
    assert_eq!((bad.stats().delivered, bad.stats().failures), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_tap_of_exceptions_that_panics_does_not_answer_itself() {
    let bus = EventBus::new();
    let of_exceptions = bus.observe(|_: Event<ExceptionEvent>| panic!("of an exception"));
    let of_notes = bus.observe(|_: Event<NoteEvent>| panic!("of a note"));
    bus.emit(note(1));
    assert_eq!((of_notes.stats().failures, of_exceptions.stats().failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_tap_that_emits_what_it_observes_comes_to_an_end_and_is_told_of() {
    let bus = EventBus::new();
    let (_lags, mut lags) = watch(bus.subscription(), |event: &Event<SubscriberLaggedEvent>| {
        (event.handler.name.clone(), event.dropped)
    });
    let emitting = bus.clone();
    let echo = bus.subscription().name("echo").observe(move |event: Event<NoteEvent>| {
        emitting.emit(note(event.number + 1));
    });
    bus.emit(note(1));
    let stats = echo.stats();
    assert_eq!(
        (stats.delivered, stats.dropped),
        (16, 1),
        "the seventeenth inside the others is one too many"
    );
    settle(&bus).await;
    assert_eq!(lags.so_far(), [("echo".to_owned(), 1)]);
    bus.emit(note(1));
    assert_eq!(
        (echo.stats().delivered, echo.stats().dropped),
        (32, 2),
        "the next event is observed as before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tap_that_answers_everything_comes_to_an_end() {
    let bus = EventBus::new();
    let emitting = bus.clone();
    let echo = bus.observe(move |_: Event<BaseEvent>| emitting.emit(note(1)));
    bus.emit(note(0));
    assert!(echo.stats().dropped > 0);
    settle(&bus).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_tap_emits_carries_its_cause() {
    let bus = EventBus::new();
    let emitting = bus.clone();
    let _tap = bus.observe(move |event: Event<NoteEvent>| {
        emitting.emit(AnswerEvent { number: event.number });
    });
    let (_answers, mut answers) = tap(&bus, |event: &Event<AnswerEvent>| event.causation_id());
    let (_notes, mut notes) = tap(&bus, |event: &Event<NoteEvent>| event.event_id());
    bus.emit(note(1));
    bus.emit(AnswerEvent { number: 2 });
    assert_eq!(answers.so_far(), [notes.so_far().pop(), None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsubscribing_waits_for_a_tap_that_runs_on_another_thread() {
    let bus = EventBus::new();
    let (reached, mut reach) = log();
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let guard = bus.observe(move |_: Event<NoteEvent>| {
        let _ = reached.send(());
        let _ = gate.lock().expect("nobody panics with it").recv();
    });
    let emitter = std::thread::spawn({
        let bus = bus.clone();
        move || bus.emit(note(1))
    });
    reach.next().await;
    let mut unsubscribed = pin!(guard.unsubscribe());
    assert!(poll!(unsubscribed.as_mut()).is_pending());
    bus.emit(note(2));
    open.send(()).expect("the tap waits for it");
    within(unsubscribed).await;
    emitter.join().expect("it only emits");
    assert_eq!(reach.so_far(), [(); 0], "it was not called again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_unsubscribing_no_tap_runs_however_many_emit() {
    for _ in 0..50 {
        let bus = EventBus::new();
        let calls = Arc::new(AtomicU64::new(0));
        let guard = bus.observe({
            let calls = Arc::clone(&calls);
            move |_: Event<NoteEvent>| {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
        let emitters = [1, 2, 3].map(|number| {
            let bus = bus.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    bus.emit(note(number));
                }
            })
        });
        tokio::task::yield_now().await;
        within(guard.unsubscribe()).await;
        let until_then = calls.load(Ordering::SeqCst);
        for emitter in emitters {
            within(emitter).await.expect("no emitter panics");
        }
        assert_eq!(calls.load(Ordering::SeqCst), until_then);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tap_sees_nothing_while_it_is_muted() {
    let bus = EventBus::new();
    let (guard, mut seen) = tap(&bus, |event: &Event<NoteEvent>| event.number);
    guard.mute();
    bus.emit(note(1));
    guard.unmute();
    bus.emit(note(2));
    bus.mute("test.note");
    bus.emit(note(3));
    bus.unmute("test.note");
    bus.emit(note(4));
    assert_eq!(seen.so_far(), [2, 4]);
    assert_eq!((guard.stats().delivered, guard.stats().muted), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_detached_tap_ends_with_its_session_and_with_the_bus() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (sender, mut seen) = log();
    let host = sender.clone();
    session
        .observe(move |event: Event<NoteEvent>| {
            let _ = sender.send(event.number);
        })
        .detach();
    session.emit(note(1));
    session.close().await;
    session.emit(note(2));
    assert_eq!(seen.so_far(), [1], "the session is closed");
    assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
    assert!(!bus.is_wanted(NoteEvent::event_type()));

    bus.observe(move |event: Event<NoteEvent>| {
        let _ = host.send(event.number);
    })
    .detach();
    bus.emit(note(3));
    bus.shutdown().await;
    bus.emit(note(4));
    assert_eq!(seen.so_far(), [3], "the bus is shut down");
    assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
    drop((session, bus));
    assert!(seen.is_over().await, "the state of the taps is gone too");
}
