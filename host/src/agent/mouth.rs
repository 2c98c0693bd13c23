//! Speaking: one reply, from the first piece of the model's text to the last sample that was played.
//!
//! Synthesis runs ahead of playing, several chunks at a time; audio leaves in the order of the text. No channel or plugin
//! is touched here: the conversation carries out what this says.

use std::{collections::VecDeque, time::Duration};

use antiphon_core::{
    AudioChunk, SpeechId, TurnId,
    clock::Now,
    event::values::{Modality, TurnDurations, TurnTimestamps, WordTiming},
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{chunker::Chunker, ledger::Ledger};

/// Syntheses at a time. VoiceAgent's default.
const MAX_SYNTHESES: usize = 3;

/// Audio that is kept ready beyond what is being played; then the synthesiser waits.
const MAX_READY: Duration = Duration::from_secs(30);

/// Text to synthesise.
#[derive(Debug, Clone)]
pub(super) struct ToSynthesise {
    pub(super) chunk: usize,
    pub(super) text: String,
    pub(super) synthesis_id: Uuid,
}

/// When each stage of a turn was reached.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) turn_end: Option<Now>,
    pub(super) stt_final: Option<Now>,
    pub(super) llm_start: Option<Now>,
    pub(super) llm_first_token: Option<Now>,
    pub(super) llm_complete: Option<Now>,
    pub(super) tts_first_audio: Option<Now>,
    pub(super) playback_start: Option<Now>,
    pub(super) playback_end: Option<Now>,
}

/// One reply on its way.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) generation: u64,
    pub(super) turn_id: Option<TurnId>,
    pub(super) speech_id: SpeechId,
    pub(super) request_id: String,
    pub(super) transcript: String,
    pub(super) modality: Modality,
    /// Whoever waits for the end of the reply; dropped with it.
    pub(super) answered: Option<oneshot::Sender<()>>,
    pub(super) times: Times,
    pub(super) ledger: Ledger,
    /// The model's whole text so far.
    pub(super) generated: String,
    pub(super) llm_token: Option<u64>,
    /// The first audio was played, and the events that say so are out.
    pub(super) audible: bool,
    /// All syntheses have ended and been handed to playing; the event that says so is out.
    pub(super) handed_out: bool,
    pub(super) failed: bool,
    /// The plugin that speaks broke meanwhile.
    pub(super) voice_lost: bool,
    chunker: Chunker,
    generating: bool,
    chunks: Vec<Chunk>,
    playing: usize,
    in_player: usize,
}

#[derive(Debug)]
struct Chunk {
    text: String,
    synthesis_id: Uuid,
    state: Synthesis,
    ready: VecDeque<AudioChunk>,
    length: Duration,
}

#[derive(Debug, PartialEq)]
enum Synthesis {
    Waiting,
    Asked,
    Running { token: u64 },
    Ended,
}

/// What a reply begins with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) generation: u64,
    pub(super) turn_id: Option<TurnId>,
    pub(super) speech_id: SpeechId,
    pub(super) request_id: String,
    pub(super) transcript: String,
    pub(super) modality: Modality,
    pub(super) answered: Option<oneshot::Sender<()>>,
    pub(super) times: Times,
}

impl Reply {
    pub(super) fn new(opening: Opening) -> Self {
        let Opening { generation, turn_id, speech_id, request_id, transcript, modality, answered, times } =
            opening;
        Self {
            generation,
            turn_id,
            speech_id,
            request_id,
            transcript,
            modality,
            answered,
            times,
            ledger: Ledger::default(),
            generated: String::new(),
            llm_token: None,
            audible: false,
            handed_out: false,
            failed: false,
            voice_lost: false,
            chunker: Chunker::default(),
            generating: true,
            chunks: Vec::new(),
            playing: 0,
            in_player: 0,
        }
    }

    /// The model gave text; returns the chunks that are complete now: their numbers and texts.
    pub(super) fn text(&mut self, delta: &str, synthesis_id: impl FnMut() -> Uuid) -> Vec<ToSynthesise> {
        self.generated.push_str(delta);
        let sentences = self.chunker.push(delta);
        self.add(sentences, synthesis_id)
    }

    /// The model gives no more; returns the last chunk.
    pub(super) fn text_ended(&mut self, synthesis_id: impl FnMut() -> Uuid) -> Vec<ToSynthesise> {
        self.generating = false;
        let rest = self.chunker.finish();
        self.add(rest, synthesis_id)
    }

    fn add(
        &mut self,
        texts: impl IntoIterator<Item = String>,
        mut synthesis_id: impl FnMut() -> Uuid,
    ) -> Vec<ToSynthesise> {
        let first = self.chunks.len();
        for text in texts {
            self.ledger.add(&text);
            let synthesis_id = synthesis_id();
            let (ready, length) = (VecDeque::new(), Duration::ZERO);
            self.chunks.push(Chunk { text, synthesis_id, state: Synthesis::Waiting, ready, length });
        }
        self.chunks.iter().enumerate().skip(first).map(to_synthesise).collect()
    }

    pub(super) fn is_generating(&self) -> bool {
        self.generating
    }

