//! The life of a plugin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    BaseEvent, Event, EventInfo, EventPayload, PluginBaseEvent,
    values::{ComponentKind, ErrorInfo, FallbackReason, PluginState},
};

pub(super) const EVENTS: &[&EventInfo] =
    &[PluginLifecycleEvent::INFO, ProviderFallbackEvent::INFO, ProviderRecoveryEvent::INFO];

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

/// The plugin that was chosen for a kind of work is down, and its stand-in does the work from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "provider.fallback", base = BaseEvent)]
pub struct ProviderFallbackEvent {
    /// The kind of work.
    pub role: ComponentKind,
    /// The plugin that is down.
    pub from: String,
    /// The one that does its work.
    pub to: String,
    /// What the first one failed in.
    pub reason: FallbackReason,
    /// How it failed.
    pub error: ErrorInfo,
}

/// A plugin that broke is tried again, runs again, or is given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "provider.recovery", base = BaseEvent)]
pub struct ProviderRecoveryEvent {
    /// The plugin.
    pub provider: String,
    /// Which try this is, within the time over which tries are counted; from 1.
    pub attempt: u32,
    /// Tries after which it is given up.
    pub max_attempts: u32,
    /// It is being tried.
    pub recovering: bool,
    /// It runs again, and does its work. Neither of both: it is given up.
    pub recovered: bool,
    /// Why it has to be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
}
