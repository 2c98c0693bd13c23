//! Values that events are made of.

use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use crate::AudioChunk;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant,)+ }
    };
}

words! {
    /// What the agent is doing.
    AgentState {
        /// Nothing yet.
        Idle,
        /// Waiting for the user.
        Ready,
        /// Hearing the user.
        Listening,
        /// Waiting for the reply.
        Thinking,
        /// Saying the reply.
        Speaking,
        /// Cannot go on.
        Error,
    }
}

words! {
    /// A part of the pipeline.
    ComponentKind {
        /// The agent.
        Agent,
        /// Speech to text.
        Stt,
        /// Text to speech.
        Tts,
        /// Language model.
        Llm,
        /// Voice activity.
        Vad,
        /// Turn detection.
        TurnDetector,
        /// Vision.
        Vision,
        /// A way in or out.
        Edge,
        /// The host.
        Host,
        /// The bus.
        Bus,
    }
}

words! {
    /// How a transcript relates to what came before.
    #[derive(Default)]
    TranscriptMode {
        /// Adds to it.
        Delta,
        /// Replaces it.
        #[default]
        Replacement,
        /// Ends it.
        Final,
    }
}

words! {
    /// How a message came or went.
    Modality {
        /// Spoken.
        Voice,
        /// Typed.
        Text,
    }
}

words! {
    /// Who noticed a turn.
    TurnSource {
        /// Voice activity.
        Vad,
        /// The recogniser.
        Stt,
        /// A turn detector.
        TurnDetector,
        /// A speech-to-speech model.
        Realtime,
        /// The client said so.
        Client,
    }
}

words! {
    /// How an agent ended.
    FinishReason {
        /// All was said.
        Completed,
        /// Somebody stopped it.
        Cancelled,
        /// It could not go on.
        Error,
    }
}

words! {
    /// How much an interruption stops.
    InterruptScope {
        /// The voice; generation goes on.
        SpeechOnly,
        /// Voice and generation.
        Response,
    }
}

words! {
    /// Why a frame was captured.
    FrameTriggerReason {
        /// The picture changed.
        SceneChange,
        /// Somebody asked.
        UserRequest,
        /// It was time.
        Timer,
        /// The first frame.
        Initial,
    }
}

words! {
    /// What a provider failed in, so that another one had to take over.
    FallbackReason {
        /// It did not start.
        InitError,
        /// It could not reach its service.
        ConnectError,
        /// Its service did not answer.
        ConnectTimeout,
        /// It broke at work.
        StreamError,
    }
}

words! {
    /// How far a plugin has come.
    PluginState {
        /// Its file was found.
        Declared,
        /// Its library was tried and its manifest read; it does not run.
        Loaded,
        /// It is being started.
        Starting,
        /// It runs.
        Ready,
        /// It runs, but has stopped answering for a while.
        Degraded,
        /// It cannot be used, or cannot any more.
        Failed,
        /// Its file broke the process in which it was tried; none of its code runs until its user asks for another try.
        Quarantined,
        /// It was stopped, or is switched off.
        Stopped,
    }
}

words! {
    /// Encoding of audio samples.
    AudioEncoding {
        /// Signed 16-bit samples.
        Linear16,
        /// Opus.
        Opus,
        /// MP3.
        Mp3,
        /// G.711 mu-law.
        Mulaw,
        /// G.711 A-law.
        Alaw,
    }
}

words! {
    /// Container or sample format of audio.
    AudioFormat {
        /// Signed 16-bit samples.
        S16,
        /// 32-bit float samples.
        F32,
        /// RIFF WAVE.
        Wav,
        /// MP3.
        Mp3,
        /// Ogg.
        Ogg,
        /// Opus packets.
        Opus,
    }
}

words! {
    /// Who a message of the history is from.
    Role {
        /// The user.
        User,
        /// The agent.
        Assistant,
        /// The host program.
        System,
        /// A tool.
        Tool,
    }
}

/// Why speech was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptReason {
    /// The host program asked.
    Manual,
    /// The user spoke.
    UserSpeaking,
    /// The client asked.
    ClientRequest,
    /// Other input came.
    NewInput,
    /// The connection was lost.
    Disconnected,
    /// The host is stopping.
    Shutdown,
    /// Something else.
    #[serde(untagged)]
    Other(String),
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The host program asked.
    SdkRequest,
    /// It was ended at once.
    ForceClose,
    /// The call is over.
    CallTerminated,
    /// Something else.
    #[serde(untagged)]
    Other(String),
}

/// A plugin in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does here.
    pub kind: ComponentKind,
}

/// An error as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorInfo {
    /// Kind of failure: `error`, `panic`, `timeout`, or a Rust type.
    pub kind: String,
    /// Machine-readable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What failed, for people.
    pub message: String,
    /// Whether trying again may succeed.
    pub recoverable: bool,
    /// What the provider said besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// Causes, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_chain: Vec<String>,
}

impl ErrorInfo {
    /// An error with its causes.
    #[must_use]
    pub fn from_error(error: &(dyn std::error::Error + 'static), recoverable: bool) -> Self {
        let mut source_chain = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            source_chain.push(cause.to_string());
            source = cause.source();
        }
        Self {
            kind: "error".into(),
            code: None,
            message: error.to_string(),
            recoverable,
            context: None,
            source_chain,
        }
    }

