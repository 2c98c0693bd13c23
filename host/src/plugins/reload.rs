//! Follows the plugin directories: new files are started, changed ones take the place of the version that runs.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{Plugin, PluginState, Registry, entry::Entry};
use crate::host::HostBuilder;

/// How long directories must be quiet before they are looked at: a compiler or a copy writes a file in many pieces.
const QUIET: Duration = Duration::from_millis(200);

/// A directory that never becomes quiet is looked at all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Follows the plugin directories of a host until it is dropped.
#[derive(Debug)]
pub struct PluginWatch {
    _watcher: RecommendedWatcher,
    task: JoinHandle<()>,
}

/// Why a directory cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("the plugin directory {} cannot be followed", directory.display())]
pub struct WatchError {
    directory: PathBuf,
    source: notify::Error,
}

impl Drop for PluginWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What has become of a plugin file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The plugin; its file, where it has no name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Why it was not taken; what ran before goes on.
    pub refused: Option<String>,
}

/// Takes over what has changed in the directories.
#[derive(Debug)]
pub(crate) struct Reloader {
    loader: Arc<HostBuilder>,
    registry: Arc<Registry>,
    /// What was refused last, by file, with its hash where it has one: it is tried and told once.
    refused: tokio::sync::Mutex<HashMap<PathBuf, (Option<String>, String)>>,
}

impl Reloader {
    pub(crate) fn new(loader: Arc<HostBuilder>, registry: &Arc<Registry>) -> Arc<Self> {
        Arc::new(Self { loader, registry: Arc::clone(registry), refused: tokio::sync::Mutex::default() })
    }

    /// Looks at the directories, and takes over what has changed. One at a time. `again`: plugins that have failed, and
    /// versions that did not start, are tried once more.
    pub(crate) async fn reload(&self, again: bool) -> Vec<Reloaded> {
        let mut refused = self.refused.lock().await;
        let loader = Arc::clone(&self.loader);
        let (found, _) = match tokio::task::spawn_blocking(move || loader.load()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("looking for plugins failed: {error}");
                return Vec::new();
            }
        };
        let mut changes = Vec::new();
        for plugin in found {
            let (name, path) = (plugin.name.clone(), plugin.path.clone());
            let reason = (plugin.sha256.clone(), plugin.error.clone().unwrap_or_default());
            let is_usable = plugin.state == PluginState::Loaded;
            if !(again && is_usable) && refused.get(&path) == Some(&reason) {
                continue;
            }
            match self.take(plugin, again).await {
                None => {}
                Some(Ok(())) => {
                    refused.remove(&path);
                    changes.push(Reloaded { name, path, refused: None });
                }
                Some(Err(refusal)) => {
                    refused.insert(path.clone(), reason);
                    changes.push(Reloaded { name, path, refused: Some(refusal) });
                }
            }
        }
        changes
    }

    /// Takes over one plugin; none when it is as it was.
    async fn take(&self, plugin: Plugin, again: bool) -> Option<Result<(), String>> {
        let entries = self.registry.entries();
        let of_file = entries.iter().find(|entry| entry.with(|known| known.path == plugin.path));
        let of_name = entries
            .iter()
            .find(|entry| entry.with(|known| known.manifest.is_some() && known.name == plugin.name));
        if plugin.state != PluginState::Loaded {
            // Of a file that is known it is told in place; another one is listed.
            let Some(entry) = of_file else {
                let error = plugin.error.clone().unwrap_or_default();
                self.registry.add(plugin);
                return Some(Err(error));
            };
            let is_known = entry.with(|known| known.instance.is_none() && known.error == plugin.error);
            return if is_known { None } else { Some(self.replace(entry, plugin).await) };
        }
        let Some(entry) = of_name.or(of_file) else {
            let entry = self.registry.add(plugin);
            entry.first_start().await;
            return Some(entry.with(|plugin| match plugin.instance() {
                Some(_) => Ok(()),
                None => Err(plugin.error.clone().unwrap_or_default()),
            }));
        };
        let is_known = entry.with(|known| {
            let runs = known.instance.is_some() || known.recovering;
            known.sha256 == plugin.sha256 && (runs || !again)
        });
        if is_known { None } else { Some(self.replace(entry, plugin).await) }
    }

    async fn replace(&self, entry: &Entry, plugin: Plugin) -> Result<(), String> {
        let terms = self.registry.terms(&plugin);
        entry.replace(plugin, terms).await
    }

    /// Follows the directories.
    pub(crate) fn watch(self: &Arc<Self>) -> Result<PluginWatch, WatchError> {
        let (changed, mut changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change; one that waits already stands for all.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = changed.try_send(());
            }
        })
        .map_err(|source| WatchError { directory: PathBuf::new(), source })?;
        for directory in self.loader.directories() {
            watcher
                .watch(directory, RecursiveMode::NonRecursive)
                .map_err(|source| WatchError { directory: directory.clone(), source })?;
        }
        let own = Arc::clone(self);
        let follow = async move {
            while changes.recv().await.is_some() {
                let quiet = async { while let Ok(Some(())) = timeout(QUIET, changes.recv()).await {} };
                // Still busy: then a look at what is there so far.
                let _ = timeout(LONGEST_WAIT, quiet).await;
                for Reloaded { name, path, refused } in own.reload(false).await {
                    match refused {
                        None => tracing::info!(plugin = name, "runs as {} has it now", path.display()),
                        Some(refused) => tracing::warn!(plugin = name, "{}: {refused}", path.display()),
                    }
                }
            }
        };
        Ok(PluginWatch { _watcher: watcher, task: tokio::spawn(follow) })
    }
}
