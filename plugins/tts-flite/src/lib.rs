//! Text to speech with the flite engine: four English voices, no network, first audio within milliseconds.
//!
//! Not here: flite itself. Its shared libraries are opened when the plugin starts, so this plugin builds, and loads, on
//! a machine without them.

mod config;
pub mod engine;
mod sys;
mod text;
mod voice;

use std::ops::ControlFlow;

use antiphon_plugin_api::prelude::*;
use tokio::sync::mpsc;

use crate::{
    config::Settings,
    engine::{Engine, Options, Piece, Voice},
};

/// Pieces that may wait between flite's thread and the host; 20 ms and more each.
const PIECES: usize = 8;

struct Flite {
    engine: Engine,
    voice: Voice,
    options: Options,
}

/// A piece on its way from flite's thread.
struct Made {
    samples: Vec<i16>,
    sample_rate_hz: u32,
    words: Vec<WordTiming>,
}

impl Plugin for Flite {
    type Config = Settings;

    async fn start(settings: Settings, _: PluginContext) -> Result<Self, PluginError> {
        let voice = settings.voice();
        let engine = tokio::task::spawn_blocking(move || {
            let engine = Engine::load().map_err(|error| config::missing(&error))?;
            engine.prepare(voice).map_err(|error| config::missing(&error))?;
            Ok::<_, PluginError>(engine)
        });
        Ok(Self { engine: engine.await??, voice, options: settings.options() })
    }
}

impl Tts for Flite {
    async fn synthesize(&self, request: TtsRequest, output: TtsOutput) -> Result<(), PluginError> {
        let (engine, voice, options) = (self.engine, self.voice, self.options);
        let (sender, mut made) = mpsc::channel(PIECES);
        let speaking = tokio::task::spawn_blocking(move || {
            engine.synthesize(voice, &request.text, &options, &mut |piece| {
                // Fails when the request was cancelled, which drops the receiver: flite stops in the middle.
                match sender.blocking_send(Made::from(piece)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })
        });
        while let Some(Made { samples, sample_rate_hz, words }) = made.recv().await {
            if !words.is_empty() {
                output.words(words).await?;
            }
            output.audio(AudioChunk::new(samples, sample_rate_hz, 1)?).await?;
        }
        speaking.await??;
        Ok(())
    }
}

impl From<Piece<'_>> for Made {
    fn from(piece: Piece<'_>) -> Self {
        let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let timing = |word: engine::Word| WordTiming {
            word: word.text,
            start_ms: millis(word.start),
            end_ms: millis(word.end),
        };
        Self {
            samples: piece.samples.to_vec(),
            sample_rate_hz: piece.sample_rate_hz,
            words: piece.words.into_iter().map(timing).collect(),
        }
    }
}

export_plugin! { name: "tts-flite", plugin: Flite, capabilities: [tts] }
