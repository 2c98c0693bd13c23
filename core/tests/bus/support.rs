//! What the tests of the bus share: events, a log of what handlers saw, and a gate that holds handlers up.

use std::{future::ready, sync::Arc, time::Duration};

use antiphon_core::{
    BaseEvent, Event, EventBus, PluginBaseEvent, Subscription,
    bus::SubscriptionBuilder,
    event::{FromEvent, Stamp},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

/// An event with a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.note", base = BaseEvent)]
pub(crate) struct NoteEvent {
    pub(crate) number: u64,
}

/// Another, for handlers that answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.answer", base = BaseEvent)]
pub(crate) struct AnswerEvent {
    pub(crate) number: u64,
}

pub(crate) fn note(number: u64) -> NoteEvent {
    NoteEvent { number }
}

pub(crate) fn number(event: &Event<NoteEvent>) -> u64 {
    event.number
}

/// What handlers saw, in order.
pub(crate) struct Log<T>(mpsc::UnboundedReceiver<T>);

impl<T> Log<T> {
    /// The next entry; waits for it.
    pub(crate) async fn next(&mut self) -> T {
        within(self.0.recv()).await.expect("the subscription ended early")
    }

    /// Whether the handler and its state are gone.
    pub(crate) async fn is_over(&mut self) -> bool {
        within(self.0.recv()).await.is_none()
    }

    /// The entries up to now.
    pub(crate) fn so_far(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

pub(crate) fn log<T>() -> (mpsc::UnboundedSender<T>, Log<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Log(receiver))
}

/// Subscribes a handler that logs what `read` finds in each event.
#[track_caller]
pub(crate) fn watch<F, T>(builder: SubscriptionBuilder, read: fn(&F) -> T) -> (Subscription, Log<T>)
where
    F: FromEvent,
    T: Send + 'static,
{
    let (sender, log) = log();
    let subscription = builder.subscribe(move |event: F| {
        let _ = sender.send(read(&event));
        ready(())
    });
    (subscription, log)
}

/// Holds handlers up until it is opened.
#[derive(Debug)]
pub(crate) struct Gate {
    reached: Semaphore,
    open: Semaphore,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { reached: Semaphore::new(0), open: Semaphore::new(0) })
    }

    /// What a handler does.
    pub(crate) async fn pass(&self) {
        self.reached.add_permits(1);
        self.open.acquire().await.expect("never closed").forget();
    }

    /// Resolves when a handler stands at the gate, once for each.
    pub(crate) async fn reached(&self) {
        within(self.reached.acquire()).await.expect("never closed").forget();
    }

    pub(crate) fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

/// Subscribes a handler of notes that logs the number and then stands at the gate.
#[track_caller]
pub(crate) fn watch_at_gate(builder: SubscriptionBuilder, gate: &Arc<Gate>) -> (Subscription, Log<u64>) {
    let (sender, log) = log();
    let gate = Arc::clone(gate);
    let subscription = builder.subscribe(move |event: Event<NoteEvent>| {
        let gate = Arc::clone(&gate);
        let _ = sender.send(event.number);
        async move { gate.pass().await }
    });
    (subscription, log)
}

/// Turns a deadlock into a failure; at once where the time is paused.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not end")
}

/// Resolves when all that was emitted has been handled.
pub(crate) async fn settle(bus: &EventBus) {
    assert!(
        bus.drain(Duration::from_secs(60)).await,
        "the bus does not come to rest: {:?}",
        bus.subscriptions()
    );
}

/// A plugin, as the host knows it.
pub(crate) fn plugin() -> Arc<PluginBaseEvent> {
    Arc::new(PluginBaseEvent {
        plugin_name: "stt-acme".into(),
        plugin_version: "1.2.3".into(),
        plugin_instance: None,
    })
}

pub(crate) fn of_plugin() -> Stamp {
    Stamp { plugin: Some(plugin()), ..Stamp::default() }
}
