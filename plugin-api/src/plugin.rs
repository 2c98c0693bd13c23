//! The trait that every plugin implements.

use std::future::Future;

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{EventDeclarations, PluginError};

/// A plugin: made once by the host, shared by all its sessions.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Settings. Their JSON Schema is in the manifest, and the host checks a user's settings against it before the
    /// plugin starts. Give every field a default, its unit and its range: `#[serde(default, deny_unknown_fields)]`.
    type Config: DeserializeOwned + JsonSchema + Send;

    /// Which plugin a host takes where several can do the same and its user does not say: the highest.
    const RANK: u32 = 100;

    /// Starts the plugin. Look here for what the plugin needs (libraries, models, keys) and say what is missing; load
    /// what is large when it is first used.
    ///
    /// # Errors
    ///
    /// The plugin cannot work; the text says why, and what to do.
    fn start(
        config: Self::Config,
        context: PluginContext,
    ) -> impl Future<Output = Result<Self, PluginError>> + Send;

    /// Declares the plugin's own event types. Those of its capabilities are declared already.
    fn declare(_events: &mut EventDeclarations) {}

    /// Ends the plugin; its sessions are closed already.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Settings of a plugin that has none.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// What a plugin knows of its place in the host.
#[derive(Debug, Clone)]
pub struct PluginContext {
    pub(crate) name: &'static str,
}

impl PluginContext {
    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }
}
