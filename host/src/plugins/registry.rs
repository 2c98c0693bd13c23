//! All plugins of a host.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use antiphon_core::EventBus;
use serde_json::{Map, Value};

use super::{
    Isolation, Kind, OnCrash, Past, Plugin, PluginInstance,
    entry::{Entry, Terms},
    journal::Journal,
    policy::{Policies, Policy},
    ticker::Ticker,
};
use crate::{
    child::{ChildProgram, NoChildProgram},
    host::NoProvider,
};

/// What all plugins of a host are run with.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) settings: BTreeMap<String, Map<String, Value>>,
    pub(crate) policies: Policies,
    pub(crate) program: Result<ChildProgram, NoChildProgram>,
    pub(crate) past: Past,
}

/// The plugins of a host, each with its supervisor.
#[derive(Debug)]
pub(crate) struct Registry {
    bus: EventBus,
    rules: Rules,
    entries: RwLock<Vec<Arc<Entry>>>,
    /// Until the host has ended properly.
    past: Mutex<Option<Journal>>,
    ticker: Ticker,
}

impl Registry {
    /// Starts plugins; returns when each has started, or not.
    pub(crate) async fn start(bus: EventBus, plugins: Vec<Plugin>, mut rules: Rules) -> Arc<Self> {
        let past = Mutex::new(rules.past.journal.take());
        let registry =
            Arc::new(Self { bus, rules, entries: RwLock::default(), past, ticker: Ticker::start() });
        for plugin in plugins {
            registry.add(plugin);
        }
        for entry in registry.entries() {
            entry.first_start().await;
        }
        registry
    }

    /// Supervises another plugin from now on.
    pub(crate) fn add(&self, plugin: Plugin) -> Arc<Entry> {
        let terms = self.terms(&plugin);
        let entry = Arc::new(Entry::new(plugin, terms));
        self.entries.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&entry));
        entry
    }

    /// What a plugin is run with.
    pub(super) fn terms(&self, plugin: &Plugin) -> Terms {
        let mut policy = Policy::of(&self.rules.policies, &plugin.name);
        let is_moved_out =
            plugin.sha256.as_ref().is_some_and(|sha256| self.rules.past.moved_out.contains(sha256));
        if is_moved_out && policy.on_crash == OnCrash::Isolate && policy.isolation == Isolation::None {
            policy.isolation = Isolation::Process;
            tracing::warn!(
                plugin = plugin.name,
                "runs in a process of its own, because a host that ran it inside did not end properly; `antiphon plugins \
                 retry` takes it back"
            );
        }
        Terms {
            bus: self.bus.clone(),
            settings: self.rules.settings.get(&plugin.name).cloned().unwrap_or_default(),
            policy,
            program: self.rules.program.clone(),
            ticks: self.ticker.ticks(),
        }
    }

    /// All of them, in the order in which they were found.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All of them, as they are now.
    pub(crate) fn snapshot(&self) -> Vec<Plugin> {
        self.entries().iter().map(|entry| entry.snapshot()).collect()
    }

    /// The running plugin for a kind of work: the one of this name, or the one of the highest rank (by name, where
    /// ranks are equal).
    pub(crate) fn provider(&self, kind: Kind, name: Option<&str>) -> Result<Arc<PluginInstance>, NoProvider> {
        let plugins = self.snapshot();
        let able =
            |plugin: &&Plugin| plugin.manifest.as_ref().is_some_and(|manifest| manifest.has(kind.as_str()));
        let named = |plugin: &&Plugin| name.is_none_or(|name| plugin.name == name);
        let rank = |plugin: &Plugin| plugin.manifest.as_ref().map_or(0, |manifest| manifest.rank);
        let mut running: Vec<_> = plugins
            .iter()
            .filter(named)
            .filter(able)
            .filter_map(|plugin| plugin.instance().map(|instance| (plugin, instance)))
            .collect();
        running.sort_by(|(a, _), (b, _)| rank(b).cmp(&rank(a)).then_with(|| a.name.cmp(&b.name)));
        if let Some((_, instance)) = running.first() {
            return Ok(Arc::clone(instance));
        }
        let guess = |plugin: &&Plugin| plugin.manifest.is_some() || plugin.name.contains(kind.as_str());
        let reasons = plugins
            .iter()
            .filter(|plugin| able(plugin) || (plugin.manifest.is_none() && guess(plugin)))
            .filter(named)
            .filter(|plugin| plugin.instance().is_none())
            .map(|plugin| {
                (plugin.name.clone(), plugin.error.clone().unwrap_or_else(|| "does not run".into()))
            })
            .collect();
        Err(NoProvider { kind, wanted: name.map(str::to_owned), reasons })
    }

    /// The usable plugin of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        let has_name =
            |entry: &&Arc<Entry>| entry.with(|plugin| plugin.name == name && plugin.manifest.is_some());
        self.entries().iter().find(has_name).cloned()
    }

    /// Stops all plugins.
    pub(crate) async fn stop(&self) {
        let stopping: Vec<_> =
            self.entries().into_iter().map(|entry| tokio::spawn(async move { entry.stop().await })).collect();
        for stopped in stopping {
            if let Err(error) = stopped.await {
                tracing::error!("stopping a plugin failed: {error}");
            }
        }
        // The host ends properly.
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(past);
    }
}
