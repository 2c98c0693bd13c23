//! The event types that a running host knows: the catalogue, types of the host program, and types of its plugins.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use serde_json::Value;

use super::{
    BASE_EVENT, EventInfo, EventName, Opaque, Overflow, PLUGIN_BASE_EVENT, Payload, agent, audio, bus,
    flat_schema, info::from_message_pack, llm, plugin, schema, session, stt, tts, turn, vision,
};

/// Why bytes or JSON are no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The payload does not fit its type.
    #[error("{name} has a payload that does not fit its type: {reason}")]
    Payload {
        /// The event type.
        name: EventName,
        /// What the decoder found.
        reason: String,
    },
}

/// One event type as a running host knows it.
#[derive(Clone)]
pub struct EventType {
    name: EventName,
    index: usize,
    lineage: Vec<EventName>,
    known: Known,
}

#[derive(Clone)]
enum Known {
    /// The program was compiled with the type.
    Typed(&'static EventInfo),
    /// Only a manifest told of it.
    Declared {
        schema: Arc<Value>,
        media: bool,
        /// The nearest type of its lineage that the program was compiled with: itself, or a base. May come to be known
        /// only after the declaration.
        nearest: Arc<RwLock<Option<&'static EventInfo>>>,
    },
}

impl EventType {
    /// A type that the program was compiled with.
    #[must_use]
    pub fn typed(info: &'static EventInfo) -> Self {
        let lineage = info.lineage().into_iter().map(EventName::new).collect();
        Self {
            name: EventName::new(info.name),
            index: index_of(info.name),
            lineage,
            known: Known::Typed(info),
        }
    }

    /// Dotted wire name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(crate) fn event_name(&self) -> &EventName {
        &self.name
    }

    /// Number of the name within this process, from 0 in the order in which the names came up.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Own name first, then the bases up to `BaseEvent`.
    #[must_use]
    pub fn lineage(&self) -> &[EventName] {
        &self.lineage
    }

    /// Whether the type is `name` or derives from it.
    #[must_use]
    pub fn derives_from(&self, name: &str) -> bool {
        self.lineage.iter().any(|base| base == name)
    }

    /// Whether it is high-rate media, for subscribers that name the type.
    #[must_use]
    pub fn is_media(&self) -> bool {
        match &self.known {
            Known::Typed(info) => info.media,
            Known::Declared { media, .. } => *media,
        }
    }

    /// What a subscription's full queue does with it by default.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        match &self.known {
            Known::Typed(info) => info.overflow,
            Known::Declared { media: true, .. } => Overflow::DropOldest,
            Known::Declared { .. } => Overflow::Wait,
        }
    }

    /// JSON Schema of the flat object that the event is outside the process.
    #[must_use]
    pub fn schema(&self) -> Value {
        match &self.known {
            Known::Typed(info) => flat_schema(info.name, &info.lineage(), info.payload_schema()),
            Known::Declared { schema, .. } => {
                let lineage: Vec<&str> = self.lineage.iter().map(EventName::as_str).collect();
                flat_schema(self.name(), &lineage, Value::clone(schema))
            }
        }
    }

    /// First paragraph of the type's documentation.
    #[must_use]
    pub fn description(&self) -> String {
        let schema = match &self.known {
            Known::Typed(info) => info.payload_schema(),
            Known::Declared { schema, .. } => Value::clone(schema),
        };
        schema::description(&schema)
    }

    /// Reads a payload from MessagePack with field names.
    ///
    /// # Errors
    ///
    /// [`CodecError::Payload`] when the bytes do not fit the type.
    pub fn decode(&self, bytes: &[u8]) -> Result<Box<dyn Payload>, CodecError> {
        match &self.known {
            Known::Typed(info) => info.decode(bytes),
            Known::Declared { nearest, .. } => {
                let nearest = *nearest.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(info) = nearest
                    && info.name == self.name()
                {
                    return info.decode(bytes);
                }
                let misfit = |reason| CodecError::Payload { name: self.name.clone(), reason };
                let json: Value = from_message_pack(bytes).map_err(misfit)?;
                if !json.is_object() {
                    return Err(misfit("expected a map of fields".to_owned()));
                }
                self.opaque(json, nearest)
            }
        }
    }

    /// A type of which nothing is known but the name.
    pub(crate) fn unknown(name: &str) -> Self {
        Self {
            name: EventName::from(name.to_owned()),
            index: index_of(name),
            lineage: vec![EventName::from(name.to_owned()), EventName::new(BASE_EVENT)],
            known: Known::Declared {
                schema: Arc::new(Value::Bool(true)),
                media: false,
                nearest: Arc::default(),
            },
        }
    }

    /// Reads a payload from the flat JSON object of an event; fields of the base in it are passed over. It is held to the
    /// schema of its type.
    ///
    /// # Errors
    ///
    /// [`CodecError::Payload`] when the object does not fit the type.
    pub fn read_json(&self, mut event: Value) -> Result<Box<dyn Payload>, CodecError> {
        let misfit = |reason| CodecError::Payload { name: self.name.clone(), reason };
        match event.as_object_mut() {
            Some(fields) => fields.retain(|key, _| !schema::is_stamped(key)),
            None => return Err(misfit("expected an object of fields".to_owned())),
        }
        match &self.known {
            Known::Typed(info) => info.read_json(event),
            Known::Declared { schema, nearest, .. } => {
                let nearest = *nearest.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(info) = nearest
                    && info.name == self.name()
                {
                    return info.read_json(event);
                }
                let validator =
                    jsonschema::validator_for(schema).map_err(|error| misfit(error.to_string()))?;
                if let Some(error) = validator.iter_errors(&event).next() {
                    return Err(misfit(format!("{error} at `{}`", error.instance_path())));
                }
                self.opaque(event, nearest)
            }
        }
    }

    fn opaque(
        &self,
        json: Value,
        nearest: Option<&'static EventInfo>,
    ) -> Result<Box<dyn Payload>, CodecError> {
        let base = nearest.map(|base| base.read_json(json.clone())).transpose()?;
        Ok(Box::new(Opaque { json, base }))
    }

    /// Tells a declared type of a compiled-in one, which it may be or derive from.
    fn learn(&self, info: &'static EventInfo) {
        let Known::Declared { nearest, .. } = &self.known else { return };
        let distance = |info: &EventInfo| self.lineage.iter().position(|name| name == info.name);
        let Some(new) = distance(info) else { return };
        let mut nearest = nearest.write().unwrap_or_else(PoisonError::into_inner);
        if nearest.and_then(distance).is_none_or(|known| new < known) {
            *nearest = Some(info);
        }
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventType").field("lineage", &self.lineage).finish_non_exhaustive()
    }
}

