//! Asks a plugin under test: one method for each capability.

use std::sync::Arc;

use abi_stable::std_types::{RSlice, RStr};
use antiphon_core::{
    AudioChunk, SpeechId, VideoFrame,
    audio::{CHUNK_DURATION, SESSION_SAMPLE_RATE_HZ, duration_to_frames},
    event::values::{Message, Role},
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Command, Detected, Events, Exported, Harness, Heard, Reply, Seen, Speech, check,
    events::type_of,
    recorder::{Piece, Recorder},
    session::{Driven, SESSION_ID},
};
use crate::{
    Llm, LlmRequest, Stt, Tts, TtsRequest, TurnDetector, Vision,
    abi::{
        LlmBox, LlmSessionBox, Outcome, SttBox, SttSessionBox, TtsBox, TtsSessionBox, TurnBox,
        TurnSessionBox, VisionBox, VisionSessionBox,
    },
};

/// The session of a capability, opened when it is first asked for.
macro_rules! session {
    ($harness:ident, $field:ident, $object:ty) => {{
        if $harness.sessions.$field.is_none() {
            let object: $object = $harness.capability();
            let recorder = Recorder::new(&$harness.types);
            let session = Arc::new(object.open(RStr::from_str(SESSION_ID), recorder.sink()));
            $harness.sessions.$field = Some(Driven { session, recorder });
        }
        $harness.sessions.$field.clone().expect("opened above")
    }};
}

fn encode(request: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(request).expect("requests are plain data")
}

/// As the host gives it: in chunks of 20 ms, the last as long as it is.
fn in_chunks(audio: impl IntoIterator<Item = AudioChunk>) -> Vec<AudioChunk> {
    let frames = duration_to_frames(CHUNK_DURATION, SESSION_SAMPLE_RATE_HZ);
    let frames = usize::try_from(frames).expect("20 ms are few frames");
    let mut chunks = Vec::new();
    for mut chunk in audio {
        let format = (chunk.sample_rate_hz(), chunk.channels());
        assert_eq!(
            format,
            (SESSION_SAMPLE_RATE_HZ, 1),
            "sessions hear one channel of {SESSION_SAMPLE_RATE_HZ} Hz"
        );
        while !chunk.is_empty() {
            chunks.push(chunk.split_to(frames));
        }
    }
    chunks
}

impl From<&str> for LlmRequest {
    /// A conversation that begins with what the user says.
    fn from(prompt: &str) -> Self {
        let message =
            Message { id: "message-1".into(), role: Role::User, content: prompt.into(), interrupted: false };
        Self { messages: vec![message], ..Self::default() }
    }
}

impl<P: Exported + Llm> Harness<P> {
    /// Asks for a reply to a text, or to a whole [`LlmRequest`].
    pub fn respond(&mut self, request: impl Into<LlmRequest>) -> Command<'_, Reply> {
        let driven = session!(self, llm, LlmBox);
        let (token, mut request) = (self.next(), request.into());
        if request.request_id.is_empty() {
            request.request_id = format!("request-{token}");
        }
        Command::new(async move |cancel_after| {
            let bytes = encode(&request);
            let cancel = |session: &LlmSessionBox, token| session.cancel(token);
            let send = |session: &LlmSessionBox| session.respond(token, token, RSlice::from_slice(&bytes));
            let piece = Piece::Event("llm.response.delta");
            let (outcome, mut said) = driven.run(token, cancel_after, piece, cancel, send).await;
            let ends = ["llm.response.final", "llm.response.aborted", "llm.error"];
            check::one_end("llm.", ends, outcome, &mut said);
            check::numbered(&mut said);
            check::report(P::NAME, &said);
            let pieces = said.events.iter().filter(|event| type_of(event) == "llm.response.delta");
            let text = pieces.filter_map(|event| event["delta"].as_str()).collect();
            Reply { text, events: Events(said.events), outcome }
        })
    }
}

