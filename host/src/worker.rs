//! A plugin in a process of its own: the same library behind the same traits, with a socket in between.
//!
//! ```text
//!  host                                              worker process
//!  agent -> remote::Session -> Window -> Outbox ===> serve::Inbox -> Pump -> the plugin's session
//!  sink  <- Pump <- remote::Session <- reader   <=== Outbox <- Window <- serve::Sink <- the plugin
//! ```
//!
//! Commands and outputs of a session keep their order, and each way has a [`window`](self::window) of what may be
//! under way: beyond it the sender is told Full, as by the plugin or the host themselves, and woken when there is room.
//! What is one session's never waits for another's. Nothing here blocks a caller: what the socket does not take at once
//! is written by a thread.
//!
//! When the worker dies, every session that it had tells of it, finishes what it was asked for as failed, and answers
//! Closed from then on: the traits promise that, and the conversation goes on from there.

mod frame;
mod outbox;
mod pump;
mod reader;
mod remote;
mod serve;
mod window;

use std::{path::PathBuf, sync::Arc, time::Duration};

use antiphon_plugin_api::{
    PluginManifest,
    abi::{InterestV1, PluginBox},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::{reader::Connection, serve::serve};
use crate::child::{ChildError, ChildProgram, Limits};

/// What a worker is started with.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) program: ChildProgram,
    pub(crate) limits: Limits,
    /// Names of the variables of our environment that it gets, beside the usual ones.
    pub(crate) environment: Vec<String>,
    /// The library that it opens.
    pub(crate) library: PathBuf,
    /// What the library declares.
    pub(crate) manifest: PluginManifest,
}

/// The task of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    library: PathBuf,
    /// What the host takes the library for.
    manifest: PluginManifest,
    settings: Map<String, Value>,
    log_level: u32,
    interest: [u64; INTEREST_WORDS],
}

/// Code of the error that tells of a worker's end.
pub(crate) const CRASHED: &str = "plugin_crashed";

/// Words of the bitmap of wanted events.
pub(crate) const INTEREST_WORDS: usize = antiphon_plugin_api::abi::MAX_EVENT_TYPES / 64;

/// Why a plugin did not start in a worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// There is no worker.
    #[error("there is no process to isolate it in")]
    Child(#[from] ChildError),
    /// The worker ended, or did not answer.
    #[error("{0}")]
    Died(String),
    /// The plugin says no.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// Whether another try may help.
        recoverable: bool,
    },
}

/// A plugin that runs in a worker.
pub(crate) struct Worker {
    pub(crate) plugin: PluginBox,
    pub(crate) connection: Arc<Connection>,
}

/// Starts a plugin in a worker, and waits for it. Blocks; the worker is killed when it takes longer than `within`.
///
/// # Errors
///
/// [`StartError`].
pub(crate) fn start(
    spec: &Spec,
    settings: &Map<String, Value>,
    log_level: u32,
    interest: &InterestV1,
    within: Duration,
    log: impl Fn(u32, &str, &str) + Send + 'static,
) -> Result<Worker, StartError> {
    let job = Job {
        library: spec.library.clone(),
        manifest: spec.manifest.clone(),
        settings: settings.clone(),
        log_level,
        interest: words(interest),
    };
    let connection = reader::connect(spec, job, within, Box::new(log))?;
    Ok(Worker { plugin: remote::plugin(&connection), connection })
}

pub(crate) fn words(interest: &InterestV1) -> [u64; INTEREST_WORDS] {
    std::array::from_fn(|word| interest.words[word].load(std::sync::atomic::Ordering::Relaxed))
}
