//! Handlers that block their thread, and publishers that do.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use antiphon_core::{
    Event, EventBus, Subscription,
    event::bus::{ExceptionEvent, HandlerBlockedEvent},
};

use crate::support::{AnswerEvent, Log, NoteEvent, log, note, settle, watch, within};

/// A handler of notes that keeps its thread until somebody lets it go. It awaits something before if it shall.
struct Blocker {
    guard: Subscription,
    release: mpsc::Sender<()>,
    began: Log<()>,
}

fn blocker(bus: &EventBus, awaits: bool) -> Blocker {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let (sender, began) = log();
    let guard = bus.subscription().name("blocker").subscribe(move |_: Event<NoteEvent>| {
        let (released, sender) = (Arc::clone(&released), sender.clone());
        async move {
            if awaits {
                tokio::task::yield_now().await;
            }
            let _ = sender.send(());
            let waited =
                released.lock().expect("nobody panics with it").recv_timeout(Duration::from_secs(60));
            waited.expect("whoever should let it go does not get on");
        }
    });
    Blocker { guard, release, began }
}

/// Blocks a handler until its shard-mates have got their events and it was told of, twice.
async fn check(awaits: bool) {
    let bus = EventBus::new();
    let (_blocked, mut blocked) = watch(bus.subscription(), |event: &Event<HandlerBlockedEvent>| {
        (event.handler.name.clone(), event.blocked_ms)
    });
    let failures = bus.subscribe(async |_: Event<ExceptionEvent>| ());
    let Blocker { guard, release, mut began } = blocker(&bus, awaits);
    let mates = [(); 20].map(|()| watch(bus.subscription(), |event: &Event<AnswerEvent>| event.number));
    let (_guards, mut mates): (Vec<_>, Vec<_>) = mates.into_iter().unzip();
    for round in 1..=2 {
        bus.emit(note(round));
        began.next().await;
        for number in 0..10 {
            bus.emit(AnswerEvent { number });
            for mate in &mut mates {
                assert_eq!(mate.next().await, number);
            }
        }
        let (name, blocked_ms) = blocked.next().await;
        assert_eq!(name, "blocker");
        assert!(blocked_ms >= 100, "{blocked_ms}");
        release.send(()).expect("the handler waits for it");
        settle(&bus).await;
    }
    assert_eq!(blocked.so_far(), [], "once for each call is enough");
    assert_eq!((guard.stats().delivered, guard.stats().failures, failures.stats().delivered), (2, 0, 0));
    // Now that nobody blocks, everything is as before.
    for number in 0..1_000 {
        bus.emit_wait(AnswerEvent { number }).await;
    }
    settle(&bus).await;
    for mate in &mut mates {
        assert_eq!(mate.so_far(), (0..1_000).collect::<Vec<_>>());
    }
    within(bus.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_shares_the_only_thread_with_a_blocked_handler_moves_on() {
    check(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shares_one_of_two_threads_with_a_blocked_handler_moves_on() {
    check(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_handler_that_blocks_the_only_thread_after_an_await_holds_nobody_up() {
    check(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_one_of_two_threads_after_an_await_holds_nobody_up() {
    check(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_same_batch_as_a_blocked_call_is_handled_after_it() {
    let bus = EventBus::new();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let (sender, mut seen) = log();
    let _guard = bus.subscribe(move |event: Event<NoteEvent>| {
        if event.number == 1 {
            let _ = released.lock().expect("nobody panics with it").recv_timeout(Duration::from_secs(60));
        }
        let _ = sender.send(event.number);
        std::future::ready(())
    });
    let _notice = bus.subscribe(move |_: Event<HandlerBlockedEvent>| {
        let _ = release.send(());
        std::future::ready(())
    });
    for number in 1..=100 {
        bus.emit(note(number));
    }
    settle(&bus).await;
    assert_eq!(seen.so_far(), (1..=100).collect::<Vec<_>>());
}

/// Computes without awaiting anything, on a thread of the runtime, until a handler has been called: once or again and again
/// emitting what it waits for. The bound is far above what it takes; on one processor the system shares the time.
async fn check_spinning(emits_on: bool) {
    for _ in 0..20 {
        let bus = EventBus::new();
        let seen = Arc::new(AtomicBool::new(false));
        let _guard = {
            let seen = Arc::clone(&seen);
            bus.subscribe(move |_: Event<NoteEvent>| {
                seen.store(true, Ordering::Release);
                std::future::ready(())
            })
        };
        let publisher = tokio::spawn(async move {
            tokio::task::yield_now().await;
            bus.emit(note(1));
            let mut turns = 0_u64;
            while !seen.load(Ordering::Acquire) && turns < 20_000_000_000 {
                turns += 1;
                std::hint::spin_loop();
                if turns.is_multiple_of(1_000) && emits_on {
                    bus.emit(note(turns));
                }
            }
            seen.load(Ordering::Acquire)
        });
        assert!(within(publisher).await.expect("it only emits"), "the handler waits for the publisher");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_subscriber_does_not_wait_for_a_publisher_that_emits_once_and_spins() {
    check_spinning(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_subscriber_does_not_wait_for_a_publisher_that_emits_and_spins() {
    check_spinning(true).await;
}
