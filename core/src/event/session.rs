//! The session as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{BaseEvent, Event, EventInfo, EventPayload, values::CloseReason};

pub(super) const EVENTS: &[&EventInfo] = &[SessionReadyEvent::INFO, SessionClosedEvent::INFO];

/// The session is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "session.ready", base = BaseEvent)]
pub struct SessionReadyEvent {}

/// The session has ended; nothing of it follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "session.closed", base = BaseEvent)]
pub struct SessionClosedEvent {
    /// Why.
    pub reason: CloseReason,
}
