//! Who does a kind of work for a conversation: the plugin that was chosen for it, or its stand-in while that one is down.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{Kind, PluginInstance, PluginState, Registry};

/// The plugin that was chosen for a kind of work, and its stand-in.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    registry: Arc<Registry>,
    kind: Kind,
    chosen: String,
    fallback: Option<String>,
}

/// A plugin that does not run, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{plugin} {reason}")]
pub(crate) struct Down {
    pub(crate) plugin: String,
    pub(crate) reason: String,
}

impl Provider {
    pub(crate) fn new(registry: &Arc<Registry>, kind: Kind, chosen: &str, fallback: Option<&str>) -> Self {
        let fallback = fallback.filter(|fallback| *fallback != chosen).map(str::to_owned);
        Self { registry: Arc::clone(registry), kind, chosen: chosen.to_owned(), fallback }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Name of the plugin that was chosen.
    pub(crate) fn chosen(&self) -> &str {
        &self.chosen
    }

    /// The plugin that was chosen, if it runs.
    pub(crate) fn first_choice(&self) -> Result<Arc<PluginInstance>, Down> {
        self.running(&self.chosen)
    }

    /// A plugin that can do the work now: the one that was chosen; else its stand-in; else whichever of them runs first
    /// within `patience`, as long as one of them may.
    pub(crate) async fn acquire(&self, patience: Duration) -> Result<Arc<PluginInstance>, Down> {
        let deadline = Instant::now() + patience;
        let Some(entry) = self.registry.find(&self.chosen) else { return self.first_choice() };
        let mut changes = entry.changes();
        loop {
            changes.mark_unchanged();
            let down = match self.first_choice() {
                Ok(instance) => return Ok(instance),
                Err(down) => down,
            };
            if let Some(Ok(instance)) = self.fallback.as_deref().map(|name| self.running(name)) {
                return Ok(instance);
            }
            // `Err` when the time is over, or the host is.
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return Err(down);
            }
        }
    }

    /// How the worker of a plugin that has ended did; none, if it has not, or had none.
    pub(crate) async fn ending(instance: &PluginInstance) -> Option<String> {
        match instance.has_ended() && instance.process_id().is_some() {
            true => Some(instance.ended().await),
            false => None,
        }
    }

    fn running(&self, name: &str) -> Result<Arc<PluginInstance>, Down> {
        let down = |reason: String| Down { plugin: name.to_owned(), reason };
        let entry = self.registry.find(name).ok_or_else(|| down("was not found".into()))?;
        entry.with(|plugin| match plugin.instance().filter(|instance| !instance.has_ended()) {
            Some(instance) if instance.manifest().has(self.kind.as_str()) => Ok(Arc::clone(instance)),
            Some(_) => Err(down(format!("cannot do {}", self.kind))),
            None if plugin.state == PluginState::Starting => Err(down("is being started".into())),
            None => Err(down(plugin.error.clone().unwrap_or_else(|| "does not run".into()))),
        })
    }
}
