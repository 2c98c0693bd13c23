//! Names of subscriptions.

use antiphon_core::{Event, EventBus};

use crate::support::{NoteEvent, note, number, settle, watch};

#[tokio::test(start_paused = true)]
async fn subscribing_twice_under_a_unique_name_leaves_the_later() {
    let bus = EventBus::new();
    let (_first, mut first) = watch(bus.subscription().unique("ledger"), number);
    let (_second, mut second) = watch(bus.subscription().unique("ledger"), number);
    bus.emit(note(1));
    settle(&bus).await;
    assert!(first.so_far().is_empty() && first.is_over().await);
    assert_eq!(second.so_far(), [1]);
    assert_eq!(bus.subscriptions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_unique_name_is_unique_in_its_scope_alone() {
    let bus = EventBus::new();
    let (session, other) = (bus.open_session(), bus.open_session());
    let _named = [
        watch(bus.subscription().unique("ledger"), number),
        watch(session.subscription().unique("ledger"), number),
        watch(other.subscription().unique("ledger"), number),
    ];
    assert_eq!(bus.subscriptions().len(), 3);
    let _again = watch(session.subscription().unique("ledger"), number);
    settle(&bus).await;
    assert_eq!(bus.subscriptions().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_threads_that_take_a_unique_name_at_a_time_one_keeps_it() {
    for _ in 0..50 {
        let bus = EventBus::new();
        let takers = [(); 4].map(|()| {
            let bus = bus.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    let builder = bus.subscription().unique("ledger");
                    builder.subscribe(async |_: Event<NoteEvent>| ()).detach();
                }
            })
        });
        for taker in takers {
            taker.await.expect("no taker panics");
        }
        settle(&bus).await;
        assert_eq!(bus.subscriptions().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_have_a_name_can_be_ended_by_it() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (_one, mut one) = watch(bus.subscription().name("ledger"), number);
    let (two, mut two_seen) = watch(bus.subscription().name("ledger"), number);
    two.detach();
    let _tap = bus.subscription().name("ledger").observe(|_: Event<NoteEvent>| ());
    let (_other, mut other) = watch(bus.subscription().name("journal"), number);
    let (_own, mut own) = watch(session.subscription().name("ledger"), number);
    assert_eq!(bus.unsubscribe("ledger"), 3);
    session.emit(note(1));
    settle(&bus).await;
    assert!(one.is_over().await && two_seen.is_over().await);
    assert_eq!((other.so_far(), own.so_far()), (vec![1], vec![1]));
    assert_eq!(bus.unsubscribe("ledger"), 0);
    assert_eq!(session.unsubscribe("ledger"), 1);
    assert!(own.is_over().await);
}