/// The event types that a running host knows.
#[derive(Debug)]
pub struct EventRegistry {
    types: RwLock<BTreeMap<EventName, Arc<EventType>>>,
}

impl EventRegistry {
    /// Starts with the catalogue of the core.
    #[must_use]
    pub fn with_catalogue() -> Self {
        let types = catalogue()
            .iter()
            .map(|info| (EventName::new(info.name), Arc::new(EventType::typed(info))))
            .collect();
        Self { types: RwLock::new(types) }
    }

    /// Makes a compiled-in type known. Where a manifest told of it first, from now on it is decoded to its struct, also
    /// by whoever holds the type as it was declared.
    pub fn register(&self, info: &'static EventInfo) -> Arc<EventType> {
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types.get(info.name)
            && matches!(known.known, Known::Typed(_))
        {
            return Arc::clone(known);
        }
        let event = Arc::new(EventType::typed(info));
        for known in types.values() {
            known.learn(info);
        }
        types.insert(EventName::new(info.name), Arc::clone(&event));
        event
    }

    /// Makes a type known that a manifest declares: its name, its bases from the nearest to `BaseEvent`, and its
    /// payload's schema. Known types stay as they are.
    pub fn declare(&self, name: &str, bases: &[String], media: bool, schema: Value) -> Arc<EventType> {
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types.get(name) {
            return Arc::clone(known);
        }
        let nearest = bases.iter().find_map(|base| match &types.get(base.as_str())?.known {
            Known::Typed(info) => Some(*info),
            Known::Declared { .. } => None,
        });
        let name = EventName::from(name.to_owned());
        let mut lineage = vec![name.clone()];
        lineage.extend(bases.iter().map(|base| EventName::from(base.clone())));
        for root in [PLUGIN_BASE_EVENT, BASE_EVENT] {
            if !bases.iter().any(|base| base == root) {
                lineage.push(EventName::new(root));
            }
        }
        let nearest = Arc::new(RwLock::new(nearest));
        let known = Known::Declared { schema: Arc::new(schema), media, nearest };
        let index = index_of(name.as_str());
        let event = Arc::new(EventType { name: name.clone(), index, lineage, known });
        types.insert(name, Arc::clone(&event));
        event
    }

    /// The type of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<EventType>> {
        self.types.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All known types by name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<EventType>> {
        self.types.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The number of a name. A table of types is then an array, and finding a type in it takes no hashing.
fn index_of(name: &str) -> usize {
    static INDEXES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let mut indexes = INDEXES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = indexes.get(name) {
        return *index;
    }
    let index = indexes.len();
    indexes.insert(name.to_owned(), index);
    index
}

/// The event types of the core, by topic.
const TOPICS: [&[&EventInfo]; 10] = [
    agent::EVENTS,
    session::EVENTS,
    turn::EVENTS,
    stt::EVENTS,
    llm::EVENTS,
    tts::EVENTS,
    audio::EVENTS,
    vision::EVENTS,
    plugin::EVENTS,
    bus::EVENTS,
];

/// Every event type of the core.
#[must_use]
pub fn catalogue() -> Vec<&'static EventInfo> {
    TOPICS.concat()
}

const COUNT: usize = {
    let (mut topic, mut count) = (0, 0);
    while topic < TOPICS.len() {
        count += TOPICS[topic].len();
        topic += 1;
    }
    count
};

/// The names of the [`catalogue`], made by the compiler: a library that asks only for names, as every plugin does, would
/// otherwise carry the schema and the decoder of each event.
pub static CATALOGUE_NAMES: [&str; COUNT] = {
    let (mut names, mut count, mut topic) = ([""; COUNT], 0, 0);
    while topic < TOPICS.len() {
        let mut event = 0;
        while event < TOPICS[topic].len() {
            names[count] = TOPICS[topic][event].name;
            (count, event) = (count + 1, event + 1);
        }
        topic += 1;
    }
    names
};
