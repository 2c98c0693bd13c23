//! Language models.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
};

use abi_stable::{
    erased_types::TD_Opaque,
    std_types::{RSlice, RStr},
};
use antiphon_core::event::{
    EventPayload,
    llm::{
        LlmErrorEvent, LlmRequestStartedEvent, LlmResponseAbortedEvent, LlmResponseDeltaEvent,
        LlmResponseFinalEvent,
    },
    values::{Message, Role, TokenUsage},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    EventDeclarations, Plugin, PluginError, SessionContext,
    abi::{CapabilityObject, LlmBox, LlmSessionBox, LlmSessionV1, LlmV1, Outcome, SinkBox, Status, WakerBox},
    export::{Capability, Instance, context_of},
    gate::Gate,
    runtime::{Held, Jobs, lock, shielded, until_cancelled},
    wire,
};

/// A plugin that answers.
pub trait Llm: Plugin {
    /// Answers a request, piece by piece, through `reply`. Requests of one or more sessions run side by side.
    ///
    /// The start, the pieces and the end become `llm.request.start`, `llm.response.delta` and `llm.response.final`.
    ///
    /// # Errors
    ///
    /// Becomes `llm.error`.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the request is cancelled; from then on `reply` answers with an error.
    fn respond(
        &self,
        request: LlmRequest,
        reply: LlmReply,
    ) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// A session is over: forget what is kept for it.
    fn session_closed(&self, _session_id: &str) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What is to be answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LlmRequest {
    /// Id of the request.
    pub request_id: String,
    /// What the agent is told to be.
    #[serde(default)]
    pub instructions: String,
    /// The conversation so far, oldest first; the last is the user's.
    pub messages: Vec<Message>,
    /// Answers an unconfirmed transcript: may not cause side effects.
    #[serde(default)]
    pub eager: bool,
}

impl LlmRequest {
    /// What the user said last; empty when nothing.
    #[must_use]
    pub fn prompt(&self) -> &str {
        let user = self.messages.iter().rev().find(|message| message.role == Role::User);
        user.map(|message| message.content.as_str()).unwrap_or_default()
    }
}

/// Where an answer goes. Clones write the same answer.
#[derive(Debug, Clone)]
pub struct LlmReply {
    context: SessionContext,
    gate: Arc<Gate>,
    turn_id: u64,
    request_id: Arc<str>,
    asked: Instant,
    state: Arc<Mutex<ReplyState>>,
}

#[derive(Debug, Default)]
struct ReplyState {
    text: String,
    pieces: u64,
    first_piece_ms: Option<f64>,
    model: Option<String>,
    usage: Option<TokenUsage>,
    finish_reason: Option<String>,
}

impl LlmReply {
    /// Adds a piece to the answer. Empty pieces are passed over. Waits while the host has no room.
    ///
    /// # Errors
    ///
    /// `cancelled` when the request is cancelled or has ended.
    pub async fn text(&self, piece: impl Into<String>) -> Result<(), PluginError> {
        let delta: String = piece.into();
        if delta.is_empty() {
            return Ok(());
        }
        let event = {
            let mut state = self.state();
            let sequence_number = state.pieces;
            state.pieces += 1;
            let is_first_chunk = sequence_number == 0;
            if is_first_chunk {
                state.first_piece_ms = Some(self.elapsed_ms());
            }
            LlmResponseDeltaEvent {
                delta: delta.clone(),
                item_id: Some(self.request_id.to_string()),
                sequence_number: Some(sequence_number),
                is_first_chunk,
                time_to_first_token_ms: state.first_piece_ms.filter(|_| is_first_chunk),
                ..LlmResponseDeltaEvent::default()
            }
        };
        // What the host did not take was not said.
        let said = || self.state().text.push_str(&delta);
        if !self.context.emit_noting(&self.gate, self.turn_id, event, said).await? {
            said();
        }
        Ok(())
    }

    /// Says which model answers.
    pub fn model(&self, model: impl Into<String>) {
        self.state().model = Some(model.into());
    }

    /// Says what the answer cost.
    pub fn usage(&self, usage: TokenUsage) {
        self.state().usage = Some(usage);
    }

    /// Says why the model stopped, where it was not `stop`.
    pub fn finish_reason(&self, reason: impl Into<String>) {
        self.state().finish_reason = Some(reason.into());
    }

