//! What the agent does: its states, the turns of a conversation, and what was said.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    SpeechId,
    event::{
        BaseEvent, Event, EventInfo, EventPayload,
        values::{
            AgentState, ComponentKind, ErrorInfo, FinishReason, InterruptReason, InterruptScope, Message,
            Modality, PluginRef, TranscriptMode, TurnDurations, TurnSource, TurnTimestamps,
        },
    },
};

pub(super) const EVENTS: &[&EventInfo] = &[
    AgentReadyEvent::INFO,
    AgentStateChangedEvent::INFO,
    AgentErrorEvent::INFO,
    AgentWarningEvent::INFO,
    AgentFinishEvent::INFO,
    UserTranscriptEvent::INFO,
    AgentTranscriptEvent::INFO,
    UserTurnStartedEvent::INFO,
    UserTurnEndedEvent::INFO,
    AgentTurnStartedEvent::INFO,
    AgentTurnEndedEvent::INFO,
    SpeechStartEvent::INFO,
    SpeechCompleteEvent::INFO,
    SpeechInterruptedEvent::INFO,
    HistoryUpdatedEvent::INFO,
    TurnMetricsEvent::INFO,
];

/// The pipeline is initialised: each stage has its provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.ready", base = BaseEvent)]
pub struct AgentReadyEvent {
    /// The provider of each stage.
    pub components: Vec<PluginRef>,
}

/// The agent changed its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.state_changed", base = BaseEvent)]
pub struct AgentStateChangedEvent {
    /// The state now.
    pub state: AgentState,
    /// The state before.
    pub previous_state: AgentState,
    /// The event or call that brought it about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Something failed that affects the turn or the session; the subsystem emits its own error event besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.error", base = BaseEvent)]
pub struct AgentErrorEvent {
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
    /// Which part of the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentKind>,
    /// Whether the session cannot go on.
    pub fatal: bool,
}

/// Something is odd but the conversation goes on, such as an empty transcript.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.warning", base = BaseEvent)]
pub struct AgentWarningEvent {
    /// What is odd, for people.
    pub message: String,
    /// Machine-readable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Which part of the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentKind>,
}

/// The agent has finished; always emitted, also on normal completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.finish", base = BaseEvent)]
pub struct AgentFinishEvent {
    /// Why.
    pub reason: FinishReason,
}

/// What the user said, as it goes to the language model; spoken and typed input alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.user_transcript", base = BaseEvent)]
pub struct UserTranscriptEvent {
    /// The text.
    pub text: String,
    /// Spoken or typed.
    pub modality: Modality,
    /// Whether an image goes with it.
    pub has_image: bool,
    /// BCP-47 tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// How sure, in 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The message of the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

/// What the agent says, streamed; the final one carries the text that was really heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.agent_transcript", base = BaseEvent)]
pub struct AgentTranscriptEvent {
    /// The text.
    pub text: String,
    /// Whether the text adds to, replaces or ends what came before.
    pub mode: TranscriptMode,
    /// The message of the history.
    pub message_id: String,
    /// Number of the chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_index: Option<u32>,
    /// The utterance of the speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utterance_id: Option<String>,
    /// Whether it was cut off.
    pub interrupted: bool,
    /// Whether it is the last of its speech.
    pub end_of_speech: bool,
    /// Performance cue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cue_tag: Option<String>,
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// User starts speaking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.user_turn_started", base = BaseEvent)]
pub struct UserTurnStartedEvent {
    /// Who noticed it.
    pub source: TurnSource,
}

/// User stops speaking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.user_turn_ended", base = BaseEvent)]
pub struct UserTurnEndedEvent {
    /// Milliseconds of speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// Milliseconds of silence before the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailing_silence_ms: Option<f64>,
    /// Whether a reply follows; false is an acoustic end only.
    pub confirmed: bool,
}

/// First audio of the reply leaves the pipeline (once per reply, not per sentence).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.agent_turn_started", base = BaseEvent)]
pub struct AgentTurnStartedEvent {
    /// The speech it belongs to.
    pub speech_id: SpeechId,
}

/// Agent stops speaking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "agent.agent_turn_ended", base = BaseEvent)]
pub struct AgentTurnEndedEvent {
    /// Whether it was cut off.
    pub interrupted: bool,
    /// The speech it belongs to.
    pub speech_id: SpeechId,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<InterruptReason>,
    /// The text that the model produced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_text: Option<String>,
    /// The part of it that was played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoken_text: Option<String>,
    /// Milliseconds of audio that were played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub played_ms: Option<f64>,
}

/// The first chunk of a reply was handed to synthesis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "speech.start", base = BaseEvent)]
pub struct SpeechStartEvent {
    /// The speech it belongs to.
    pub speech_id: SpeechId,
    /// Whether it is spoken in chunks while it is generated.
    pub streaming: bool,
    /// The whole text, when it is not streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// All chunks of a reply were synthesised and handed out; never after `speech.interrupted` of the same speech.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "speech.complete", base = BaseEvent)]
pub struct SpeechCompleteEvent {
    /// The speech it belongs to.
    pub speech_id: SpeechId,
    /// Whether it is spoken in chunks while it is generated.
    pub streaming: bool,
    /// Whether it was cut off.
    pub interrupted: bool,
    /// The whole text, when it is not streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A reply was cut off: why, and what of it was heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "speech.interrupted", base = BaseEvent)]
pub struct SpeechInterruptedEvent {
    /// The speech it belongs to.
    pub speech_id: SpeechId,
    /// Why.
    pub reason: InterruptReason,
    /// Whether only the voice stopped or the reply too.
    pub scope: InterruptScope,
    /// The text that was played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoken_text: Option<String>,
    /// Milliseconds of audio that were played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub played_ms: Option<f64>,
    /// Bytes of audio that were thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_bytes: Option<u64>,
}

/// The conversation history changed; it holds what was heard, nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "conversation.history.updated", base = BaseEvent)]
pub struct HistoryUpdatedEvent {
    /// All messages, oldest first.
    pub messages: Vec<Message>,
    /// The message that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_id: Option<String>,
}

/// How long each stage of a turn took: one for each turn that the language model was asked about, also when interrupted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "turn.metrics", base = BaseEvent)]
pub struct TurnMetricsEvent {
    /// What the user said.
    pub transcript: String,
    /// Spoken or typed.
    pub modality: Modality,
    /// Whether a speculative reply was used.
    pub eager_used: bool,
    /// Whether it was cut off.
    pub interrupted: bool,
    /// When each stage was reached.
    pub timestamps: TurnTimestamps,
    /// How long each stage took.
    pub durations: TurnDurations,
    /// Milliseconds spent in tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_time_ms: Option<f64>,
}
