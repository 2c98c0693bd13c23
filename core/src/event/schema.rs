//! The JSON Schema of the one JSON form of an event: base fields and payload fields side by side.

use std::sync::LazyLock;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{BaseEvent, PLUGIN_BASE_EVENT, PluginBaseEvent};

/// Merges the payload's schema with those of the base fields into the schema of the flat object.
#[must_use]
pub fn flat_schema(name: &str, lineage: &[&str], payload: Value) -> Value {
    let mut flat = Map::new();
    flat.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    flat.insert("$id".into(), format!("urn:antiphon:event:{name}").into());
    flat.insert("title".into(), name.into());
    flat.insert("description".into(), description(&payload).into());
    flat.insert("type".into(), "object".into());
    let (mut properties, mut required, mut definitions) = (Map::new(), Vec::new(), Map::new());
    let mut parts = vec![payload];
    if lineage.contains(&PLUGIN_BASE_EVENT) {
        parts.push(fields_of::<PluginBaseEvent>());
    }
    parts.push(fields_of::<BaseEvent>());
    for part in parts.iter().rev() {
        merge(part, &mut properties, &mut required, &mut definitions);
    }
    properties.insert("type".into(), json!({ "const": name }));
    flat.insert("properties".into(), Value::Object(properties));
    flat.insert("required".into(), required.into());
    if !definitions.is_empty() {
        flat.insert("$defs".into(), Value::Object(definitions));
    }
    flat.insert("x-extends".into(), lineage.get(1..).unwrap_or_default().into());
    Value::Object(flat)
}

/// First paragraph of what the schema says about itself, on one line.
pub(super) fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split("\n\n").next().unwrap_or_default().replace('\n', " ")
}

/// Whether the bus stamps a field of this name, so that no payload can have it.
pub(super) fn is_stamped(field: &str) -> bool {
    static FIELDS: LazyLock<[Value; 2]> =
        LazyLock::new(|| [fields_of::<BaseEvent>(), fields_of::<PluginBaseEvent>()]);
    FIELDS.iter().any(|schema| schema["properties"].get(field).is_some())
}

fn fields_of<T: JsonSchema>() -> Value {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = T::json_schema(&mut generator);
    let definitions = generator.take_definitions(true);
    if !definitions.is_empty() {
        schema.insert("$defs".into(), Value::Object(definitions));
    }
    schema.to_value()
}

/// Adds the properties of an object schema; a flattened base stands in its `allOf` or beside its properties.
fn merge(
    part: &Value,
    properties: &mut Map<String, Value>,
    required: &mut Vec<Value>,
    definitions: &mut Map<String, Value>,
) {
    let object = |key: &str| part.get(key).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in object("properties") {
        properties.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in object("$defs") {
        definitions.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for name in part.get("required").and_then(Value::as_array).into_iter().flatten() {
        if !required.contains(name) {
            required.push(name.clone());
        }
    }
    for inner in part.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        merge(inner, properties, required, definitions);
    }
}
