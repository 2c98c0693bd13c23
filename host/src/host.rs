//! The host: a bus, plugins, and agents that use both.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use antiphon_core::{Clock, EventBus, SystemClock};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use crate::{
    agent::AgentBuilder,
    child::ChildProgram,
    plugins::{
        self, Isolation, Kind, Past, Plugin, PluginInstance, PluginWatch, Policies, Policy, PolicyConfig,
        Registry, Reloaded, Reloader, Rules, WatchError,
    },
    scan::{Cache, Lock, Report, Scanner},
};

/// How long handlers may take for what waits for them when the host stops. One that never ends must not keep the
/// program from ending.
pub(crate) const HANDLERS_DEADLINE: Duration = Duration::from_secs(5);

/// Everything that runs in one process: the bus and the plugins. Agents are opened on it.
#[derive(Debug)]
pub struct Host {
    bus: EventBus,
    plugins: Arc<Registry>,
    reloader: Arc<Reloader>,
    scanned: Report,
}

/// A host in the making.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct HostBuilder {
    directories: Vec<PathBuf>,
    disabled: Vec<String>,
    settings: BTreeMap<String, Map<String, Value>>,
    policies: Policies,
    bus: Option<EventBus>,
    program: Option<ChildProgram>,
    cache: Option<PathBuf>,
    scan_timeout: Option<Duration>,
    allow_writable: bool,
    lock: Option<Lock>,
}

/// No plugin can do what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no plugin for {kind}{}{}", .wanted.as_ref().map(|name| format!(" named {name}")).unwrap_or_default(), because(.reasons))]
pub struct NoProvider {
    /// What is wanted.
    pub kind: Kind,
    /// The plugin that the user named.
    pub wanted: Option<String>,
    /// Why those that could do it cannot be used: plugin and reason.
    pub reasons: Vec<(String, String)>,
}

fn because(reasons: &[(String, String)]) -> String {
    reasons.iter().map(|(name, reason)| format!("; {name} {reason}")).collect()
}

impl HostBuilder {
    /// Adds a directory of plugin libraries. Earlier directories win where two plugins have one name.
    pub fn plugin_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directories.push(directory.into());
        self
    }

    /// Loads a plugin without starting it.
    pub fn disable(mut self, plugin: impl Into<String>) -> Self {
        self.disabled.push(plugin.into());
        self
    }

    /// Sets one setting of a plugin.
    pub fn set(mut self, plugin: impl Into<String>, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.settings.entry(plugin.into()).or_default().insert(key.into(), value.into());
        self
    }

    /// How a plugin is run; `*` stands for all that have nothing of their own.
    pub fn policy(mut self, plugin: impl Into<String>, policy: PolicyConfig) -> Self {
        self.policies.insert(plugin.into(), policy);
        self
    }

    /// Runs a plugin in a worker process; `*` stands for all.
    pub fn isolate(mut self, plugin: impl Into<String>) -> Self {
        self.policies.entry(plugin.into()).or_default().isolation = Some(Isolation::Process);
        self
    }

    /// Uses a bus that exists already, so that subscriptions made before the start see the plugins start.
    pub fn bus(mut self, bus: EventBus) -> Self {
        self.bus = Some(bus);
        self
    }

    /// The program that is started as a child process, in which plugins are tried and isolated. Default: [`ChildProgram::find`].
    pub fn child_program(mut self, program: ChildProgram) -> Self {
        self.program = Some(program);
        self
    }

    /// Where it is remembered what came of trying plugins, and where copies of them are. Default: [`Cache::open`].
    pub fn cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// Time that a plugin may take to be tried. Default: 30 seconds.
    pub fn scan_timeout(mut self, timeout: Duration) -> Self {
        self.scan_timeout = Some(timeout);
        self
    }

    /// Takes plugins also from directories that every user of the machine can write. Default: no.
    pub fn allow_writable_dirs(mut self, allow: bool) -> Self {
        self.allow_writable = allow;
        self
    }

    /// Takes only the plugins of a lock.
    pub fn lock(mut self, lock: Lock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// What looks for the plugins of this host. Blocks: it opens the cache.
    pub fn scanner(&self) -> Scanner {
        let program = self.program.clone().map_or_else(ChildProgram::find, Ok);
        let scanner = Scanner::new(program, Cache::open(self.cache.as_deref()))
            .allow_writable_dirs(self.allow_writable)
            .lock(self.lock.clone());
        match self.scan_timeout {
            Some(timeout) => scanner.timeout(timeout),
            None => scanner,
        }
    }

    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Finds the plugins without starting any. Blocks.
    #[must_use]
    pub fn load(&self) -> (Vec<Plugin>, Report) {
        let scanner = self.scanner();
        let plugins = plugins::load(&scanner, &self.directories, &self.disabled);
        (plugins.into_iter().map(|plugin| self.placed(plugin)).collect(), scanner.report())
    }

    /// Looks at one file, without starting it. Blocks.
    #[must_use]
    pub fn load_file(&self, path: &Path) -> Plugin {
        self.placed(plugins::load_file(&self.scanner(), path))
    }

    /// Says where a plugin will run.
    fn placed(&self, mut plugin: Plugin) -> Plugin {
        plugin.isolation = Policy::of(&self.policies, &plugin.name).isolation;
        plugin
    }

    /// Opens and starts the plugins. Those that cannot be used are listed with the reason; they do not keep the host from
    /// starting.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(mut self) -> Host {
        let bus = self.bus.take();
        let clock = || -> Arc<dyn Clock> { Arc::new(SystemClock::new()) };
        let bus = bus.unwrap_or_else(|| EventBus::with(Handle::current(), clock()));
        let settings = std::mem::take(&mut self.settings);
        let policies = std::mem::take(&mut self.policies);
        let program = self.program.clone().map_or_else(ChildProgram::find, Ok);
        let loader = Arc::new(self);
        let first = Arc::clone(&loader);
        let loading = tokio::task::spawn_blocking(move || {
            let scanner = first.scanner();
            let plugins = plugins::load(&scanner, &first.directories, &first.disabled);
            let past = scanner.cache().map(|cache| Past::of(cache.root(), &plugins, &policies));
            let rules = Rules { settings, policies, program, past: past.unwrap_or_default() };
            (plugins, scanner.report(), rules)
        });
        let (plugins, scanned, rules) = match loading.await {
            Ok(loaded) => loaded,
            Err(error) => panic!("looking for plugins failed, which is a bug: {error}"),
        };
        let plugins = Registry::start(bus.clone(), plugins, rules).await;
        Host { reloader: Reloader::new(loader, &plugins), plugins, bus, scanned }
    }
}

