//! `export_plugin!`, and what it leads to.

use std::{marker::PhantomData, sync::Arc};

use abi_stable::{
    erased_types::TD_Opaque,
    library::LibHeader,
    prefix_type::PrefixTypeTrait,
    std_types::{RArc, ROption, RResult, RSlice, RStr, RVec},
};
use antiphon_core::event::CATALOGUE_NAMES;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::{
    CapabilityDeclaration, EventDeclaration, EventDeclarations, Plugin, PluginContext, PluginError,
    PluginManifest,
    abi::{
        ABI_VERSION, API_VERSION, AbiError, CAPABILITY_V1, CapabilityObject, Entry, HostBox, InterestV1,
        PluginBox, PluginRoot, PluginRootRef, PluginV1, WakerBox,
    },
    context::PluginShared,
    runtime::{self, Held},
    trace,
};

/// Exports a plugin from its library: the only macro that a plugin needs.
///
/// ```
/// # use antiphon_plugin_api::prelude::*;
/// # struct Echo;
/// # impl Plugin for Echo {
/// #     type Config = NoConfig;
/// #     async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> { Ok(Echo) }
/// # }
/// # impl Llm for Echo {
/// #     async fn respond(&self, _: LlmRequest, _: LlmReply) -> Result<(), PluginError> { Ok(()) }
/// # }
/// export_plugin! { name: "llm-echo", plugin: Echo, capabilities: [llm] }
/// # fn main() {}
/// ```
///
/// The plugin is a type of the same crate. `capabilities` are any of `turn`, `stt`, `llm`, `tts`, `vision`; the plugin implements [`TurnDetector`], [`Stt`],
/// [`Llm`], [`Tts`], [`Vision`] for them. Version, description and licence come from the crate's `Cargo.toml`.
///
/// [`TurnDetector`]: crate::TurnDetector
/// [`Stt`]: crate::Stt
/// [`Llm`]: crate::Llm
/// [`Tts`]: crate::Tts
/// [`Vision`]: crate::Vision
#[macro_export]
macro_rules! export_plugin {
    (name: $name:literal, plugin: $plugin:ty, capabilities: [$($capability:ident),+ $(,)?] $(,)?) => {
        const _: () = {
            impl $crate::__private::Exported for $plugin {
                const NAME: &'static str = $name;
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
                const DESCRIPTION: &'static str = env!("CARGO_PKG_DESCRIPTION");
                const LICENSE: &'static str = env!("CARGO_PKG_LICENSE");
                const CAPABILITIES: &'static [$crate::export::Capability<Self>] =
                    &[$($crate::$capability::capability::<Self>()),+];
            }

            #[used]
            #[unsafe(export_name = "antiphon_plugin_entry")]
            pub static ENTRY: $crate::abi::abi_stable::library::LibHeader = $crate::__private::header::<$plugin>();

            const TEXT: &str = concat!(
                "{\"name\":\"", $name,
                "\",\"version\":\"", env!("CARGO_PKG_VERSION"),
                "\",\"abi_version\":1,\"api_version\":\"", $crate::api_version!(),
                "\",\"kinds\":\"", stringify!($($capability)+), "\"}"
            );

            #[used]
            #[unsafe(link_section = ".antiphon_plugin")]
            static SECTION: [u8; TEXT.len()] = match TEXT.as_bytes().first_chunk() {
                Some(bytes) => *bytes,
                None => panic!("a text has as many bytes as it has"),
            };
        };
    };
}

/// The version of this crate as a literal, for `concat!`. A test holds it to `API_VERSION`.
#[doc(hidden)]
#[macro_export]
macro_rules! api_version {
    () => {
        "0.1.0"
    };
}

/// What `export_plugin!` says of a plugin.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not exported",
    label = "expected a plugin that `export_plugin!` names"
)]
pub trait Exported: Plugin {
    /// Its name.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// One sentence.
    const DESCRIPTION: &'static str;
    /// Its licence.
    const LICENSE: &'static str;
    /// What it can do.
    const CAPABILITIES: &'static [Capability<Self>];
}

/// One capability of a plugin: what it declares, and how its object is made.
pub struct Capability<P: Plugin> {
    /// Its name, as in the manifest.
    pub kind: &'static str,
    /// Declares the events of such plugins.
    pub declare: fn(&mut EventDeclarations),
    pub(crate) object: fn(&Instance<P>) -> CapabilityObject,
}

/// A started plugin, shared by its capability objects and their sessions.
pub struct Instance<P: Plugin> {
    pub(crate) plugin: Arc<Held<P>>,
    pub(crate) shared: Arc<PluginShared>,
    pub(crate) runtime: &'static Handle,
}

impl<P: Plugin> Clone for Instance<P> {
    fn clone(&self) -> Self {
        Self { plugin: Arc::clone(&self.plugin), shared: Arc::clone(&self.shared), runtime: self.runtime }
    }
}

/// The entry symbol's value.
#[must_use]
pub const fn header<E: Exported>() -> LibHeader {
    crate::abi::lib_header::<Header<E>>()
}

struct Header<E>(PhantomData<E>);

impl<E: Exported> Entry for Header<E> {
    fn root() -> PluginRootRef {
        root::<E>()
    }
}

/// The root module.
#[must_use]
pub fn root<E: Exported>() -> PluginRootRef {
    PluginRoot { abi_version: ABI_VERSION, manifest: manifest_bytes::<E>, create: create::<E> }
        .leak_into_prefix()
}

pub(crate) fn declarations<E: Exported>() -> EventDeclarations {
    let mut events = EventDeclarations::default();
    for capability in E::CAPABILITIES {
        (capability.declare)(&mut events);
    }
    E::declare(&mut events);
    events
}

