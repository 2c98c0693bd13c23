//! Drives a plugin in a unit test, without a host and without a library to load: the plugin runs on its own runtime and
//! is asked through the objects of the ABI, as by a host that wants every event.
//!
//! ```
//! use antiphon_plugin_api::{
//!     prelude::*,
//!     testing::{self, Harness, Outcome, json},
//! };
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
//!         for word in request.prompt().split_whitespace() {
//!             reply.text(format!("{word} ")).await?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_plugin! { name: "llm-echo", plugin: Echo, capabilities: [llm] }
//!
//! // In a plugin: #[test] fn every_word_comes_back()
//! # fn main() {
//! testing::run(async {
//!     let mut echo = Harness::<Echo>::start(json!({})).await.expect("starts");
//!     let reply = echo.respond("is anybody there").await;
//!     assert_eq!(reply.text, "is anybody there ");
//!     assert_eq!(reply.events.types().last(), Some(&"llm.response.final"));
//!
//!     let cut = echo.respond("is anybody there").cancel_after(2).await;
//!     assert_eq!((cut.text.as_str(), cut.outcome), ("is anybody ", Outcome::CANCELLED));
//! })
//! # }
//! ```
//!
//! The plugin needs `antiphon-plugin-api` with the feature `testing` among its `dev-dependencies`, and nothing else;
//! where tests have a runtime already (`#[tokio::test]`), [`run`] is not needed either.
//!
//! What a plugin may not do makes the test panic, with a text that says what was wrong: an event that cannot be read
//! back, output after the end, a reply with two ends, an utterance without its `stt.transcript.utterance_final`, a turn
//! that ends before it began, audio that changes its format, a picture that was looked at in silence.
//!
//! What the plugin logs goes to the `tracing` subscriber of the test, if it has one.

mod check;
mod command;
mod drive;
mod events;
mod recorder;
mod session;

use std::{future::Future, marker::PhantomData, sync::Arc, sync::atomic::Ordering};

use abi_stable::std_types::{RArc, RStr};
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

pub use self::{
    command::Command,
    events::{Detected, Events, Heard, Reply, Seen, Speech},
};
use self::{recorder::EventTypes, session::Sessions};
use crate::{
    PluginError, PluginManifest,
    abi::{CAPABILITY_V1, Capability, InterestV1, PluginBox},
    export, waker,
};
pub use crate::{abi::Outcome, export::Exported};
pub use serde_json::json;

/// A running plugin, and one session of each of its capabilities, which is opened when it is first used.
///
/// Turns are numbered from 1: one for each thing that is asked.
pub struct Harness<P> {
    plugin: PluginBox,
    manifest: PluginManifest,
    types: Arc<EventTypes>,
    sessions: Sessions,
    asked: u64,
    of: PhantomData<fn() -> P>,
}

impl<P: Exported> Harness<P> {
    /// Starts a plugin that [`export_plugin!`](crate::export_plugin) names with its settings: `json!({})` for defaults.
    ///
    /// # Errors
    ///
    /// The settings do not fit (`settings`), the plugin panicked (`panic`), or what its `start` says.
    ///
    /// # Panics
    ///
    /// The plugin's manifest cannot be made.
    pub async fn start(settings: Value) -> Result<Self, PluginError> {
        let manifest = export::manifest::<P>();
        let types = Arc::new(EventTypes::new(export::declarations::<P>().infos()));
        let interest = RArc::new(InterestV1::default());
        interest.words.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        // A thread that may block; the one of the test may not, where it has a runtime.
        std::thread::spawn(move || {
            let started = export::start::<P>(interest, settings.to_string().as_bytes());
            // A test that is gone wants no plugin.
            let _ = sender.send(started);
        });
        let plugin =
            receiver.await.map_err(|_| PluginError::panic("panicked while it was started".into()))??;
        Ok(Self { plugin, manifest, types, sessions: Sessions::default(), asked: 0, of: PhantomData })
    }

    /// What the plugin declares.
    #[must_use]
    pub fn manifest(&self) -> &PluginManifest {
        &self.manifest
    }

    /// Closes the sessions, then stops the plugin. Returns what the sessions had to say since they were last asked.
    ///
    /// # Panics
    ///
    /// The plugin did what it may not.
    pub async fn stop(mut self) -> Events {
        let events = self.sessions.close(P::NAME).await;
        let stopped = Arc::new(Notify::new());
        self.plugin.stop(waker(&stopped));
        stopped.notified().await;
        events
    }

    fn capability<C: Capability>(&self) -> C {
        let object = self.plugin.query(RStr::from_str(C::NAME), CAPABILITY_V1).into_option();
        let object = object.unwrap_or_else(|| {
            panic!("{} implements `{1}`, but `export_plugin!` does not list `{1}`", P::NAME, C::NAME)
        });
        object.into_object().expect("made by this very crate")
    }

    fn next(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }
}

/// Runs an async test to its end. As good as `#[tokio::test]`, without the dependency.
///
/// # Panics
///
/// Within another runtime.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs no more than the test itself").block_on(test)
}
