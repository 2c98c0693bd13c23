//! What the bus says of its own work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{
    BaseEvent, Event, EventInfo, EventPayload,
    values::{ErrorInfo, HandlerInfo},
};

pub(super) const EVENTS: &[&EventInfo] = &[ExceptionEvent::INFO, SubscriberLaggedEvent::INFO];

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
