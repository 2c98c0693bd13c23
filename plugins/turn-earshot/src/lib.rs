//! Tells when somebody starts and stops talking: voice activity and end of turn from 16 kHz speech.
//!
//! Not here: what was said (`stt-*`), and whether the sentence is complete in meaning. A turn ends by silence alone.
#![forbid(unsafe_code)]

pub mod config;
pub mod detector;
pub mod endpoint;

use antiphon_plugin_api::prelude::*;

use crate::{
    config::Settings,
    detector::{Detector, Signal},
};

struct Earshot {
    settings: Settings,
}

impl Plugin for Earshot {
    type Config = Settings;

    async fn start(settings: Settings, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { settings })
    }
}

impl TurnDetector for Earshot {
    type Session = Session;

    async fn open(&self, output: TurnOutput) -> Result<Session, PluginError> {
        Ok(Session { detector: Detector::new(self.settings.clone()), output, signals: Vec::new() })
    }
}

struct Session {
    detector: Detector,
    output: TurnOutput,
    signals: Vec<Signal>,
}

impl TurnSession for Session {
    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        // 8 us per 16 ms of audio: short enough for the runtime's thread.
        self.detector.push(audio.samples(), &mut |signal| self.signals.push(signal));
        self.tell().await
    }

    async fn flush(&mut self) -> Result<(), PluginError> {
        self.detector.finish(&mut |signal| self.signals.push(signal));
        self.tell().await
    }
}

impl Session {
    async fn tell(&mut self) -> Result<(), PluginError> {
        for signal in self.signals.drain(..) {
            match signal {
                Signal::SpeechStart { probability, .. } => {
                    self.output.speech_started(probability.into()).await?
                }
                Signal::SpeechEnd { duration, .. } => self.output.speech_ended(duration).await?,
                Signal::TurnStarted { confidence, .. } => self.output.turn_started(confidence.into()).await?,
                Signal::TurnEnded { trailing_silence, duration, confidence, .. } => {
                    self.output.turn_ended(confidence.into(), duration, trailing_silence).await?;
                }
            }
        }
        Ok(())
    }
}

export_plugin! { name: "turn-earshot", plugin: Earshot, capabilities: [turn] }
