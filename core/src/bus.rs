//! The bus: delivers events to async handlers.
//!
//! - [`EventBus::emit`] and [`SessionBus::emit`] never wait; `emit_wait` waits until every waiting subscription has
//!   room again, `emit_and_settle` until every handler is done. An event that nobody wants is not even built.
//! - [`EventBus::subscribe`] takes an async function of one event type, of a union, or of a base type. Each
//!   subscription has its own bounded mailbox: it sees the events of a session in `seq` order, never two at once, and a
//!   slow one delays no other.
//! - A handler that returns an error, panics, or runs out of time becomes an
//!   [`ExceptionEvent`](crate::event::bus::ExceptionEvent); nobody else notices.
//! - A few tasks, the *shards*, visit the mailboxes that have something to do and poll each handler once. A call that has
//!   to wait goes on in a task of its own; a handler that blocks its thread is found by a watchdog, and another thread
//!   takes over what is in line behind it.
//!
//! Where to read on: `emit.rs` accepts an event, `scope.rs` knows its receivers, `queue.rs` holds it, `shards.rs` and
//! `deliver.rs` bring it to the handler.
//!
//! Invariant: no user code, waker or destructor of a payload runs under a lock of the bus.
//!
//! ```
//! use antiphon_core::{Event, EventBus, EventUnion};
//! use antiphon_core::event::{bus::ExceptionEvent, session::{SessionClosedEvent, SessionReadyEvent}, values::CloseReason};
//!
//! #[derive(EventUnion)]
//! enum SessionLife {
//!     Ready(Event<SessionReadyEvent>),
//!     Closed(Event<SessionClosedEvent>),
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let bus = EventBus::new();
//! let life = bus.subscribe(async |event: SessionLife| match event {
//!     SessionLife::Ready(event) => println!("{:?} is open", event.session_id()),
//!     SessionLife::Closed(event) => println!("closed: {:?}", event.reason),
//! });
//! bus.subscribe(async |event: Event<ExceptionEvent>| eprintln!("{}: {}", event.handler.name, event.exc.message)).detach();
//!
//! let session = bus.open_session();
//! session.emit(SessionReadyEvent {});
//! session.emit_wait(SessionClosedEvent { reason: CloseReason::SdkRequest }).await;
//! bus.shutdown().await;
//! assert_eq!(life.stats().delivered, 2);
//! # }
//! ```

mod api;
mod bell;
mod current;
mod deliver;
mod emit;
mod entry;
mod event_bus;
mod handler;
mod interest;
mod json;
#[cfg(all(test, antiphon_loom))]
mod loom;
mod mailbox;
mod options;
mod queue;
mod ready;
mod scope;
mod session;
mod settle;
mod shards;
mod stream;
mod subscription;
mod sync;
mod watchdog;

pub use self::{
    emit::Emitted,
    event_bus::{EventBus, InterestWatch, SubscriptionReport, WeakEventBus},
    handler::{Failure, HandlerFuture, HandlerOutput},
    json::{EmitJsonError, UnknownType},
    mailbox::Stats,
    session::{PluginEmission, SessionBus, TryEmitError, WeakSessionBus},
    settle::Settled,
    stream::EventStream,
    subscription::{Subscription, SubscriptionBuilder, WaitError},
};

/// Locks. Nothing under a lock of the bus panics, so a poisoned lock guards nothing that is broken.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
