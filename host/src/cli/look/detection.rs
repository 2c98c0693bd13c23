//! A detection as text: any event that extends `vision.detection`, also with fields that nobody here knows.

use std::fmt::Write as _;

use antiphon_core::event::STAMPED_FIELDS;
use serde_json::{Map, Value};

use crate::cli::output::{Ink, Style, clean, count, milliseconds};

/// Fields that the text says already, besides the stamped ones.
const TOLD_FIELDS: [&str; 6] =
    ["model_id", "inference_time_ms", "detection_count", "image_width", "image_height", "frame_sequence"];

fn is_told(field: &str) -> bool {
    STAMPED_FIELDS.contains(&field) || TOLD_FIELDS.contains(&field)
}

/// Fields that say what an object is, the best one first.
const LABELS: [&str; 4] = ["text", "label", "name", "class"];

/// Fields that say where it is.
const BOX: [&str; 4] = ["x1", "y1", "x2", "y2"];

/// The lines of one detection: what was found by whom, then each object.
pub(super) fn to_text(event: &Value, style: Style) -> String {
    let of = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let found = event.get("detection_count").and_then(Value::as_u64).unwrap_or_default();
    let found =
        if found == 0 { "nothing found".to_owned() } else { format!("{} found", count(found, "object")) };
    let took = event.get("inference_time_ms").and_then(Value::as_f64);
    let took = took.map(|ms| format!(" in {}", milliseconds(ms))).unwrap_or_default();
    let by = style.paint(Ink::Dim, format!("{} ({})", clean(of("plugin_name")), clean(of("type"))));
    let mut text = format!("  {found}{took}  {by}\n");
    let empty = Map::new();
    let fields = event.as_object().unwrap_or(&empty);
    let own = || fields.iter().filter(|(key, value)| !is_told(key) && !value.is_null());
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let plain = own().filter(|(_, value)| !is_list_of_objects(value) && !is_empty(value));
    let plain: Vec<String> = plain.map(pair).collect();
    if !plain.is_empty() {
        writeln!(text, "    {}", plain.join("  ")).expect("text grows");
    }
    for object in merged(own().map(|(_, value)| value).filter(|value| is_list_of_objects(value))) {
        writeln!(text, "    {}", object_text(&object, style)).expect("text grows");
    }
    text
}

/// The objects of all lists; those that two lists tell of, by their labels, only once, with what either says.
fn merged<'a>(lists: impl Iterator<Item = &'a Value>) -> Vec<Map<String, Value>> {
    let mut all: Vec<Map<String, Value>> = Vec::new();
    for list in lists {
        let objects: Vec<&Map<String, Value>> =
            list.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
        let is_same =
            objects.len() == all.len() && objects.iter().zip(&all).all(|(a, b)| label(a).1 == label(b).1);
        if !is_same {
            all.extend(objects.into_iter().cloned());
            continue;
        }
        for (known, object) in all.iter_mut().zip(objects) {
            let own = label(object).0;
            let other = object.iter().filter(|(key, _)| Some(key.as_str()) != own);
            known.extend(other.map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    all
}

/// The field that says what an object is, and what it says.
fn label(object: &Map<String, Value>) -> (Option<&'static str>, &str) {
    let field = LABELS.into_iter().find(|label| object.get(*label).is_some_and(Value::is_string));
    (field, field.and_then(|field| object[field].as_str()).unwrap_or_default())
}

fn is_list_of_objects(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_object) && !items.is_empty())
}

fn object_text(object: &Map<String, Value>, style: Style) -> String {
    let (label, text) = label(object);
    let mut parts = Vec::new();
    if label.is_some() {
        parts.push(style.paint(Ink::Bold, format!("\"{}\"", clean(text).replace('\n', "\\n"))));
    }
    let edges: Option<Vec<String>> = BOX.iter().map(|edge| object.get(*edge).map(Value::to_string)).collect();
    if let Some([x1, y1, x2, y2]) = edges.as_deref() {
        parts.push(format!("at {x1},{y1} to {x2},{y2}"));
    }
    if let Some(confidence) = object.get("confidence").and_then(Value::as_f64) {
        parts.push(format!("confidence {confidence:.2}"));
    }
    let is_said = |key: &str| Some(key) == label || BOX.contains(&key) || key == "confidence";
    parts.extend(object.iter().filter(|(key, value)| !is_said(key) && !value.is_null()).map(pair));
    parts.join("  ")
}

fn pair((key, value): (&String, &Value)) -> String {
    clean(&match value {
        Value::String(text) => format!("{key}={text}"),
        _ => format!("{key}={value}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_lines_and_unknown_fields_are_kept() {
        let event = json!({
            "type": "vision-qr.codes", "seq": 3, "plugin_name": "vision-qr", "detection_count": 1,
            "inference_time_ms": 3.2, "model_id": null, "mood": "good",
            "codes": [{ "text": "hello", "x1": 1, "y1": 2, "x2": 3, "y2": 4, "confidence": 0.5, "label": "qr", "version": 7 }],
        });
        assert_eq!(
            to_text(&event, Style::none()),
            "  1 object found in 3.2 ms  vision-qr (vision-qr.codes)\n    mood=good\n    \"hello\"  at 1,2 to 3,4  \
             confidence 0.50  label=qr  version=7\n"
        );
    }

    #[test]
    fn objects_that_stand_in_two_lists_are_told_of_once() {
        let event = json!({
            "type": "v.codes", "plugin_name": "v", "detection_count": 1,
            "codes": [{ "text": "a", "version": 7 }],
            "objects": [{ "label": "a", "x1": 1, "y1": 2, "x2": 3, "y2": 4 }],
        });
        let text = to_text(&event, Style::none());
        assert!(text.ends_with("\n    \"a\"  at 1,2 to 3,4  version=7\n"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn nothing_is_something_to_tell() {
        let event =
            json!({ "type": "vision.detection", "plugin_name": "v", "detection_count": 0, "objects": [] });
        assert_eq!(to_text(&event, Style::none()), "  nothing found  v (vision.detection)\n");
    }
}
