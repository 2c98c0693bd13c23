//! What all commands share: the configuration, and where plugins are.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use antiphon_host::{
    Host, HostBuilder, Plugin, PluginState,
    config::{Config, similar},
    inspect::libraries,
    scan::{LOCK_FILE, Lock, Report},
};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{output::warn, setting::Setting};

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
    /// Run this plugin in a process of its own, where it cannot take the others down; repeat it for more, `*` for all
    #[arg(
        long,
        global = true,
        value_name = "PLUGIN",
        env = "ANTIPHON_ISOLATE",
        value_delimiter = ',',
        help_heading = "Global options"
    )]
    isolate: Vec<String>,
    /// Load only the plugins of this lock. Default: antiphon.lock beside the configuration, or in the current directory
    /// where no configuration is given, if it is there; `antiphon plugins lock` writes it
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    lock: Option<PathBuf>,
    /// Demand that there is a lock, and that every plugin in it is found
    #[arg(long, global = true, help_heading = "Global options")]
    locked: bool,
    /// Take plugins also from directories that every user of this machine can write
    #[arg(long, global = true, help_heading = "Global options")]
    allow_writable_dirs: bool,
    /// Tell more: every event in the timeline, and what is logged (-vv, -vvv: more of that); RUST_LOG says it exactly
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(super) verbose: u8,
}

/// Everything that is known before a plugin is opened.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    /// Plugins that the command line names.
    named: BTreeSet<String>,
    /// Plugins that the command line wants in processes of their own.
    isolated: Vec<String>,
    /// Where plugins are looked for, in this order.
    pub(super) searched: Vec<Searched>,
    /// The plugins that may be loaded; all, where there is no lock.
    pub(super) lock: Option<Lock>,
    /// Where the lock is, or would be.
    pub(super) lock_path: PathBuf,
    /// Whether all of the lock must be found.
    is_locked: bool,
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
    /// Reads the configuration and the lock, puts single settings on top, and finds the plugin directories. Opens no
    /// plugin.
    pub(super) fn read(global: &Global, settings: &[Setting]) -> Result<Self> {
        let mut setup = Self::unlocked(global, settings)?;
        setup.is_locked = global.locked;
        if global.lock.is_some() || setup.lock_path.exists() {
            setup.lock = Some(Lock::load(&setup.lock_path)?);
        } else if global.locked {
            let place = setup.lock_path.display();
            bail!("--locked: there is no lock at {place}; `antiphon plugins lock` writes it");
        }
        Ok(setup)
    }

    /// As [`read`](Self::read), without a lock.
    pub(super) fn unlocked(global: &Global, settings: &[Setting]) -> Result<Self> {
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
        config.plugins.allow_writable_dirs |= global.allow_writable_dirs;
        let beside = file.and_then(Path::parent).map(|directory| directory.join(LOCK_FILE));
        let lock_path = global.lock.clone().or(beside).unwrap_or_else(|| LOCK_FILE.into());
        let isolated = global.isolate.clone();
        Ok(Self { config, named, isolated, searched, lock: None, lock_path, is_locked: false })
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
        let mut host = Host::builder().allow_writable_dirs(self.config.plugins.allow_writable_dirs);
        if let Some(cache) = &self.config.plugins.cache {
            host = host.cache_dir(cache);
        }
        if let Some(lock) = &self.lock {
            host = host.lock(lock.clone());
        }
        for directory in self.directories() {
            host = host.plugin_dir(directory);
        }
        for plugin in &self.config.plugins.disabled {
            host = host.disable(plugin);
        }
        for (plugin, policy) in &self.config.plugins.policy {
            host = host.policy(plugin, policy.clone());
        }
        for plugin in &self.isolated {
            host = host.isolate(plugin);
        }
        for (plugin, settings) in &self.config.plugin {
            for (key, value) in settings {
                host = host.set(plugin, key, value.clone());
            }
        }
        host
    }

    /// Opens the plugins and starts none.
    pub(super) async fn load(&self) -> Result<(Vec<Plugin>, Report)> {
        let host = self.host();
        tokio::task::spawn_blocking(move || host.load()).await.context("loading the plugins failed")
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

    /// Makes sure that everything in the lock was found, if that is demanded.
    ///
    /// # Errors
    ///
    /// Something was not; the error names it.
    pub(super) fn check_locked(&self, plugins: &[Plugin]) -> Result<()> {
        let Some(lock) = self.lock.as_ref().filter(|_| self.is_locked) else { return Ok(()) };
        let found: Vec<&str> = plugins.iter().filter_map(|plugin| plugin.sha256.as_deref()).collect();
        let missing: Vec<&str> =
            lock.missing(&found).into_iter().map(|plugin| plugin.name.as_str()).collect();
        if !missing.is_empty() {
            let lock = lock.path().display();
            bail!("--locked: of the plugins in {lock} these cannot be loaded: {}", missing.join(", "));
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
    /// The command line names a plugin that was not found, a plugin of the lock is missing, or a plugin refuses its
    /// settings.
    pub(super) fn check_settings(&self, plugins: &[Plugin]) -> Result<()> {
        self.check_locked(plugins)?;
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
        let fallback = &self.config.agent.fallback;
        let stand_ins = [&fallback.turn, &fallback.stt, &fallback.llm, &fallback.tts].into_iter().flatten();
        let known = |name: &&String| *name == "*" || names.contains(&name.as_str());
        let named = |what: &'static str| move |name: &'_ String| (what, name.clone());
        let unknown =
            (self.config.plugins.policy.keys().filter(|name| !known(name)).map(named("plugins.policy")))
                .chain(self.isolated.iter().filter(|name| !known(name)).map(named("--isolate")))
                .chain(stand_ins.filter(|name| !known(name)).map(named("agent.fallback")));
        for (what, name) in unknown {
            let hint = hint(&name).unwrap_or_default();
            warn(format!("{what} names {name}, which was not found{hint}"));
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

    /// What the user has set of a plugin.
    pub(super) fn settings(&self, plugin: &Plugin) -> Option<&Map<String, Value>> {
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
        let lock_path = path(LOCK_FILE);
        let (named, isolated) = (BTreeSet::new(), Vec::new());
        let setup = Setup { config, named, isolated, searched, lock: None, lock_path, is_locked: false };
        assert_eq!(setup.directories(), [path("one"), path("two"), path("three")]);
        assert!(setup.nothing_found().contains("beside (beside the program; there is no such directory)"));
    }
}