    /// The next chunk to ask for, when not too many are on their way.
    pub(super) fn next_synthesis(&mut self) -> Option<ToSynthesise> {
        let busy = |chunk: &&Chunk| matches!(chunk.state, Synthesis::Asked | Synthesis::Running { .. });
        if self.chunks.iter().filter(busy).count() >= MAX_SYNTHESES {
            return None;
        }
        let (number, chunk) =
            self.chunks.iter_mut().enumerate().find(|(_, chunk)| chunk.state == Synthesis::Waiting)?;
        chunk.state = Synthesis::Asked;
        Some(to_synthesise((number, chunk)))
    }

    pub(super) fn synthesis_running(&mut self, chunk: usize, token: u64) {
        self.chunks[chunk].state = Synthesis::Running { token };
    }

    /// A chunk has all its audio, or never will.
    pub(super) fn synthesis_ended(&mut self, chunk: usize) {
        let entry = &mut self.chunks[chunk];
        entry.state = Synthesis::Ended;
        self.ledger.complete(chunk, entry.length);
    }

    pub(super) fn running_syntheses(&self) -> Vec<u64> {
        let token = |chunk: &Chunk| match chunk.state {
            Synthesis::Running { token } => Some(token),
            _ => None,
        };
        self.chunks.iter().filter_map(token).collect()
    }

    fn chunk_of_token(&self, token: u64) -> Option<usize> {
        self.chunks.iter().position(|chunk| chunk.state == Synthesis::Running { token })
    }

    /// Audio came; `false` when it belongs to another reply.
    pub(super) fn audio(&mut self, token: u64, audio: AudioChunk) -> bool {
        let Some(chunk) = self.chunk_of_token(token) else { return false };
        self.chunks[chunk].length += audio.duration();
        self.chunks[chunk].ready.push_back(audio);
        true
    }

    pub(super) fn words(&mut self, synthesis_id: Uuid, words: Vec<WordTiming>) {
        if let Some(chunk) = self.chunks.iter().position(|chunk| chunk.synthesis_id == synthesis_id) {
            self.ledger.words(chunk, words);
        }
    }

    pub(super) fn chunk_text(&self, chunk: usize) -> &str {
        &self.chunks[chunk].text
    }

    /// Whether more audio may be taken from the synthesiser.
    pub(super) fn wants_audio(&self) -> bool {
        let ready = |chunk: &Chunk| chunk.ready.iter().map(AudioChunk::duration).sum::<Duration>();
        self.chunks.iter().map(ready).sum::<Duration>() < MAX_READY
    }

    /// Whether there is audio to play now.
    pub(super) fn has_next_piece(&mut self) -> bool {
        while let Some(chunk) = self.chunks.get(self.playing) {
            if !chunk.ready.is_empty() {
                return true;
            }
            if chunk.state != Synthesis::Ended {
                return false;
            }
            self.playing += 1;
        }
        false
    }

    /// The next piece to play, and its chunk.
    pub(super) fn next_piece(&mut self) -> Option<(usize, AudioChunk)> {
        if !self.has_next_piece() {
            return None;
        }
        let chunk = self.playing;
        let audio = self.chunks[chunk].ready.pop_front()?;
        self.in_player += 1;
        Some((chunk, audio))
    }

    /// A piece was played, or a part of it.
    pub(super) fn played(&mut self, chunk: usize, duration: Duration, done: bool) {
        self.ledger.played(chunk, duration);
        if done {
            self.in_player -= 1;
        }
    }

    /// Whether any chunk was given to synthesis.
    pub(super) fn has_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Whether every chunk's audio has left for the player.
    pub(super) fn is_handed_out(&mut self) -> bool {
        !self.generating && !self.has_next_piece() && self.playing == self.chunks.len()
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_over(&mut self) -> bool {
        self.is_handed_out() && self.in_player == 0
    }
}

fn to_synthesise((chunk, entry): (usize, impl std::borrow::Borrow<Chunk>)) -> ToSynthesise {
    let entry = entry.borrow();
    ToSynthesise { chunk, text: entry.text.clone(), synthesis_id: entry.synthesis_id }
}

impl Times {
    pub(super) fn timestamps(&self, end: Now) -> TurnTimestamps {
        let epoch = |at: Option<Now>| at.map(|at| at.utc.timestamp_millis());
        TurnTimestamps {
            stt_final: epoch(self.stt_final),
            llm_start: epoch(self.llm_start),
            llm_first_token: epoch(self.llm_first_token),
            llm_complete: epoch(self.llm_complete),
            tts_first_audio: epoch(self.tts_first_audio),
            playback_start: epoch(self.playback_start),
            playback_end: epoch(self.playback_end),
            turn_end: end.utc.timestamp_millis(),
        }
    }

    pub(super) fn durations(&self, end: Now) -> TurnDurations {
        let between = |from: Option<Now>, to: Option<Now>| Some(millis_between(from?, to?));
        let begin = self.turn_end.or(self.stt_final);
        TurnDurations {
            turn_end_to_stt_final: between(self.turn_end, self.stt_final),
            stt_final_to_first_token: between(self.stt_final, self.llm_first_token),
            first_token_to_first_audio: between(self.llm_first_token, self.tts_first_audio),
            first_audio_to_playback: between(self.tts_first_audio, self.playback_start),
            voice_to_voice: between(begin, self.playback_start),
            llm_total: between(self.llm_start, self.llm_complete),
            turn_total: between(begin, Some(end)).unwrap_or_default(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a difference of nanoseconds; 52 bits of it are 50 days")]
fn millis_between(from: Now, to: Now) -> f64 {
    (to.mono_ns as f64 - from.mono_ns as f64) / 1e6
}
