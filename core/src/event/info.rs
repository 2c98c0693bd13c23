//! What the program knows about an event type at compile time.

use std::{
    any::{Any, TypeId},
    fmt,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{BaseEvent, CodecError, Envelope, EventName, EventType, PluginBaseEvent};

/// The name that stands for [`BaseEvent`] in a lineage.
pub const BASE_EVENT: &str = "BaseEvent";

/// The name that stands for [`PluginBaseEvent`] in a lineage.
pub const PLUGIN_BASE_EVENT: &str = "PluginBaseEvent";

/// What a subscription's full queue does with the next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// Whoever emits with `emit_wait`, and plugins, wait for room; `emit`, which never waits, drops the new event. A
    /// handler that gets nothing done for a second is stuck: nobody waits for it, and it loses what does not fit.
    Wait,
    /// The oldest waiting event makes room.
    DropOldest,
    /// The new event is dropped.
    DropNewest,
    /// The new event takes the place of a waiting one with the same key: of the same type and session, or what
    /// [`coalesce_by`](crate::bus::SubscriptionBuilder::coalesce_by) says. Without one, the oldest makes room.
    Coalesce,
    /// The subscription ends.
    Disconnect,
}

/// A type that an [`Event`](super::Event) handle can show: an event, or the base of events.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event type",
    label = "expected a struct with `#[derive(Event)]`, `BaseEvent` or `PluginBaseEvent`"
)]
pub trait EventView: Sized + Send + Sync + 'static {
    /// Wire name; for the two root bases their Rust name.
    const NAME: &'static str;

    /// Whether it is high-rate media, which only subscribers that name the type receive.
    const MEDIA: bool;

    /// This view of an event, if the event is one or derives from one.
    fn view(envelope: &Envelope) -> Option<&Self>;

    /// Compile-time knowledge; the two root bases have none.
    fn info() -> Option<&'static EventInfo>;

    /// Appends this type's name and those of its bases.
    fn extend_lineage(lineage: &mut Vec<&'static str>);
}

impl EventView for BaseEvent {
    const NAME: &'static str = BASE_EVENT;
    const MEDIA: bool = false;

    fn view(envelope: &Envelope) -> Option<&Self> {
        Some(envelope.base())
    }

    fn info() -> Option<&'static EventInfo> {
        None
    }

    fn extend_lineage(lineage: &mut Vec<&'static str>) {
        lineage.push(BASE_EVENT);
    }
}

impl EventView for PluginBaseEvent {
    const NAME: &'static str = PLUGIN_BASE_EVENT;
    const MEDIA: bool = false;

    fn view(envelope: &Envelope) -> Option<&Self> {
        envelope.plugin()
    }

    fn info() -> Option<&'static EventInfo> {
        None
    }

    fn extend_lineage(lineage: &mut Vec<&'static str>) {
        lineage.extend([PLUGIN_BASE_EVENT, BASE_EVENT]);
    }
}

/// The payload of an event: what `#[derive(Event)]` implements.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be emitted: it is no event",
    label = "expected a struct with `#[derive(Event)]`"
)]
pub trait EventPayload: EventView + fmt::Debug + Serialize + DeserializeOwned + JsonSchema {
    /// Compile-time knowledge about the type.
    const INFO: &'static EventInfo;

    /// Run-time knowledge about the type, made once.
    fn event_type() -> &'static EventType;

    /// The embedded payload of the event that this one extends.
    fn base_payload(&self) -> Option<&dyn Payload>;
}

/// A payload of a type that is not known here.
pub trait Payload: Any + Send + Sync + fmt::Debug {
    /// The payload itself, or the embedded base, as the wanted type.
    fn upcast(&self, wanted: TypeId) -> Option<&dyn Any>;

    /// The payload's fields as a JSON object.
    fn to_json(&self) -> Value;
}

impl<T: EventPayload> Payload for T {
    fn upcast(&self, wanted: TypeId) -> Option<&dyn Any> {
        if wanted == TypeId::of::<T>() { Some(self) } else { self.base_payload()?.upcast(wanted) }
    }

    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("events have text keys and no failing serializers")
    }
}

/// Compile-time knowledge about one event type.
#[derive(Clone, Copy)]
pub struct EventInfo {
    /// Dotted wire name.
    pub name: &'static str,
    /// Name of the Rust struct.
    pub rust_name: &'static str,
    /// Name of the base: `BaseEvent`, `PluginBaseEvent` or a wire name.
    pub base: &'static str,
    /// High-rate media: only for subscribers that name the type.
    pub media: bool,
    /// What a subscription's full queue does with such an event, unless the subscription says otherwise.
    pub overflow: Overflow,
    lineage: fn(&mut Vec<&'static str>),
    schema: fn(&mut SchemaGenerator) -> Schema,
    decode: fn(&[u8]) -> Decoded,
    from_json: fn(Value) -> Decoded,
}

/// A payload, or why there is none.
type Decoded = Result<Box<dyn Payload>, CodecError>;

impl EventInfo {
    /// Collects what the derive and the trait impls of `T` say.
    #[must_use]
    pub const fn of<T: EventPayload, B: EventView>(rust_name: &'static str, overflow: Overflow) -> Self {
        Self {
            name: T::NAME,
            rust_name,
            base: B::NAME,
            media: T::MEDIA,
            overflow,
            lineage: T::extend_lineage,
            schema: |generator| T::json_schema(generator),
            decode: |bytes| {
                let payload: T = from_message_pack(bytes).map_err(|reason| misfit(T::NAME, reason))?;
                Ok(Box::new(payload))
            },
            from_json: |value| {
                let payload: T =
                    serde_json::from_value(value).map_err(|source| misfit(T::NAME, source.to_string()))?;
                Ok(Box::new(payload))
            },
        }
    }

    /// Own name first, then the bases up to `BaseEvent`.
    #[must_use]
    pub fn lineage(&self) -> Vec<&'static str> {
        let mut lineage = Vec::new();
        (self.lineage)(&mut lineage);
        lineage
    }

    /// JSON Schema of the payload alone.
    #[must_use]
    pub fn payload_schema(&self) -> Value {
        let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let mut schema = (self.schema)(&mut generator);
        let definitions = generator.take_definitions(true);
        if !definitions.is_empty() {
            schema.insert("$defs".into(), Value::Object(definitions));
        }
        schema.to_value()
    }

    /// Reads a payload from MessagePack with field names.
    ///
    /// # Errors
    ///
    /// [`CodecError::Payload`] when the bytes are not of this type.
    pub fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Payload>, CodecError> {
        (self.decode)(bytes)
    }

    /// Reads a payload from a JSON object; base fields in it are passed over.
    ///
    /// # Errors
    ///
    /// [`CodecError::Payload`] when the object is not of this type.
    pub fn read_json(&self, value: Value) -> Result<Box<dyn Payload>, CodecError> {
        (self.from_json)(value)
    }
}

fn misfit(name: &'static str, reason: String) -> CodecError {
    CodecError::Payload { name: EventName::new(name), reason }
}

/// Reads one value from MessagePack and refuses what follows it. Ids may be text or bytes.
pub(super) fn from_message_pack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut decoder = rmp_serde::Deserializer::new(bytes).with_human_readable();
    let value = T::deserialize(&mut decoder).map_err(|error| error.to_string())?;
    match decoder.get_ref().len() {
        0 => Ok(value),
        trailing => Err(format!("{trailing} bytes follow it")),
    }
}

impl fmt::Debug for EventInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventInfo")
            .field("name", &self.name)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}