/// The whole manifest.
pub(crate) fn manifest<E: Exported>() -> PluginManifest {
    let events = declarations::<E>()
        .infos()
        .map(|info| EventDeclaration {
            name: info.name.into(),
            extends: info.lineage().iter().skip(1).map(ToString::to_string).collect(),
            media: info.media,
            schema: (!CATALOGUE_NAMES.contains(&info.name)).then(|| info.payload_schema()),
        })
        .collect();
    PluginManifest {
        name: E::NAME.into(),
        version: E::VERSION.into(),
        description: E::DESCRIPTION.into(),
        license: E::LICENSE.into(),
        abi_version: ABI_VERSION,
        api_version: API_VERSION.into(),
        rank: E::RANK,
        capabilities: E::CAPABILITIES
            .iter()
            .map(|capability| CapabilityDeclaration { kind: capability.kind.into(), version: CAPABILITY_V1 })
            .collect(),
        settings: settings_schema::<E>(),
        events,
    }
}

fn settings_schema<E: Exported>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<E::Config>().to_value()
}

extern "C" fn manifest_bytes<E: Exported>() -> RVec<u8> {
    let bytes = || serde_json::to_vec(&manifest::<E>()).expect("a manifest has text keys");
    // Empty when a plugin's own schema panics; the host says that the manifest cannot be read.
    runtime::shielded(Vec::new(), bytes).into()
}

extern "C" fn create<E: Exported>(host: HostBox, config: RSlice<'_, u8>) -> RResult<PluginBox, AbiError> {
    let failed = |error: PluginError| RResult::RErr(error.into());
    let panicked = failed(PluginError::panic("the plugin panicked while it was started".into()));
    runtime::shielded(panicked, || {
        let interest = host.interest();
        trace::install(host);
        match start::<E>(interest, config.as_slice()) {
            Ok(plugin) => RResult::ROk(plugin),
            Err(error) => failed(error),
        }
    })
}

/// Starts an instance, from a thread that may block.
pub(crate) fn start<E: Exported>(
    interest: RArc<InterestV1>,
    config: &[u8],
) -> Result<PluginBox, PluginError> {
    let runtime = runtime::handle(E::NAME)?;
    let config = settings::<E::Config>(config)?;
    let shared = Arc::new(PluginShared { events: declarations::<E>(), interest });
    // The work itself runs on the plugin's runtime, where `spawn` and timers of author code belong to it.
    let context = PluginContext { name: E::NAME };
    let started = runtime.spawn(runtime::guarded(async move { E::start(config, context).await }));
    let plugin = runtime
        .block_on(started)
        .map_err(|_| PluginError::panic("the plugin's runtime has ended".into()))??;
    let instance = Instance { plugin: Arc::new(Held::new(plugin, runtime)), shared, runtime };
    Ok(PluginBox::from_value(PluginObject(instance), TD_Opaque))
}

fn settings<C: DeserializeOwned>(bytes: &[u8]) -> Result<C, PluginError> {
    let misfit =
        |text: String| PluginError::new("settings", format!("the settings do not fit: {text}")).fatal();
    let settings = serde_json::from_slice::<Value>(bytes).map_err(|error| misfit(error.to_string()))?;
    // To serde, a list is the fields of a struct by their places.
    if !settings.is_object() {
        return Err(misfit("expected an object of settings".into()));
    }
    C::deserialize(&settings).map_err(|error| match culprit::<C>(&settings, &error.to_string()) {
        Some(field) => misfit(format!("{field}: {error}")),
        None => misfit(error.to_string()),
    })
}

/// The setting without which there would be no such error: serde does not say.
fn culprit<'a, C: DeserializeOwned>(settings: &'a Value, error: &str) -> Option<&'a str> {
    let all = settings.as_object()?;
    let is_to_blame = |field: &&String| {
        let mut others = all.clone();
        others.remove(*field);
        C::deserialize(Value::Object(others)).err().is_none_or(|other| other.to_string() != error)
    };
    all.keys().find(is_to_blame).map(String::as_str)
}

struct PluginObject<E: Exported>(Instance<E>);

impl<E: Exported> PluginV1 for PluginObject<E> {
    fn query(&self, capability: RStr<'_>, version: u32) -> ROption<CapabilityObject> {
        let found = E::CAPABILITIES
            .iter()
            .find(|known| known.kind == capability.as_str() && version == CAPABILITY_V1)
            .and_then(|known| runtime::shielded(None, || Some((known.object)(&self.0))));
        found.into()
    }

    fn ping(&self, done: WakerBox) {
        self.0.runtime.spawn(async move { done.wake() });
    }

    fn stop(&self, done: WakerBox) {
        let plugin = Arc::clone(&self.0.plugin);
        let stopped = async move {
            plugin.stop().await;
            Ok(())
        };
        self.0.runtime.spawn(async move {
            if let Err(error) = runtime::guarded(stopped).await {
                tracing::error!("the plugin failed while it was stopped: {error}");
            }
            done.wake();
        });
    }
}

/// What a session of this plugin reaches the host by.
pub(crate) fn context_of<P: Plugin>(
    instance: &Instance<P>,
    session_id: RStr<'_>,
    sink: crate::abi::SinkBox,
) -> crate::SessionContext {
    crate::SessionContext::new(Arc::clone(&instance.shared), session_id.to_string(), sink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_the_section_is_this_crates() {
        assert_eq!(crate::api_version!(), API_VERSION);
        assert_eq!(ABI_VERSION, 1, "`export_plugin!` writes the number into the section");
    }
}
