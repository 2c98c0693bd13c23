//! What a plugin logs, and its panics, arrive at the host. One test: a library has one subscriber and one panic hook.

use std::sync::{Arc, Mutex, PoisonError};

use antiphon_plugin_api::{
    __private::Exported,
    abi::{
        AbiError, CapabilityObject, HostBox, HostV1, InterestV1, PluginBox,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, ROption, RSlice, RStr},
        },
    },
    export::{Capability, root},
    prelude::{Llm, LlmReply, LlmRequest, Plugin, PluginContext, PluginError},
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Logs while it starts, and panics when told to.
struct Chatty;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Config {
    name: String,
    panics: bool,
}

impl Plugin for Chatty {
    type Config = Config;

    async fn start(Config { name, panics }: Config, _: PluginContext) -> Result<Self, PluginError> {
        let _span = tracing::error_span!("start").entered();
        tracing::error!(target: "chatty::engine", code = 7, ok = false, "{name} is hot");
        tracing::warn!(%name, "warm");
        tracing::info!(text = "a b", "fine");
        tracing::debug!("not wanted");
        assert!(!panics, "{name} is too hot");
        Ok(Self)
    }
}

impl Llm for Chatty {
    async fn respond(&self, _: LlmRequest, _: LlmReply) -> Result<(), PluginError> {
        Ok(())
    }
}

impl Exported for Chatty {
    const NAME: &'static str = "llm-chatty";
    const VERSION: &'static str = "1.2.3";
    const DESCRIPTION: &'static str = "";
    const LICENSE: &'static str = "MIT";
    const CAPABILITIES: &'static [Capability<Self>] = &[antiphon_plugin_api::llm::capability::<Self>()];
}

#[derive(Clone, Default)]
struct Host {
    logged: Arc<Mutex<Vec<String>>>,
}

impl HostV1 for Host {
    fn interest(&self) -> RArc<InterestV1> {
        RArc::new(InterestV1::default())
    }

    fn log_level(&self) -> u32 {
        3
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>) {
        self.logged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{level} {target}: {message}"));
    }

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}

impl Host {
    fn start(&self, settings: &str) -> Result<PluginBox, AbiError> {
        let host = HostBox::from_value(self.clone(), TD_Opaque);
        root::<Chatty>().create()(host, RSlice::from_slice(settings.as_bytes())).into_result()
    }

    fn logged(&self) -> Vec<String> {
        std::mem::take(&mut *self.logged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[test]
fn records_and_panics_arrive_at_the_host_with_level_and_target() {
    let first = Host::default();
    assert!(first.start(r#"{"name": "one"}"#).is_ok());
    assert_eq!(
        first.logged(),
        ["1 chatty::engine: one is hot code=7 ok=false", "2 trace: warm name=one", "3 trace: fine text=a b"]
    );

    // A second instance shares the library's subscriber, so the first host hears it.
    let second = Host::default();
    let error = second.start(r#"{"name": "two", "panics": true}"#).err().expect("it panics");
    assert_eq!(error.message, "two is too hot");
    assert!(second.logged().is_empty());
    let logged = first.logged();
    assert_eq!(logged[0], "1 chatty::engine: two is hot code=7 ok=false");
    let panic = &logged[3];
    assert!(panic.starts_with("1 antiphon_plugin_api::trace: panicked: two is too hot location="), "{panic}");
    assert!(panic.contains("tests/trace.rs:"), "{panic}");
}
