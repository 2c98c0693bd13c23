//! What the bus says of its own work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{
    BaseEvent, Event, EventInfo, EventPayload,
    values::{ErrorInfo, HandlerInfo},
};

pub(super) const EVENTS: &[&EventInfo] = &[
    ExceptionEvent::INFO,
    SubscriberLaggedEvent::INFO,
    HandlerBlockedEvent::INFO,
    SubscriptionSuspendedEvent::INFO,
    ManyListenersEvent::INFO,
];

/// A handler failed: it returned an error, panicked or ran out of time. Failures while handling this event are only logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bus.exception", base = BaseEvent)]
pub struct ExceptionEvent {
    /// The error with its chain of causes, or the panic message.
    pub exc: ErrorInfo,
    /// The subscription that it happened to.
    pub handler: HandlerInfo,
    /// Type of the event that was being handled.
    pub source_type: String,
    /// Id of the event that was being handled.
    pub source_event_id: Uuid,
}

/// A subscription lost events because its queue was full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bus.lagged", base = BaseEvent)]
pub struct SubscriberLaggedEvent {
    /// The subscription that it happened to.
    pub handler: HandlerInfo,
    /// How many were lost since the last such event.
    pub dropped: u64,
    /// Their type, where all were of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
}

/// A handler keeps its thread busy without awaiting anything, so that nothing else can run there. The subscriptions that
/// were in line behind it have been given another thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bus.handler_blocked", base = BaseEvent)]
pub struct HandlerBlockedEvent {
    /// The subscription whose handler it is.
    pub handler: HandlerInfo,
    /// How long the call has been at it when this was noticed, in milliseconds.
    pub blocked_ms: u64,
}

/// A handler failed so often in a row that its subscription receives nothing until somebody resumes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bus.subscription_suspended", base = BaseEvent)]
pub struct SubscriptionSuspendedEvent {
    /// The subscription.
    pub handler: HandlerInfo,
    /// How many calls in a row had failed.
    pub failures: u32,
}

/// One event type has so many subscriptions that some of them were probably forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "bus.many_listeners", base = BaseEvent)]
pub struct ManyListenersEvent {
    /// The type.
    pub event_type: String,
    /// How many subscriptions receive it, in one session or of the host.
    pub listeners: u64,
}
