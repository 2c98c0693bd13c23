//! Waiting until every handler is done with an event.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    Event, EventBus, Subscription,
    bus::Settled,
    event::{Overflow, bus::ExceptionEvent},
};
use futures_util::poll;

use crate::support::{AnswerEvent, Gate, NoteEvent, log, note, number, settle, watch, watch_at_gate, within};

fn settled(handlers: usize, failures: usize, lost: usize) -> Settled {
    let mut settled = Settled::default();
    (settled.handlers, settled.failures, settled.lost) = (handlers, failures, lost);
    settled
}

#[tokio::test(start_paused = true)]
async fn it_resolves_when_the_slowest_handler_is_done() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let done = Arc::new(AtomicU64::new(0));
    let _slow = [1, 60, 5].map(|seconds| {
        let done = Arc::clone(&done);
        bus.subscribe(move |_: Event<NoteEvent>| {
            let done = Arc::clone(&done);
            async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let _own = session.subscribe(async |_: Event<NoteEvent>| ());
    assert_eq!(session.emit_and_settle(note(1)).await, settled(4, 0, 0));
    assert_eq!(done.load(Ordering::Relaxed), 3);
    assert_eq!(session.emit_and_settle(AnswerEvent { number: 1 }).await, settled(0, 0, 0), "nobody wants it");
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_its_own_event_alone() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let _guard = {
        let gate = Arc::clone(&gate);
        bus.subscription().concurrent(2).subscribe(move |event: Event<NoteEvent>| {
            let gate = Arc::clone(&gate);
            async move {
                if event.number == 1 {
                    gate.pass().await;
                }
            }
        })
    };
    bus.emit(note(1));
    gate.reached().await;
    assert_eq!(within(bus.emit_and_settle(note(2))).await, settled(1, 0, 0));
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn it_counts_the_calls_that_failed() {
    let bus = EventBus::new();
    let exceptions = bus.subscribe(async |_: Event<ExceptionEvent>| ());
    let _good = bus.subscribe(async |_: Event<NoteEvent>| ());
    let _error = bus.subscribe(async |_: Event<NoteEvent>| Err(std::io::Error::other("an error")));
    let _panic = bus.subscribe(async |event: Event<NoteEvent>| {
        tokio::task::yield_now().await;
        assert_ne!(event.number, 1, "a panic");
    });
    let _late = bus
        .subscription()
        .timeout(Duration::from_secs(1))
        .subscribe(async |_: Event<NoteEvent>| std::future::pending::<()>().await);
    assert_eq!(bus.emit_and_settle(note(1)).await, settled(4, 3, 0));
    settle(&bus).await;
    assert_eq!(exceptions.stats().delivered, 3);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_loses_the_event_is_counted_and_not_waited_for() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let builder = bus.subscription().capacity(1).overflow(Overflow::DropNewest);
    let (_guard, _seen) = watch_at_gate(builder, &gate);
    bus.emit(note(1));
    gate.reached().await;
    bus.emit(note(2));
    let settled = within(bus.emit_and_settle(note(3))).await;
    assert_eq!(settled.lost, 1);
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn streams_and_taps_are_not_waited_for() {
    let bus = EventBus::new();
    let stream = bus.stream::<Event<NoteEvent>>();
    let _tap = bus.observe(|_: Event<NoteEvent>| ());
    assert_eq!(within(bus.emit_and_settle(note(1))).await, settled(0, 0, 0));
    assert_eq!(stream.stats().depth, 1);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_while_the_event_waits_there_is_not_waited_for() {
    let bus = EventBus::new();
    let gate = Gate::new();
    let (guard, mut seen) = watch_at_gate(bus.subscription(), &gate);
    bus.emit(note(1));
    gate.reached().await;
    let mut settling = pin!(bus.emit_and_settle(note(2)));
    assert!(poll!(settling.as_mut()).is_pending());
    drop(guard);
    within(settling).await;
    assert_eq!(seen.so_far(), [1]);
    gate.open();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_pushed_out_or_replaced_is_not_waited_for() {
    for overflow in [Overflow::DropOldest, Overflow::Coalesce] {
        let bus = EventBus::new();
        let gate = Gate::new();
        let (_guard, _seen) = watch_at_gate(bus.subscription().capacity(1).overflow(overflow), &gate);
        bus.emit(note(1));
        gate.reached().await;
        let mut settling = pin!(bus.emit_and_settle(note(2)));
        assert!(poll!(settling.as_mut()).is_pending(), "{overflow:?}");
        bus.emit(note(3));
        within(settling).await;
        gate.open();
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_settles_at_its_own_subscription_does_not_wait_for_itself() {
    let bus = EventBus::new();
    let (sender, mut done) = log();
    let _guard = {
        let emitting = bus.clone();
        bus.subscribe(move |event: Event<NoteEvent>| {
            let (bus, sender) = (emitting.clone(), sender.clone());
            async move {
                if event.number < 5 {
                    let settled = bus.emit_and_settle(note(event.number + 1)).await;
                    let _ = sender.send((event.number, settled.handlers));
                }
            }
        })
    };
    bus.emit(note(1));
    settle(&bus).await;
    assert_eq!(done.so_far(), [(1, 0), (2, 0), (3, 0), (4, 0)]);
}

/// Handlers of notes and of answers that answer each other and settle, until the number is reached.
fn ping_pong(bus: &EventBus, last: u64) -> [Subscription; 2] {
    let (ping, pong) = (bus.clone(), bus.clone());
    [
        bus.subscribe(move |event: Event<NoteEvent>| {
            let bus = ping.clone();
            async move {
                if event.number < last {
                    bus.emit_and_settle(AnswerEvent { number: event.number + 1 }).await;
                }
            }
        }),
        bus.subscribe(move |event: Event<AnswerEvent>| {
            let bus = pong.clone();
            async move {
                if event.number < last {
                    bus.emit_and_settle(note(event.number + 1)).await;
                }
            }
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn handlers_that_settle_at_each_other_in_a_circle_come_to_an_end() {
    let bus = EventBus::new();
    let [ping, pong] = ping_pong(&bus, 100);
    within(bus.emit_and_settle(note(1))).await;
    settle(&bus).await;
    assert_eq!(ping.stats().delivered + pong.stats().delivered, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handlers_that_settle_at_each_other_on_many_threads_come_to_an_end() {
    for _ in 0..20 {
        let bus = EventBus::new();
        let [ping, pong] = ping_pong(&bus, 20);
        let emitters = [(); 4].map(|()| {
            let bus = bus.clone();
            tokio::spawn(async move {
                bus.emit_and_settle(note(1)).await;
                bus.emit_and_settle(AnswerEvent { number: 1 }).await;
            })
        });
        for emitter in emitters {
            within(emitter).await.expect("no emitter panics");
        }
        settle(&bus).await;
        assert_eq!(ping.stats().delivered + pong.stats().delivered, 4 * 2 * 20);
    }
}

#[tokio::test(start_paused = true)]
async fn handlers_that_settle_at_each_other_at_a_time_come_to_an_end() {
    let bus = EventBus::new();
    let meeting = Arc::new(tokio::sync::Barrier::new(2));
    let (sender, mut done) = log();
    let (one, two) = (bus.clone(), bus.clone());
    let (meeting_one, sender_one) = (Arc::clone(&meeting), sender.clone());
    let _one = bus.subscribe(move |event: Event<NoteEvent>| {
        let (bus, meeting, sender) = (one.clone(), Arc::clone(&meeting_one), sender_one.clone());
        async move {
            if event.number == 1 {
                meeting.wait().await;
                bus.emit_and_settle(AnswerEvent { number: 2 }).await;
            }
            let _ = sender.send(());
        }
    });
    let _two = bus.subscribe(move |event: Event<AnswerEvent>| {
        let (bus, meeting, sender) = (two.clone(), Arc::clone(&meeting), sender.clone());
        async move {
            if event.number == 1 {
                meeting.wait().await;
                bus.emit_and_settle(note(2)).await;
            }
            let _ = sender.send(());
        }
    });
    bus.emit(note(1));
    bus.emit(AnswerEvent { number: 1 });
    settle(&bus).await;
    assert_eq!(done.so_far(), [(); 4]);
}

/// The handler of notes settles at the handler of answers, which meanwhile does `act`.
async fn check_end_of_who_settles(
    act: fn(EventBus, Subscription) -> futures_util::future::BoxFuture<'static, ()>,
) {
    let bus = EventBus::new();
    let guard: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let (sender, mut done) = log();
    let settling = {
        let (bus, sender) = (bus.clone(), sender.clone());
        move |event: Event<NoteEvent>| {
            let (bus, sender) = (bus.clone(), sender.clone());
            async move {
                bus.emit_and_settle(AnswerEvent { number: event.number }).await;
                let _ = sender.send("settled");
            }
        }
    };
    *guard.lock().expect("nobody panics with it") = Some(bus.subscribe(settling));
    let _ending = {
        let bus = bus.clone();
        bus.clone().subscribe(move |_: Event<AnswerEvent>| {
            let (bus, sender) = (bus.clone(), sender.clone());
            let guard = guard.lock().expect("nobody panics with it").take();
            async move {
                act(bus, guard.expect("called once")).await;
                let _ = sender.send("ended");
            }
        })
    };
    bus.emit(note(1));
    assert_eq!([done.next().await, done.next().await], ["ended", "settled"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ends_who_waits_for_it_does_not_wait_for_them() {
    check_end_of_who_settles(|_, guard| Box::pin(guard.unsubscribe())).await;
    check_end_of_who_settles(|bus, guard| {
        guard.detach();
        Box::pin(async move { bus.shutdown().await })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_wait_leaves_the_event_where_it_is() {
    let bus = EventBus::new();
    let (_guard, mut seen) = watch(bus.subscription(), number);
    assert!(poll!(Box::pin(bus.emit_and_settle(note(1)))).is_pending());
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1]);
}
