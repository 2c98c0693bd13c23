//! Checks a plugin's settings against the schema of its manifest, before the plugin starts.

use std::fmt;

use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::{Map, Value};

use crate::config::similar;

/// A plugin's settings do not fit.
#[derive(Debug, thiserror::Error)]
#[error("the settings of {plugin} do not fit: {}", list(.problems))]
pub struct SettingsError {
    /// The plugin.
    pub plugin: String,
    /// What is wrong.
    pub problems: Vec<SettingsProblem>,
}

/// One thing that is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// Dotted path of the setting.
    pub field: String,
    /// What was expected and what was found.
    pub message: String,
    /// A setting of a similar name.
    pub suggestion: Option<String>,
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)?;
        self.suggestion.iter().try_for_each(|name| write!(f, " (did you mean {name}?)"))
    }
}

fn list(problems: &[SettingsProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Checks settings.
///
/// # Errors
///
/// [`SettingsError`] names each field that does not fit.
pub(super) fn check(
    plugin: &str,
    schema: &Value,
    settings: &Map<String, Value>,
) -> Result<(), SettingsError> {
    let known: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    let mut problems = Vec::new();
    for key in settings.keys().filter(|key| !known.contains(&key.as_str())) {
        let message = match known.is_empty() {
            true => "this plugin has no settings".to_owned(),
            false => format!("no such setting; there are {}", known.join(", ")),
        };
        problems.push(SettingsProblem { field: key.clone(), message, suggestion: similar(key, &known) });
    }
    match jsonschema::validator_for(schema) {
        Ok(validator) => {
            let value = Value::Object(settings.clone());
            for error in validator.iter_errors(&value) {
                let field = error.instance_path().to_string().trim_start_matches('/').replace('/', ".");
                // Unknown fields are named above, with a suggestion.
                if !field.is_empty() {
                    problems.push(SettingsProblem { field, message: explain(&error), suggestion: None });
                } else if problems.is_empty() {
                    problems.push(SettingsProblem {
                        field: "settings".into(),
                        message: error.to_string(),
                        suggestion: None,
                    });
                }
            }
        }
        Err(error) => {
            let message = format!("the plugin's settings schema is not valid: {error}");
            problems.push(SettingsProblem { field: "settings".into(), message, suggestion: None });
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(SettingsError { plugin: plugin.to_owned(), problems }) }
}

/// What was expected and what was found. jsonschema's own text leaves out all but two of the choices.
fn explain(error: &ValidationError<'_>) -> String {
    let ValidationErrorKind::Enum { options } = error.kind() else { return error.to_string() };
    let choices: Vec<String> = options.as_array().into_iter().flatten().map(Value::to_string).collect();
    format!("{} is not one of {}", error.instance(), choices.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_field_is_named() {
        let schema = serde_json::json!({
            "type": "object", "additionalProperties": false,
            "properties": { "threshold": { "type": "number", "maximum": 1.0 }, "voice": { "type": "string" } },
        });
        let settings = serde_json::json!({ "treshold": 0.5, "voice": 3 });
        let error =
            check("tts-x", &schema, settings.as_object().expect("an object")).expect_err("two problems");
        assert_eq!(error.problems.len(), 2, "{error}");
        assert_eq!(error.problems[0].suggestion.as_deref(), Some("threshold"));
        assert_eq!(error.problems[1].field, "voice");
        assert!(check("tts-x", &schema, &Map::new()).is_ok());
    }

    #[test]
    fn all_choices_are_named() {
        let schema = serde_json::json!({ "properties": { "voice": { "enum": ["a", "b", "c", "d"] } } });
        let settings = serde_json::json!({ "voice": "e" });
        let error =
            check("tts-x", &schema, settings.as_object().expect("an object")).expect_err("no such voice");
        assert_eq!(error.problems[0].message, r#""e" is not one of "a", "b", "c", "d""#);
    }
}
