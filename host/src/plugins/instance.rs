//! A running plugin: what it is given of the host, and the sessions it opens.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
    time::Duration,
};

use antiphon_core::{EventBus, PluginBaseEvent, SessionBus, bus::InterestWatch};
use antiphon_plugin_api::{
    PluginManifest,
    abi::{
        API_VERSION, CAPABILITY_V1, Capability, CapabilityObject, HostBox, HostV1, InterestV1, LlmBox,
        MAX_EVENT_TYPES, PluginBox, SinkBox, SttBox, TtsBox, TurnBox, VisionBox, WakerBox,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, ROption, RStr},
        },
    },
    waker,
};
use serde_json::{Map, Value};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use super::{
    LlmSession, OTHER_MANIFEST, Plugin, SttSession, TtsSession, TurnSession, VisionSession,
    capabilities::{Capabilities, no_capability},
    session::{Pending, PluginEvent, PluginSessionError, Received, Sessions, sink},
};
use crate::{
    child::{ChildProgram, Limits},
    loader::Library,
    scan::MAX_MANIFEST,
    worker::{self, Connection},
};

/// A running plugin.
pub struct PluginInstance {
    manifest: PluginManifest,
    base: Arc<PluginBaseEvent>,
    events: Arc<[PluginEvent]>,
    plugin: PluginBox,
    capabilities: Capabilities,
    /// The worker that it runs in, if it does not run inside the host.
    worker: Option<Arc<Connection>>,
    sessions: Arc<Sessions>,
    /// Why it cannot be used any more.
    ended: watch::Sender<Option<String>>,
    _interest: InterestWatch,
}

/// What is opened and started.
pub(super) struct Source {
    pub(super) library: PathBuf,
    pub(super) manifest: PluginManifest,
}

impl Source {
    pub(super) fn of(plugin: &Plugin) -> Option<Self> {
        Some(Self { library: plugin.library.clone()?, manifest: plugin.manifest.clone()? })
    }
}

/// Where it is started.
pub(super) enum Where {
    /// Inside the host.
    Here,
    Worker {
        program: ChildProgram,
        limits: Limits,
        environment: Vec<String>,
        within: Duration,
    },
}

/// Why a plugin did not start.
#[derive(Debug, Clone)]
pub(super) struct StartFailure {
    pub(super) message: String,
    /// Another try may help.
    pub(super) is_temporary: bool,
}

impl StartFailure {
    pub(super) fn final_(message: String) -> Self {
        Self { message, is_temporary: false }
    }

    pub(super) fn temporary(message: String) -> Self {
        Self { message, is_temporary: true }
    }
}

impl PluginInstance {
    /// Starts a plugin. Blocks while the plugin starts.
    pub(super) fn start(
        source: &Source,
        place: &Where,
        bus: &EventBus,
        settings: &Map<String, Value>,
    ) -> Result<Arc<Self>, StartFailure> {
        let manifest = source.manifest.clone();
        sizes(&manifest).map_err(StartFailure::final_)?;
        versions(&manifest).map_err(|error| StartFailure::final_(super::chain(&error)))?;
        let events = declare(bus, &manifest).map_err(StartFailure::final_)?;
        let (interest, watch, follower) = watch_interest(bus, &events);
        let (plugin, worker) = match place {
            Where::Here => (start_here(source, interest, settings)?, None),
            Where::Worker { program, limits, environment, within } => {
                let spec = worker::Spec {
                    program: program.clone(),
                    limits: *limits,
                    environment: environment.clone(),
                    library: source.library.clone(),
                    manifest: manifest.clone(),
                };
                let name = manifest.name.clone();
                let log = move |level, target: &str, message: &str| log(&name, level, target, message);
                let started = worker::start(&spec, settings, log_level(), &interest, *within, log)
                    .map_err(StartFailure::from)?;
                follower.follow(&started.connection, &interest);
                (started.plugin, Some(started.connection))
            }
        };
        let base = Arc::new(PluginBaseEvent {
            plugin_name: manifest.name.as_str().into(),
            plugin_version: manifest.version.as_str().into(),
            plugin_instance: None,
        });
        let capabilities = Capabilities::of(&plugin, &manifest)
            .map_err(|error| StartFailure::final_(super::chain(&error)))?;
        let ended = watch::Sender::new(None);
        let sessions = Arc::default();
        Ok(Arc::new(Self {
            manifest,
            base,
            events,
            plugin,
            capabilities,
            worker,
            sessions,
            ended,
            _interest: watch,
        }))
    }

