//! A plugin of every kind that can misbehave.

use std::{collections::BTreeMap, future::pending, time::Duration};

use antiphon_core::{
    AudioChunk, PluginBaseEvent,
    event::{
        Event,
        llm::LlmResponseFinalEvent,
        vision::{DetectionCompletedEvent, VideoProcessorDetectionEvent},
    },
};
use antiphon_plugin_api::{
    __private::Exported,
    export::Capability,
    prelude::{
        EventDeclarations, Llm, LlmReply, LlmRequest, Plugin, PluginContext, PluginError, Stt, SttOutput,
        SttSession, Transcript, Tts, TtsOutput, TtsRequest, TurnDetector, TurnOutput, TurnSession, Vision,
        VisionFrame, VisionOutput, WordTiming,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Does everything, as well as it was told to.
pub(crate) struct Puppet {
    act: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    act: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { act: "well".into() }
    }
}

/// Readable for its author alone.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "puppet.private", base = PluginBaseEvent)]
struct PrivateEvent {
    numbers: BTreeMap<u64, u64>,
}

/// Readable for nobody.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "puppet.garbled", base = PluginBaseEvent)]
struct GarbledEvent {
    #[serde(rename(serialize = "written", deserialize = "read"))]
    value: u64,
}

impl Plugin for Puppet {
    type Config = Config;

    async fn start(Config { act }: Config, _: PluginContext) -> Result<Self, PluginError> {
        match act.as_str() {
            "refuse" => Err(PluginError::new("stage", "no stage").fatal()),
            _ => Ok(Self { act }),
        }
    }

    fn declare(events: &mut EventDeclarations) {
        events.declare::<PrivateEvent>().declare::<GarbledEvent>();
    }
}

impl Exported for Puppet {
    const NAME: &'static str = "puppet";
    const VERSION: &'static str = "1.2.3";
    const DESCRIPTION: &'static str = "";
    const LICENSE: &'static str = "MIT";
    const CAPABILITIES: &'static [Capability<Self>] = &[
        antiphon_plugin_api::turn::capability::<Self>(),
        antiphon_plugin_api::stt::capability::<Self>(),
        antiphon_plugin_api::llm::capability::<Self>(),
        antiphon_plugin_api::tts::capability::<Self>(),
        antiphon_plugin_api::vision::capability::<Self>(),
    ];
}

impl Llm for Puppet {
    async fn respond(&self, request: LlmRequest, reply: LlmReply) -> Result<(), PluginError> {
        match self.act.as_str() {
            "fail" => return Err(PluginError::new("memory", "forgot it")),
            "hang" => pending().await,
            "end twice" => reply.emit(LlmResponseFinalEvent::default()).await?,
            "private" => reply.emit(PrivateEvent { numbers: [(1, 2)].into() }).await?,
            "garbled" => reply.emit(GarbledEvent { value: 1 }).await?,
            _ => {}
        }
        for word in request.prompt().split_whitespace() {
            reply.text(word).await?;
        }
        Ok(())
    }
}

impl Tts for Puppet {
    async fn synthesize(&self, request: TtsRequest, output: TtsOutput) -> Result<(), PluginError> {
        for (at, word) in request.text.split_whitespace().enumerate() {
            let at = if self.act == "shuffle" { -(at as f64) } else { at as f64 };
            let (start_ms, end_ms) = (at * 10.0, at * 10.0 + 10.0);
            output.words(vec![WordTiming { word: word.into(), start_ms, end_ms }]).await?;
            let rate = if self.act == "change" && at > 0.0 { 16_000 } else { 8_000 };
            output.audio(AudioChunk::new(vec![7; 160], rate, 2)?).await?;
        }
        Ok(())
    }
}

pub(crate) struct Ear {
    output: SttOutput,
    act: String,
    chunks: usize,
}

impl Stt for Puppet {
    type Session = Ear;

    async fn open(&self, output: SttOutput) -> Result<Ear, PluginError> {
        Ok(Ear { output, act: self.act.clone(), chunks: 0 })
    }
}

impl SttSession for Ear {
    async fn begin(&mut self) -> Result<(), PluginError> {
        self.chunks = 0;
        Ok(())
    }

    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        assert!(audio.frames() <= 320);
        self.chunks += 1;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), PluginError> {
        let transcript = Transcript { text: format!("{} chunks", self.chunks), ..Transcript::default() };
        match self.act.as_str() {
            "fail" => return Err(PluginError::new("model", "deaf")),
            "mute" => return Ok(()),
            "hasty" => self.output.utterance(transcript.clone()).await?,
            _ => {}
        }
        self.output.transcript(transcript.clone()).await?;
        if self.act != "hasty" { self.output.utterance(transcript).await } else { Ok(()) }
    }
}

pub(crate) struct Detector {
    output: TurnOutput,
    act: String,
    speaking: bool,
}

impl TurnDetector for Puppet {
    type Session = Detector;

    async fn open(&self, output: TurnOutput) -> Result<Detector, PluginError> {
        Ok(Detector { output, act: self.act.clone(), speaking: false })
    }
}

impl TurnSession for Detector {
    async fn audio(&mut self, _: AudioChunk) -> Result<(), PluginError> {
        if self.act == "fail" {
            return Err(PluginError::new("ear", "deaf"));
        }
        if !std::mem::replace(&mut self.speaking, true) || self.act == "start twice" {
            self.output.turn_started(1.0).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PluginError> {
        if std::mem::take(&mut self.speaking) && self.act != "never end" {
            self.output.turn_ended(1.0, Duration::from_secs(1), Duration::ZERO).await?;
        }
        Ok(())
    }
}

impl Vision for Puppet {
    async fn process(
        &self,
        VisionFrame { frame, .. }: VisionFrame,
        output: VisionOutput,
    ) -> Result<(), PluginError> {
        if self.act == "say nothing" {
            return Ok(());
        }
        let detection =
            VideoProcessorDetectionEvent { model_id: None, inference_time_ms: None, detection_count: 0 };
        output
            .emit(DetectionCompletedEvent {
                detection,
                objects: Vec::new(),
                image_width: frame.width(),
                image_height: frame.height(),
                raw: None,
            })
            .await?;
        if self.act == "hang" { pending().await } else { Ok(()) }
    }
}
