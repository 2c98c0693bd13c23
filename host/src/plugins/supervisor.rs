//! Keeps one plugin running: starts it, asks whether it answers, starts it again when it broke, replaces it by a newer
//! version, stops it.

use std::{sync::Arc, time::Duration};

use antiphon_core::event::{plugin::ProviderRecoveryEvent, values::PluginState};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Isolation, OnCrash, Plugin, PluginInstance,
    budget::{Budget, Restart},
    chain,
    entry::{Order, Replacement, Shared, Terms, failure},
    instance::{Source, StartFailure, Where},
    ping::Ping,
    settings,
};

/// How long a plugin may take to stop.
pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// How long conversations may go on with a version that was replaced, before they lose it.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3600);

/// Versions of one plugin that are mapped into the host at most: nothing is ever unmapped.
const MAX_GENERATIONS: u32 = 16;

/// Supervises one plugin, in a task of its own.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    terms: Terms,
    budget: Budget,
    isolation: Isolation,
    /// Versions that were opened inside the host.
    mapped: u32,
    /// An order that came while the plugin was waiting for another try; none in it: there will be no more.
    held: Option<Option<Order>>,
    /// The try that it was waiting for then.
    interrupted: Option<(StartFailure, Restart)>,
    /// Old versions that still have sessions.
    draining: JoinSet<()>,
    /// Tells those that the host ends, also those that have not begun to listen.
    closing: watch::Sender<bool>,
}

/// Why the supervision of a running plugin had a break.
enum Break {
    /// It ended, or hangs.
    Broken(String),
    Replace(Box<Replacement>, oneshot::Sender<Result<(), String>>),
    Stop(oneshot::Sender<()>),
    /// Nobody has the plugin any more.
    Abandoned,
}

