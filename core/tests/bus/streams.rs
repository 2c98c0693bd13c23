//! Subscriptions to pull from.

use antiphon_core::{Event, EventBus};
use futures_util::{StreamExt, poll};

use crate::support::{NoteEvent, note, within};

#[tokio::test(start_paused = true)]
async fn a_stream_gives_what_comes_and_ends_with_its_session() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let stream = session.stream::<Event<NoteEvent>>();
    let all = tokio::spawn(stream.map(|event| event.number).collect::<Vec<_>>());
    tokio::task::yield_now().await;
    session.emit(note(1));
    tokio::task::yield_now().await;
    session.emit(note(2));
    session.close().await;
    assert_eq!(within(all).await.expect("the stream does not panic"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_given_up_does_not_take_the_ring_from_the_next() {
    let bus = EventBus::new();
    let mut stream = bus.stream::<Event<NoteEvent>>();
    // As in `select!`: one branch begins to wait, another is ready.
    assert!(poll!(stream.next()).is_pending());
    let received = tokio::spawn(async move { (stream.recv().await.map(|event| event.number), stream) });
    tokio::task::yield_now().await;
    bus.emit(note(1));
    let (first, mut stream) = within(received).await.expect("it only receives");
    assert_eq!(first, Some(1));

    assert!(poll!(Box::pin(stream.recv())).is_pending());
    let received = tokio::spawn(async move { stream.next().await.map(|event| event.number) });
    tokio::task::yield_now().await;
    bus.emit(note(2));
    assert_eq!(within(received).await.expect("it only receives"), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_misses_no_wake_up() {
    let bus = EventBus::new();
    let mut stream = bus.subscription().capacity(1).stream::<Event<NoteEvent>>();
    let emitter = tokio::spawn(async move {
        for number in 0..2_000 {
            bus.emit_wait(note(number)).await;
        }
    });
    for number in 0..2_000 {
        // Now one way, now the other, and now given up in between.
        let event = match number % 3 {
            0 => within(stream.recv()).await,
            1 => within(stream.next()).await,
            _ => match poll!(Box::pin(stream.recv())) {
                std::task::Poll::Ready(event) => event,
                std::task::Poll::Pending => within(stream.recv()).await,
            },
        };
        assert_eq!(event.map(|event| event.number), Some(number));
    }
    within(emitter).await.expect("no emitter panics");
}
