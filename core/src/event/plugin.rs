//! The life of a plugin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Event, EventInfo, EventPayload, PluginBaseEvent,
    values::{ErrorInfo, PluginState},
};

pub(super) const EVENTS: &[&EventInfo] = &[PluginLifecycleEvent::INFO];

/// A plugin changed its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "plugin.lifecycle", base = PluginBaseEvent)]
pub struct PluginLifecycleEvent {
    /// The new state.
    pub phase: PluginState,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
}