impl From<Option<Order>> for Break {
    fn from(order: Option<Order>) -> Self {
        match order {
            Some(Order::Replace(replacement, answer)) => Self::Replace(replacement, answer),
            Some(Order::Stop(done)) => Self::Stop(done),
            None => Self::Abandoned,
        }
    }
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>, terms: Terms) -> Self {
        Self {
            shared,
            budget: Budget::new(terms.policy.max_restarts, terms.policy.restart_window),
            isolation: terms.policy.isolation,
            terms,
            mapped: 1,
            held: None,
            interrupted: None,
            draining: JoinSet::new(),
            closing: watch::Sender::new(false),
        }
    }

    /// Keeps the plugin running until it is told to stop.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, is_fine: bool) {
        let mut instance = if is_fine { self.start(&mut orders).await } else { None };
        loop {
            match self.watch(instance.as_ref(), &mut orders).await {
                Break::Broken(reason) => {
                    if let Some(broken) = instance.take() {
                        instance = self.restart(&broken, reason, &mut orders).await;
                    }
                }
                Break::Replace(replacement, answer) => {
                    let outcome = self.replace(*replacement, &mut instance).await;
                    // Whoever asked may have gone.
                    let _ = answer.send(outcome);
                    // What was not taken is no reason to give up what was there.
                    if let Some((failure, restart)) = self.interrupted.take()
                        && instance.is_none()
                    {
                        instance = self.retry(failure, Some(restart), &mut orders).await;
                    }
                }
                Break::Stop(done) => {
                    self.stop(instance.take()).await;
                    let _ = done.send(());
                    return;
                }
                Break::Abandoned => return self.stop(instance.take()).await,
            }
        }
    }

    /// Starts the plugin, again where that may help.
    async fn start(&mut self, orders: &mut mpsc::Receiver<Order>) -> Option<Arc<PluginInstance>> {
        match self.try_start().await {
            Ok(instance) => Some(instance),
            Err(failure) => self.retry(failure, None, orders).await,
        }
    }

    async fn try_start(&mut self) -> Result<Arc<PluginInstance>, StartFailure> {
        let source = {
            let plugin = self.shared.lock();
            Source::of(&plugin)
        };
        let Some(source) = source else {
            let failure = StartFailure::final_("has no library to open".into());
            self.shared.become_state(PluginState::Failed, Some(failure.message.clone()));
            return Err(failure);
        };
        self.shared.become_state(PluginState::Starting, None);
        let outcome = self.open(source).await;
        match &outcome {
            Ok(instance) => self.publish(instance),
            Err(failure) => {
                self.shared.lock().recovering = failure.is_temporary;
                self.shared.become_state(PluginState::Failed, Some(failure.message.clone()));
            }
        }
        outcome
    }

    /// Opens and starts a library, on a thread that nobody waits for: one that hangs keeps neither the host nor its end
    /// waiting.
    async fn open(&self, source: Source) -> Result<Arc<PluginInstance>, StartFailure> {
        if let Err(error) =
            settings::check(&source.manifest.name, &source.manifest.settings, &self.terms.settings)
        {
            return Err(StartFailure::final_(chain(&error)));
        }
        let place = match (self.isolation, &self.terms.program) {
            (Isolation::None, _) => Where::Here,
            (Isolation::Process, Ok(program)) => Where::Worker {
                program: program.clone(),
                limits: self.terms.policy.limits,
                environment: self.terms.policy.environment.clone(),
                within: self.terms.policy.start_timeout,
            },
            (Isolation::Process, Err(error)) => {
                return Err(StartFailure::final_(format!("cannot be isolated: {error}")));
            }
        };
        let within = self.terms.policy.start_timeout;
        let (sender, receiver) = oneshot::channel();
        let (bus, settings) = (self.terms.bus.clone(), self.terms.settings.clone());
        let start = move || {
            // A host that has stopped waiting drops the plugin here.
            let _ = sender.send(PluginInstance::start(&source, &place, &bus, &settings));
        };
        std::thread::Builder::new().name("plugin-start".into()).spawn(start).map_err(|error| {
            StartFailure::temporary(format!("there is no thread to start it on: {error}"))
        })?;
        // A worker has the same deadline, and tells more.
        let patience = match self.isolation {
            Isolation::None => within,
            Isolation::Process => within + STOP_DEADLINE,
        };
        match timeout(patience, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StartFailure::final_("ended its own start without a result".into())),
            Err(_) => Err(StartFailure::final_(format!("did not start within {} s", within.as_secs_f32()))),
        }
    }

    fn publish(&self, instance: &Arc<PluginInstance>) {
        {
            let mut plugin = self.shared.lock();
            plugin.instance = Some(Arc::clone(instance));
            plugin.manifest = Some(instance.manifest().clone());
            plugin.isolation = self.isolation;
            plugin.process_id = instance.process_id();
            plugin.recovering = false;
        }
        self.shared.become_state(PluginState::Ready, None);
    }

    /// A running plugin broke: its sessions end, and another one is started.
    async fn restart(
        &mut self,
        broken: &Arc<PluginInstance>,
        reason: String,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Option<Arc<PluginInstance>> {
        broken.give_up(&reason);
        {
            let mut plugin = self.shared.lock();
            plugin.instance = None;
            plugin.process_id = None;
        }
        let was_inside = self.isolation == Isolation::None;
        let failure = match self.terms.policy.on_crash {
            OnCrash::Fail => StartFailure::final_(reason),
            OnCrash::Isolate => {
                self.isolation = Isolation::Process;
                StartFailure::temporary(reason)
            }
            OnCrash::Restart if was_inside => StartFailure::final_(format!(
                "{reason}; inside the host nobody can end it: run it with isolation = \"process\" (--isolate {})",
                broken.manifest().name
            )),
            OnCrash::Restart => StartFailure::temporary(reason),
        };
        self.shared.lock().recovering = failure.is_temporary;
        self.shared.become_state(PluginState::Failed, Some(failure.message.clone()));
        self.retry(failure, None, orders).await
    }

    /// Tries again until it runs, the budget is spent, or something else is asked for. A restart that is `granted` already
    /// is not counted again.
    async fn retry(
        &mut self,
        mut failure: StartFailure,
        mut granted: Option<Restart>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Option<Arc<PluginInstance>> {
        while failure.is_temporary {
            let restart = granted.take().or_else(|| self.budget.next(Instant::now()));
            let Some(restart @ Restart { attempt, delay }) = restart else {
                let message = format!(
                    "{}; given up after {} restarts within {} s",
                    failure.message,
                    self.terms.policy.max_restarts,
                    self.terms.policy.restart_window.as_secs_f32()
                );
                self.shared.lock().recovering = false;
                self.recovery(self.terms.policy.max_restarts, false, false, Some(&message));
                self.shared.become_state(PluginState::Failed, Some(message));
                return None;
            };
            self.recovery(attempt, true, false, Some(&failure.message));
            tokio::select! {
                biased;
                // What is asked for is done before anything is tried again.
                order = orders.recv() => {
                    self.held = Some(order);
                    self.interrupted = Some((failure, restart));
                    return None;
                }
                () = sleep(delay) => {}
            }
            self.shared.lock().restarts += 1;
            match self.try_start().await {
                Ok(instance) => {
                    self.recovery(attempt, false, true, None);
                    return Some(instance);
                }
                Err(next) => failure = next,
            }
        }
        None
    }

    fn recovery(&self, attempt: u32, recovering: bool, recovered: bool, error: Option<&str>) {
        let (provider, error) = {
            let plugin = self.shared.lock();
            (plugin.name.clone(), error.map(|message| failure(&plugin, message)))
        };
        let max_attempts = self.terms.policy.max_restarts;
        let event = ProviderRecoveryEvent { provider, attempt, max_attempts, recovering, recovered, error };
        self.terms.bus.emit(event);
    }

    /// Waits until something happens to a running plugin, and asks it every second whether it answers.
    async fn watch(
        &mut self,
        instance: Option<&Arc<PluginInstance>>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Break {
        if let Some(held) = self.held.take() {
            return Break::from(held);
        }
        let mut ping: Option<Ping> = None;
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => return Break::from(order),
                reason = ended(instance) => return Break::Broken(reason),
                // The ticker lives as long as the host.
                Ok(()) = self.terms.ticks.changed(), if instance.is_some() => {
                    if let Some(reason) = instance.and_then(|instance| self.asked(instance, &mut ping)) {
                        return Break::Broken(reason);
                    }
                }
            }
        }
    }

    /// Looks whether the last question was answered, and asks the next; the reason if the plugin hangs.
    fn asked(&self, instance: &PluginInstance, ping: &mut Option<Ping>) -> Option<String> {
        let hang = self.terms.policy.hang_timeout;
        let is_degraded = self.shared.lock().state == PluginState::Degraded;
        match ping {
            Some(asked) if !asked.is_answered() => {
                let silent = asked.since();
                if silent >= hang {
                    return Some(format!("did not answer for {} s", hang.as_secs_f32()));
                }
                if silent >= hang / 4 && !is_degraded {
                    let error = format!("has not answered for {} s", silent.as_secs());
                    self.shared.become_state(PluginState::Degraded, Some(error));
                }
            }
            _ => {
                if is_degraded {
                    self.shared.become_state(PluginState::Ready, None);
                }
                *ping = Some(Ping::ask(instance));
            }
        }
        None
    }

    /// Starts another version beside the one that runs, and takes its place.
    async fn replace(
        &mut self,
        Replacement { plugin, terms }: Replacement,
        instance: &mut Option<Arc<PluginInstance>>,
    ) -> Result<(), String> {
        let is_another = self.shared.lock().name != plugin.name;
        let former = is_another.then(|| {
            let isolation = std::mem::replace(&mut self.isolation, terms.policy.isolation);
            (std::mem::replace(&mut self.terms, terms), isolation)
        });
        let outcome = self.start_beside(&plugin).await;
        if outcome.is_err()
            && let Some((terms, isolation)) = former
        {
            (self.terms, self.isolation) = (terms, isolation);
        }
        let refusal = match outcome {
            Ok(newer) => {
                {
                    let mut shared = self.shared.lock();
                    let generation = shared.generation + 1;
                    // The old instance stands until the new one does: at no moment there is none.
                    let instance = shared.instance.take();
                    *shared = Plugin { generation, restarts: 0, instance, ..plugin };
                }
                self.budget = Budget::new(self.terms.policy.max_restarts, self.terms.policy.restart_window);
                self.publish(&newer);
                if let Some(older) = instance.replace(newer) {
                    self.draining.spawn(drain(older, self.closing.subscribe()));
                }
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        let state = {
            let mut shared = self.shared.lock();
            // What does not run, and will not, is told of as what was found last.
            if instance.is_none() && self.interrupted.is_none() {
                shared.manifest = plugin.manifest;
                shared.path = plugin.path;
            }
            shared.state
        };
        let error = match instance {
            Some(_) => format!("the new version of its file was not taken, the old one goes on: {refusal}"),
            None => refusal.clone(),
        };
        self.shared.become_state(state, Some(error));
        Err(refusal)
    }

    async fn start_beside(&mut self, plugin: &Plugin) -> Result<Arc<PluginInstance>, String> {
        if plugin.state != PluginState::Loaded {
            return Err(plugin.error.clone().unwrap_or_else(|| "cannot be used".into()));
        }
        if self.isolation == Isolation::None && self.mapped >= MAX_GENERATIONS {
            return Err(format!(
                "{MAX_GENERATIONS} versions of it are mapped already, and nothing is ever unmapped: start the host \
                 again, or run it with isolation = \"process\""
            ));
        }
        let source = Source::of(plugin).ok_or("has no library to open")?;
        if self.isolation == Isolation::None {
            // It stays mapped, whether it starts or not.
            self.mapped += 1;
        }
        self.open(source).await.map_err(|failure| failure.message)
    }

    async fn stop(&mut self, instance: Option<Arc<PluginInstance>>) {
        self.closing.send_replace(true);
        while self.draining.join_next().await.is_some() {}
        let was_running = instance.is_some();
        if let Some(instance) = instance {
            self.shared.lock().instance = None;
            end(&instance).await;
        }
        self.shared.lock().process_id = None;
        if was_running {
            self.shared.become_state(PluginState::Stopped, None);
        }
    }
}

async fn ended(instance: Option<&Arc<PluginInstance>>) -> String {
    match instance {
        Some(instance) => instance.ended().await,
        None => std::future::pending().await,
    }
}

/// Lets the sessions of an old version come to their end, then stops it.
async fn drain(instance: Arc<PluginInstance>, mut closing: watch::Receiver<bool>) {
    tokio::select! {
        () = instance.unused() => {}
        // An error is that its supervisor is gone.
        _ = closing.wait_for(|is_closing| *is_closing) => {}
        () = sleep(DRAIN_DEADLINE) => {
            tracing::warn!(plugin = instance.manifest().name, "an old version still has sessions after an hour");
        }
    }
    end(&instance).await;
}

async fn end(instance: &PluginInstance) {
    if !instance.stop(STOP_DEADLINE).await {
        tracing::warn!(
            plugin = instance.manifest().name,
            "the plugin did not stop within {} s",
            STOP_DEADLINE.as_secs()
        );
    }
    instance.give_up("was stopped");
}
