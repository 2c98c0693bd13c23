//! Language models, from plugins of kind `llm`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{
    Event, EventInfo, EventPayload, PluginBaseEvent,
    values::{ErrorInfo, InterruptReason, TokenUsage},
};

pub(super) const EVENTS: &[&EventInfo] = &[
    LlmRequestStartedEvent::INFO,
    LlmResponseDeltaEvent::INFO,
    LlmResponseFinalEvent::INFO,
    LlmResponseAbortedEvent::INFO,
    LlmErrorEvent::INFO,
];

/// A model was asked for a reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "llm.request.start", base = PluginBaseEvent)]
pub struct LlmRequestStartedEvent {
    /// What the user said last.
    pub prompt: String,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Id of the request.
    pub request_id: String,
    /// Whether it answers an unconfirmed transcript.
    pub eager: bool,
}

/// One streamed piece of a reply. The text so far is not in it: a reply of n pieces would cost n squared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "llm.response.delta", base = PluginBaseEvent)]
pub struct LlmResponseDeltaEvent {
    /// The piece, as the model gave it.
    pub delta: String,
    /// What to show instead of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visual: Option<String>,
    /// What to say instead of it; may be empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoken: Option<String>,
    /// The item of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    /// Index of the content part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_index: Option<u32>,
    /// Index of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_index: Option<u32>,
    /// Number of the piece in its reply, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<u64>,
    /// Whether it is the first of its reply.
    pub is_first_chunk: bool,
    /// Milliseconds from request to first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<f64>,
}

/// A reply is complete.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "llm.response.final", base = PluginBaseEvent)]
pub struct LlmResponseFinalEvent {
    /// The whole reply.
    pub text: String,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The item of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,
    /// Tokens used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TokenUsage>,
    /// Milliseconds from request to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Milliseconds from request to first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<f64>,
    /// Why the model stopped: `stop`, `length`, `tool_calls` or its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Whether it was speculative and thrown away.
    pub discarded: bool,
}

/// A reply was cancelled before its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "llm.response.aborted", base = PluginBaseEvent)]
pub struct LlmResponseAbortedEvent {
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<InterruptReason>,
    /// What came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_text: Option<String>,
}

/// The model failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "llm.error", base = PluginBaseEvent)]
pub struct LlmErrorEvent {
    /// What failed, structured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// Machine-readable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Which operation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Whether trying again may succeed.
    pub is_recoverable: bool,
    /// What failed, for people.
    pub error_message: String,
    /// The request, as in `llm.request.start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}
