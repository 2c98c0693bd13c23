//! Subscriptions and event types that are muted, and handlers that are suspended because they fail.

use antiphon_core::{
    BaseEvent, Event, EventBus,
    event::{
        EventPayload, Stamp,
        bus::{ExceptionEvent, SubscriptionSuspendedEvent},
    },
};

use crate::support::{AnswerEvent, Gate, Log, NoteEvent, note, number, settle, watch, watch_at_gate};

#[tokio::test(start_paused = true)]
async fn a_muted_subscription_counts_what_it_does_not_get() {
    let bus = EventBus::new();
    let (guard, mut seen) = watch(bus.subscription(), number);
    let (_other, mut other) = watch(bus.subscription(), |event: &Event<NoteEvent>| event.seq());
    bus.emit(note(1));
    guard.mute();
    bus.emit(note(2));
    bus.emit_wait(note(3)).await;
    guard.unmute();
    bus.emit(note(4));
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1, 4], "what waited is still handled");
    assert_eq!(other.so_far(), [1, 2, 3, 4], "others get it, and it is numbered");
    assert_eq!((guard.stats().delivered, guard.stats().muted), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_muted_type_is_neither_delivered_nor_numbered() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (guard, mut seen) = watch(bus.subscription(), |event: &Event<NoteEvent>| event.seq());
    let answers = bus.subscribe(async |_: Event<AnswerEvent>| ());
    session.emit(note(1));
    bus.mute("test.note");
    session.emit(note(2));
    assert!(session.emit_with(note(3), Stamp::default()).envelope.is_none(), "it was not accepted");
    session.emit(AnswerEvent { number: 4 });
    bus.unmute("test.note");
    session.emit(note(5));
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1, 3], "the answer between them is the second");
    assert_eq!((guard.stats().muted, answers.stats().muted), (2, 0));
    assert!(bus.is_wanted(NoteEvent::event_type()));
}

#[tokio::test(start_paused = true)]
async fn a_prefix_and_everything_can_be_muted() {
    let bus = EventBus::new();
    let (guard, mut seen) =
        watch(bus.subscription(), |event: &Event<BaseEvent>| event.event_type().to_owned());
    bus.mute("test.*");
    bus.emit(note(1));
    bus.emit(AnswerEvent { number: 1 });
    bus.emit(antiphon_core::event::session::SessionReadyEvent {});
    bus.mute("*");
    bus.emit(antiphon_core::event::session::SessionReadyEvent {});
    bus.unmute("test.*");
    bus.emit(note(2));
    bus.unmute("*");
    bus.emit(note(3));
    settle(&bus).await;
    assert_eq!(seen.so_far(), ["session.ready", "test.note"]);
    assert_eq!(guard.stats().muted, 4);
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_type_is_muted_is_still_handled() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (_guard, mut seen) = watch_at_gate(bus.subscription(), &gate);
    bus.emit(note(1));
    bus.emit(note(2));
    gate.reached().await;
    bus.mute("test.note");
    bus.emit(note(3));
    gate.open();
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1, 2]);
}

/// Who was suspended after how many failures.
fn suspensions(bus: &EventBus) -> Log<(String, u32)> {
    let (guard, log) = watch(bus.subscription(), |event: &Event<SubscriptionSuspendedEvent>| {
        (event.handler.name.clone(), event.failures)
    });
    guard.detach();
    log
}

/// Fails with odd numbers.
async fn on_odd(event: Event<NoteEvent>) -> Result<(), std::io::Error> {
    if event.number.is_multiple_of(2) { Ok(()) } else { Err(std::io::Error::other("odd")) }
}

#[tokio::test(start_paused = true)]
async fn so_many_failures_in_a_row_suspend_a_subscription_once() {
    let bus = EventBus::new();
    let mut suspensions = suspensions(&bus);
    let guard = bus.subscription().name("flaky").suspend_after(3).subscribe(on_odd);
    for number in [1, 3, 4, 5, 7] {
        bus.emit(note(number));
    }
    settle(&bus).await;
    assert_eq!(suspensions.so_far(), [], "a success in between counts");
    bus.emit(note(9));
    settle(&bus).await;
    assert_eq!(suspensions.so_far(), [("flaky".to_owned(), 3)]);
    bus.emit(note(10));
    bus.emit(note(11));
    settle(&bus).await;
    let stats = guard.stats();
    assert_eq!((stats.delivered, stats.failures, stats.muted), (6, 5, 2));
    assert_eq!(suspensions.so_far(), []);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_subscription_can_be_resumed_and_suspended_again() {
    let bus = EventBus::new();
    let mut suspensions = suspensions(&bus);
    let guard = bus.subscription().name("flaky").suspend_after(2).subscribe(on_odd);
    for round in 1..=3 {
        for number in [1, 3, 2] {
            bus.emit(note(number));
            settle(&bus).await;
        }
        assert_eq!(suspensions.so_far(), [("flaky".to_owned(), 2)]);
        assert_eq!((guard.stats().failures, guard.stats().muted), (2 * round, round));
        guard.unmute();
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_tap_can_be_suspended_too() {
    let bus = EventBus::new();
    let mut suspensions = suspensions(&bus);
    let guard =
        bus.subscription().name("tap").suspend_after(2).observe(|_: Event<NoteEvent>| panic!("always"));
    for number in 1..=5 {
        bus.emit(note(number));
    }
    settle(&bus).await;
    assert_eq!(suspensions.so_far(), [("tap".to_owned(), 2)]);
    assert_eq!((guard.stats().failures, guard.stats().muted), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_suspended_who_did_not_ask_for_it() {
    let bus = EventBus::new();
    let mut suspensions = suspensions(&bus);
    let exceptions = bus.subscribe(async |_: Event<ExceptionEvent>| ());
    let guard = bus.subscribe(on_odd);
    for _ in 0..500 {
        bus.emit(note(1));
    }
    settle(&bus).await;
    assert_eq!((guard.stats().failures, exceptions.stats().delivered), (500, 500));
    assert_eq!(suspensions.so_far(), []);
}
