//! In which order events are seen, and who waits for whom.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use antiphon_core::{BaseEvent, Event, EventBus, SessionBus};

use crate::support::{AnswerEvent, Gate, Log, NoteEvent, note, number, settle, watch, watch_at_gate, within};

const PUBLISHERS: u64 = 4;
const EVENTS_EACH: u64 = 500;

/// Publisher and number of each note, and its place in the session.
fn place(event: &Event<NoteEvent>) -> (u64, u64, u64) {
    (event.number / EVENTS_EACH, event.number % EVENTS_EACH, event.seq())
}

/// Starts the publishers of one session, each on a task of its own, and waits for their end.
async fn publish(session: &SessionBus) {
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let session = session.clone();
        tokio::spawn(async move {
            for count in 0..EVENTS_EACH {
                session.emit_wait(note(publisher * EVENTS_EACH + count)).await;
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        within(publisher).await.expect("no publisher panics");
    }
}

#[track_caller]
fn check_order(log: &mut Log<(u64, u64, u64)>) {
    let seen = log.so_far();
    let seqs: Vec<u64> = seen.iter().map(|(_, _, seq)| *seq).collect();
    assert_eq!(seqs, (1..=PUBLISHERS * EVENTS_EACH).collect::<Vec<_>>(), "`seq` in order and without gaps");
    for wanted in 0..PUBLISHERS {
        let of_publisher = seen.iter().filter(|(publisher, ..)| *publisher == wanted);
        assert!(of_publisher.map(|(_, count, _)| *count).eq(0..EVENTS_EACH), "publisher {wanted} in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_subscription_sees_each_session_in_order_and_without_gaps() {
    let bus = EventBus::new();
    let sessions = [bus.open_session(), bus.open_session()];
    let mut logs = Vec::new();
    for session in &sessions {
        // Queues from far too small to ample.
        for capacity in [1, 64, 10_000] {
            logs.push(watch(session.subscription().capacity(capacity), place));
        }
    }
    let everywhere = bus.subscription().capacity(2).subscribe(async |_: Event<NoteEvent>| ());
    tokio::join!(publish(&sessions[0]), publish(&sessions[1]));
    settle(&bus).await;
    for (guard, log) in &mut logs {
        check_order(log);
        assert_eq!(guard.stats().dropped, 0);
    }
    assert_eq!(everywhere.stats().delivered, 2 * PUBLISHERS * EVENTS_EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn time_does_not_go_back_within_a_session_however_many_emit() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (_guard, mut log) =
        watch(session.subscription().capacity(10_000), |event: &Event<NoteEvent>| event.mono_ns());
    publish(&session).await;
    settle(&bus).await;
    let times = log.so_far();
    assert_eq!(times.len() as u64, PUBLISHERS * EVENTS_EACH);
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_never_overlaps_itself() {
    static RUNNING: AtomicBool = AtomicBool::new(false);
    let bus = EventBus::new();
    let guard = bus.subscription().capacity(8).subscribe(async |_: Event<NoteEvent>| {
        assert!(!RUNNING.swap(true, Ordering::AcqRel), "two calls at a time");
        tokio::task::yield_now().await;
        RUNNING.store(false, Ordering::Release);
    });
    publish(&bus.open_session()).await;
    settle(&bus).await;
    assert_eq!((guard.stats().delivered, guard.stats().failures), (PUBLISHERS * EVENTS_EACH, 0));
}

#[tokio::test(start_paused = true)]
async fn sessions_and_the_host_count_on_their_own() {
    let bus = EventBus::new();
    let (_guard, mut seen) =
        watch(bus.subscription(), |event: &Event<BaseEvent>| (event.session_id(), event.seq()));
    let (one, two) = (bus.open_session(), bus.open_session());
    one.emit(note(0));
    two.emit(note(0));
    bus.emit(note(0));
    one.emit(note(0));
    settle(&bus).await;
    let (one, two) = (Some(one.id()), Some(two.id()));
    assert_eq!(seen.so_far(), [(one, 1), (two, 1), (None, 1), (one, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_handler_delays_nobody_else() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (_stuck, mut stuck) = watch_at_gate(bus.subscription().capacity(1), &gate);
    let (_free, mut free) = watch(bus.subscription(), number);
    bus.emit(note(0));
    gate.reached().await;
    for number in 1..100 {
        bus.emit(note(number));
    }
    // Its emitter waits for the stuck one, and yet the event is delivered.
    let mut patient = Box::pin(bus.emit_wait(note(100)));
    assert!(futures_util::poll!(patient.as_mut()).is_pending());
    for number in 0..=100 {
        assert_eq!(free.next().await, number);
    }
    gate.open();
    within(patient).await;
    settle(&bus).await;
    assert_eq!(stuck.so_far(), [0, 1, 100]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_waits_lets_other_tasks_run() {
    const ROUNDS: u64 = 100_000;
    let bus = EventBus::new();
    let rounds = Arc::new(AtomicU64::new(0));
    let guard = {
        let (bus, rounds) = (bus.clone(), Arc::clone(&rounds));
        bus.clone().subscribe(move |event: Event<AnswerEvent>| {
            rounds.store(event.number, Ordering::Relaxed);
            if event.number < ROUNDS {
                bus.emit(AnswerEvent { number: event.number + 1 });
            }
            std::future::ready(())
        })
    };
    bus.emit(AnswerEvent { number: 1 });
    let other = tokio::spawn(async move { rounds.load(Ordering::Relaxed) });
    let after = other.await.expect("it only reads a number");
    assert!(after < ROUNDS, "the other task had to wait for the end of all {after} rounds");
    guard.unsubscribe().await;
}
