//! A session's part of the bus: its own order, plugin events, and subscriptions that end with it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    deliver,
    emit::{Emitted, EventBus, Scope, TryEmitError},
    mailbox::Patience,
    stream::EventStream,
    subscription::{Subscription, SubscriptionBuilder},
};
use crate::{
    SessionId, TurnId,
    event::{Envelope, EventPayload, EventType, FromEvent, PluginBaseEvent, Stamp},
};

/// The part of the bus that belongs to one session: events emitted here carry its id and its `seq`, subscriptions made
/// here see nothing else and end with it. Clones are handles on the same session.
#[derive(Clone, Debug)]
pub struct SessionBus {
    pub(super) bus: EventBus,
    pub(super) scope: Arc<Scope>,
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

    /// Emits an event of this session. Never waits: a full subscription loses it, or an older event, and is told.
    pub fn emit<T: EventPayload>(&self, event: T) {
        let _ = self.emit_with(event, Stamp::default());
    }

    /// Emits an event of this session with what the emitter knows beside it, and tells what became of it.
    pub fn emit_with<T: EventPayload>(&self, event: T, stamp: Stamp) -> Emitted {
        match self.bus.emit_typed(&self.scope, event, stamp, Patience::None) {
            Some(dispatched) => Emitted { envelope: Some(dispatched.envelope), lost: dispatched.lost },
            None => Emitted::default(),
        }
    }

    /// Emits an event of this session, and waits until the subscriptions that must not lose events have room again.
    /// Inside a handler it does not wait: handlers that wait for each other would never end.
    ///
    /// # Cancel safety
    ///
    /// As [`EventBus::emit_wait`].
    pub async fn emit_wait<T: EventPayload>(&self, event: T) {
        self.emit_wait_with(event, Stamp::default()).await;
    }

    /// As [`SessionBus::emit_wait`], with what the emitter knows beside the event.
    ///
    /// # Cancel safety
    ///
    /// As [`EventBus::emit_wait`].
    pub async fn emit_wait_with<T: EventPayload>(&self, event: T, stamp: Stamp) {
        self.bus.emit_patiently(&self.scope, event, stamp).await;
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
        let receivers = self.bus.receivers(&self.scope, event);
        if receivers.find_full(event, |mailbox| !mailbox.has_room()).is_some() {
            return Err(TryEmitError::Full);
        }
        let stamp = Stamp {
            turn_id: *turn_id,
            causation_id: *causation_id,
            plugin: Some(Arc::clone(plugin)),
            ..Stamp::default()
        };
        let decode = || event.decode(payload);
        // Patient: between the check above and the push others may have filled the queue.
        let dispatched = self.bus.dispatch(
            &self.scope,
            event,
            &receivers,
            *always,
            *emitted_at,
            stamp,
            Patience::Waits,
            decode,
        )?;
        Ok(dispatched.map(|dispatched| dispatched.envelope))
    }

    /// Resolves when each subscription that must not lose events of this type has room. Not for handlers: two that wait
    /// for each other's room never end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only gives up the wait.
    pub async fn wait_for_room(&self, event: &EventType) {
        while let Some(full) =
            self.bus.receivers(&self.scope, event).find_full(event, |mailbox| !mailbox.has_room()).cloned()
        {
            full.wait_for_room().await;
        }
    }

    /// As [`EventBus::subscribe`], for the events of this session alone.
    #[track_caller]
    pub fn subscribe<F, H, Fut>(&self, handler: H) -> Subscription
    where
        F: FromEvent,
        H: Fn(F) -> Fut + Send + Sync + 'static, // `async move` that captures: see `subscribe_with`
        Fut: super::HandlerFuture + Send + 'static,
        Fut::Output: super::HandlerOutput,
    {
        self.subscription().subscribe(handler)
    }

    /// As [`EventBus::subscription`], for the events of this session alone.
    #[track_caller]
    pub fn subscription(&self) -> SubscriptionBuilder {
        SubscriptionBuilder::new(self.bus.clone(), Some(Arc::clone(&self.scope)))
    }

    /// Whether anybody receives events of this type from this session.
    #[must_use]
    pub fn is_wanted(&self, event: &EventType) -> bool {
        !self.bus.receivers(&self.scope, event).is_empty()
    }

    /// As [`EventBus::subscribe_with`], for the events of this session alone.
    #[track_caller]
    pub fn subscribe_with<S, F, H, Fut>(&self, state: Arc<S>, handler: H) -> Subscription
    where
        S: Send + Sync + 'static,
        F: FromEvent,
        H: Fn(Arc<S>, F) -> Fut + Send + Sync + 'static,
        Fut: super::HandlerFuture + Send + 'static,
        Fut::Output: super::HandlerOutput,
    {
        self.subscription().subscribe_with(state, handler)
    }

    /// The events of this session as a stream, which ends when the session is closed.
    #[track_caller]
    #[must_use]
    pub fn stream<F: FromEvent>(&self) -> EventStream<F> {
        self.subscription().stream()
    }

    /// Ends the session: its own subscriptions handle what waits for them, then end; later ones end at once. May be
    /// called from inside a handler, which then is not waited for, nor are other handlers that are in here too.
    ///
    /// # Cancel safety
    ///
    /// The end begins at the first poll; dropping the future only gives up the wait.
    pub async fn close(&self) {
        deliver::wait_for_end(&self.scope.close()).await;
        // Not before, so that what fails on the way out is still reported in its session.
        self.scope.unlist();
    }
}
