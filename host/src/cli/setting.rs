//! `--set PLUGIN.KEY=VALUE`: one setting from the command line.

use std::str::FromStr;

use serde_json::Value;

/// One setting from the command line: `PLUGIN.KEY=VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) section: String,
    pub(super) keys: Vec<String>,
    pub(super) value: Value,
}

impl FromStr for Setting {
    type Err = String;

    /// Reads `PLUGIN.KEY=VALUE`; a value that is no TOML is text.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "wanted PLUGIN.KEY=VALUE, such as tts-flite.voice=slt".to_owned();
        let (path, value) = text.split_once('=').ok_or_else(form)?;
        let mut names = path.split('.').map(|name| name.trim().to_owned());
        let section = names.next().filter(|name| !name.is_empty()).ok_or_else(form)?;
        let keys: Vec<String> = names.collect();
        if keys.is_empty() || keys.iter().any(String::is_empty) {
            return Err(form());
        }
        Ok(Self { section, keys, value: toml_or_text(value) })
    }
}

fn toml_or_text(text: &str) -> Value {
    let parsed = text.trim().parse::<toml::Value>().ok();
    parsed.as_ref().and_then(to_json).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// `None` for numbers that JSON does not have.
fn to_json(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => Value::Number(serde_json::Number::from_f64(*number)?),
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(items) => Value::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        toml::Value::Table(fields) => {
            let field = |(key, value): (&String, &toml::Value)| Some((key.clone(), to_json(value)?));
            Value::Object(fields.iter().map(field).collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_toml_where_they_can_be_and_text_where_not() {
        #[track_caller]
        fn check(text: &str, want: Value) {
            let setting: Setting = text.parse().expect("a setting");
            assert_eq!((setting.section.as_str(), setting.keys.as_slice()), ("a-b", &["k".to_owned()][..]));
            assert_eq!(setting.value, want, "{text}");
        }
        check("a-b.k=slt", json!("slt"));
        check("a-b.k=7", json!(7));
        check("a-b.k= 0.5", json!(0.5));
        check("a-b.k=true", json!(true));
        check("a-b.k=\"7\"", json!("7"));
        check("a-b.k=[1, 'x']", json!([1, "x"]));
        check("a-b.k={ x = 1 }", json!({"x": 1}));
        check("a-b.k=", json!(""));
        check("a-b.k=a=b", json!("a=b"));
        check("a-b.k=1\nx = 2", json!("1\nx = 2"));
        check("a-b.k=nan", json!("nan"));
        check("a-b.k=tests/commands.gram", json!("tests/commands.gram"));
    }

    #[test]
    fn settings_of_another_form_are_refused() {
        for text in ["", "a", "a=1", "=1", ".k=1", "a.=1", "a..k=1"] {
            assert!(text.parse::<Setting>().is_err(), "{text}");
        }
        let nested: Setting = "a.b.c=1".parse().expect("a setting");
        assert_eq!(nested.keys, ["b", "c"]);
    }
}