    /// A panic, by its message.
    #[must_use]
    pub fn panic(message: String) -> Self {
        Self {
            kind: "panic".into(),
            code: None,
            message,
            recoverable: true,
            context: None,
            source_chain: Vec::new(),
        }
    }
}

/// The message of a panic, from what `catch_unwind` returns.
#[must_use]
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
        .to_owned()
}

/// When a word was said, in milliseconds since the start of its audio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WordTiming {
    /// The word.
    pub word: String,
    /// Its start.
    pub start_ms: f64,
    /// Its end.
    pub end_ms: f64,
}

/// One message of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Unique in its session.
    pub id: String,
    /// Who it is from.
    pub role: Role,
    /// Its text; of the agent's messages, what was heard.
    pub content: String,
    /// Whether it was cut off.
    #[serde(default)]
    pub interrupted: bool,
}

/// Tokens that a model used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Tokens of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// When each stage of a turn was reached, in milliseconds since 1970; absent stages were not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TurnTimestamps {
    /// The final transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stt_final: Option<i64>,
    /// The request to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_start: Option<i64>,
    /// The first piece of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_first_token: Option<i64>,
    /// The whole reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_complete: Option<i64>,
    /// The first synthesised audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tts_first_audio: Option<i64>,
    /// The first audio that was played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback_start: Option<i64>,
    /// The last audio that was played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback_end: Option<i64>,
    /// The end of the turn.
    pub turn_end: i64,
}

/// How long each stage of a turn took, in milliseconds; stages overlap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TurnDurations {
    /// From the detected end of the user's speech to the final transcript.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_end_to_stt_final: Option<f64>,
    /// From the final transcript to the first piece of the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stt_final_to_first_token: Option<f64>,
    /// From the first piece of the reply to its first audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_to_first_audio: Option<f64>,
    /// From the first audio to its playing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_audio_to_playback: Option<f64>,
    /// From the detected end of the user's speech to the first audio that was played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice_to_voice: Option<f64>,
    /// From the request to the whole reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_total: Option<f64>,
    /// From the detected end of the user's speech to the end of the turn.
    pub turn_total: f64,
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dimensions {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Something that was seen, and its box in pixels of the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DetectedObject {
    /// What it is.
    pub label: String,
    /// How sure, in 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Left edge.
    pub x1: i32,
    /// Upper edge.
    pub y1: i32,
    /// Right edge.
    pub x2: i32,
    /// Lower edge.
    pub y2: i32,
}

/// A media stream, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamRef {
    /// Its id.
    pub id: String,
}

/// The format of an audio stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AudioFormatSpec {
    /// Encoding of the samples.
    pub encoding: AudioEncoding,
    /// Audio frames per second.
    pub sample_rate: u32,
    /// Samples per audio frame.
    pub channels: u16,
    /// Bits per sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_depth: Option<u16>,
}

/// A subscription, as events name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandlerInfo {
    /// Number of the subscription on its bus.
    pub subscription_id: u64,
    /// Name of the handler.
    pub name: String,
    /// Where it was subscribed: file, line and column.
    pub location: String,
    /// The plugin that subscribed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
}

/// Audio in an event. In process a shared chunk; in JSON its format and its samples, little-endian 16-bit in base64.
#[derive(Debug, Clone)]
pub struct PcmData(pub AudioChunk);

#[derive(Serialize, Deserialize, JsonSchema)]
struct PcmWire {
    /// Audio frames per second.
    sample_rate: u32,
    /// Samples per audio frame.
    channels: u16,
    /// Format of a sample.
    format: AudioFormat,
    /// The samples, interleaved, little-endian, in base64.
    data: String,
}

impl PartialEq for PcmData {
    fn eq(&self, other: &Self) -> bool {
        let format = |chunk: &AudioChunk| (chunk.sample_rate_hz(), chunk.channels());
        format(&self.0) == format(&other.0) && self.0.samples() == other.0.samples()
    }
}

impl Serialize for PcmData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.samples().iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let (sample_rate, channels) = (self.0.sample_rate_hz(), self.0.channels());
        PcmWire { sample_rate, channels, format: AudioFormat::S16, data: STANDARD.encode(bytes) }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PcmData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = PcmWire::deserialize(deserializer)?;
        if wire.format != AudioFormat::S16 {
            return Err(D::Error::custom("expected samples of format `s16`"));
        }
        let bytes = STANDARD.decode(wire.data).map_err(D::Error::custom)?;
        if bytes.len() % 2 != 0 {
            return Err(D::Error::custom("expected two bytes per sample"));
        }
        let samples: Vec<i16> =
            bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        AudioChunk::new(samples, wire.sample_rate, wire.channels).map(PcmData).map_err(D::Error::custom)
    }
}

impl JsonSchema for PcmData {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PcmData".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = PcmWire::json_schema(generator);
        schema.insert("description".into(), "Signed 16-bit samples, little-endian, in base64.".into());
        schema
    }
}
