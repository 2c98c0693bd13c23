//! Handlers, and destructors of events, that act on the bus.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
};

use antiphon_core::{
    BaseEvent, Event, EventBus, SessionBus, Subscription, TurnId,
    event::{Overflow, Stamp},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;

use crate::support::{AnswerEvent, Gate, NoteEvent, log, note, number, settle, watch, within};

type Action = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Subscribes a handler of notes that does `act`, then logs that it has.
fn when_noted(
    session: &SessionBus,
    act: impl Fn(SessionBus) -> Action + Send + Sync + 'static,
) -> (Subscription, crate::support::Log<u64>) {
    let (done, log) = log();
    let weak = session.clone();
    let guard = session.subscribe(move |event: Event<NoteEvent>| {
        let (acting, done) = (act(weak.clone()), done.clone());
        async move {
            acting.await;
            let _ = done.send(event.number);
        }
    });
    (guard, log)
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_emit_and_subscribe() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (subscribed, mut seen) = log();
    let (_guard, mut done) = when_noted(&session, move |session| {
        let subscribed = subscribed.clone();
        Box::pin(async move {
            let read = |event: &Event<AnswerEvent>| event.number;
            let (guard, mut answers) = watch(session.subscription(), read);
            session.emit(AnswerEvent { number: 1 });
            session.emit_wait(AnswerEvent { number: 2 }).await;
            let _ = subscribed.send([answers.next().await, answers.next().await]);
            guard.detach();
        })
    });
    session.emit(note(1));
    assert_eq!(done.next().await, 1);
    assert_eq!(seen.so_far(), [[1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_end_its_own_subscription_and_that_call_is_the_last() {
    let bus = EventBus::new();
    let guard: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let (handled, mut seen) = log();
    let subscription = {
        let guard = Arc::clone(&guard);
        bus.subscribe(move |event: Event<NoteEvent>| {
            let (guard, handled) = (Arc::clone(&guard), handled.clone());
            async move {
                let own = guard.lock().expect("nobody panics with it").take();
                own.expect("called once").unsubscribe().await;
                let _ = handled.send(event.number);
            }
        })
    };
    *guard.lock().expect("nobody panics with it") = Some(subscription);
    bus.emit(note(1));
    bus.emit(note(2));
    assert_eq!(seen.next().await, 1);
    assert!(seen.is_over().await);
    assert!(bus.subscriptions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_end_another_subscription_and_waits_for_its_running_call() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let gate = Gate::new();
    let (other, mut seen) = crate::support::watch_at_gate(bus.subscription(), &gate);
    let other = Arc::new(Mutex::new(Some(other)));
    let (_guard, mut done) = when_noted(&session, move |_| {
        let other = other.lock().expect("nobody panics with it").take();
        Box::pin(async move { other.expect("called once").unsubscribe().await })
    });
    session.emit(note(1));
    gate.reached().await;
    assert_eq!(done.so_far(), [0; 0]);
    gate.open();
    assert_eq!(done.next().await, 1);
    assert_eq!(seen.so_far(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_close_its_session_and_shut_the_bus_down() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (_guard, mut done) = when_noted(&session, |session| {
        Box::pin(async move {
            session.close().await;
            session.bus().shutdown().await;
        })
    });
    let (_other, mut seen) = watch(session.subscription(), number);
    session.emit(note(1));
    session.emit(note(2));
    assert_eq!([done.next().await, done.next().await], [1, 2], "what waited is handled");
    assert!(done.is_over().await);
    assert_eq!(seen.so_far(), [1, 2]);
    within(bus.shutdown()).await;
}

/// Two handlers meet, so that both are running, and then do the same.
async fn check_both(act: fn(SessionBus) -> Action) {
    let bus = EventBus::new();
    let session = bus.open_session();
    let meeting = Arc::new(Barrier::new(2));
    let [(_one, mut one), (_two, mut two)] = [(), ()].map(|()| {
        let meeting = Arc::clone(&meeting);
        when_noted(&session, move |session| {
            let meeting = Arc::clone(&meeting);
            Box::pin(async move {
                meeting.wait().await;
                act(session).await;
            })
        })
    });
    session.emit(note(1));
    assert_eq!((one.next().await, two.next().await), (1, 1));
    assert!(one.is_over().await && two.is_over().await);
}

#[tokio::test(start_paused = true)]
async fn handlers_that_all_end_the_session_or_the_bus_do_not_wait_for_each_other() {
    check_both(|session| Box::pin(async move { session.close().await })).await;
    check_both(|session| Box::pin(async move { session.bus().shutdown().await })).await;
}

#[tokio::test(start_paused = true)]
async fn handlers_that_unsubscribe_each_other_do_not_wait_for_each_other() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let meeting = Arc::new(Barrier::new(2));
    let guards: Arc<[Mutex<Option<Subscription>>; 2]> = Arc::default();
    let mut logs = Vec::new();
    for own in [0, 1] {
        let (meeting, others) = (Arc::clone(&meeting), Arc::clone(&guards));
        let (guard, log) = when_noted(&session, move |_| {
            let (meeting, others) = (Arc::clone(&meeting), Arc::clone(&others));
            Box::pin(async move {
                meeting.wait().await;
                let other = others[1 - own].lock().expect("nobody panics with it").take();
                other.expect("each is taken once").unsubscribe().await;
            })
        });
        *guards[own].lock().expect("nobody panics with it") = Some(guard);
        logs.push(log);
    }
    session.emit(note(1));
    for log in &mut logs {
        assert_eq!(log.next().await, 1);
        assert!(log.is_over().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_shuts_another_bus_down_waits_for_all_of_that_bus() {
    // Both subscriptions are the first of their bus.
    let (own, other) = (EventBus::new(), EventBus::new());
    let gate = Gate::new();
    let (_other_guard, mut seen) = crate::support::watch_at_gate(other.subscription(), &gate);
    other.emit(note(1));
    gate.reached().await;
    let (_guard, mut done) = {
        let (sender, done) = log();
        let other = other.clone();
        let guard = own.subscribe(move |_: Event<NoteEvent>| {
            let (other, sender) = (other.clone(), sender.clone());
            async move {
                other.shutdown().await;
                let _ = sender.send(());
            }
        });
        (guard, done)
    };
    own.emit(note(1));
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert_eq!(done.so_far(), [(); 0], "the handler of the other bus is still running");
    gate.open();
    done.next().await;
    assert!(seen.so_far() == [1] && seen.is_over().await);
}

#[tokio::test(start_paused = true)]
async fn handlers_that_answer_each_other_through_full_queues_do_not_wait_for_each_other() {
    const ROUNDS: u64 = 1_000;
    let bus = EventBus::new();
    let session = bus.open_session();
    let ping = {
        let session = session.clone();
        session.clone().subscription().capacity(1).subscribe(move |event: Event<NoteEvent>| {
            let session = session.clone();
            async move { session.emit_wait(AnswerEvent { number: event.number }).await }
        })
    };
    let pong = {
        let session = session.clone();
        session.clone().subscription().capacity(1).subscribe(move |event: Event<AnswerEvent>| {
            let session = session.clone();
            async move {
                if event.number < ROUNDS {
                    session.emit_wait(note(event.number + 2)).await;
                }
            }
        })
    };
    // Two balls, so that each finds the other's queue occupied.
    session.emit_wait(note(1)).await;
    session.emit_wait(note(2)).await;
    settle(&bus).await;
    assert_eq!((ping.stats().delivered, ping.stats().dropped), (ROUNDS + 1, 0));
    assert_eq!((pong.stats().delivered, pong.stats().dropped), (ROUNDS + 1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_emits_carries_its_cause_and_its_turn() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let other_cause = uuid::Uuid::from_u128(7);
    let _guard = {
        let session = session.clone();
        session.clone().subscribe(move |event: Event<NoteEvent>| {
            let session = session.clone();
            async move {
                tokio::task::yield_now().await;
                session.emit(AnswerEvent { number: event.number });
                session.bus().emit(AnswerEvent { number: event.number });
                let own =
                    Stamp { turn_id: Some(TurnId(9)), causation_id: Some(other_cause), ..Stamp::default() };
                let _ = session.emit_with(AnswerEvent { number: event.number }, own);
            }
        })
    };
    let (_answers, mut answers) =
        watch(bus.subscription(), |event: &Event<AnswerEvent>| (event.causation_id(), event.turn_id()));
    let caused =
        session.emit_with(note(1), Stamp::turn(Some(TurnId(3)))).envelope.expect("there is a handler");
    let cause = Some(caused.base().event_id);
    settle(&bus).await;
    assert_eq!(
        answers.so_far(),
        [(cause, Some(TurnId(3))), (cause, Some(TurnId(3))), (Some(other_cause), Some(TurnId(9)))]
    );
    assert_eq!(caused.base().causation_id, None, "the first of the chain has no cause");
}

/// Emits an answer when it is dropped.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.last_words", base = BaseEvent)]
struct LastWordsEvent {
    #[serde(skip)]
    bus: OnceLock<EventBus>,
}

impl Drop for LastWordsEvent {
    fn drop(&mut self) {
        if let Some(bus) = self.bus.get() {
            bus.emit(AnswerEvent { number: 1 });
            let _ = bus.subscribe(async |_: Event<NoteEvent>| ());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_may_emit_when_it_is_dropped_wherever_that_is() {
    let bus = EventBus::new();
    let (_answers, mut answers) = watch(bus.subscription(), |event: &Event<AnswerEvent>| event.number);
    let last_words = || LastWordsEvent { bus: OnceLock::from(bus.clone()) };
    bus.emit(last_words());
    settle(&bus).await;
    assert_eq!(answers.so_far(), [1], "unwanted");

    let handler = bus.subscribe(async |_: Event<LastWordsEvent>| ());
    bus.emit(last_words());
    settle(&bus).await;
    assert_eq!(answers.so_far(), [1], "handled");
    handler.unsubscribe().await;

    let builder = bus.subscription().capacity(1).overflow(Overflow::DropOldest);
    let stream = builder.stream::<Event<LastWordsEvent>>();
    bus.emit(last_words());
    bus.emit(last_words());
    settle_all_but_streams(&mut answers, "pushed out").await;
    drop(stream);
    settle(&bus).await;
    assert_eq!(answers.so_far(), [1], "given up with its subscription");

    let session = bus.open_session();
    let stream = session.stream::<Event<LastWordsEvent>>();
    session.emit(last_words());
    session.close().await;
    drop((session, stream));
    settle(&bus).await;
    assert_eq!(answers.so_far(), [1], "given up with its session");
}

async fn settle_all_but_streams(answers: &mut crate::support::Log<u64>, when: &str) {
    assert_eq!(answers.next().await, 1, "{when}");
    tokio::task::yield_now().await;
    assert_eq!(answers.so_far(), [0; 0], "{when}");
}
