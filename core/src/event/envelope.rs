//! The envelope: base fields around a payload, shared by all who receive the event.

use std::{
    any::{Any, TypeId},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{BaseEvent, EventName, EventPayload, Participant, Payload, PluginBaseEvent, schema::is_stamped};
use crate::TurnId;

/// One event as it was accepted by the bus: base fields, and its payload in the same allocation.
#[derive(Debug)]
pub struct Envelope<P: ?Sized = dyn Payload> {
    base: BaseEvent,
    plugin: Option<Arc<PluginBaseEvent>>,
    payload: P,
}

/// What the emitter knows beside the payload; everything is optional.
#[derive(Debug, Clone, Default)]
pub struct Stamp {
    /// The turn that the event belongs to. Default: that of the event being handled.
    pub turn_id: Option<TurnId>,
    /// The event that caused this one. Default: the event being handled.
    pub causation_id: Option<Uuid>,
    /// Who it is about.
    pub participant: Option<Box<Participant>>,
    /// What should travel along.
    pub user_metadata: Option<Box<Value>>,
    /// The plugin that emits.
    pub plugin: Option<Arc<PluginBaseEvent>>,
}

impl Stamp {
    /// Says which turn the event belongs to.
    #[must_use]
    pub fn turn(turn_id: Option<TurnId>) -> Self {
        Self { turn_id, ..Self::default() }
    }
}

/// What the bus adds when it accepts an event.
pub(crate) struct Stamped {
    pub(crate) event_type: EventName,
    pub(crate) event_id: Uuid,
    pub(crate) timestamp: DateTime<Utc>,
    pub(crate) session_id: Option<crate::SessionId>,
    pub(crate) seq: u64,
    pub(crate) mono_ns: u64,
}

impl<P: Payload> Envelope<P> {
    pub(crate) fn new(stamped: Stamped, stamp: Stamp, payload: P) -> Self {
        let Stamped { event_type, event_id, timestamp, session_id, seq, mono_ns } = stamped;
        let Stamp { turn_id, causation_id, participant, user_metadata, plugin } = stamp;
        let base = BaseEvent {
            event_type,
            event_id,
            timestamp,
            session_id,
            seq,
            turn_id,
            causation_id,
            participant,
            user_metadata,
            mono_ns,
        };
        Self { base, plugin, payload }
    }
}

impl Envelope {
    /// Gives the event its place in the order of its scope, where it was built before that was known.
    pub(crate) fn number(&mut self, seq: u64, mono_ns: u64) {
        self.base.seq = seq;
        self.base.mono_ns = mono_ns;
    }

    /// The fields that every event carries.
    #[must_use]
    pub fn base(&self) -> &BaseEvent {
        &self.base
    }

    /// The fields that a plugin's event carries.
    #[must_use]
    pub fn plugin(&self) -> Option<&PluginBaseEvent> {
        self.plugin.as_deref()
    }

    /// Dotted type of the event.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.base.event_type.as_str()
    }

    /// The payload as `T`, if it is one or extends one.
    #[must_use]
    pub fn payload_as<T: EventPayload>(&self) -> Option<&T> {
        self.payload.upcast(TypeId::of::<T>())?.downcast_ref()
    }

    /// The event as one flat JSON object: base fields, plugin fields and payload fields side by side.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = object(&self.base);
        if let Some(plugin) = &self.plugin {
            object.extend(self::object(&**plugin));
        }
        if let Value::Object(payload) = self.payload.to_json() {
            // Also not where the base field is absent, or a plugin could say whom its event is about.
            object.extend(payload.into_iter().filter(|(key, _)| !is_stamped(key)));
        }
        Value::Object(object)
    }
}

fn object(fields: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(fields) {
        Ok(Value::Object(object)) => object,
        other => unreachable!("the base of an event is a struct with text keys: {other:?}"),
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// A payload that was made behind a pointer, because its type was known only when it was decoded.
impl Payload for Box<dyn Payload> {
    fn upcast(&self, wanted: TypeId) -> Option<&dyn Any> {
        (**self).upcast(wanted)
    }

    fn to_json(&self) -> Value {
        (**self).to_json()
    }
}

/// The payload of an event whose type this program was not compiled with: its JSON, and the nearest known base.
#[derive(Debug)]
pub struct Opaque {
    pub(crate) json: Value,
    pub(crate) base: Option<Box<dyn Payload>>,
}

impl Payload for Opaque {
    fn upcast(&self, wanted: TypeId) -> Option<&dyn Any> {
        if wanted == TypeId::of::<Self>() { Some(self) } else { self.base.as_ref()?.upcast(wanted) }
    }

    fn to_json(&self) -> Value {
        self.json.clone()
    }
}
