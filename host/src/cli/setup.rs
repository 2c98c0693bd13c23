//! What all commands share: the configuration, single settings from the command line, and where plugins are.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use antiphon_host::{
    Host, HostBuilder, Plugin, PluginState,
    config::{Config, similar},
    inspect::libraries,
    plugins,
};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::output::warn;

/// Environment variable with plugin directories, separated by colons.
const PLUGIN_PATH: &str = "ANTIPHON_PLUGIN_PATH";

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(super) struct Global {
    /// Configuration (TOML). Without it every setting has its default; `antiphon config schema` shows what there is
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "ANTIPHON_CONFIG",
        help_heading = "Global options"
    )]
    config: Option<PathBuf>,
    /// Directory of plugins (.so files) to look in before all others; repeat it for more
    #[arg(long = "plugins", global = true, value_name = "DIR", help_heading = "Global options")]
    plugins: Vec<PathBuf>,
    /// Tell more: every event in the timeline, and what is logged (-vv, -vvv: more of that); RUST_LOG says it exactly
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(super) verbose: u8,
}

/// One setting from the command line: `PLUGIN.KEY=VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    section: String,
    keys: Vec<String>,
    value: Value,
}

/// Everything that is known before a plugin is opened.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    /// Plugins that the command line names.
    named: BTreeSet<String>,
    /// Where plugins are looked for, in this order.
    pub(super) searched: Vec<Searched>,
}

/// A place for plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Searched {
    pub(super) directory: PathBuf,
    pub(super) origin: Origin,
    pub(super) exists: bool,
}

/// Who named a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Option,
    Environment,
    Config,
    BesideProgram,
}

impl Setup {
    /// Reads the configuration, puts single settings on top, and finds the plugin directories. Opens no plugin.
    pub(super) fn read(global: &Global, settings: &[Setting]) -> Result<Self> {
        let file = global.config.as_deref().filter(|path| !path.as_os_str().is_empty());
        let mut config = file.map(Config::load).transpose()?.unwrap_or_default();
        let mut named = BTreeSet::new();
        for Setting { section, keys, value } in settings {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            config.set(section, &keys, value.clone()).context("--set cannot be done")?;
            if section != "agent" {
                named.insert(section.clone());
            }
        }
        let searched = search(&global.plugins, std::env::var_os(PLUGIN_PATH), &config, beside_program());
        Ok(Self { config, named, searched })
    }