impl Host {
    /// Begins a host.
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }

    /// The bus that all events of this host travel on.
    #[must_use]
    pub fn bus(&self) -> &EventBus {
        &self.bus
    }

    /// Every plugin file that was found, as it is now.
    #[must_use]
    pub fn plugins(&self) -> Vec<Plugin> {
        self.plugins.snapshot()
    }

    /// What it took to find out which plugins can be opened.
    #[must_use]
    pub fn scanned(&self) -> Report {
        self.scanned
    }

    /// The running plugin for a kind of work: the one of this name, or the one of the highest rank (by name, where
    /// ranks are equal).
    ///
    /// # Errors
    ///
    /// [`NoProvider`] with the reason of each plugin that could have done it.
    pub fn provider(&self, kind: Kind, name: Option<&str>) -> Result<Arc<PluginInstance>, NoProvider> {
        self.plugins.provider(kind, name)
    }

    /// Looks at the plugin directories again. New plugins are started; a new version of one that runs is started beside
    /// it and takes its place: conversations that have begun keep the old one. A version that is refused, or does not
    /// start, changes nothing. Plugins that have failed are tried once more. Returns what has changed.
    pub async fn reload(&self) -> Vec<Reloaded> {
        self.reloader.reload(true).await
    }

    /// Follows the plugin directories, and does what [`reload`](Self::reload) does whenever they change, until the result
    /// is dropped.
    ///
    /// # Errors
    ///
    /// [`WatchError`] names the directory that cannot be followed.
    pub fn watch(&self) -> Result<PluginWatch, WatchError> {
        self.reloader.watch()
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.plugins
    }

    /// Begins an agent: one conversation.
    pub fn agent(&self) -> AgentBuilder<'_> {
        AgentBuilder::new(self)
    }

    /// Stops the plugins, then ends all subscriptions after they have handled what waits for them. Handlers that take
    /// longer than five seconds for it are left behind.
    pub async fn shutdown(self) {
        self.plugins.stop().await;
        if tokio::time::timeout(HANDLERS_DEADLINE, self.bus.shutdown()).await.is_err() {
            tracing::warn!("a handler did not end within {} s", HANDLERS_DEADLINE.as_secs());
        }
    }
}
