//! Settings: which rule book to answer from.
//!
//! Not here: the format of the book (`rules.rs`) and reading the file (the plugin, when it starts).

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the rules come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// TOML file with the rules. Without it the plugin answers from its built-in book: a small robot that takes
    /// orders.
    pub file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_optional_and_unknown_keys_are_refused() {
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
        let settings: Settings = serde_json::from_str(r#"{"file": "rules.toml"}"#).unwrap();
        assert_eq!(settings.file, Some(PathBuf::from("rules.toml")));
        let error = serde_json::from_str::<Settings>(r#"{"path": "rules.toml"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `path`"), "{error}");
    }
}