    /// Whether it can be used no more: its worker has died, or it hangs.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some() || self.worker.as_ref().is_some_and(|worker| worker.has_died())
    }

    /// How it has ended, if it has.
    pub(crate) fn end_reason(&self) -> Option<String> {
        let of_worker = || self.worker.as_ref().and_then(|worker| worker.end_reason());
        self.ended.borrow().clone().or_else(|| of_worker().map(|reason| reason.to_string()))
    }

    /// Number of the worker process that it runs in; none inside the host.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.worker.as_ref().map(|worker| worker.process_id())
    }

    /// Resolves when it has ended by itself, and says how. Inside the host nothing ends without the host.
    pub(super) async fn ended(&self) -> String {
        match &self.worker {
            Some(worker) => worker.died().await,
            None => std::future::pending().await,
        }
    }

    /// Fails what it was asked for, and lets nothing more be asked; its worker is killed.
    pub(super) fn give_up(&self, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert_with(|| reason.to_owned());
            is_first
        });
        match &self.worker {
            Some(worker) => worker.kill(reason),
            None => self.sessions.fail(),
        }
    }

    /// Asks whether it answers.
    pub(super) fn ping(&self, done: WakerBox) {
        self.plugin.ping(done);
    }

    /// Resolves when it has no session.
    pub(super) async fn unused(&self) {
        self.sessions.none().await;
    }

    /// What it declares.
    #[must_use]
    pub fn manifest(&self) -> &PluginManifest {
        &self.manifest
    }

    /// What the host stamps on its events.
    #[must_use]
    pub fn base(&self) -> &Arc<PluginBaseEvent> {
        &self.base
    }

    /// Opens turn detection for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability, or has ended.
    pub fn open_turn(&self, session: &SessionBus) -> Result<(TurnSession, Received), PluginSessionError> {
        let object = self.able(self.capabilities.turn.as_ref())?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((TurnSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens speech to text for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability, or has ended.
    pub fn open_stt(&self, session: &SessionBus) -> Result<(SttSession, Received), PluginSessionError> {
        let object = self.able(self.capabilities.stt.as_ref())?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((SttSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens the language model for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability, or has ended.
    pub fn open_llm(&self, session: &SessionBus) -> Result<(LlmSession, Received), PluginSessionError> {
        let object = self.able(self.capabilities.llm.as_ref())?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((LlmSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens text to speech for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability, or has ended.
    pub fn open_tts(&self, session: &SessionBus) -> Result<(TtsSession, Received), PluginSessionError> {
        let object = self.able(self.capabilities.tts.as_ref())?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((TtsSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens vision for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability, or has ended.
    pub fn open_vision(&self, session: &SessionBus) -> Result<(VisionSession, Received), PluginSessionError> {
        let object = self.able(self.capabilities.vision.as_ref())?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((VisionSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Stops the plugin; `false` when it has not ended by the deadline.
    pub async fn stop(&self, deadline: Duration) -> bool {
        let stopped = Arc::new(Notify::new());
        self.plugin.stop(waker(&stopped));
        tokio::time::timeout(deadline, stopped.notified()).await.is_ok()
    }

    fn able<'a, C: Capability>(&self, object: Option<&'a C>) -> Result<&'a C, PluginSessionError> {
        if self.has_ended() {
            return Err(PluginSessionError::Closed);
        }
        object.ok_or_else(|| no_capability::<C>(&self.manifest))
    }

    fn sink(&self, session: &SessionBus) -> (SinkBox, Arc<Pending>, Received) {
        let pending = Pending::of(&self.sessions);
        let (sink, received) = sink(
            session.clone(),
            Arc::clone(&self.base),
            Arc::clone(&self.events),
            Handle::current(),
            &pending,
        );
        (sink, pending, received)
    }
}

/// The manifest is of a size that the host can bear. The scan says the same, but not every manifest comes from a scan of today,
/// and each event type needs its bit of interest.
fn sizes(manifest: &PluginManifest) -> Result<(), String> {
    let count = manifest.events.len();
    if count > MAX_EVENT_TYPES {
        return Err(format!("declares {count} event types; at most {MAX_EVENT_TYPES} are possible"));
    }
    let bytes = serde_json::to_vec(manifest).expect("a manifest has text keys").len();
    if bytes > MAX_MANIFEST {
        return Err(format!("has a manifest of {bytes} bytes; at most {MAX_MANIFEST} are sensible"));
    }
    Ok(())
}

/// Of what both sides can do, the plugin has the version that this host knows. Others beside it are passed over.
fn versions(manifest: &PluginManifest) -> Result<(), PluginSessionError> {
    for kind in [TurnBox::NAME, SttBox::NAME, LlmBox::NAME, TtsBox::NAME, VisionBox::NAME] {
        let declared = manifest.capabilities.iter().filter(|declared| declared.kind == kind);
        let versions: Vec<u32> = declared.map(|declared| declared.version).collect();
        let newest = versions.iter().max().filter(|_| !versions.contains(&CAPABILITY_V1));
        if let Some(version) = newest {
            return Err(PluginSessionError::OtherVersion { kind, version: *version });
        }
    }
    Ok(())
}

/// Makes the plugin's event types known to the bus.
fn declare(bus: &EventBus, manifest: &PluginManifest) -> Result<Arc<[PluginEvent]>, String> {
    let mut events = Vec::with_capacity(manifest.events.len());
    for event in &manifest.events {
        let known = bus.registry().find(&event.name);
        events.push(match (known, &event.schema) {
            (Some(known), _) => known,
            (None, Some(schema)) => {
                bus.registry().declare(&event.name, &event.extends, event.media, schema.clone())
            }
            (None, None) => {
                return Err(format!(
                    "emits {}, an event of a newer core: the plugin was built with antiphon-plugin-api {}, this host \
                     with {API_VERSION}; update the host",
                    event.name, manifest.api_version
                ));
            }
        });
    }
    Ok(events.into_iter().map(PluginEvent::from).collect())
}

fn start_here(
    source: &Source,
    interest: RArc<InterestV1>,
    settings: &Map<String, Value>,
) -> Result<PluginBox, StartFailure> {
    let library =
        Library::open(&source.library).map_err(|error| StartFailure::final_(super::chain(&error)))?;
    if library.manifest() != &source.manifest {
        return Err(StartFailure::final_(OTHER_MANIFEST.into()));
    }
    let side = HostSide { name: source.manifest.name.clone(), interest };
    let host = HostBox::from_value(side, TD_Opaque);
    let settings = serde_json::to_vec(settings).expect("settings came from JSON or TOML");
    library.create(host, &settings).map_err(|error| StartFailure {
        // A panic is a defect, which comes again.
        is_temporary: error.recoverable && error.code.as_str() != "panic",
        message: error.message.into_string(),
    })
}

impl From<worker::StartError> for StartFailure {
    fn from(error: worker::StartError) -> Self {
        let is_temporary = match &error {
            worker::StartError::Refused { recoverable, .. } => *recoverable,
            worker::StartError::Died(_) => true,
            worker::StartError::Child(_) => false,
        };
        Self { message: super::chain(&error), is_temporary }
    }
}

impl fmt::Debug for PluginInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginInstance").field("name", &self.manifest.name).finish_non_exhaustive()
    }
}

/// Keeps the plugin's interest bits as the bus' subscriptions are; the worker's too, once there is one.
fn watch_interest(
    bus: &EventBus,
    events: &Arc<[PluginEvent]>,
) -> (RArc<InterestV1>, InterestWatch, Follower) {
    let interest = RArc::new(InterestV1::default());
    let follower = Follower::default();
    let update = {
        let (bus, events, interest) = (bus.downgrade(), Arc::clone(events), interest.clone());
        let follower = follower.clone();
        move || {
            let Some(bus) = bus.upgrade() else { return };
            let mut words = [0_u64; MAX_EVENT_TYPES / 64];
            for (index, PluginEvent { event, is_needed }) in events.iter().enumerate() {
                if *is_needed || bus.is_wanted(event) {
                    // `sizes` has seen to it that there is a bit for each.
                    words[index / 64] |= 1 << (index % 64);
                }
            }
            for (shared, word) in interest.words.iter().zip(words) {
                shared.store(word, Ordering::Relaxed);
            }
            follower.tell(words);
        }
    };
    update();
    let watch = bus.on_interest_change(update);
    (interest, watch, follower)
}

/// The worker that has to know which events are wanted.
#[derive(Clone, Default)]
struct Follower(Arc<OnceLock<Weak<Connection>>>);

impl Follower {
    fn follow(&self, worker: &Arc<Connection>, interest: &InterestV1) {
        let _ = self.0.set(Arc::downgrade(worker));
        // What has changed since it was started.
        worker.set_interest(worker::words(interest));
    }

    fn tell(&self, words: [u64; worker::INTEREST_WORDS]) {
        if let Some(worker) = self.0.get().and_then(Weak::upgrade) {
            worker.set_interest(words);
        }
    }
}

/// What a plugin is given of the host.
struct HostSide {
    name: String,
    interest: RArc<InterestV1>,
}

impl HostV1 for HostSide {
    fn interest(&self) -> RArc<InterestV1> {
        self.interest.clone()
    }

    fn log_level(&self) -> u32 {
        log_level()
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>) {
        log(&self.name, level, target.as_str(), message.as_str());
    }

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}

/// Most verbose level of which records are wanted, as at the ABI.
fn log_level() -> u32 {
    match tracing::level_filters::LevelFilter::current().into_level() {
        None => 0,
        Some(tracing::Level::ERROR) => 1,
        Some(tracing::Level::WARN) => 2,
        Some(tracing::Level::INFO) => 3,
        Some(tracing::Level::DEBUG) => 4,
        Some(_) => 5,
    }
}

/// Takes a record of a plugin.
fn log(plugin: &str, level: u32, module: &str, message: &str) {
    match level {
        0 | 1 => tracing::error!(target: "antiphon::plugin", plugin, module, "{message}"),
        2 => tracing::warn!(target: "antiphon::plugin", plugin, module, "{message}"),
        3 => tracing::info!(target: "antiphon::plugin", plugin, module, "{message}"),
        4 => tracing::debug!(target: "antiphon::plugin", plugin, module, "{message}"),
        _ => tracing::trace!(target: "antiphon::plugin", plugin, module, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(capabilities: &Value, events: usize) -> PluginManifest {
        let event =
            |number| json!({ "type": format!("x.e{number}"), "extends": ["PluginBaseEvent"], "schema": {} });
        let manifest = json!({
            "name": "llm-x", "version": "1.0.0", "abi_version": 1, "api_version": "0.9.0", "settings": {},
            "capabilities": capabilities, "events": (0..events).map(event).collect::<Vec<_>>(),
        });
        serde_json::from_value(manifest).expect("a manifest")
    }

    #[tokio::test]
    async fn as_many_event_types_as_there_are_bits_are_followed_and_more_are_refused() {
        let capabilities = json!([{ "kind": "llm", "version": 1 }]);
        let fits = manifest(&capabilities, MAX_EVENT_TYPES);
        assert_eq!(sizes(&fits), Ok(()));
        let bus = EventBus::new();
        let events = declare(&bus, &fits).expect("all have a schema");
        let _watched = watch_interest(&bus, &events);
        let error = sizes(&manifest(&capabilities, MAX_EVENT_TYPES + 1)).expect_err("one too many");
        assert_eq!(error, "declares 257 event types; at most 256 are possible");
    }

    #[test]
    fn a_manifest_that_nobody_should_have_to_read_is_refused() {
        let mut huge = manifest(&json!([{ "kind": "llm", "version": 1 }]), 1);
        huge.description = "x".repeat(MAX_MANIFEST);
        let error = sizes(&huge).expect_err("too large");
        assert!(error.starts_with("has a manifest of 41") && error.ends_with("are sensible"), "{error}");
    }

    /// What is wrong with the versions of `llm`; nothing, if empty.
    #[track_caller]
    fn check(declared: &[u32], want: &str) {
        let capabilities = declared.iter().map(|version| json!({ "kind": "llm", "version": version }));
        let checked = versions(&manifest(&capabilities.collect(), 0));
        assert_eq!(checked.err().map(|error| error.to_string()).unwrap_or_default(), want);
    }

    #[test]
    fn a_capability_of_another_version_is_told_with_both_and_what_to_do() {
        check(&[1], "");
        check(&[1, 2], "");
        check(&[], "");
        check(&[2, 3], "has capability llm of version 3, this host knows version 1: update the host");
        check(&[0], "has capability llm of version 0, this host knows version 1: rebuild the plugin");
    }
}
