//! Loads plugins and runs agents.
//!
//! Reading order: [`host`] is what programs use; [`plugins`] starts and supervises plugins ([`scan`] finds them and tries
//! them first, [`inspect`] reads them without running them, [`loader`] opens them, `worker` runs them in processes of their
//! own, which are started by [`child`]); [`agent`] holds one conversation; [`media`] reads and writes recordings;
//! [`config`] is the configuration file; [`check`] holds a plugin to the contract, [`scaffold`] makes the crate of a new one.
//!
//! Not here: the `antiphon` command itself; that is the binary beside this library.

pub mod agent;
pub mod check;
pub mod child;
pub mod config;
pub mod host;
pub mod inspect;
pub mod loader;
pub mod media;
pub mod plugins;
pub mod scaffold;
pub mod scan;
mod worker;

pub use antiphon_core as core;
pub use antiphon_plugin_api::{LlmRequest, TtsRequest, abi::Outcome};

pub use self::{
    agent::{Agent, AgentBuilder, AgentConfig, AgentError, AudioOutput, Discard, OutputError, Pace, Summary},
    host::{Host, HostBuilder, NoProvider},
    plugins::{Kind, Plugin, PluginState},
};

/// The code of the guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/src/subscribing.md")]
mod subscribing {}
