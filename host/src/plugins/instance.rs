//! A running plugin: what it is given of the host, and the sessions it opens.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_core::{EventBus, PluginBaseEvent, SessionBus, bus::InterestWatch};
use antiphon_plugin_api::{
    PluginManifest,
    abi::{
        CAPABILITY_V1, Capability, CapabilityObject, HostBox, HostV1, InterestV1, LlmBox, PluginBox, SinkBox,
        SttBox, TtsBox, TurnBox, VisionBox,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, ROption, RStr},
        },
    },
    waker,
};
use serde_json::{Map, Value};
use tokio::{runtime::Handle, sync::Notify};

use super::{
    LlmSession, SttSession, TtsSession, TurnSession, VisionSession,
    session::{PluginEvent, PluginSessionError, Received, sink},
};
use crate::loader::Library;

/// A running plugin.
pub struct PluginInstance {
    manifest: PluginManifest,
    base: Arc<PluginBaseEvent>,
    events: Arc<[PluginEvent]>,
    plugin: PluginBox,
    _interest: InterestWatch,
}

impl PluginInstance {
    /// Starts a plugin. Blocks while the plugin starts.
    pub(super) fn start(
        library: &Library,
        bus: &EventBus,
        settings: &Map<String, Value>,
    ) -> Result<Arc<Self>, String> {
        let manifest = library.manifest().clone();
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
                        "emits {}, an event of a newer core than this host's: update the host",
                        event.name
                    ));
                }
            });
        }
        let events: Arc<[PluginEvent]> = events.into_iter().map(PluginEvent::from).collect();
        let (interest, watch) = watch_interest(bus, &events);
        let side = HostSide { name: manifest.name.clone(), interest };
        let host = HostBox::from_value(side, TD_Opaque);
        let settings = serde_json::to_vec(settings).expect("settings came from JSON or TOML");
        let plugin = library.create(host, &settings).map_err(|error| error.message.into_string())?;
        let base = Arc::new(PluginBaseEvent {
            plugin_name: manifest.name.as_str().into(),
            plugin_version: manifest.version.as_str().into(),
            plugin_instance: None,
        });
        let instance = Self { manifest, base, events, plugin, _interest: watch };
        instance.check_capabilities().map_err(|error| super::chain(&error))?;
        Ok(Arc::new(instance))
    }

    /// A plugin whose idea of a capability is another one is refused now, not when a session is opened.
    fn check_capabilities(&self) -> Result<(), PluginSessionError> {
        for declared in &self.manifest.capabilities {
            match declared.kind.as_str() {
                TurnBox::NAME => drop(self.capability::<TurnBox>()?),
                SttBox::NAME => drop(self.capability::<SttBox>()?),
                LlmBox::NAME => drop(self.capability::<LlmBox>()?),
                TtsBox::NAME => drop(self.capability::<TtsBox>()?),
                VisionBox::NAME => drop(self.capability::<VisionBox>()?),
                other => tracing::warn!(
                    plugin = self.manifest.name,
                    "this host has no use for the capability {other}"
                ),
            }
        }
        Ok(())
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
    /// The plugin has no such capability.
    pub fn open_turn(&self, session: &SessionBus) -> Result<(TurnSession, Received), PluginSessionError> {
        let object: TurnBox = self.capability()?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((TurnSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens speech to text for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability.
    pub fn open_stt(&self, session: &SessionBus) -> Result<(SttSession, Received), PluginSessionError> {
        let object: SttBox = self.capability()?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((SttSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens the language model for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability.
    pub fn open_llm(&self, session: &SessionBus) -> Result<(LlmSession, Received), PluginSessionError> {
        let object: LlmBox = self.capability()?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((LlmSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens text to speech for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability.
    pub fn open_tts(&self, session: &SessionBus) -> Result<(TtsSession, Received), PluginSessionError> {
        let object: TtsBox = self.capability()?;
        let (sink, pending, received) = self.sink(session);
        let id = session.id().to_string();
        Ok((TtsSession::new(object.open(RStr::from_str(&id), sink), pending), received))
    }

    /// Opens vision for a session.
    ///
    /// # Errors
    ///
    /// The plugin has no such capability.
    pub fn open_vision(&self, session: &SessionBus) -> Result<(VisionSession, Received), PluginSessionError> {
        let object: VisionBox = self.capability()?;
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

    fn capability<C: Capability>(&self) -> Result<C, PluginSessionError> {
        match self.plugin.query(RStr::from_str(C::NAME), CAPABILITY_V1) {
            ROption::RSome(object) => object.into_object().map_err(PluginSessionError::Layout),
            ROption::RNone => Err(PluginSessionError::NoCapability {
                plugin: self.manifest.name.clone(),
                kind: C::NAME,
                version: CAPABILITY_V1,
            }),
        }
    }

    fn sink(&self, session: &SessionBus) -> (SinkBox, super::session::Pending, Received) {
        sink(session.clone(), Arc::clone(&self.base), Arc::clone(&self.events), Handle::current())
    }
}

impl fmt::Debug for PluginInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginInstance").field("name", &self.manifest.name).finish_non_exhaustive()
    }
}

/// Keeps the plugin's interest bits as the bus' subscriptions are.
fn watch_interest(bus: &EventBus, events: &Arc<[PluginEvent]>) -> (RArc<InterestV1>, InterestWatch) {
    let interest = RArc::new(InterestV1::default());
    let update = {
        let (bus, events, interest) = (bus.downgrade(), Arc::clone(events), interest.clone());
        move || {
            let Some(bus) = bus.upgrade() else { return };
            let mut words = [0_u64; antiphon_plugin_api::abi::MAX_EVENT_TYPES / 64];
            for (index, PluginEvent { event, is_needed }) in events.iter().enumerate() {
                if *is_needed || bus.is_wanted(event) {
                    words[index / 64] |= 1 << (index % 64);
                }
            }
            for (shared, word) in interest.words.iter().zip(words) {
                shared.store(word, Ordering::Relaxed);
            }
        }
    };
    update();
    let watch = bus.on_interest_change(update);
    (interest, watch)
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
        match tracing::level_filters::LevelFilter::current().into_level() {
            None => 0,
            Some(tracing::Level::ERROR) => 1,
            Some(tracing::Level::WARN) => 2,
            Some(tracing::Level::INFO) => 3,
            Some(tracing::Level::DEBUG) => 4,
            Some(_) => 5,
        }
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>) {
        let (plugin, module, message) = (self.name.as_str(), target.as_str(), message.as_str());
        match level {
            0 | 1 => tracing::error!(target: "antiphon::plugin", plugin, module, "{message}"),
            2 => tracing::warn!(target: "antiphon::plugin", plugin, module, "{message}"),
            3 => tracing::info!(target: "antiphon::plugin", plugin, module, "{message}"),
            4 => tracing::debug!(target: "antiphon::plugin", plugin, module, "{message}"),
            _ => tracing::trace!(target: "antiphon::plugin", plugin, module, "{message}"),
        }
    }

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}
