//! Speech to text with PocketSphinx, on this machine's processor.
//!
//! Reading order: [`grammar`] and [`dictionary`] (what may be said), [`decoder`] (one utterance after the other),
//! [`pool`] (many sessions, few decoders). Here: the plugin, with its events.

mod config;
pub mod decoder;
pub mod dictionary;
pub mod grammar;
pub mod pool;
mod sys;
#[cfg(test)]
mod testing;

use std::{error::Error, sync::Arc, time::Duration};

use antiphon_plugin_api::prelude::*;
use tokio::time::Instant;

use crate::{
    config::Config,
    decoder::{Hypothesis, Library, SAMPLE_RATE_HZ, Word},
    pool::{Pool, PoolError, Update, Updates, Utterance},
};

struct PocketSphinx {
    pool: Arc<Pool>,
    model_name: String,
}

impl Plugin for PocketSphinx {
    type Config = Config;

    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        let model_name =
            if config.grammar.is_some() { "pocketsphinx-jsgf" } else { "pocketsphinx-lm" }.to_owned();
        let pool = tokio::task::spawn_blocking(move || {
            let library =
                Library::open(config.library.as_deref()).map_err(|error| unusable("library", &error))?;
            let settings = config.decoder().map_err(|error| unusable("grammar", &error))?;
            settings.check().map_err(|error| unusable("model", &error))?;
            Ok::<_, PluginError>(Pool::new(library, settings, config.threads))
        });
        Ok(Self { pool: Arc::new(pool.await??), model_name })
    }
}

impl Stt for PocketSphinx {
    type Session = Session;

    async fn open(&self, output: SttOutput) -> Result<Session, PluginError> {
        self.pool.warm_up();
        output.listening().await?;
        Ok(Session {
            pool: Arc::clone(&self.pool),
            model_name: self.model_name.clone(),
            output,
            current: None,
        })
    }
}

struct Session {
    pool: Arc<Pool>,
    model_name: String,
    output: SttOutput,
    current: Option<Current>,
}

/// The utterance that is being heard.
struct Current {
    utterance: Utterance,
    updates: Updates,
    samples: u64,
}

impl SttSession for Session {
    async fn begin(&mut self) -> Result<(), PluginError> {
        let (utterance, updates) = self.pool.begin();
        self.current = Some(Current { utterance, updates, samples: 0 });
        Ok(())
    }

    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.samples += audio.samples().len() as u64;
        if current.utterance.push(audio.samples().to_vec()).await.is_err() {
            return self.failed().await;
        }
        while let Some(update) = ready_update(&mut current.updates).await {
            match update {
                Update::Partial(text) => {
                    let transcript = Transcript {
                        text,
                        audio_duration_ms: Some(millis(current.samples)),
                        model_name: Some(self.model_name.clone()),
                        ..Transcript::default()
                    };
                    self.output.interim(transcript).await?;
                }
                Update::Failed(error) => {
                    self.current = None;
                    return Err(unrecognised(&error));
                }
                // Only after `finish`.
                Update::Final(_) => {}
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), PluginError> {
        let Some(Current { utterance, mut updates, samples }) = self.current.take() else { return Ok(()) };
        let asked = Instant::now();
        utterance.finish();
        while let Some(update) = updates.next().await {
            match update {
                Update::Partial(_) => {}
                Update::Failed(error) => return Err(unrecognised(&error)),
                Update::Final(hypothesis) => return self.say(hypothesis, samples, asked.elapsed()).await,
            }
        }
        Err(PluginError::new("recognition", "the decoder ended without a result"))
    }

    async fn cancel(&mut self) -> Result<(), PluginError> {
        self.current = None;
        Ok(())
    }
}

impl Session {
    async fn say(&self, hypothesis: Hypothesis, samples: u64, took: Duration) -> Result<(), PluginError> {
        let Hypothesis { text, words, confidence } = hypothesis;
        let understood = !text.is_empty();
        let transcript = Transcript {
            text,
            confidence: understood.then_some(f64::from(confidence)),
            language: None,
            words: Some(words.into_iter().map(timing).collect()),
            processing_time_ms: Some(took.as_secs_f64() * 1e3),
            audio_duration_ms: Some(millis(samples)),
            model_name: Some(self.model_name.clone()),
        };
        if understood {
            self.output.transcript(transcript.clone()).await?;
        }
        self.output.utterance(transcript).await
    }

    /// The decoder takes no more; its last update says why.
    async fn failed(&mut self) -> Result<(), PluginError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        while let Some(update) = current.updates.next().await {
            if let Update::Failed(error) = update {
                return Err(unrecognised(&error));
            }
        }
        Err(PluginError::new("recognition", "the decoder takes no more audio"))
    }
}

/// An update that is there already.
async fn ready_update(updates: &mut Updates) -> Option<Update> {
    tokio::select! {
        biased;
        update = updates.next() => update,
        () = std::future::ready(()) => None,
    }
}

fn timing(word: Word) -> WordTiming {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    WordTiming { word: word.text, start_ms: millis(word.start), end_ms: millis(word.end) }
}

#[expect(clippy::cast_precision_loss, reason = "samples of an utterance: far fewer than 2^52")]
fn millis(samples: u64) -> f64 {
    samples as f64 * 1e3 / f64::from(SAMPLE_RATE_HZ)
}

fn unrecognised(error: &PoolError) -> PluginError {
    let failure = PluginError::new("recognition", chain(error));
    if error.is_retryable() { failure } else { failure.fatal() }
}

fn unusable(code: &'static str, error: &dyn Error) -> PluginError {
    PluginError::new(code, chain(error)).fatal()
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

export_plugin! { name: "stt-pocketsphinx", plugin: PocketSphinx, capabilities: [stt] }
