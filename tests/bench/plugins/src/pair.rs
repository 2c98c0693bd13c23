//! A session of the plugin under test: what its recogniser hears, its synthesis says, chunk by chunk.

use std::sync::Arc;

use antiphon_core::{AudioChunk, EventBus, SessionBus, SpeechId, TurnId};
use antiphon_host::{
    Kind, TtsRequest,
    plugins::{Completion, Incoming, PluginInstance, Received, SttSession, TtsSession},
};
use anyhow::{Context, Result};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::files::PLUGIN;

/// Samples of 20 ms.
pub(crate) const SAMPLES: usize = 320;

/// The end that audio goes into.
pub(crate) struct Pair {
    pub(crate) stt: SttSession,
    tts: TtsSession,
    speech: Option<Completion>,
    _events: [mpsc::Receiver<Arc<antiphon_core::event::Envelope>>; 2],
    _session: SessionBus,
}

/// The end that it comes out of.
pub(crate) type Voice = mpsc::Receiver<Incoming>;

impl Pair {
    /// Opens a session whose audio is passed through.
    pub(crate) async fn open(plugin: &Arc<PluginInstance>, bus: &EventBus) -> Result<(Self, Voice)> {
        let session = bus.open_session();
        let (tts, Received { events: said, audio: mut voice }) = plugin.open_tts(&session)?;
        let (stt, Received { events: heard, .. }) = plugin.open_stt(&session)?;
        let request = TtsRequest {
            text: String::new(),
            synthesis_id: Uuid::nil(),
            speech_id: SpeechId(Uuid::nil()),
            chunk_id: 0,
        };
        let speech = tts.synthesize(None, &request).await?;
        voice.recv().await.context("the synthesis says that it has begun")?;
        stt.begin(TurnId(1)).await?;
        let events = [said, heard];
        Ok((Self { stt, tts, speech: Some(speech), _events: events, _session: session }, voice))
    }

    /// Ends it, and waits for the plugin to have done so.
    pub(crate) async fn close(&mut self) {
        if let Ok(ended) = self.stt.end().await {
            ended.finished().await;
        }
        if let Some(speech) = self.speech.take() {
            self.tts.cancel(speech.token());
            speech.finished().await;
        }
        self.stt.close().finished().await;
        self.tts.close().finished().await;
    }
}

/// The plugin under test.
pub(crate) fn plugin(host: &antiphon_host::Host) -> Result<Arc<PluginInstance>> {
    Ok(host.provider(Kind::Stt, Some(PLUGIN))?)
}

/// A chunk that nobody has seen before, as audio is, with a number in it.
pub(crate) fn chunk(number: u32) -> AudioChunk {
    let mut samples = vec![7_i16; SAMPLES];
    let [a, b, c, d] = number.to_ne_bytes();
    samples[0] = i16::from_ne_bytes([a, b]);
    samples[1] = i16::from_ne_bytes([c, d]);
    AudioChunk::mono(samples)
}

/// The number in a chunk.
pub(crate) fn number(chunk: &AudioChunk) -> u32 {
    let ([a, b], [c, d]) = (chunk.samples()[0].to_ne_bytes(), chunk.samples()[1].to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}
