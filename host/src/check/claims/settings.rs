//! Settings that do not fit: refused, with the name of the setting.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    Kind,
    check::{
        Problem,
        message::Checked,
        running::{Context, Source},
    },
};

/// Settings whose default the schema tells.
pub(in crate::check) fn defaults(schema: &Value) -> Map<String, Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let default =
        |(name, property): (&String, &Value)| Some((name.clone(), property.get("default")?.clone()));
    properties.into_iter().flatten().filter_map(default).collect()
}

/// What a start with settings came to.
enum Answer {
    Started,
    Refused(String),
}

fn try_start(context: &Context, source: &Arc<dyn Source>, settings: &[u8]) -> Checked<Answer> {
    match context.create(source, settings) {
        Ok(running) => running.stop().map(|()| Answer::Started),
        Err(error) => Ok(Answer::Refused(error.message.to_string())),
    }
}

pub(in crate::check) fn unknown(context: &Context, _: Option<Kind>) -> Checked {
    const NAME: &str = "antiphon_no_such_setting";
    let source = context.source()?;
    let mut settings = context.settings.clone();
    settings.insert(NAME.into(), json!(1));
    context.tell.stage("starting with a setting that does not exist");
    match try_start(context, &source, Value::Object(settings).to_string().as_bytes())? {
        Answer::Started => context.tell.warn(Problem::new(
            format!("a setting called {NAME} was accepted"),
            "an error that names it: mistyped settings are lost in silence otherwise",
            "put `#[serde(deny_unknown_fields)]` on the settings",
        )),
        Answer::Refused(text) if text.contains(NAME) => {}
        Answer::Refused(text) => context.tell.warn(Problem::new(
            format!("the error does not name the setting {NAME}: {text}"),
            "the name of the setting in the error",
            "let serde refuse it: `#[serde(deny_unknown_fields)]`",
        )),
    }
    Ok(())
}

pub(in crate::check) fn wrong(context: &Context, _: Option<Kind>) -> Checked {
    let source = context.source()?;
    let schema = source.manifest().settings.clone();
    let Ok(validator) = jsonschema::validator_for(&schema) else {
        return Err(context.tell.skip("the schema of the settings cannot be used"));
    };
    let names: Vec<String> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    if names.is_empty() {
        return Err(context.tell.skip("the plugin has no settings"));
    }
    let values = [
        json!("not a value of this setting"),
        json!(true),
        json!(-1.5),
        json!(1e300),
        json!(["wrong"]),
        json!({ "wrong": 1 }),
    ];
    let mut all = Ok(());
    for name in names {
        for value in &values {
            let mut settings = context.settings.clone();
            settings.insert(name.clone(), value.clone());
            let settings = Value::Object(settings);
            // Ranges are for the host, which holds settings to the schema before it starts a plugin.
            let is_about = |error: jsonschema::ValidationError<'_>| {
                error.instance_path().to_string().starts_with(&format!("/{name}"))
            };
            if !is_wrong_type(&schema, &name, value) || !validator.iter_errors(&settings).any(is_about) {
                continue;
            }
            context.tell.stage(format!("starting with {name} = {value}"));
            let seen = match try_start(context, &source, settings.to_string().as_bytes())? {
                Answer::Refused(text) if text.contains(&name) => continue,
                Answer::Refused(text) => format!("{name} = {value} is refused without its name: {text}"),
                Answer::Started => format!("{name} = {value} is accepted"),
            };
            all = Err(context.tell.fail(Problem::new(
                seen,
                "an error that names the setting",
                "derive `Deserialize` for the settings with the types that the schema tells",
            )));
            break;
        }
    }
    all
}

/// Whether a value is of another JSON type than a setting may be, and not only out of its range.
fn is_wrong_type(schema: &Value, name: &str, value: &Value) -> bool {
    let types = &schema["properties"][name]["type"];
    let of = |name: &str| match name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" | "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => value.is_null(),
    };
    match types {
        Value::String(name) => !of(name),
        Value::Array(names) => !names.iter().filter_map(Value::as_str).any(of),
        _ => !value.is_string(),
    }
}

/// Characters of a setting that is far too long.
const HUGE: usize = 1 << 20;

pub(in crate::check) fn odd(context: &Context, _: Option<Kind>) -> Checked {
    let source = context.source()?;
    let mut all = Ok(());
    for (what, text) in [
        ("nothing at all", ""),
        ("half an object", "{\"a"),
        ("text that is no JSON", "hello = 1"),
        ("bytes that are no text", "\u{0}"),
        ("a list", "[1, 2]"),
        ("a number", "7"),
    ] {
        context.tell.stage(format!("starting with settings that are {what}"));
        if let Answer::Started = try_start(context, &source, text.as_bytes())? {
            let problem = Problem::new(
                format!("settings that are {what} are accepted"),
                "an error",
                "read the settings as one JSON object, and return the error",
            );
            all = Err(context.tell.fail(problem));
        }
    }
    let schema = source.manifest().settings.clone();
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let is_text = property["type"] == "string"
            || property["type"].as_array().is_some_and(|types| types.contains(&json!("string")));
        for text in ["x".repeat(HUGE), "\u{0}\u{202e}\n".to_owned()] {
            if is_text {
                let mut settings = context.settings.clone();
                settings.insert(name.clone(), Value::String(text.clone()));
                context.tell.stage(format!("starting with a text of {} bytes as {name}", text.len()));
                // Whatever it answers, it is still there.
                try_start(context, &source, Value::Object(settings).to_string().as_bytes())?;
            }
        }
    }
    all
}
