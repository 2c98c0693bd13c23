//! Handlers that fail.

use std::{fmt, panic::panic_any, time::Duration};

use antiphon_core::{
    BaseEvent, Event, EventBus, TurnId,
    event::{Stamp, bus::ExceptionEvent},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::support::{Log, NoteEvent, note, settle, watch};

fn exceptions(bus: &EventBus) -> Log<Event<ExceptionEvent>> {
    let (guard, log) = watch(bus.subscription(), Event::<ExceptionEvent>::clone);
    guard.detach();
    log
}

#[derive(Debug, thiserror::Error)]
#[error("no reply")]
struct NoReply(#[source] NoLine);

#[derive(Debug, thiserror::Error)]
#[error("the line is dead")]
struct NoLine(#[source] fmt::Error);

async fn on_note_without_a_line(_: Event<NoteEvent>) -> Result<(), NoReply> {
    Err(NoReply(NoLine(fmt::Error)))
}

#[tokio::test(start_paused = true)]
async fn an_error_becomes_an_exception_that_says_what_where_and_why() {
    let bus = EventBus::new();
    let mut exceptions = exceptions(&bus);
    let guard = bus.subscribe(on_note_without_a_line);
    let here = (file!(), line!() - 1);
    let session = bus.open_session();
    let stamp = Stamp::turn(Some(TurnId(4)));
    let source = session.emit_with(note(1), stamp).envelope.expect("there is a subscriber");

    let exception = exceptions.next().await;
    assert_eq!(exception.exc.kind, "error");
    assert_eq!(exception.exc.message, "no reply");
    assert_eq!(exception.exc.source_chain, ["the line is dead".to_owned(), fmt::Error.to_string()]);
    assert!(exception.handler.name.ends_with("::on_note_without_a_line"), "{}", exception.handler.name);
    let location = format!("{}:{}:", here.0, here.1);
    assert!(exception.handler.location.starts_with(&location), "{}", exception.handler.location);
    assert_eq!(exception.source_type, "test.note");
    assert_eq!(exception.source_event_id, source.base().event_id);
    assert_eq!(exception.causation_id(), Some(source.base().event_id));
    assert_eq!(exception.session_id(), Some(session.id()));
    assert_eq!(exception.turn_id(), Some(TurnId(4)));
    assert_eq!((guard.stats().delivered, guard.stats().failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_name_given_to_the_subscription_stands_in_its_exceptions() {
    let bus = EventBus::new();
    let mut exceptions = exceptions(&bus);
    let _guard = bus.subscription().name("dialler").subscribe(on_note_without_a_line);
    bus.emit(note(1));
    assert_eq!(exceptions.next().await.handler.name, "dialler");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_exception_and_the_next_event_is_handled() {
    let bus = EventBus::new();
    let mut exceptions = exceptions(&bus);
    let guard = bus.subscribe(|event: Event<NoteEvent>| {
        assert_ne!(event.number, 1, "before the first await");
        async move {
            tokio::task::yield_now().await;
            assert_ne!(event.number, 2, "after an await");
            if event.number == 3 {
                panic_any(3_u8);
            }
        }
    });
    for number in 1..=4 {
        bus.emit(note(number));
    }
    settle(&bus).await;
    let seen = exceptions.so_far();
    let messages: Vec<_> =
        seen.iter().map(|event| event.exc.message.lines().next().unwrap_or_default()).collect();
    assert!(seen.iter().all(|event| event.exc.kind == "panic"), "{seen:?}");
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].ends_with("before the first await"), "{messages:?}");
    assert!(messages[1].ends_with("after an await"), "{messages:?}");
    assert_eq!(messages[2], "a panic without a message");
    assert_eq!((guard.stats().delivered, guard.stats().failures), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_stopped_and_is_an_exception() {
    let bus = EventBus::new();
    let mut exceptions = exceptions(&bus);
    let guard =
        bus.subscription().timeout(Duration::from_millis(250)).subscribe(async |event: Event<NoteEvent>| {
            if event.number == 1 {
                std::future::pending::<()>().await;
            }
        });
    bus.emit(note(1));
    bus.emit(note(2));
    let exception = exceptions.next().await;
    assert_eq!(exception.exc.kind, "timeout");
    assert_eq!(exception.exc.message, "the handler was stopped after 250 ms, its timeout");
    settle(&bus).await;
    assert_eq!((guard.stats().delivered, guard.stats().failures), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failing_handler_of_exceptions_does_not_answer_itself() {
    let bus = EventBus::new();
    let of_exceptions =
        bus.subscribe(async |_: Event<ExceptionEvent>| Err::<(), _>(NoReply(NoLine(fmt::Error))));
    let of_everything = bus.subscribe(async |_: Event<BaseEvent>| Err::<(), _>(NoReply(NoLine(fmt::Error))));
    bus.emit(note(1));
    settle(&bus).await;
    // The note fails in one of them; that exception fails in both, and that is all.
    assert_eq!((of_exceptions.stats().failures, of_everything.stats().failures), (1, 2));
}

#[derive(Debug)]
struct PanicsWhenShown;

impl fmt::Display for PanicsWhenShown {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("cannot be shown")
    }
}

impl std::error::Error for PanicsWhenShown {}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_shown_does_not_end_the_subscription() {
    let bus = EventBus::new();
    let mut exceptions = exceptions(&bus);
    let guard = bus.subscribe(async |_: Event<NoteEvent>| Err::<(), _>(PanicsWhenShown));
    bus.emit(note(1));
    bus.emit(note(2));
    settle(&bus).await;
    let messages: Vec<_> = exceptions.so_far().iter().map(|event| event.exc.message.clone()).collect();
    assert_eq!(messages, ["cannot be shown"; 2]);
    assert_eq!(guard.stats().failures, 2);
}

/// Panics when it is dropped.
#[derive(Debug, Default)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the bomb went off");
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.bomb", base = BaseEvent)]
struct BombEvent {
    #[serde(skip)]
    _bomb: Bomb,
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_destructor_panics_does_not_end_the_subscription() {
    let bus = EventBus::new();
    let guard = bus.subscribe(async |_: Event<BombEvent>| tokio::task::yield_now().await);
    bus.emit(BombEvent { _bomb: Bomb });
    bus.emit(BombEvent { _bomb: Bomb });
    settle(&bus).await;
    assert_eq!(guard.stats().delivered, 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_whose_payload_panics_when_dropped_does_not_end_the_subscription() {
    let bus = EventBus::new();
    let mut exceptions = exceptions(&bus);
    let guard = bus.subscribe(async |_: Event<NoteEvent>| -> () { panic_any(Bomb) });
    bus.emit(note(1));
    bus.emit(note(2));
    settle(&bus).await;
    assert_eq!(exceptions.so_far().len(), 2);
    assert_eq!(guard.stats().failures, 2);
}
