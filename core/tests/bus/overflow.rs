//! Full queues: what is lost, who is told, and who waits.

use std::sync::Arc;

use antiphon_core::{
    BaseEvent, Event, EventBus, EventUnion, SessionBus, Subscription,
    bus::{PluginEmission, TryEmitError},
    event::{EventPayload, Overflow, Stamp, bus::SubscriberLaggedEvent, turn::TurnStartedEvent},
};
use futures_util::poll;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::support::{Gate, Log, NoteEvent, note, plugin, settle, watch, watch_at_gate, within};

/// What was lost, by subscription.
fn lags(bus: &EventBus) -> Log<(String, u64)> {
    let read = |event: &Event<SubscriberLaggedEvent>| (event.handler.name.clone(), event.dropped);
    let (guard, log) = watch(bus.subscription(), read);
    guard.detach();
    log
}

/// A handler that stands at the gate with note 0, so that its queue of three fills with what follows.
async fn stuck(bus: &EventBus, overflow: Option<Overflow>) -> (Arc<Gate>, Subscription, Log<u64>) {
    let gate = Gate::new();
    let mut builder = bus.subscription().name("stuck").capacity(3);
    if let Some(overflow) = overflow {
        builder = builder.overflow(overflow);
    }
    let (guard, log) = watch_at_gate(builder, &gate);
    bus.emit(note(0));
    gate.reached().await;
    (gate, guard, log)
}

