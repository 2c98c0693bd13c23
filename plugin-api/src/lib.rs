//! Everything that the author of an Antiphon plugin depends on.
//!
//! A plugin is a `cdylib` crate with a struct that implements [`Plugin`] and one trait per capability ([`Llm`], [`Tts`],
//! [`Stt`], [`TurnDetector`], [`Vision`]), and one [`export_plugin!`]. All of it is ordinary safe async Rust; what
//! crosses to the host, and how, is the business of [`abi`], which authors never touch.
//!
//! ```
//! use antiphon_plugin_api::prelude::*;
//!
//! struct Echo;
//!
//! impl Plugin for Echo {
//!     type Config = NoConfig;
//!     async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
//!         Ok(Echo)
//!     }
//! }
//!
//! impl Llm for Echo {
//!     async fn respond(&self, request: LlmRequest, reply: LlmReply) -> Result<(), PluginError> {
//!         reply.text(format!("You said: {}.", request.prompt())).await
//!     }
//! }
//!
//! export_plugin! { name: "llm-echo", plugin: Echo, capabilities: [llm] }
//! # fn main() {}
//! ```
//!
//! Threads: each plugin library has one tokio runtime with one worker thread of its own; all author code runs there.
//! Blocking work belongs into `tokio::task::spawn_blocking` or onto a thread of the plugin's own.
//!
//! Tests: the module `testing` (feature `testing`) drives a plugin in an ordinary unit test.
//!
//! Not here: loading and supervising plugins; that is the host. The frozen types of [`abi`], and all unsafe code, are in the
//! crate `antiphon-plugin-abi`.
#![forbid(unsafe_code)]

#[cfg(panic = "abort")]
compile_error!(
    "a plugin must unwind, so that its panics are reported and do not end the host: remove `panic = \"abort\"`"
);

pub mod abi;
mod context;
mod error;
#[doc(hidden)]
pub mod export;
mod gate;
pub mod llm;
mod manifest;
mod plugin;
mod runtime;
pub mod stt;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
pub mod tts;
pub mod turn;
pub mod vision;
mod wire;

pub use antiphon_core as core;

/// For hosts: sending with back-pressure across the ABI.
pub use self::runtime::{waker, when_ready};
pub use self::{
    context::{EventDeclarations, SessionContext},
    error::PluginError,
    llm::{Llm, LlmReply, LlmRequest},
    manifest::{CapabilityDeclaration, EventDeclaration, PluginManifest, SECTION_NAME, SectionManifest},
    plugin::{NoConfig, Plugin, PluginContext},
    stt::{Stt, SttOutput, SttSession, Transcript},
    tts::{Tts, TtsOutput, TtsRequest},
    turn::{TurnDetector, TurnOutput, TurnSession},
    vision::{Vision, VisionFrame, VisionOutput},
};

/// What a plugin usually imports.
pub mod prelude {
    pub use antiphon_core::{
        AudioChunk, PluginBaseEvent, VideoFrame,
        event::{Event, values::WordTiming},
    };

    pub use crate::{
        EventDeclarations, Llm, LlmReply, LlmRequest, NoConfig, Plugin, PluginContext, PluginError,
        SessionContext, Stt, SttOutput, SttSession, Transcript, Tts, TtsOutput, TtsRequest, TurnDetector,
        TurnOutput, TurnSession, Vision, VisionFrame, VisionOutput, export_plugin,
    };
}

/// Used by `export_plugin!`; not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::export::{Exported, header};
}