    /// The directories to load from: the one beside the program only if it is there, those that somebody named always.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let is_wanted = |place: &&Searched| place.exists || place.origin != Origin::BesideProgram;
        self.searched.iter().filter(is_wanted).map(|place| place.directory.clone()).collect()
    }

    /// Where plugins are looked for, for machines.
    pub(super) fn to_json(&self) -> Vec<Value> {
        let place = |place: &Searched| {
            json!({
                "path": place.directory.display().to_string(),
                "from": place.origin.to_string(),
                "exists": place.exists,
            })
        };
        self.searched.iter().map(place).collect()
    }

    /// A host with these plugins and settings.
    pub(super) fn host(&self) -> HostBuilder {
        let mut host = Host::builder();
        for directory in self.directories() {
            host = host.plugin_dir(directory);
        }
        for plugin in &self.config.plugins.disabled {
            host = host.disable(plugin);
        }
        for (plugin, settings) in &self.config.plugin {
            for (key, value) in settings {
                host = host.set(plugin, key, value.clone());
            }
        }
        host
    }

    /// Opens the plugins and starts none.
    pub(super) async fn load(&self) -> Result<Vec<Plugin>> {
        let (directories, disabled) = (self.directories(), self.config.plugins.disabled.clone());
        tokio::task::spawn_blocking(move || plugins::load(&directories, &disabled))
            .await
            .context("loading the plugins failed")
    }

    /// Makes sure, without opening any, that there are libraries to look at.
    ///
    /// # Errors
    ///
    /// There are none; the error says where was looked, and how to get some.
    pub(super) fn has_libraries(&self) -> Result<()> {
        let has_some = |place: &Searched| libraries(&place.directory).is_ok_and(|files| !files.is_empty());
        if !self.searched.iter().any(has_some) {
            bail!("{}", self.nothing_found());
        }
        Ok(())
    }

    /// Tells of directories that somebody named and that are not there.
    pub(super) fn warn_of_missing(&self) {
        let is_named = |place: &&Searched| place.origin != Origin::BesideProgram;
        for place in self.searched.iter().filter(|place| !place.exists).filter(is_named) {
            warn(format!("plugin directory {place}"));
        }
    }

    /// The text for people who have no plugins.
    pub(super) fn nothing_found(&self) -> String {
        let places: Vec<String> = self.searched.iter().map(|place| format!("\n  {place}")).collect();
        format!(
            "no plugins were found; looked in:{}\nname a directory of plugins with --plugins DIR or {PLUGIN_PATH}; in a \
             checkout of Antiphon, `cargo build` makes them in target/debug, and `cargo xtask dist` puts them beside the \
             program",
            places.concat(),
        )
    }

    /// Compares settings with the plugins that they are for.
    ///
    /// # Errors
    ///
    /// The command line names a plugin that was not found, or a plugin refuses its settings.
    pub(super) fn check_settings(&self, plugins: &[Plugin]) -> Result<()> {
        let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let found = names.join(", ");
        let hint = |name: &str| similar(name, &names).map(|name| format!(" (did you mean {name}?)"));
        if let Some(name) = self.named.iter().find(|name| !names.contains(&name.as_str())) {
            let hint = hint(name).unwrap_or_default();
            bail!("--set {name}: no plugin of this name was found, there are {found}{hint}");
        }
        for name in self.config.plugin.keys().filter(|name| !names.contains(&name.as_str())) {
            let place = self.config.place_of(&format!("plugin.{name}")).map(|place| format!("{place}: "));
            let hint = hint(name).unwrap_or_default();
            warn(format!("{}settings for {name}, which was not found{hint}", place.unwrap_or_default()));
        }
        for name in self.config.plugins.disabled.iter().filter(|name| !names.contains(&name.as_str())) {
            let hint = hint(name).unwrap_or_default();
            warn(format!("plugins.disabled names {name}, which was not found{hint}"));
        }
        let misfits: Vec<String> = plugins
            .iter()
            .filter(|plugin| self.refused(plugin))
            .filter_map(|plugin| self.problem(plugin))
            .collect();
        if !misfits.is_empty() {
            bail!("{}", misfits.join("\n"));
        }
        Ok(())
    }

    /// Whether a plugin failed because of settings that the user gave.
    fn refused(&self, plugin: &Plugin) -> bool {
        let (Some(settings), Some(manifest)) = (self.settings(plugin), &plugin.manifest) else {
            return false;
        };
        plugin.state == PluginState::Failed
            && !jsonschema::is_valid(&manifest.settings, &Value::Object(settings.clone()))
    }

    fn settings(&self, plugin: &Plugin) -> Option<&Map<String, Value>> {
        self.config.plugin.get(&plugin.name).filter(|settings| !settings.is_empty())
    }

    /// Why a plugin cannot be used; with the lines of the configuration file that it is about.
    pub(super) fn problem(&self, plugin: &Plugin) -> Option<String> {
        let mut text = plugin.error.clone()?;
        let settings = self.settings(plugin).filter(|_| self.refused(plugin));
        for key in settings.into_iter().flat_map(Map::keys) {
            let is_named =
                [format!(": {key}: "), format!("; {key}: ")].iter().any(|name| text.contains(name));
            let place = self.config.place_of(&format!("plugin.{}.{key}", plugin.name));
            if let Some(place) = place.filter(|_| is_named) {
                text = format!("{place}: {text}");
            }
        }
        Some(text)
    }
}

/// The directories in their order, each once.
fn search(
    options: &[PathBuf],
    environment: Option<std::ffi::OsString>,
    config: &Config,
    beside: Option<PathBuf>,
) -> Vec<Searched> {
    let environment = environment.unwrap_or_default();
    let named = |origin: Origin| move |directory: PathBuf| (directory, origin.clone());
    let all = options
        .iter()
        .cloned()
        .map(named(Origin::Option))
        .chain(std::env::split_paths(&environment).map(named(Origin::Environment)))
        .chain(config.plugins.dirs.iter().cloned().map(named(Origin::Config)))
        .chain(beside.into_iter().map(named(Origin::BesideProgram)));
    let mut searched: Vec<Searched> = Vec::new();
    let mut seen = BTreeSet::new();
    for (directory, origin) in all.filter(|(directory, _)| !directory.as_os_str().is_empty()) {
        let same = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        if seen.insert(same) {
            let exists = directory.is_dir();
            searched.push(Searched { directory, origin, exists });
        }
    }
    searched
}

fn beside_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.parent().map(|directory| directory.join("plugins"))
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.directory.display(), self.origin)?;
        f.write_str(if self.exists { ")" } else { "; there is no such directory)" })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Option => "--plugins",
            Self::Environment => PLUGIN_PATH,
            Self::Config => "configuration file",
            Self::BesideProgram => "beside the program",
        })
    }
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

/// A path as the user would type it from here.
pub(super) fn from_here(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn directories_are_searched_in_order_and_once() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("one")).expect("writable");
        let mut config = Config::default();
        config.plugins.dirs = vec![path("three"), path("one")];
        let environment =
            std::env::join_paths([path("two"), PathBuf::new(), path("one/../one")]).expect("paths");
        let searched = search(&[path("one")], Some(environment), &config, Some(path("beside")));
        let order: Vec<_> = searched.iter().map(|place| (place.directory.clone(), place.exists)).collect();
        assert_eq!(
            order,
            [(path("one"), true), (path("two"), false), (path("three"), false), (path("beside"), false)]
        );
        // The one beside the program may be missing, those that somebody named may not.
        let setup = Setup { config, named: BTreeSet::new(), searched };
        assert_eq!(setup.directories(), [path("one"), path("two"), path("three")]);
        assert!(setup.nothing_found().contains("beside (beside the program; there is no such directory)"));
    }
}
