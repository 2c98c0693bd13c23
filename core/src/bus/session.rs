//! A session's part of the bus: its own order, plugin events, and subscriptions that end with it.

use std::{
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    api::emit_and_subscribe,
    emit::{Emitted, Manner},
    event_bus::{self, EventBus, WeakEventBus},
    handler::{HandlerFuture, HandlerOutput},
    json::{EmitJsonError, UnknownType},
    scope::{Scope, find_full},
    settle::Settled,
    stream::EventStream,
    subscription::{Subscription, SubscriptionBuilder, WaitError},
};
use crate::{
    SessionId, TurnId,
    event::{CodecError, Envelope, EventPayload, EventType, FromEvent, PluginBaseEvent, Stamp},
};

/// The part of the bus that belongs to one session: events emitted here carry its id and its `seq`, subscriptions made
/// here see nothing else and end with it. Clones are handles on the same session.
#[derive(Clone, Debug)]
pub struct SessionBus {
    pub(super) bus: EventBus,
    pub(super) scope: Arc<Scope>,
}

/// A handle that does not keep its session open, for handlers of that session.
#[derive(Clone, Debug)]
pub struct WeakSessionBus {
    bus: WeakEventBus,
    scope: Weak<Scope>,
}

impl WeakSessionBus {
    /// The session, while it is open.
    #[must_use]
    pub fn upgrade(&self) -> Option<SessionBus> {
        Some(SessionBus { bus: self.bus.upgrade()?, scope: self.scope.upgrade()? })
    }
}

/// Why an event was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryEmitError {
    /// A subscription that must not lose events is full; try again after [`SessionBus::wait_for_room`].
    #[error("a subscription that waits is full")]
    Full,
    /// The payload does not fit the event type.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// An event as it comes from a plugin: encoded, with what only the plugin knows.
#[derive(Debug, Clone)]
pub struct PluginEmission<'a> {
    /// Its type.
    pub event: &'a EventType,
    /// Its payload: MessagePack with field names.
    pub payload: &'a [u8],
    /// The plugin, as the host knows it.
    pub plugin: &'a Arc<PluginBaseEvent>,
    /// The turn that it belongs to.
    pub turn_id: Option<TurnId>,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// When it happened, by the plugin's own reading of the calendar clock.
    pub emitted_at: Option<DateTime<Utc>>,
    /// Build it even if no subscription wants it.
    pub always: bool,
}

impl SessionBus {
    /// Id of the session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.scope.session_id.expect("only the host's scope has no session")
    }

    /// The bus that the session belongs to.
    #[must_use]
    pub fn bus(&self) -> &EventBus {
        &self.bus
    }

    /// A handle that does not keep the session open.
    #[must_use]
    pub fn downgrade(&self) -> WeakSessionBus {
        WeakSessionBus { bus: self.bus.downgrade(), scope: Arc::downgrade(&self.scope) }
    }

    emit_and_subscribe!(this, this.bus, &this.scope, Some(Arc::clone(&this.scope)), "this session");

    /// Subscribes an async function or closure to what its argument says, one event type, a union, a base type, for the
    /// events of this session. The subscription ends when the returned guard is dropped.
    #[track_caller]
    pub fn subscribe<F, H, Fut>(&self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.subscription().subscribe(handler)
    }

    /// Subscribes a handler that shares state, for closures that would capture (an `async move` closure that captures
    /// cannot be called twice at a time, so it is no handler).
    #[track_caller]
    pub fn subscribe_with<S, F, H, Fut>(&self, state: Arc<S>, handler: H) -> Subscription
    where
        S: Send + Sync + 'static,
        F: FromEvent,
        H: Fn(Arc<S>, F) -> Fut + Send + Sync + 'static,
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.subscription().subscribe_with(state, handler)
    }

    /// Subscribes a handler for one event, the first that comes; see [`SubscriptionBuilder::once`].
    #[track_caller]
    pub fn once<F, H, Fut>(&self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: HandlerFuture + Send + 'static,
        Fut::Output: HandlerOutput,
    {
        self.subscription().once(handler)
    }

    /// Emits a plugin's event, unless a subscription that must not lose it is full. `Ok(None)`: nobody wanted it.
    ///
    /// # Errors
    ///
    /// [`TryEmitError::Full`] when the plugin should try again, [`TryEmitError::Codec`] when its bytes are no such event.
    pub fn try_emit_plugin(
        &self,
        emission: &PluginEmission<'_>,
    ) -> Result<Option<Arc<Envelope>>, TryEmitError> {
        let PluginEmission { event, payload, plugin, turn_id, causation_id, emitted_at, always } = emission;
        let inner = self.bus.inner();
        if !always && inner.interest.is_unwanted(event) {
            return Ok(None);
        }
        let route = self.scope.route(&inner.host, event);
        if find_full(&route, |mailbox| !mailbox.has_room()).is_some() {
            return Err(TryEmitError::Full);
        }
        if !always && route.is_empty() {
            return Ok(None);
        }
        drop(route);
        let payload = event.decode(payload)?;
        let stamp = Stamp {
            turn_id: *turn_id,
            causation_id: *causation_id,
            plugin: Some(Arc::clone(plugin)),
            ..Stamp::default()
        };
        // Patient: between the check above and the push others may have filled the queue.
        let manner = Manner { always: *always, keep: true, timestamp: *emitted_at, ..Manner::waits() };
        let dispatched = inner.emit(&self.scope, event, payload, stamp, manner);
        Ok(Emitted::from(dispatched).envelope)
    }

    /// Resolves when each subscription that must not lose events of this type has room. Not for handlers: two that wait
    /// for each other's room never end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up the wait.
    pub async fn wait_for_room(&self, event: &EventType) {
        let host = &self.bus.inner().host;
        while let Some(full) =
            find_full(&self.scope.route(host, event), |mailbox| !mailbox.has_room()).cloned()
        {
            full.wait_for_room().await;
        }
    }

    /// Whether anybody receives events of this type from this session.
    #[must_use]
    pub fn is_wanted(&self, event: &EventType) -> bool {
        let inner = self.bus.inner();
        !inner.interest.is_unwanted(event) && !self.scope.route(&inner.host, event).is_empty()
    }

    /// Ends the session: its own subscriptions handle what waits for them, then end, those that hear of failures last;
    /// later ones end at once. May be called from inside a handler, which then is not waited for, nor are other handlers
    /// that are in here too.
    ///
    /// # Cancel safety
    ///
    /// The end begins at the first poll; dropping the future only gives up the wait.
    pub async fn close(&self) {
        event_bus::close(self.scope.seal()).await;
        // Not before, so that what fails on the way out is still reported in its session.
        self.scope.unlist();
    }
}
