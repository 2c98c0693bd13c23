//! The host's end of a plugin's sessions: commands with back-pressure, and what comes of them.

mod pending;
mod sink;

use std::sync::Arc;

use antiphon_core::{AudioChunk, TurnId, VideoFrame, event::Envelope};
use antiphon_plugin_api::{
    LlmRequest, TtsRequest,
    abi::{
        CAPABILITY_V1, LayoutMismatch, LlmSessionBox, Status, SttSessionBox, TtsSessionBox, TurnSessionBox,
        VideoV1, VisionSessionBox, abi_stable::std_types::RSlice,
    },
    when_ready,
};
use serde::Serialize;
use tokio::sync::mpsc;

pub use self::pending::Completion;
pub(super) use self::{
    pending::{Pending, Sessions},
    sink::{PluginEvent, sink},
};

/// Why a plugin's session did not take a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginSessionError {
    /// The plugin cannot do it.
    #[error("plugin {plugin} has no capability {kind} of version {version}")]
    NoCapability {
        /// The plugin.
        plugin: String,
        /// What was asked for.
        kind: &'static str,
        /// Version of the trait.
        version: u32,
    },
    /// The plugin has it, in a version that this host does not know.
    #[error(
        "has capability {kind} of version {version}, this host knows version {CAPABILITY_V1}: {}",
        if *version > CAPABILITY_V1 { "update the host" } else { "rebuild the plugin" }
    )]
    OtherVersion {
        /// What it can do.
        kind: &'static str,
        /// The plugin's version of the trait, the newest that it has.
        version: u32,
    },
    /// The plugin was built with another idea of the capability.
    #[error("the plugin cannot be used")]
    Layout(#[source] LayoutMismatch),
    /// The session is closed, or its plugin has failed.
    #[error("the plugin's session is closed")]
    Closed,
    /// The plugin could not read the command.
    #[error("the plugin refused the command")]
    Refused,
}

/// What a plugin's session produces for the agent, beside what goes to the bus.
#[derive(Debug)]
pub struct Received {
    /// Events; those of one command in the order of their `seq`.
    pub events: mpsc::Receiver<Arc<Envelope>>,
    /// Audio by the token of its command.
    pub audio: mpsc::Receiver<Incoming>,
}

/// A piece of audio.
#[derive(Debug)]
pub struct Incoming {
    /// Token of the command that it belongs to.
    pub token: u64,
    /// The samples.
    pub audio: AudioChunk,
}

fn answer(status: Status) -> Result<(), PluginSessionError> {
    match status {
        Status::ACCEPTED => Ok(()),
        Status::REFUSED => Err(PluginSessionError::Refused),
        _ => Err(PluginSessionError::Closed),
    }
}

fn encode(request: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(request).expect("requests are plain data")
}

/// The sending side that all kinds of sessions share.
macro_rules! session {
    ($(#[$meta:meta])* $name:ident, $object:ty) => {
        $(#[$meta])*
        pub struct $name {
            object: $object,
            pending: Arc<Pending>,
        }

        impl $name {
            pub(super) fn new(object: $object, pending: Arc<Pending>) -> Self {
                Self { object, pending }
            }

            /// Sends a command, waiting while the plugin has no room.
            async fn send(&self, attempt: impl FnMut() -> Status) -> Result<(), PluginSessionError> {
                if self.pending.has_failed() {
                    return Err(PluginSessionError::Closed);
                }
                answer(when_ready(attempt, |waker| self.object.wake_when_ready(waker)).await)
            }

            /// Sends a command that will be finished.
            async fn ask(&self, mut attempt: impl FnMut(u64) -> Status) -> Result<Completion, PluginSessionError> {
                let (token, completion) = self.pending.begin();
                match self.send(|| attempt(token)).await {
                    Ok(()) => Ok(completion),
                    Err(error) => {
                        self.pending.forget(token);
                        Err(error)
                    }
                }
            }

            /// Ends the session; resolves when the plugin has.
            pub fn close(&self) -> Completion {
                let (token, completion) = self.pending.begin_close();
                self.object.close(token);
                completion
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

session! {
    /// Turn detection of one session.
    TurnSession, TurnSessionBox
}
session! {
    /// Speech to text of one session.
    SttSession, SttSessionBox
}
session! {
    /// Language model of one session.
    LlmSession, LlmSessionBox
}
session! {
    /// Text to speech of one session.
    TtsSession, TtsSessionBox
}
session! {
    /// Vision of one session.
    VisionSession, VisionSessionBox
}

impl TurnSession {
    /// Gives audio: one channel, 16 kHz. Finished when all events of this audio are emitted.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn push_audio(&self, audio: &AudioChunk) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.push_audio(token, audio.clone().into())).await
    }

    /// Says that no more audio will come.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn flush(&self) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.flush(token)).await
    }
}

impl SttSession {
    /// Begins an utterance.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn begin(&self, turn_id: TurnId) -> Result<(), PluginSessionError> {
        self.send(|| self.object.begin(turn_id.0)).await
    }

    /// Gives audio of the utterance: one channel, 16 kHz.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn push_audio(&self, audio: &AudioChunk) -> Result<(), PluginSessionError> {
        self.send(|| self.object.push_audio(audio.clone().into())).await
    }

    /// Ends the utterance. Finished after its last event.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn end(&self) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.end(token)).await
    }

    /// Drops the utterance.
    ///
    /// # Errors
    ///
    /// The session is closed.
    pub async fn cancel(&self) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.cancel(token)).await
    }
}

impl LlmSession {
    /// Asks for a reply.
    ///
    /// # Errors
    ///
    /// The session is closed, or the plugin cannot read the request.
    pub async fn respond(
        &self,
        turn_id: Option<TurnId>,
        request: &LlmRequest,
    ) -> Result<Completion, PluginSessionError> {
        let bytes = encode(request);
        let turn_id = turn_id.map_or(0, |turn| turn.0);
        self.ask(|token| self.object.respond(token, turn_id, RSlice::from_slice(&bytes))).await
    }

    /// Stops a request; nothing of it comes after its completion.
    pub fn cancel(&self, token: u64) {
        self.object.cancel(token);
    }
}

impl TtsSession {
    /// Asks for speech.
    ///
    /// # Errors
    ///
    /// The session is closed, or the plugin cannot read the request.
    pub async fn synthesize(
        &self,
        turn_id: Option<TurnId>,
        request: &TtsRequest,
    ) -> Result<Completion, PluginSessionError> {
        let bytes = encode(request);
        let number = turn_id.map_or(0, |turn| turn.0);
        self.ask(|token| {
            self.pending.says(token, request.synthesis_id, turn_id);
            self.object.synthesize(token, number, RSlice::from_slice(&bytes))
        })
        .await
    }

    /// Stops a request; nothing of it comes after its completion.
    pub fn cancel(&self, token: u64) {
        self.object.cancel(token);
    }
}

impl VisionSession {
    /// Gives a picture.
    ///
    /// # Errors
    ///
    /// The session is closed, or the plugin cannot read the picture.
    pub async fn process(&self, sequence: u64, frame: &VideoFrame) -> Result<Completion, PluginSessionError> {
        self.ask(|token| self.object.process(token, sequence, VideoV1::from(frame.clone()))).await
    }
}