    /// Emits an event of the plugin's own.
    ///
    /// # Errors
    ///
    /// As [`SessionContext::emit`]; `cancelled` also when the request is cancelled or has ended.
    pub async fn emit<T: EventPayload>(&self, event: T) -> Result<(), PluginError> {
        self.context.emit_through(&self.gate, self.turn_id, event).await
    }

    /// The session.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    fn state(&self) -> MutexGuard<'_, ReplyState> {
        lock(&self.state)
    }

    fn elapsed_ms(&self) -> f64 {
        self.asked.elapsed().as_secs_f64() * 1e3
    }

    fn finished(&self) -> LlmResponseFinalEvent {
        let state = self.state();
        LlmResponseFinalEvent {
            text: state.text.clone(),
            model: state.model.clone(),
            item_id: Some(self.request_id.to_string()),
            usage: state.usage.clone(),
            latency_ms: Some(self.elapsed_ms()),
            time_to_first_token_ms: state.first_piece_ms,
            finish_reason: Some(state.finish_reason.clone().unwrap_or_else(|| "stop".into())),
            discarded: false,
        }
    }
}

struct Object<P: Llm>(Instance<P>);

impl<P: Llm> LlmV1 for Object<P> {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> LlmSessionBox {
        let context = context_of(&self.0, session_id, sink);
        let (plugin, over) = (Arc::clone(&self.0.plugin), context.clone());
        let closed = async move { plugin.session_closed(over.session_id()).await };
        let jobs = Jobs::new(self.0.runtime, context, closed);
        LlmSessionBox::from_value(Session { plugin: Arc::clone(&self.0.plugin), jobs }, TD_Opaque)
    }
}

struct Session<P: Llm> {
    plugin: Arc<Held<P>>,
    jobs: Jobs,
}

impl<P: Llm> LlmSessionV1 for Session<P> {
    fn respond(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status {
        shielded(Status::REFUSED, || {
            let Some(request) = wire::decode::<LlmRequest>(request.as_slice()) else {
                return Status::REFUSED;
            };
            let (plugin, context) = (Arc::clone(&self.plugin), self.jobs.context().clone());
            self.jobs.start(token, move |gate| respond(plugin, context, gate, turn_id, request))
        })
    }

    fn cancel(&self, token: u64) {
        self.jobs.cancel(token);
    }

    fn close(&self, token: u64) {
        self.jobs.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.jobs.wake_when_ready(waker);
    }
}

async fn respond<P: Llm>(
    plugin: Arc<Held<P>>,
    context: SessionContext,
    gate: Arc<Gate>,
    turn_id: u64,
    request: LlmRequest,
) -> Outcome {
    let started = LlmRequestStartedEvent {
        prompt: request.prompt().to_owned(),
        model: None,
        request_id: request.request_id.clone(),
        eager: request.eager,
    };
    let request_id = request.request_id.clone();
    let reply = LlmReply {
        context,
        gate: Arc::clone(&gate),
        turn_id,
        request_id: request_id.as_str().into(),
        asked: Instant::now(),
        state: Arc::default(),
    };
    let work = async {
        reply.emit(started).await?;
        plugin.respond(request, reply.clone()).await
    };
    match until_cancelled(&gate, work).await {
        Some(Ok(())) => {
            reply.context.emit_last(turn_id, reply.finished()).await;
            Outcome::COMPLETED
        }
        None => {
            let partial_text = Some(reply.state().text.clone());
            let event = LlmResponseAbortedEvent { reason: None, partial_text };
            reply.context.emit_last(turn_id, event).await;
            Outcome::CANCELLED
        }
        Some(Err(error)) => {
            let event = LlmErrorEvent {
                error: Some(error.info()),
                error_code: Some(error.code().into()),
                context: None,
                is_recoverable: error.is_recoverable(),
                error_message: error.to_string(),
                request_id: Some(request_id),
            };
            reply.context.emit_last(turn_id, event).await;
            Outcome::FAILED
        }
    }
}

/// Used by `export_plugin!`.
#[doc(hidden)]
#[must_use]
pub const fn capability<P: Llm>() -> Capability<P> {
    Capability {
        kind: "llm",
        declare: |events: &mut EventDeclarations| {
            events
                .declare::<LlmRequestStartedEvent>()
                .declare::<LlmResponseDeltaEvent>()
                .declare::<LlmResponseFinalEvent>()
                .declare::<LlmResponseAbortedEvent>()
                .declare::<LlmErrorEvent>();
        },
        object: |instance| CapabilityObject::new(LlmBox::from_value(Object(instance.clone()), TD_Opaque)),
    }
}
