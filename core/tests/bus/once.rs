//! Subscriptions for one event.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use antiphon_core::{
    BaseEvent, Event, EventBus,
    event::{EventPayload, bus::ExceptionEvent},
};

use crate::support::{AnswerEvent, NoteEvent, log, note, settle, watch, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_for_one_event_is_called_once_however_many_threads_emit() {
    for _ in 0..50 {
        let bus = EventBus::new();
        let calls = Arc::new(AtomicU64::new(0));
        let guard = {
            let calls = Arc::clone(&calls);
            bus.once(move |_: Event<NoteEvent>| {
                let calls = Arc::clone(&calls);
                async move {
                    tokio::task::yield_now().await;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let emitters = [1, 2, 3, 4].map(|number| {
            let bus = bus.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    bus.emit_wait(note(number)).await;
                }
            })
        });
        for emitter in emitters {
            within(emitter).await.expect("no emitter panics");
        }
        settle(&bus).await;
        assert_eq!((calls.load(Ordering::Relaxed), guard.stats().delivered), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_for_one_event_ends_by_itself() {
    let bus = EventBus::new();
    let (sender, mut seen) = log();
    bus.once(move |event: Event<NoteEvent>| {
        let _ = sender.send(event.number);
        std::future::ready(())
    })
    .detach();
    bus.emit(note(1));
    bus.emit(note(2));
    assert_eq!(seen.next().await, 1);
    assert!(seen.is_over().await, "the handler is gone, and was not called for what waited");
    settle(&bus).await;
    assert!(bus.subscriptions().is_empty(), "{:?}", bus.subscriptions());
    assert!(!bus.is_wanted(NoteEvent::event_type()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_for_one_event_has_no_second_try_when_it_fails() {
    let bus = EventBus::new();
    let read = |event: &Event<ExceptionEvent>| event.exc.message.clone();
    let (_exceptions, mut exceptions) = watch(bus.subscription(), read);
    let error = bus.once(async |_: Event<NoteEvent>| Err(std::io::Error::other("an error")));
    let panic = bus.once(async |event: Event<NoteEvent>| assert_ne!(event.number, 1, "a panic"));
    bus.emit(note(1));
    bus.emit(note(2));
    settle(&bus).await;
    bus.emit(note(3));
    settle(&bus).await;
    let mut told = exceptions.so_far();
    told.sort();
    assert!(told.len() == 2 && told[0] == "an error" && told[1].contains("a panic"), "{told:?}");
    assert_eq!((error.stats().delivered, error.stats().failures), (1, 1));
    assert_eq!((panic.stats().delivered, panic.stats().failures), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_event_of_another_type_does_not_use_the_one_call_up() {
    let bus = EventBus::new();
    let (sender, mut seen) = log();
    let guard = bus.subscription().patterns(["test.*"]).once(move |event: Event<NoteEvent>| {
        let _ = sender.send(event.number);
        std::future::ready(())
    });
    bus.emit(AnswerEvent { number: 1 });
    bus.emit(AnswerEvent { number: 2 });
    bus.emit(note(3));
    bus.emit(note(4));
    assert_eq!(seen.next().await, 3);
    assert!(seen.is_over().await);
    assert_eq!(guard.stats().delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_for_one_event_may_bring_the_next_about() {
    let bus = EventBus::new();
    let (sender, mut seen) = log();
    let emitting = bus.clone();
    bus.once(move |event: Event<BaseEvent>| {
        emitting.emit(note(2));
        let _ = sender.send(event.seq());
        std::future::ready(())
    })
    .detach();
    bus.emit(note(1));
    assert_eq!(seen.next().await, 1);
    assert!(seen.is_over().await);
}
