//! What the bus keeps in memory, measured by the allocator of a binary of its own.

use std::{alloc::System, sync::Arc, time::Duration};

use antiphon_core::{BaseEvent, Event, EventBus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.blob", base = BaseEvent)]
struct BlobEvent {
    bytes: Vec<u8>,
}

async fn settle(bus: &EventBus) {
    assert!(bus.drain(Duration::from_secs(60)).await, "{:?}", bus.subscriptions());
}

/// Opens sessions at a time, lets each have subscriptions of every kind and an event, and closes them.
async fn open_and_close(bus: &EventBus, sessions: usize, state: &Arc<()>) {
    let mut open = Vec::new();
    for _ in 0..sessions {
        let session = bus.open_session();
        for _ in 0..2 {
            let state = Arc::clone(state);
            session
                .subscribe(move |_: Event<BlobEvent>| {
                    let state = Arc::clone(&state);
                    async move {
                        tokio::task::yield_now().await;
                        drop(state);
                    }
                })
                .detach();
        }
        let (weak, seen) = (session.downgrade(), Arc::clone(state));
        session
            .observe(move |_: Event<BlobEvent>| {
                assert!(weak.upgrade().is_some() && Arc::strong_count(&seen) > 1)
            })
            .detach();
        let stream = session.stream::<Event<BlobEvent>>();
        session.emit(BlobEvent { bytes: vec![1; 100] });
        open.push((session, stream));
    }
    for (number, (session, stream)) in open.into_iter().enumerate() {
        // Half are closed, half are forgotten.
        if number % 2 == 0 {
            session.close().await;
        }
        drop((session, stream));
    }
    settle(bus).await;
}

/// One test for all, because the allocator counts for the whole process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_and_a_stuck_handler_leave_nothing_behind() {
    let bus = EventBus::new();
    let state = Arc::new(());
    // Tables grow once, and stay as they are.
    open_and_close(&bus, 10_000, &state).await;
    let base = allocated();
    for _ in 0..2 {
        open_and_close(&bus, 10_000, &state).await;
        assert!(bus.subscriptions().is_empty());
        assert_eq!(Arc::strong_count(&state), 1, "what the handlers held is gone");
    }
    let growth = allocated().saturating_sub(base);
    assert!(growth < 200_000, "{growth} bytes are left of 20,000 sessions");

    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let stuck = {
        let gate = Arc::clone(&gate);
        bus.subscription().capacity(100).subscribe(move |_: Event<BlobEvent>| {
            let gate = Arc::clone(&gate);
            async move { gate.acquire().await.expect("never closed").forget() }
        })
    };
    let base = allocated();
    for _ in 0..100_000 {
        bus.emit(BlobEvent { bytes: vec![1; 1_000] });
    }
    let growth = allocated().saturating_sub(base);
    assert!(growth < 100 * 2_000 + 100_000, "{growth} bytes wait behind a queue of 100");
    drop(stuck);
    gate.add_permits(1);
    settle(&bus).await;
    let growth = allocated().saturating_sub(base);
    assert!(growth < 50_000, "{growth} bytes are left of 100,000 events");
}
