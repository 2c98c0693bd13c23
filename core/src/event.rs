//! Events: facts that happened, typed, immutable and shared.
//!
//! One definition per event: a serde struct with `#[derive(Event)]`. Whoever emits gives this *payload*; the bus
//! stamps the *base* beside it ([`BaseEvent`], and for plugins [`PluginBaseEvent`]) and shares both in one
//! [`Envelope`]. Handlers get an [`Event<T>`]: the payload's fields by deref, the base fields by method.
//!
//! The catalogue of the core events is in the topic modules below; third parties define theirs in their own crates.

mod base;
mod envelope;
mod filter;
mod info;
mod registry;
mod schema;
pub mod values;

pub mod agent;
pub mod audio;
pub mod bus;
pub mod llm;
pub mod plugin;
pub mod session;
pub mod stt;
pub mod tts;
pub mod turn;
pub mod vision;

pub use antiphon_derive::{Event, EventUnion};

pub use self::{
    base::{BaseEvent, EventName, Participant, PluginBaseEvent, STAMPED_FIELDS},
    envelope::{Envelope, Opaque, Stamp},
    filter::{Event, Filter, FromEvent},
    info::{BASE_EVENT, EventInfo, EventPayload, EventView, Overflow, PLUGIN_BASE_EVENT, Payload},
    registry::{CATALOGUE_NAMES, CodecError, EventRegistry, EventType, catalogue},
    schema::flat_schema,
};

pub(crate) use self::envelope::Stamped;
