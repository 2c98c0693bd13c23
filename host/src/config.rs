//! The configuration file: one TOML format, checked into types before anything starts.
//!
//! Not here: plugins' own settings are checked against their manifests, by the host when it starts them.

mod error;
mod source;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::{error::reworded, source::Source};
pub use self::{
    error::{ConfigError, SetError},
    source::Place,
};
use crate::{AgentConfig, plugins::Policies};

/// The configuration file; every key has a default.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where plugins are found.
    pub plugins: PluginsConfig,
    /// The conversation.
    pub agent: AgentConfig,
    /// Settings of each plugin, by its name; `antiphon plugins inspect` shows what there is.
    pub plugin: BTreeMap<String, Map<String, Value>>,
    /// Where each key was read.
    #[serde(skip)]
    #[schemars(skip)]
    source: Source,
}

/// Where plugins are found.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginsConfig {
    /// Directories, relative to the configuration file.
    pub dirs: Vec<PathBuf>,
    /// Plugins that are not started.
    pub disabled: Vec<String>,
    /// Where copies of plugins are, and what came of trying them; relative to the configuration file.
    pub cache: Option<PathBuf>,
    /// Whether plugins are taken from directories that every user of the machine can write.
    pub allow_writable_dirs: bool,
    /// How plugins are run, by name; `*` stands for all.
    pub policy: Policies,
}

impl Config {
    /// Reads a file. Relative directories in it become relative to where the file is. Blocks.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file, and the line, column and key of what is wrong in it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| ConfigError::opening(path, source))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError::NotText { path: path.to_owned(), line }
        })?;
        let mut config = Self::parse(&text, path)?;
        if let Some(directory) = path.parent() {
            for plugins in config.plugins.dirs.iter_mut().chain(&mut config.plugins.cache) {
                *plugins = directory.join(&plugins);
            }
        }
        Ok(config)
    }

    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let source = Source::of(text, path.as_ref())?;
        let mut config: Self =
            toml::from_str(text).map_err(|error| ConfigError::invalid(&source, text, &error))?;
        for settings in config.plugin.values_mut() {
            settings.values_mut().for_each(source::dates_as_text);
        }
        if let Err((key, message)) = in_range(&config.agent) {
            return Err(ConfigError::out_of_range(&source, format!("agent.{key}"), message));
        }
        for (plugin, policy) in &config.plugins.policy {
            if let Err((key, message)) = in_range(policy) {
                let key = format!("plugins.policy.{plugin}.{key}");
                return Err(ConfigError::out_of_range(&source, key, message));
            }
        }
        config.source = source;
        Ok(config)
    }

    /// JSON Schema of the file.
    #[must_use]
    pub fn schema() -> Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Where a key was read, such as `plugin.tts-flite.voice`; none for what the file does not say.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.source.place_of(key)
    }

    /// Overrides one setting: of the plugin `section`, or of the conversation, where `section` is `agent`. `keys` lead
    /// through nested tables to the value.
    ///
    /// # Errors
    ///
    /// [`SetError`] when the conversation has no such setting, or not such values, and when a key leads into a value
    /// that is no table. Settings of plugins are checked when the plugin starts.
    pub fn set(&mut self, section: &str, keys: &[&str], value: Value) -> Result<(), SetError> {
        let key = || [&[section], keys].concat().join(".");
        if section != "agent" {
            let settings = self.plugin.entry(section.to_owned()).or_default();
            return insert(settings, keys, value).map_err(|()| SetError::NoTable { key: key() });
        }
        let agent = serde_json::to_value(&self.agent).expect("settings are plain data");
        let Value::Object(mut settings) = agent else { unreachable!("settings are a struct") };
        let mut known: Vec<String> = settings.keys().cloned().collect();
        known.sort();
        insert(&mut settings, keys, value).map_err(|()| SetError::NoTable { key: key() })?;
        let changed: AgentConfig =
            serde_json::from_value(Value::Object(settings)).map_err(|error| {
                match keys.first().filter(|name| !known.iter().any(|known| known == *name)) {
                    Some(name) => SetError::unknown(key(), name, known.clone()),
                    None => SetError::Value { key: key(), message: reworded(&error.to_string()) },
                }
            })?;
        in_range(&changed).map_err(|(_, message)| SetError::Value { key: key(), message })?;
        self.agent = changed;
        Ok(())
    }
}

