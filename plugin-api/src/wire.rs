//! What crosses as bytes: MessagePack with field names, so that fields may come and go.

use rmp_serde::{Deserializer, Serializer, encode::Error};
use serde::{Serialize, de::DeserializeOwned};

/// What has a form for people and one for machines, as ids do, is written in that for people: a host that was never
/// compiled with an event's type reads it as JSON, which has no bytes.
pub(crate) fn encode(event: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(128);
    event.serialize(&mut Serializer::new(&mut bytes).with_struct_map().with_human_readable())?;
    Ok(bytes)
}

/// Ids may be text or bytes; `None` when it is no such value, or something follows it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut decoder = Deserializer::new(bytes).with_human_readable();
    let value = T::deserialize(&mut decoder).ok()?;
    decoder.get_ref().is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use antiphon_core::SpeechId;
    use uuid::Uuid;

    use super::*;
    use crate::TtsRequest;

    #[test]
    fn ids_may_be_text_or_bytes() {
        let (synthesis_id, speech_id) = (Uuid::from_u128(1), SpeechId(Uuid::from_u128(2)));
        let request = TtsRequest { text: "hello".into(), synthesis_id, speech_id, chunk_id: 3 };
        let for_machines = rmp_serde::to_vec_named(&request).expect("plain data");
        let for_people = encode(&request).expect("plain data");
        assert!(for_machines.len() < for_people.len());
        assert_eq!(decode(&for_machines).as_ref(), Some(&request));
        assert_eq!(decode(&for_people), Some(request));
    }

    #[test]
    fn what_is_too_short_or_too_long_is_nothing() {
        let bytes = encode(&("a", 1)).expect("plain data");
        assert_eq!(decode::<(String, u8)>(&bytes), Some(("a".into(), 1)));
        assert_eq!(decode::<(String, u8)>(&bytes[..2]), None);
        assert_eq!(decode::<(String, u8)>(&[&bytes[..], &[0]].concat()), None);
    }
}
