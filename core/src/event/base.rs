//! What every event carries beside its payload.

use std::{borrow::Borrow, fmt, sync::Arc};

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::{SessionId, TurnId};

/// The dotted wire name of an event type, such as `stt.transcript.final`. Cheap to clone.
#[derive(Clone)]
pub struct EventName(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl EventName {
    /// A name that the program was compiled with.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Text::Static(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(name) => name,
            Text::Shared(name) => name,
        }
    }
}

impl From<&'static str> for EventName {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}

impl From<String> for EventName {
    fn from(name: String) -> Self {
        Self(Text::Shared(name.into()))
    }
}

impl PartialEq for EventName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for EventName {}

impl PartialEq<str> for EventName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl std::hash::Hash for EventName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for EventName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EventName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Borrow<str> for EventName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for EventName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl JsonSchema for EventName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EventName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9_]*(\\.[a-z][a-z0-9_]*)+$" })
    }
}

/// Somebody who takes part in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Participant {
    /// Who it is, across sessions.
    pub user_id: String,
    /// Which of the session's participants it is.
    pub id: String,
}

/// The fields that every event carries; the bus stamps them when it accepts the event.
///
/// As a type to subscribe to, `Event<BaseEvent>` is every event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BaseEvent {
    /// Dotted type of the event.
    #[serde(rename = "type")]
    pub event_type: EventName,
    /// Unique id, UUIDv7.
    pub event_id: Uuid,
    /// When the event happened, for a plugin's event by the plugin's own reading (RFC 3339, UTC).
    pub timestamp: DateTime<Utc>,
    /// The session it belongs to; events of the host itself have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Position in the session, from 1 and without gaps; events of the host count on their own.
    pub seq: u64,
    /// The turn it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<TurnId>,
    /// The event whose handling brought this one about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// Who it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<Box<Participant>>,
    /// What the caller wanted to travel along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_metadata: Option<Box<serde_json::Value>>,
    /// When the bus accepted the event, in nanoseconds of a monotonic clock since the host started; for latencies.
    pub mono_ns: u64,
}

/// The fields that every event of a plugin carries besides; the host stamps them, so a plugin cannot forge them.
///
/// As a type to subscribe to, `Event<PluginBaseEvent>` is every event of every plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginBaseEvent {
    /// Name of the plugin, as in its manifest.
    pub plugin_name: Arc<str>,
    /// Version of the plugin (semantic versioning).
    pub plugin_version: Arc<str>,
    /// Which running instance of the plugin, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_instance: Option<Arc<str>>,
}

/// The wire names of the fields of [`BaseEvent`] and [`PluginBaseEvent`], which payloads do not have.
///
/// `derive(Event)` has the same list, because a macro's crate cannot see this one.
pub const STAMPED_FIELDS: [&str; 13] = [
    "type",
    "event_id",
    "timestamp",
    "session_id",
    "seq",
    "turn_id",
    "causation_id",
    "participant",
    "user_metadata",
    "mono_ns",
    "plugin_name",
    "plugin_version",
    "plugin_instance",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamped_fields_are_those_of_the_two_bases() {
        let fields = |schema: Schema| {
            let properties = schema.to_value()["properties"].as_object().cloned().unwrap_or_default();
            properties.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let mut all = fields(schemars::schema_for!(BaseEvent));
        all.extend(fields(schemars::schema_for!(PluginBaseEvent)));
        all.sort();
        let mut stamped = STAMPED_FIELDS.map(str::to_owned).to_vec();
        stamped.sort();
        assert_eq!(all, stamped);
    }
}
