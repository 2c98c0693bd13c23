//! A supervised plugin, as everybody but its supervisor sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use antiphon_core::{
    EventBus,
    event::{
        Stamp,
        plugin::PluginLifecycleEvent,
        values::{ErrorInfo, PluginState},
    },
};
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{Plugin, policy::Policy, supervisor::Supervisor};
use crate::child::{ChildProgram, NoChildProgram};

/// Orders that may wait.
const ORDER_CAPACITY: usize = 4;

/// What a plugin is run with.
pub(super) struct Terms {
    pub(super) bus: EventBus,
    pub(super) settings: Map<String, Value>,
    pub(super) policy: Policy,
    pub(super) program: Result<ChildProgram, NoChildProgram>,
    pub(super) ticks: watch::Receiver<()>,
}

/// A supervised plugin.
pub(crate) struct Entry {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    /// None once its end was waited for.
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What others see of a plugin while its supervisor works.
pub(super) struct Shared {
    pub(super) bus: EventBus,
    pub(super) plugin: Mutex<Plugin>,
    /// Changes with the instance and with the state.
    pub(super) changes: watch::Sender<()>,
}

pub(super) enum Order {
    /// A new version of its file; answered when it runs, or not.
    Replace(Box<Replacement>, oneshot::Sender<Result<(), String>>),
    Stop(oneshot::Sender<()>),
}

/// Another version of a plugin's file.
pub(super) struct Replacement {
    pub(super) plugin: Plugin,
    /// What a plugin of its name is run with: a file may have another plugin in it than before.
    pub(super) terms: Terms,
}

impl Entry {
    /// Begins to supervise a plugin; one that cannot be started, or is switched off, is only kept for the list.
    pub(super) fn new(plugin: Plugin, terms: Terms) -> Self {
        let (orders, receiver) = mpsc::channel(ORDER_CAPACITY);
        let is_fine = plugin.state == PluginState::Loaded;
        let shared = Arc::new(Shared {
            bus: terms.bus.clone(),
            plugin: Mutex::new(Plugin { isolation: terms.policy.isolation, ..plugin }),
            changes: watch::Sender::new(()),
        });
        shared.announce();
        let supervisor = Supervisor::new(Arc::clone(&shared), terms);
        let task = tokio::spawn(supervisor.run(receiver, is_fine));
        Self { shared, orders, task: Mutex::new(Some(task)) }
    }

    /// The plugin as it is now.
    pub(crate) fn snapshot(&self) -> Plugin {
        self.shared.lock().clone()
    }

    /// Looks at the plugin as it is now.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Plugin) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Marked whenever the plugin's state or instance changes.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// Resolves when the first start has succeeded or failed.
    pub(super) async fn first_start(&self) {
        let mut changes = self.changes();
        let is_undecided =
            |plugin: &Plugin| matches!(plugin.state, PluginState::Loaded | PluginState::Starting);
        while self.with(is_undecided) && changes.changed().await.is_ok() {}
    }

    /// Replaces the plugin by another version of its file, if that one starts.
    pub(super) async fn replace(&self, plugin: Plugin, terms: Terms) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let ended = || "its supervisor has ended".to_owned();
        let replacement = Box::new(Replacement { plugin, terms });
        self.orders.send(Order::Replace(replacement, answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Stops the plugin.
    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        // A supervisor that has ended has nothing left to stop.
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
        let task = lock(&self.task).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!("supervising a plugin failed: {error}");
        }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with(|plugin| plugin.fmt(f))
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Plugin> {
        lock(&self.plugin)
    }

    pub(super) fn become_state(&self, state: PluginState, error: Option<String>) {
        {
            let mut plugin = self.lock();
            plugin.state = state;
            plugin.error = error;
        }
        // Told before anybody goes on because of it: a host that has started has told of it.
        self.announce();
        self.changes.send_replace(());
    }

    /// Tells of the state on the bus.
    pub(super) fn announce(&self) {
        let (event, base) = {
            let plugin = self.lock();
            let error = plugin.error.as_deref().map(|message| failure(&plugin, message));
            (PluginLifecycleEvent { phase: plugin.state, error }, plugin.base())
        };
        let stamp = Stamp { plugin: Some(base), ..Stamp::default() };
        // A bus that is closed has nobody to tell.
        let _ = self.bus.emit_with(event, stamp);
    }
}

/// A failure of a plugin, as events have it.
pub(super) fn failure(plugin: &Plugin, message: &str) -> ErrorInfo {
    ErrorInfo {
        kind: "error".into(),
        code: Some("plugin_failed".into()),
        message: message.to_owned(),
        recoverable: plugin.recovering,
        context: Some(serde_json::json!({ "path": plugin.path.display().to_string() })),
        source_chain: Vec::new(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