/// Emits ten notes at a stuck handler with a queue of three; of these, `want` are handled.
async fn check(overflow: Option<Overflow>, want: &[u64], dropped: u64) {
    let bus = EventBus::new();
    let mut lags = lags(&bus);
    let (gate, guard, mut seen) = stuck(&bus, overflow).await;
    let session = bus.open_session();
    let lost: usize = (1..=10).map(|number| session.emit_with(note(number), Stamp::default()).lost).sum();
    assert_eq!((guard.stats().depth, guard.stats().dropped), (3, dropped), "{overflow:?}");
    assert_eq!(lost as u64, dropped, "{overflow:?}");
    gate.open();
    settle(&bus).await;
    assert_eq!(seen.so_far(), want, "{overflow:?}");
    // The first loss at once, the others when the handler goes on.
    let told: Vec<u64> = lags.so_far().into_iter().map(|(_, dropped)| dropped).collect();
    assert_eq!((told[0], told.iter().sum::<u64>()), (1, dropped), "{overflow:?}: {told:?}");
    assert!(told.len() <= 2, "{overflow:?}: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_does_what_its_policy_says_and_tells_what_was_lost() {
    check(None, &[0, 1, 2, 3], 7).await;
    check(Some(Overflow::Wait), &[0, 1, 2, 3], 7).await;
    check(Some(Overflow::DropNewest), &[0, 1, 2, 3], 7).await;
    check(Some(Overflow::DropOldest), &[0, 8, 9, 10], 7).await;
    check(Some(Overflow::Disconnect), &[0, 1, 2, 3], 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_subscription_is_on_no_list_any_more() {
    let bus = EventBus::new();
    let (gate, guard, mut seen) = stuck(&bus, Some(Overflow::Disconnect)).await;
    guard.detach();
    for number in 1..=5 {
        bus.emit(note(number));
    }
    gate.open();
    assert_eq!([seen.next().await, seen.next().await, seen.next().await, seen.next().await], [0, 1, 2, 3]);
    assert!(seen.is_over().await);
    settle(&bus).await;
    assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
    assert!(!bus.is_wanted(NoteEvent::event_type()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fell_behind_is_told_of_too() {
    let bus = EventBus::new();
    let mut lags = lags(&bus);
    let mut stream = bus.subscription().name("slow").capacity(2).stream::<Event<NoteEvent>>();
    for number in 1..=5 {
        bus.emit(note(number));
    }
    assert_eq!(lags.next().await, ("slow".to_owned(), 1));
    assert_eq!(stream.recv().await.map(|event| event.number), Some(1));
    assert_eq!(lags.next().await, ("slow".to_owned(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_stuck_for_ever_is_told_of() {
    let bus = EventBus::new();
    let mut lags = lags(&bus);
    let (_gate, _guard, _seen) = stuck(&bus, None).await;
    for number in 1..=100 {
        bus.emit(note(number));
    }
    assert_eq!(lags.next().await, ("stuck".to_owned(), 1));
    tokio::task::yield_now().await;
    assert_eq!(lags.so_far(), [], "once is enough");
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_subscription_of_a_session_is_told_in_the_session() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let read = |event: &Event<SubscriberLaggedEvent>| (event.session_id(), event.dropped);
    let (_guard, mut lags) = watch(session.subscription(), read);
    let _slow = session.subscription().capacity(1).stream::<Event<NoteEvent>>();
    session.emit(note(1));
    session.emit(note(2));
    assert_eq!(lags.next().await, (Some(session.id()), 1));
}

#[tokio::test(start_paused = true)]
async fn a_lag_notice_that_is_lost_calls_for_no_other() {
    let bus = EventBus::new();
    let mut stream = bus.subscription().capacity(1).stream::<Event<BaseEvent>>();
    bus.emit(note(1));
    bus.emit(note(2));
    assert_eq!(stream.stats().dropped, 2, "the note, and the notice of it");
    assert_eq!(stream.recv().await.map(|event| event.event_type().to_owned()).as_deref(), Some("test.note"));
    assert!(poll!(Box::pin(stream.recv())).is_pending());
    assert_eq!(stream.stats().dropped, 2);
}

#[tokio::test(start_paused = true)]
async fn emit_wait_waits_until_there_is_room_again() {
    let bus = EventBus::new();
    let (gate, guard, mut seen) = stuck(&bus, None).await;
    for number in 1..=3 {
        let mut emitted = Box::pin(bus.emit_wait(note(number)));
        assert!(poll!(emitted.as_mut()).is_ready(), "there is room for {number}");
    }
    let mut emitted = Box::pin(bus.emit_wait(note(4)));
    assert!(poll!(emitted.as_mut()).is_pending());
    assert_eq!(guard.stats().depth, 4, "the event itself is in the queue, and in its place");
    bus.emit(note(5));
    assert_eq!(guard.stats().dropped, 1, "whoever does not wait finds the queue full");
    gate.open();
    within(emitted).await;
    settle(&bus).await;
    assert_eq!(seen.so_far(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn emit_wait_waits_for_no_subscription_that_may_lose_events() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Disconnect] {
        let bus = EventBus::new();
        let (gate, _guard, _seen) = stuck(&bus, Some(overflow)).await;
        for number in 1..=9 {
            assert!(poll!(Box::pin(bus.emit_wait(note(number)))).is_ready(), "{overflow:?}");
        }
        gate.open();
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_emitters_wait_nothing_is_lost_and_the_queue_stays_bounded() {
    let bus = EventBus::new();
    let (gate, guard, mut seen) = stuck(&bus, None).await;
    let emitters: Vec<_> = (1..=50)
        .map(|number| {
            let bus = bus.clone();
            tokio::spawn(async move { bus.emit_wait(note(number)).await })
        })
        .collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(guard.stats().depth, 6, "twice the capacity");
    gate.open();
    for emitter in emitters {
        within(emitter).await.expect("no emitter panics");
    }
    settle(&bus).await;
    let mut seen = seen.so_far();
    seen.sort_unstable();
    assert_eq!(seen, (0..=50).collect::<Vec<_>>());
    assert_eq!(guard.stats().dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_a_stuck_handler_and_what_does_not_fit_is_told() {
    let bus = EventBus::new();
    let mut lags = lags(&bus);
    let (gate, guard, mut seen) = stuck(&bus, None).await;
    let (_other, mut other) = watch(bus.subscription(), |event: &Event<NoteEvent>| event.number);
    for number in 1..=20 {
        within(bus.emit_wait(note(number))).await;
        assert_eq!(other.next().await, number);
    }
    assert_eq!((guard.stats().depth, guard.stats().dropped), (6, 14), "twice the capacity is kept");
    assert_eq!(lags.next().await, ("stuck".to_owned(), 1));
    // As soon as it goes on, it is waited for again.
    gate.open();
    settle(&bus).await;
    for number in 21..=40 {
        bus.emit_wait(note(number)).await;
    }
    settle(&bus).await;
    assert_eq!(seen.so_far(), (0..=6).chain(21..=40).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_that_gets_one_after_the_other_done_is_not_stuck() {
    let bus = EventBus::new();
    // So slow that a whole batch takes it far longer than a stuck handler is waited for.
    let guard = bus.subscription().capacity(20).subscribe(async |_: Event<NoteEvent>| {
        tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    });
    for number in 0..100 {
        bus.emit_wait(note(number)).await;
    }
    assert!(bus.drain(std::time::Duration::from_secs(600)).await);
    assert_eq!((guard.stats().delivered, guard.stats().dropped), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn emitters_that_give_up_waiting_do_not_fill_the_memory() {
    let bus = EventBus::new();
    let (gate, guard, mut seen) = stuck(&bus, None).await;
    for number in 1..=1000 {
        let _ = poll!(Box::pin(bus.emit_wait(note(number))));
    }
    assert_eq!(guard.stats().depth, 6);
    gate.open();
    settle(&bus).await;
    assert_eq!(seen.so_far(), (0..=6).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_floods_itself_loses_events_rather_than_wait_for_itself() {
    let bus = EventBus::new();
    let mut lags = lags(&bus);
    let guard = {
        let session = bus.open_session();
        let builder = bus.subscription().name("flood").capacity(2);
        builder.subscribe(move |event: Event<NoteEvent>| {
            let session = session.clone();
            async move {
                for _ in 0..if event.number == 0 { 10 } else { 0 } {
                    session.emit_wait(note(1)).await;
                }
            }
        })
    };
    bus.emit(note(0));
    settle(&bus).await;
    assert_eq!((guard.stats().delivered, guard.stats().dropped), (5, 6), "twice the capacity is kept");
    assert_eq!(lags.so_far(), [("flood".to_owned(), 1), ("flood".to_owned(), 5)]);
}

fn try_turn(session: &SessionBus) -> Result<bool, TryEmitError> {
    let payload = rmp_serde::to_vec_named(&TurnStartedEvent { confidence: 1.0 }).expect("plain values");
    let emitted = session.try_emit_plugin(&PluginEmission {
        event: TurnStartedEvent::event_type(),
        payload: &payload,
        plugin: &plugin(),
        turn_id: None,
        causation_id: None,
        emitted_at: None,
        always: false,
    });
    emitted.map(|envelope| envelope.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_plugin_is_told_to_try_again_when_there_is_room() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let mut stream = bus.subscription().capacity(1).stream::<Event<TurnStartedEvent>>();
    assert!(matches!(try_turn(&session), Ok(true)));
    assert!(matches!(try_turn(&session), Err(TryEmitError::Full)));
    let mut room = Box::pin(session.wait_for_room(TurnStartedEvent::event_type()));
    assert!(poll!(room.as_mut()).is_pending());
    assert!(stream.recv().await.is_some());
    within(room).await;
    assert!(matches!(try_turn(&session), Ok(true)));
    assert_eq!(stream.stats().dropped, 0);
}

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.fatal", base = BaseEvent, overflow = Disconnect)]
struct FatalEvent {}

#[derive(EventUnion)]
enum NoteOrFatal {
    Note(Event<NoteEvent>),
    Fatal(Event<FatalEvent>),
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_room_in_a_queue_that_was_disconnected() {
    let bus = EventBus::new();
    let mut stream = bus.subscription().capacity(1).stream::<NoteOrFatal>();
    bus.emit_wait(note(1)).await;
    let emitter = tokio::spawn({
        let bus = bus.clone();
        async move { bus.emit_wait(note(2)).await }
    });
    tokio::task::yield_now().await;
    bus.emit(FatalEvent {});
    within(emitter).await.expect("it only emits");
    let mut numbers = Vec::new();
    while let Some(event) = stream.recv().await {
        numbers.push(match event {
            NoteOrFatal::Note(event) => event.number,
            NoteOrFatal::Fatal(event) => panic!("{event:?} did not fit"),
        });
    }
    assert_eq!(numbers, [1, 2]);
}
