//! Events that come as JSON.

use serde_json::Value;
use uuid::Uuid;

use super::{
    emit::{Emitted, Inner, Manner},
    scope::Scope,
};
use crate::event::{CodecError, EventType, Participant, Stamp};

/// What to do with JSON of an event type that this host does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownType {
    /// It is an error.
    #[default]
    Refuse,
    /// It is logged and passed over.
    Warn,
    /// It is delivered as JSON, to subscriptions of its name, a prefix of it, or everything.
    PassThrough,
}

/// Why JSON was not emitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitJsonError {
    /// It is no object with a `type`.
    #[error("an event is a JSON object with a text field `type`, not {found}")]
    NoEvent {
        /// The beginning of what it is.
        found: String,
    },
    /// The type is not known.
    #[error("no event type `{event_type}` is known here")]
    UnknownType {
        /// What the JSON says.
        event_type: String,
    },
    /// A field of the base does not fit.
    #[error("field `{field}` of `{event_type}` does not fit: {reason}")]
    Base {
        /// The event type.
        event_type: String,
        /// The field.
        field: &'static str,
        /// What the decoder found.
        reason: String,
    },
    /// The payload does not fit its type.
    #[error(transparent)]
    Payload(#[from] CodecError),
}

/// Characters of the input that an error shows.
const SHOWN: usize = 80;

impl Inner {
    pub(super) fn emit_json(
        &self,
        scope: &Scope,
        event: Value,
        unknown: UnknownType,
    ) -> Result<Emitted, EmitJsonError> {
        let Some(name) = event.get("type").and_then(Value::as_str).map(str::to_owned) else {
            let found: String = event.to_string().chars().take(SHOWN).collect();
            return Err(EmitJsonError::NoEvent { found });
        };
        let known = match (self.registry.find(&name), unknown) {
            (Some(known), _) => known,
            (None, UnknownType::PassThrough) => EventType::unknown(&name).into(),
            (None, UnknownType::Warn) => {
                tracing::warn!(event = name, "an event of an unknown type was passed over");
                return Ok(Emitted::default());
            }
            (None, UnknownType::Refuse) => return Err(EmitJsonError::UnknownType { event_type: name }),
        };
        let stamp = stamp(&name, &event)?;
        let payload = known.read_json(event)?;
        if self.interest.is_unwanted(&known) {
            return Ok(Emitted::default());
        }
        Ok(self.emit(scope, &known, payload, stamp, Manner { keep: true, ..Manner::default() }).into())
    }
}

/// What of the base may come from outside.
fn stamp(event_type: &str, event: &Value) -> Result<Stamp, EmitJsonError> {
    fn read<T: serde::de::DeserializeOwned>(
        event_type: &str,
        event: &Value,
        field: &'static str,
    ) -> Result<Option<T>, EmitJsonError> {
        let value = event.get(field).filter(|value| !value.is_null());
        value.cloned().map(serde_json::from_value).transpose().map_err(|error| EmitJsonError::Base {
            event_type: event_type.to_owned(),
            field,
            reason: error.to_string(),
        })
    }
    Ok(Stamp {
        turn_id: read(event_type, event, "turn_id")?,
        causation_id: read::<Uuid>(event_type, event, "causation_id")?,
        participant: read::<Box<Participant>>(event_type, event, "participant")?,
        user_metadata: read(event_type, event, "user_metadata")?,
        plugin: None,
    })
}