/// The known name that a misspelt one most likely stands for.
#[must_use]
pub fn similar(name: &str, known: &[&str]) -> Option<String> {
    let likeness = |candidate: &str| strsim::jaro_winkler(name, candidate);
    let best = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.8).then(|| best.to_owned())
}

/// Checks what the types do not say: the ranges in the schema. The error is a key and what is wrong with it.
fn in_range<T: JsonSchema + serde::Serialize>(settings: &T) -> Result<(), (String, String)> {
    let schema = schemars::schema_for!(T).to_value();
    let value = serde_json::to_value(settings).expect("settings are plain data");
    jsonschema::validate(&schema, &value).map_err(|error| {
        (error.instance_path().to_string().trim_start_matches('/').replace('/', "."), error.to_string())
    })
}

fn insert(table: &mut Map<String, Value>, keys: &[&str], value: Value) -> Result<(), ()> {
    match keys {
        [] => Err(()),
        [key] => {
            table.insert((*key).to_owned(), value);
            Ok(())
        }
        [key, rest @ ..] => {
            let inner = table.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            insert(inner.as_object_mut().ok_or(())?, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let error = Config::parse(text, "a.toml").expect_err("a wrong configuration");
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn misspelt_keys_are_named_with_their_place_and_a_suggestion() {
        check(
            "[agent]\n  trun = 'x'\n",
            "a.toml:2:3: agent.trun: no such key, there are turn, stt, llm, tts, fallback, instructions, pre_roll_ms, \
             turn_timeout_ms, max_messages (did you mean turn?)",
        );
        check(
            "\n[plugin]\n[plguins]\ndirs = []\n",
            "a.toml:3:2: plguins: no such key, there are plugins, agent, plugin (did you mean plugins?)",
        );
        check("zebra = 1\n", "a.toml:1:1: zebra: no such key, there are plugins, agent, plugin");
        check(
            "plugins.dir = 1\n",
            "a.toml:1:9: plugins.dir: no such key, there are dirs, disabled, cache, allow_writable_dirs, policy (did you \
             mean dirs?)",
        );
    }

    #[test]
    fn wrong_values_are_named_with_what_was_wanted() {
        check(
            "[agent]\npre_roll_ms = \"long\"\n",
            "a.toml:2:15: agent.pre_roll_ms: wanted a whole number from 0, found string \"long\"",
        );
        check(
            "agent = { max_messages = -1 }",
            "a.toml:1:26: agent.max_messages: wanted a whole number from 0, found integer `-1`",
        );
        check("[plugins]\ndirs = 'here'", "a.toml:2:8: plugins.dirs: wanted a list, found string \"here\"");
        check("[plugins]\ndirs = ['a', 7]", "a.toml:2:14: plugins.dirs: wanted a path, found integer `7`");
        check("agent = true", "a.toml:1:9: agent: wanted a table, found boolean `true`");
        check(
            "[plugin]\ntts-flite = 'slt'",
            "a.toml:2:13: plugin.tts-flite: wanted a table, found string \"slt\"",
        );
        check(
            "[agent]\n\npre_roll_ms = 6000",
            "a.toml:3:15: agent.pre_roll_ms: 6000 is greater than the maximum of 5000",
        );
    }

    #[test]
    fn policies_have_ranges_too() {
        check(
            "[plugins.policy.tts-x]\nisolation = 'process'\nhang_timeout_ms = 5\n",
            "a.toml:3:19: plugins.policy.tts-x.hang_timeout_ms: 5 is less than the minimum of 1000",
        );
    }

    #[test]
    fn broken_toml_is_named_with_its_place() {
        let place = |text: &str| Config::parse(text, "a.toml").expect_err("broken").to_string();
        assert!(place("[agent]\nturn = \n").starts_with("a.toml:2:8: "), "{}", place("[agent]\nturn = \n"));
        assert!(place("[agent\n").starts_with("a.toml:1:7: "), "{}", place("[agent\n"));
        let twice = place("[agent]\nturn = 'a'\nturn = 'b'\n");
        assert!(twice.starts_with("a.toml:3:1: ") && twice.contains("duplicate key"), "{twice}");
        // Columns are characters, not bytes.
        assert!(place("agent = { llm = '\u{fc}\u{fc}', x = 1 }").starts_with("a.toml:1:23: "));
    }

    #[test]
    fn files_that_are_none_are_told_apart() {
        let directory = TempDir::new().expect("a directory");
        let error = |path: &Path| Config::load(path).expect_err("no configuration").to_string();
        let missing = directory.path().join("none.toml");
        assert!(error(&missing).contains("found no file at"), "{}", error(&missing));
        assert!(error(directory.path()).contains("found a directory at"), "{}", error(directory.path()));
        let binary = directory.path().join("binary.toml");
        std::fs::write(&binary, b"[agent]\nllm = \"\xff\"\n").expect("writable");
        assert!(error(&binary).contains("is no text (UTF-8) in line 2"), "{}", error(&binary));
    }

    #[test]
    fn directories_are_relative_to_the_file() {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("a.toml");
        std::fs::write(&file, "[plugins]\ndirs = ['mine', '/opt/plugins']\ncache = 'cache'\n")
            .expect("writable");
        let config = Config::load(&file).expect("a configuration");
        assert_eq!(config.plugins.dirs, [directory.path().join("mine"), "/opt/plugins".into()]);
        assert_eq!(config.plugins.cache, Some(directory.path().join("cache")));
    }

    #[test]
    fn places_of_settings_are_kept() {
        let text =
            "[plugin.tts-flite]\nvoice = 'slt'\nsince = 2020-01-01\n\n[plugin.llm-x]\ndeep = { er = [1] }\n";
        let config = Config::parse(text, "a.toml").expect("a configuration");
        let place = |key: &str| config.place_of(key).map(|place| place.to_string());
        assert_eq!(place("plugin.tts-flite.voice").as_deref(), Some("a.toml:2"));
        assert_eq!(place("plugin.llm-x.deep.er").as_deref(), Some("a.toml:6"));
        assert_eq!(place("plugin.tts-flite"), Some("a.toml:1".into()));
        assert_eq!(place("plugin.tts-flite.speed"), None);
        assert_eq!(config.plugin["tts-flite"]["since"], json!("2020-01-01"));
    }

    #[test]
    fn single_settings_override_the_file() {
        let mut config =
            Config::parse("[plugin.tts-x]\nvoice = 'a'\nspeed = 1\n", "a.toml").expect("a configuration");
        config.set("tts-x", &["voice"], json!("b")).expect("any setting of a plugin");
        config.set("tts-x", &["deep", "er"], json!(2)).expect("any setting of a plugin");
        assert_eq!(
            config.plugin["tts-x"],
            *json!({"voice": "b", "speed": 1, "deep": {"er": 2}}).as_object().expect("an object")
        );
        config.set("agent", &["tts"], json!("tts-x")).expect("a setting of the agent");
        assert_eq!(config.agent.tts.as_deref(), Some("tts-x"));

        let mut refuse = |section: &str, keys: &[&str], value: Value, want: &str| {
            let error = config.set(section, keys, value).expect_err("refused");
            assert_eq!(error.to_string(), want);
        };
        refuse(
            "tts-x",
            &["speed", "deep"],
            json!(1),
            "tts-x.speed.deep: a key on the way holds a value, not a table",
        );
        refuse(
            "agent",
            &["preroll_ms"],
            json!(1),
            "agent.preroll_ms: no such key, there are fallback, instructions, llm, max_messages, pre_roll_ms, stt, tts, turn, \
             turn_timeout_ms (did you mean pre_roll_ms?)",
        );
        refuse(
            "agent",
            &["max_messages"],
            json!("x"),
            "agent.max_messages: wanted a whole number from 0, found string \"x\"",
        );
        refuse("agent", &["max_messages"], json!(0), "agent.max_messages: 0 is less than the minimum of 1");
    }

    #[test]
    fn schema_has_what_the_file_may_hold_and_nothing_else() {
        let schema = Config::schema();
        let mut keys: Vec<&String> = schema["properties"].as_object().expect("an object").keys().collect();
        keys.sort();
        assert_eq!(keys, ["agent", "plugin", "plugins"]);
        assert_eq!(schema["additionalProperties"], false);
        assert!(jsonschema::is_valid(&schema, &json!({"plugin": {"tts-flite": {"voice": "slt"}}})));
    }
}
