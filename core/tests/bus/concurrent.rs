//! Subscriptions whose calls may run beside each other.

use std::{pin::pin, time::Duration};

use antiphon_core::{Event, EventBus, event::bus::ExceptionEvent};
use futures_util::poll;

use crate::support::{Gate, NoteEvent, log, note, settle, watch, watch_at_gate, within};

/// Lets all tasks run that can.
async fn rest() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_calls_run_as_were_asked_for_and_never_more() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (guard, mut seen) = watch_at_gate(bus.subscription().concurrent(3), &gate);
    for number in 1..=10 {
        bus.emit(note(number));
    }
    rest().await;
    assert_eq!(seen.so_far(), [1, 2, 3]);
    assert_eq!(guard.stats().depth, 7);
    bus.emit(note(11));
    rest().await;
    assert_eq!(seen.so_far(), [0; 0]);
    gate.open();
    settle(&bus).await;
    assert_eq!(seen.so_far(), (4..=11).collect::<Vec<_>>(), "they begin in order");
    assert_eq!(guard.stats().delivered, 11);
}

#[tokio::test(start_paused = true)]
async fn each_call_that_ends_lets_the_next_begin() {
    let bus = EventBus::new();
    let (began, mut begun) = log();
    let (ended, mut ends) = log();
    let _guard = bus.subscription().concurrent(2).subscribe(move |event: Event<NoteEvent>| {
        let _ = began.send(event.number);
        let ended = ended.clone();
        async move {
            // The first takes as long as all the others together.
            let seconds = if event.number == 1 { 30 } else { 10 };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let _ = ended.send(event.number);
        }
    });
    for number in 1..=4 {
        bus.emit(note(number));
    }
    settle(&bus).await;
    assert_eq!(begun.so_far(), [1, 2, 3, 4]);
    let ends = ends.so_far();
    assert_eq!(ends[..2], [2, 3], "they end in any order");
    assert_eq!(ends.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads_calls_begin_in_order_and_never_too_many_run() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static RUNNING: AtomicU32 = AtomicU32::new(0);

    let bus = EventBus::new();
    let (began, mut begun) = log();
    let (counted, mut counts) = log();
    let guard = bus.subscription().concurrent(3).subscribe(move |event: Event<NoteEvent>| {
        let _ = began.send(event.number);
        let _ = counted.send(RUNNING.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            for _ in 0..event.number % 3 {
                tokio::task::yield_now().await;
            }
            RUNNING.fetch_sub(1, Ordering::SeqCst);
        }
    });
    for number in 0..3_000 {
        bus.emit_wait(note(number)).await;
    }
    settle(&bus).await;
    assert_eq!(begun.so_far(), (0..3_000).collect::<Vec<_>>());
    assert!(counts.so_far().iter().all(|running| (1..=3).contains(running)));
    assert_eq!(guard.stats().delivered, 3_000);
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_take_no_other_with_them() {
    let bus = EventBus::new();
    let (_exceptions, mut exceptions) =
        watch(bus.subscription(), |event: &Event<ExceptionEvent>| event.exc.kind.clone());
    let (ended, mut ends) = log();
    let guard = bus.subscription().concurrent(4).timeout(Duration::from_secs(10)).subscribe(
        move |event: Event<NoteEvent>| {
            let ended = ended.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                match event.number % 4 {
                    0 => std::future::pending().await,
                    1 => panic!("a panic"),
                    2 => return Err(std::io::Error::other("an error")),
                    _ => {}
                }
                let _ = ended.send(event.number);
                Ok(())
            }
        },
    );
    for number in 0..16 {
        bus.emit(note(number));
    }
    settle(&bus).await;
    assert_eq!(ends.so_far(), [3, 7, 11, 15]);
    let mut told = exceptions.so_far();
    told.sort();
    assert_eq!(told, [["error"; 4], ["panic"; 4], ["timeout"; 4]].concat());
    assert_eq!((guard.stats().delivered, guard.stats().failures), (16, 12));
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_waits_for_all_calls_that_run() {
    let bus = EventBus::new();
    let gates = [Gate::new(), Gate::new()];
    let guard = {
        let gates = gates.clone();
        bus.subscription().concurrent(2).subscribe(move |event: Event<NoteEvent>| {
            let gate = gates[usize::from(event.number == 2)].clone();
            async move { gate.pass().await }
        })
    };
    for number in 1..=3 {
        bus.emit(note(number));
    }
    gates[0].reached().await;
    gates[1].reached().await;
    let mut unsubscribed = pin!(guard.unsubscribe());
    assert!(poll!(unsubscribed.as_mut()).is_pending());
    gates[1].open();
    rest().await;
    assert!(poll!(unsubscribed.as_mut()).is_pending(), "one still runs");
    gates[0].open();
    within(unsubscribed).await;
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_all_calls_that_run() {
    let bus = EventBus::new();
    let gates = [Gate::new(), Gate::new()];
    let _guard = {
        let gates = gates.clone();
        bus.subscription().concurrent(2).subscribe(move |event: Event<NoteEvent>| {
            let gate = gates[usize::from(event.number == 2)].clone();
            async move { gate.pass().await }
        })
    };
    bus.emit(note(1));
    bus.emit(note(2));
    gates[0].reached().await;
    gates[1].reached().await;
    gates[0].open();
    assert!(!bus.drain(Duration::from_secs(5)).await, "one still runs");
    gates[1].open();
    assert!(bus.drain(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn closing_the_session_handles_what_waits_before_it_ends() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let guard = session.subscription().concurrent(3).subscribe(async |_: Event<NoteEvent>| {
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    for number in 0..20 {
        session.emit(note(number));
    }
    within(session.close()).await;
    assert_eq!(guard.stats().delivered, 20);
    assert!(bus.subscriptions().is_empty());
}