impl<P: Exported + Tts> Harness<P> {
    /// Asks for a text to be said.
    pub fn synthesize(&mut self, text: &str) -> Command<'_, Speech> {
        let driven = session!(self, tts, TtsBox);
        let token = self.next();
        let request = TtsRequest {
            text: text.to_owned(),
            synthesis_id: Uuid::from_u128(token.into()),
            speech_id: SpeechId(Uuid::from_u128(token.into())),
            chunk_id: 0,
        };
        Command::new(async move |cancel_after| {
            let bytes = encode(&request);
            let cancel = |session: &TtsSessionBox, token| session.cancel(token);
            let send = |session: &TtsSessionBox| session.synthesize(token, token, RSlice::from_slice(&bytes));
            let (outcome, mut said) = driven.run(token, cancel_after, Piece::Audio, cancel, send).await;
            let ends = ["tts.synthesis.complete", "tts.synthesis.complete", "tts.error"];
            check::one_end("tts.", ends, outcome, &mut said);
            check::one_format(token, &mut said);
            check::words_in_order(&mut said);
            check::report(P::NAME, &said);
            let words = said.events.iter().filter(|event| type_of(event) == "tts.words");
            let words = words.flat_map(|event| event["words"].as_array().cloned().unwrap_or_default());
            let words = words.filter_map(|word| serde_json::from_value(word).ok()).collect();
            let format = said.audio.first().map(|(_, audio)| (audio.sample_rate_hz(), audio.channels()));
            let (sample_rate_hz, channels) = format.unwrap_or_default();
            let audio = said.audio.iter().flat_map(|(_, audio)| audio.samples()).copied().collect();
            Speech { audio, sample_rate_hz, channels, words, events: Events(said.events), outcome }
        })
    }
}

impl<P: Exported + Stt> Harness<P> {
    /// Lets it hear an utterance: one channel of 16 kHz, in pieces of any length.
    pub fn listen(&mut self, audio: impl IntoIterator<Item = AudioChunk>) -> Command<'_, Heard> {
        let driven = session!(self, stt, SttBox);
        let (token, mut chunks) = (self.next(), in_chunks(audio));
        Command::new(async move |cancel_after: Option<usize>| {
            let wake = |session: &SttSessionBox, waker| session.wake_when_ready(waker);
            let cancelled = cancel_after.is_some_and(|count| count < chunks.len());
            chunks.truncate(cancel_after.unwrap_or(usize::MAX));
            driven.push(wake, |session| session.begin(token)).await;
            for chunk in chunks {
                driven.push(wake, |session| session.push_audio(chunk.clone().into())).await;
            }
            let end = |session: &SttSessionBox| match cancelled {
                true => session.cancel(token),
                false => session.end(token),
            };
            driven.push(wake, end).await;
            let outcome = driven.recorder.finished(token).await;
            let mut said = driven.recorder.take();
            check::one_utterance(outcome, cancelled, &mut said);
            check::failure_is_told(outcome, &mut said);
            check::report(P::NAME, &said);
            let utterance =
                said.events.iter().find(|event| type_of(event) == "stt.transcript.utterance_final");
            let text = utterance.and_then(|event| event["text"].as_str()).unwrap_or_default().to_owned();
            Heard { text, events: Events(said.events), outcome }
        })
    }
}

impl<P: Exported + TurnDetector> Harness<P> {
    /// Lets it hear a user: one channel of 16 kHz, in pieces of any length. No more audio comes at the end.
    pub async fn detect(&mut self, audio: impl IntoIterator<Item = AudioChunk>) -> Detected {
        let driven = session!(self, turn, TurnBox);
        let wake = |session: &TurnSessionBox, waker| session.wake_when_ready(waker);
        let mut outcome = Outcome::COMPLETED;
        for chunk in in_chunks(audio) {
            let token = self.next();
            driven.push(wake, |session| session.push_audio(token, chunk.clone().into())).await;
            outcome = worse(outcome, driven.recorder.finished(token).await);
        }
        let token = self.next();
        driven.push(wake, |session| session.flush(token)).await;
        outcome = worse(outcome, driven.recorder.finished(token).await);
        let mut said = driven.recorder.take();
        if outcome == Outcome::COMPLETED {
            check::begins_and_ends("vad.speech_start", "vad.speech_end", &mut said);
            check::begins_and_ends("turn.started", "turn.ended", &mut said);
        }
        check::report(P::NAME, &said);
        Detected { events: Events(said.events), outcome }
    }
}

fn worse(so_far: Outcome, next: Outcome) -> Outcome {
    if so_far == Outcome::COMPLETED { next } else { so_far }
}

impl<P: Exported + Vision> Harness<P> {
    /// Shows it a picture. Pictures are numbered from 1, as everything that is asked.
    pub fn look(&mut self, frame: VideoFrame) -> Command<'_, Seen> {
        let driven = session!(self, vision, VisionBox);
        let token = self.next();
        Command::new(async move |cancel_after| {
            let cancel = |session: &VisionSessionBox, token| session.cancel(token);
            let send = |session: &VisionSessionBox| session.process(token, token, frame.clone().into());
            let (outcome, mut said) = driven.run(token, cancel_after, Piece::AnyEvent, cancel, send).await;
            check::detection(outcome, driven.recorder.types(), &mut said);
            check::report(P::NAME, &said);
            Seen { events: Events(said.events), outcome }
        })
    }
}
