//! A JSON Schema of settings as a table for people: name, type, default, range, what it is.
//!
//! Shows what schemars makes of settings structs; anything else is shown as the JSON that it is.

use serde_json::Value;

use super::output::{Ink, Table};

/// How deep tables in tables are shown; a schema can refer to itself.
const MAX_DEPTH: usize = 4;

/// A row for each setting; `None` when there are no settings.
pub(super) fn table(schema: &Value) -> Option<Table> {
    let mut table = Table::with_header(["NAME", "TYPE", "DEFAULT", "RANGE", "WHAT"]);
    let rows = add(&mut table, schema, schema, "", 0);
    (rows > 0).then_some(table)
}

fn add(table: &mut Table, root: &Value, object: &Value, prefix: &str, depth: usize) -> usize {
    let properties = object.get("properties").and_then(Value::as_object).into_iter().flatten();
    let mut rows = 0;
    for (name, declared) in properties {
        let schema = resolve(root, declared);
        let name = format!("{prefix}{name}");
        if schema.get("properties").is_some() && depth < MAX_DEPTH {
            rows += add(table, root, schema, &format!("{name}."), depth + 1);
            continue;
        }
        let of = |key: &str| declared.get(key).or_else(|| schema.get(key));
        let default = of("default").filter(|default| !default.is_null()).map(plain).unwrap_or_default();
        let what = of("description").and_then(Value::as_str).unwrap_or_default();
        let what = what.split("\n\n").next().unwrap_or_default();
        table.row([
            (Ink::Bold, name),
            (Ink::Plain, type_of(root, schema)),
            (Ink::Plain, default),
            (Ink::Plain, range(root, schema)),
            (Ink::Plain, what.to_owned()),
        ]);
        rows += 1;
    }
    rows
}

/// Follows a reference, and looks through what schemars wraps around optional values.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(target) =
        schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'))
    {
        return root.pointer(target).unwrap_or(schema);
    }
    let is_null = |schema: &&Value| schema.get("type").is_some_and(|kind| kind == "null");
    for key in ["anyOf", "oneOf", "allOf"] {
        let variants = schema.get(key).and_then(Value::as_array);
        let mut rest = variants.into_iter().flatten().filter(|variant| !is_null(variant));
        if let (Some(only), None) = (rest.next(), rest.next()) {
            return resolve(root, only);
        }
    }
    schema
}

fn type_of(root: &Value, schema: &Value) -> String {
    if !choices(schema).is_empty() {
        return "choice".into();
    }
    let name = |kind: &str| match kind {
        "string" => "text",
        "integer" => "whole number",
        "number" => "number",
        "boolean" => "true or false",
        "array" => "list",
        "object" => "table",
        _ => "any",
    };
    match schema.get("type") {
        Some(Value::String(kind)) if kind == "array" => match schema.get("items") {
            Some(items) => format!("list of {}", type_of(root, resolve(root, items))),
            None => "list".into(),
        },
        Some(Value::String(kind)) => name(kind).into(),
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            kinds.map(name).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".into(),
    }
}

/// The values that a choice has; schemars lists those with a description one by one.
fn choices(schema: &Value) -> Vec<String> {
    let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    let own = list("enum").chain(schema.get("const")).filter(|value| !value.is_null()).map(plain);
    own.chain(list("oneOf").chain(list("anyOf")).flat_map(choices)).collect()
}

fn range(root: &Value, schema: &Value) -> String {
    let choices = choices(schema);
    if !choices.is_empty() {
        return choices.join(", ");
    }
    let number = |key: &str| schema.get(key).map(plain);
    let unsigned =
        schema.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
    let least = number("minimum").or_else(|| number("exclusiveMinimum").map(|least| format!("> {least}")));
    let least = least.or_else(|| unsigned.then(|| "0".to_owned()));
    let most = number("maximum").or_else(|| number("exclusiveMaximum").map(|most| format!("< {most}")));
    match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("from {least}"),
        (None, Some(most)) => format!("to {most}"),
        (None, None) => match schema.get("items") {
            Some(items) => range(root, resolve(root, items)),
            None => String::new(),
        },
    }
}

/// A value without quotes around text, and whole numbers without a fraction.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;
    use crate::cli::output::Style;

    /// Settings of every kind.
    #[derive(serde::Serialize, JsonSchema)]
    #[serde(default)]
    struct Settings {
        /// How sure.
        #[schemars(range(min = 0.0, max = 1.0))]
        threshold: f64,
        /// Which one.
        voice: Voice,
        /// Where the model is.
        ///
        /// Not shown.
        model: Option<std::path::PathBuf>,
        words: Vec<String>,
        count: Option<u32>,
        deep: Deep,
        maybe: Option<Voice>,
    }

    impl Default for Settings {
        fn default() -> Self {
            let deep = Deep { er: true };
            let words = vec!["a".into()];
            Self { threshold: 0.5, voice: Voice::Slt, model: None, words, count: None, deep, maybe: None }
        }
    }

    #[derive(serde::Serialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[expect(dead_code, reason = "it is there for the schema")]
    enum Voice {
        Slt,
        /// With a description.
        Rms,
    }

    #[derive(serde::Serialize, JsonSchema)]
    struct Deep {
        /// Deeper.
        er: bool,
    }

    #[test]
    fn each_setting_is_a_row() {
        let schema = schemars::schema_for!(Settings).to_value();
        let text = table(&schema).expect("settings").render(Style::none(), "");
        let mut rows: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        // The order of a schema's properties depends on how serde_json was built.
        rows[1..].sort();
        assert_eq!(
            rows,
            [
                "NAME TYPE DEFAULT RANGE WHAT",
                "count whole number from 0",
                "deep.er true or false Deeper.",
                "maybe choice slt, rms",
                "model text Where the model is.",
                "threshold number 0.5 0 to 1 How sure.",
                "voice choice slt slt, rms Which one.",
                "words list of text [\"a\"]",
            ]
        );
    }

    #[test]
    fn a_schema_without_settings_has_no_table() {
        assert!(table(&serde_json::json!({ "type": "object", "properties": {} })).is_none());
        assert!(table(&serde_json::json!(true)).is_none());
    }
}
