//! The conversation's speaking half: from a user's words to the end of the reply.

use std::sync::Arc;

use antiphon_core::{
    SpeechId, TurnId,
    event::{
        Envelope, Stamp,
        agent::{
            AgentTranscriptEvent, AgentTurnEndedEvent, AgentTurnStartedEvent, SpeechInterruptedEvent,
            SpeechStartEvent, TurnMetricsEvent,
        },
        audio::{AudioPlaybackEndEvent, AudioPlaybackErrorEvent, AudioPlaybackStartEvent},
        llm::{LlmErrorEvent, LlmResponseDeltaEvent},
        tts::{TtsChunkQueuedEvent, TtsErrorEvent, TtsWordsEvent},
        values::{
            AgentState, ComponentKind, ErrorInfo, InterruptReason, InterruptScope, Modality, Role,
            TranscriptMode,
        },
    },
};
use antiphon_plugin_api::{LlmRequest, TtsRequest, abi::Outcome};
use tokio::sync::mpsc;

use super::{Conversation, Ended, Question};
use crate::{
    agent::{
        mouth::{Opening, Reply, Times, ToSynthesise},
        output::{Discard, Piece, Played, Player},
        stage::{Stage, link},
    },
    plugins::{Incoming, chain},
    worker::CRASHED,
};

impl Conversation {
    pub(super) fn open_reply(&mut self, question: Option<Question>) -> &mut Reply {
        self.generations += 1;
        let now = self.clock.now();
        let (turn_id, transcript, modality, answered, times) = match question {
            Some(Question { turn_id, text, modality, answered, times }) => {
                (Some(turn_id), text, modality, answered, times)
            }
            None => (None, String::new(), Modality::Voice, None, Times::default()),
        };
        self.touch();
        self.reply.insert(Reply::new(Opening {
            generation: self.generations,
            turn_id,
            speech_id: SpeechId(self.clock.uuid(now)),
            request_id: self.clock.uuid(now).to_string(),
            transcript,
            modality,
            answered,
            times: Times { llm_start: Some(now), ..times },
        }))
    }

    pub(super) async fn answer(&mut self, question: Question) {
        let turn_id = question.turn_id;
        self.become_state_in(Some(turn_id), AgentState::Thinking, "agent.user_transcript").await;
        let instructions = self.config.instructions.clone();
        let messages = self.history.clone();
        let timeout = self.timeout();
        let reply = self.open_reply(Some(question));
        let generation = reply.generation;
        let request =
            LlmRequest { request_id: reply.request_id.clone(), instructions, messages, eager: false };
        let Some(stage) = &mut self.llm else {
            let message = "there is no language model to answer".into();
            self.fail_reply(ComponentKind::Llm, "no_provider", message).await;
            return;
        };
        let (llm, _) = match stage.ensure().await {
            Ok(link) => link,
            Err(down) => {
                self.fail_reply(ComponentKind::Llm, "provider_down", down.to_string()).await;
                return;
            }
        };
        match tokio::time::timeout(timeout, llm.respond(Some(turn_id), &request)).await {
            Ok(Ok(completion)) => {
                let reply = self.reply.as_mut().expect("opened above");
                reply.llm_token = Some(completion.token());
                self.endings
                    .push(Box::pin(async move { (Ended::Llm { generation }, completion.finished().await) }));
            }
            Ok(Err(error)) => self.fail_reply(ComponentKind::Llm, "llm", chain(&error)).await,
            Err(_) => {
                self.fail_reply(ComponentKind::Llm, "llm", "the language model takes no requests".into())
                    .await;
            }
        }
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.open_reply(None);
        self.generated(text).await;
        self.generation_ended().await;
    }

    pub(super) async fn llm_event(&mut self, event: &Arc<Envelope>) {
        let request = self.reply.as_ref().map(|reply| reply.request_id.clone());
        if let Some(delta) = event.payload_as::<LlmResponseDeltaEvent>() {
            if delta.item_id == request {
                self.generated(&delta.delta).await;
            }
        } else if let Some(error) = event.payload_as::<LlmErrorEvent>() {
            let turn_id = self.reply.as_ref().and_then(|reply| reply.turn_id);
            // A process that has died knows of turns only.
            let is_ours = match error.request_id {
                Some(_) => error.request_id == request,
                None => event.base().turn_id == turn_id,
            };
            if is_ours {
                let code = code_of(error.error_code.as_deref(), "llm");
                self.fail_reply(ComponentKind::Llm, code, error.error_message.clone()).await;
            }
        }
    }

    pub(super) async fn generated(&mut self, delta: &str) {
        self.touch();
        let now = self.clock.now();
        let clock = Arc::clone(&self.clock);
        let Some(reply) = &mut self.reply else { return };
        reply.times.llm_first_token.get_or_insert(now);
        let chunks = reply.text(delta, || clock.uuid(now));
        self.queue_chunks(chunks).await;
    }

    pub(super) async fn generation_ended(&mut self) {
        let now = self.clock.now();
        let clock = Arc::clone(&self.clock);
        let Some(reply) = &mut self.reply else { return };
        reply.times.llm_complete.get_or_insert(now);
        let chunks = reply.text_ended(|| clock.uuid(now));
        self.queue_chunks(chunks).await;
    }

    pub(super) async fn queue_chunks(&mut self, chunks: Vec<ToSynthesise>) {
        for ToSynthesise { chunk, text, .. } in chunks {
            let Some(reply) = &self.reply else { return };
            let (turn_id, speech_id) = (reply.turn_id, reply.speech_id);
            if chunk == 0 {
                self.tell(turn_id, SpeechStartEvent { speech_id, streaming: true, text: None }).await;
            }
            let event = TtsChunkQueuedEvent { chunk_id: chunk as u64, text, speech_id };
            if let Some(tts) = &self.tts {
                let stamp = Stamp { turn_id, plugin: Some(Arc::clone(tts.base())), ..Stamp::default() };
                self.tell_with(stamp, event).await;
            }
        }
    }

    pub(super) async fn synthesise(&mut self, next: ToSynthesise) {
        let ToSynthesise { chunk, text, synthesis_id } = next;
        let timeout = self.timeout();
        let Some(reply) = &mut self.reply else { return };
        let (generation, turn_id) = (reply.generation, reply.turn_id);
        // What a voice that broke in this reply has left to say stays unsaid: the next reply has a new one.
        let Some(stage) = self.tts.as_mut().filter(|_| !reply.voice_lost) else {
            reply.synthesis_ended(chunk);
            return;
        };
        let (tts, _) = match stage.ensure().await {
            Ok(link) => link,
            Err(down) => {
                reply.synthesis_ended(chunk);
                self.lose_voice("provider_down", turn_id, down.to_string()).await;
                return;
            }
        };
        let request = TtsRequest { text, synthesis_id, speech_id: reply.speech_id, chunk_id: chunk as u64 };
        match tokio::time::timeout(timeout, tts.synthesize(turn_id, &request)).await {
            Ok(Ok(completion)) => {
                reply.synthesis_running(chunk, completion.token());
                let ended = Ended::Tts { generation, chunk };
                self.endings.push(Box::pin(async move { (ended, completion.finished().await) }));
            }
            Ok(Err(error)) => {
                reply.synthesis_ended(chunk);
                reply.failed = true;
                let message = chain(&error);
                self.error(turn_id, ComponentKind::Tts, "tts", message).await;
            }
            Err(_) => {
                reply.synthesis_ended(chunk);
                reply.failed = true;
                self.error(turn_id, ComponentKind::Tts, "tts", "the synthesiser takes no requests".into())
                    .await;
            }
        }
    }

    pub(super) async fn tts_event(&mut self, event: &Arc<Envelope>) {
        if let Some(words) = event.payload_as::<TtsWordsEvent>() {
            if let Some(reply) = &mut self.reply {
                reply.words(words.synthesis_id, words.words.clone());
            }
        } else if let Some(error) = event.payload_as::<TtsErrorEvent>() {
            let turn_id = event.base().turn_id;
            let code = code_of(error.error_code.as_deref(), "tts");
            if self.tts.as_ref().is_some_and(Stage::has_ended) {
                return self.lose_voice(code, turn_id, error.error_message.clone()).await;
            }
            if let Some(reply) = &mut self.reply {
                reply.failed = true;
            }
            self.error(turn_id, ComponentKind::Tts, code, error.error_message.clone()).await;
        }
    }

    /// The plugin that speaks is gone: the reply ends after what it has spoken.
    async fn lose_voice(&mut self, code: &str, turn_id: Option<TurnId>, message: String) {
        let lost = self.reply.as_mut().is_some_and(|reply| !std::mem::replace(&mut reply.voice_lost, true));
        if !lost {
            return;
        }
        self.error(turn_id, ComponentKind::Tts, code, message).await;
        let Some(reply) = &mut self.reply else { return };
        reply.failed = true;
        if let (Some((llm, _)), Some(token)) = (link(&mut self.llm), reply.llm_token) {
            llm.cancel(token);
        }
        self.generation_ended().await;
    }

    pub(super) fn audio(&mut self, Incoming { token, audio }: Incoming) {
        self.touch();
        let now = self.clock.now();
        if let Some(reply) = &mut self.reply
            && reply.audio(token, audio)
        {
            reply.times.tts_first_audio.get_or_insert(now);
        }
    }

    pub(super) async fn ended(&mut self, ended: Ended, outcome: Outcome) {
        self.touch();
        let current = self.reply.as_ref().map(|reply| reply.generation);
        match ended {
            Ended::Llm { generation } if Some(generation) == current => {
                // The plugin has emitted everything by now, and the sink has queued it.
                while let Some(event) = try_receive(&mut self.llm) {
                    self.llm_event(&event).await;
                }
                if self.reply.as_ref().is_some_and(|reply| reply.generation == generation) {
                    if outcome != Outcome::COMPLETED {
                        // It tells so itself, if it declares an event for it.
                        let ending = match &self.llm {
                            Some(stage) => stage.ending().await,
                            None => None,
                        };
                        let (code, message) = match ending {
                            Some(ending) => (CRASHED, ending),
                            None => ("llm", "the language model ended without an answer".into()),
                        };
                        self.fail_reply(ComponentKind::Llm, code, message).await;
                    } else {
                        self.generation_ended().await;
                    }
                }
            }
            Ended::Tts { generation, chunk } if Some(generation) == current => {
                while let Some(incoming) = try_receive_audio(&mut self.tts) {
                    self.audio(incoming);
                }
                while let Some(event) = try_receive(&mut self.tts) {
                    self.tts_event(&event).await;
                }
                if let Some(reply) = &mut self.reply {
                    reply.failed |= outcome != Outcome::COMPLETED;
                    reply.synthesis_ended(chunk);
                }
            }
            // Of a reply that was interrupted.
            Ended::Llm { .. } | Ended::Tts { .. } => {}
        }
    }

    pub(super) fn play(&mut self, permit: mpsc::OwnedPermit<Piece>) {
        let Some(reply) = &mut self.reply else { return };
        if let Some((chunk, audio)) = reply.next_piece() {
            permit.send(Piece { generation: reply.generation, chunk, audio });
        }
    }

    pub(super) async fn played(&mut self, played: Played) {
        match played {
            Played::Some { generation, chunk, duration, done } => {
                self.touch();
                let now = self.clock.now();
                let Some(reply) = self.reply.as_mut().filter(|reply| reply.generation == generation) else {
                    return;
                };
                let first_of_chunk = !reply.ledger.has_played(chunk);
                reply.played(chunk, duration, done);
                let (turn_id, speech_id, request_id) =
                    (reply.turn_id, reply.speech_id, reply.request_id.clone());
                let text = reply.chunk_text(chunk).to_owned();
                if !std::mem::replace(&mut reply.audible, true) {
                    reply.times.playback_start = Some(now);
                    self.tell(turn_id, AudioPlaybackStartEvent { speech_id: Some(speech_id) }).await;
                    self.tell(turn_id, AgentTurnStartedEvent { speech_id }).await;
                    self.become_state_in(turn_id, AgentState::Speaking, "audio.playback.start").await;
                }
                if first_of_chunk {
                    let event = transcript(text, TranscriptMode::Delta, request_id, Some(chunk), false);
                    self.tell(turn_id, event).await;
                }
            }
            Played::Failed(error) => {
                self.broken = true;
                let error_message = chain(&error);
                let event = AudioPlaybackErrorEvent {
                    error: Some(ErrorInfo::from_error(&error, false)),
                    error_code: Some("output".into()),
                    context: None,
                    is_recoverable: false,
                    error_message: error_message.clone(),
                };
                self.tell(None, event).await;
                self.error(None, ComponentKind::Edge, "output", error_message).await;
            }
        }
    }

    /// The reply cannot go on. What of it was handed to synthesis is still spoken.
    pub(super) async fn fail_reply(&mut self, component: ComponentKind, code: &str, message: String) {
        let Some(reply) = &mut self.reply else { return };
        if reply.failed && !reply.is_generating() {
            return;
        }
        reply.failed = true;
        let turn_id = reply.turn_id;
        self.error(turn_id, component, code, message).await;
        self.generation_ended().await;
    }

    pub(super) async fn stalled(&mut self) {
        let turn_id = self.reply.as_ref().and_then(|reply| reply.turn_id);
        let message = format!("nothing happened in this turn for {} ms", self.config.turn_timeout_ms);
        self.error(turn_id, ComponentKind::Agent, "turn_stalled", message).await;
        if let Some(reply) = &mut self.reply {
            reply.failed = true;
        }
        self.interrupt(InterruptReason::Other("turn_stalled".into())).await;
    }

    /// A plugin's session ended by itself, which no plugin should do.
    pub(super) async fn lost_plugin(&mut self) {
        let llm_gone = link(&mut self.llm).is_some_and(|(_, received)| received.events.is_closed());
        let (component, what) = if llm_gone {
            self.llm.as_mut().map(|stage| stage.link.take());
            (ComponentKind::Llm, "language model")
        } else {
            self.tts.as_mut().map(|stage| stage.link.take());
            (ComponentKind::Tts, "synthesiser")
        };
        self.broken = true;
        self.error(None, component, "plugin_gone", format!("the {what} has ended its session")).await;
        self.interrupt(InterruptReason::Other("plugin_gone".into())).await;
    }

    /// The player ended before the conversation, which is a bug; the rest is said to nobody.
    pub(super) async fn lost_player(&mut self) {
        self.broken = true;
        self.player = Some(Player::start(Box::new(Discard), self.pace));
        self.error(None, ComponentKind::Edge, "output", "the player has ended".into()).await;
        self.interrupt(InterruptReason::Other("output".into())).await;
    }

    /// Stops the reply at once: no further audio leaves.
    pub(super) async fn interrupt(&mut self, reason: InterruptReason) {
        let Some(reply) = &self.reply else { return };
        if let Some(player) = &self.player {
            player.flush_before(reply.generation + 1);
        }
        if let (Some((llm, _)), Some(token)) = (link(&mut self.llm), reply.llm_token) {
            llm.cancel(token);
        }
        if let Some((tts, _)) = link(&mut self.tts) {
            reply.running_syntheses().into_iter().for_each(|token| tts.cancel(token));
        }
        self.end_reply(Some(reason)).await;
    }

    /// Says how the reply ended, and what of it was heard.
    pub(super) async fn end_reply(&mut self, interrupted: Option<InterruptReason>) {
        let Some(mut reply) = self.reply.take() else { return };
        let now = self.clock.now();
        let (turn_id, speech_id) = (reply.turn_id, reply.speech_id);
        // Without a synthesiser the reply is text, and all of it arrived.
        let spoken =
            if self.tts.is_some() { reply.ledger.heard() } else { reply.generated.trim().to_owned() };
        let played = reply.ledger.played_total();
        let played_ms = played.as_secs_f64() * 1e3;
        let was_cut = interrupted.is_some();
        if let Some(reason) = &interrupted
            && reply.has_chunks()
        {
            let event = SpeechInterruptedEvent {
                speech_id,
                reason: reason.clone(),
                scope: InterruptScope::Response,
                spoken_text: Some(spoken.clone()),
                played_ms: Some(played_ms),
                discarded_bytes: None,
            };
            self.tell(turn_id, event).await;
        }
        if reply.audible {
            reply.times.playback_end = Some(now);
            let event = AudioPlaybackEndEvent { speech_id: Some(speech_id), played_ms: Some(played_ms) };
            self.tell(turn_id, event).await;
        }
        if !spoken.is_empty() {
            let event =
                transcript(spoken.clone(), TranscriptMode::Final, reply.request_id.clone(), None, was_cut);
            self.tell(turn_id, event).await;
            self.remember_as(reply.request_id.clone(), Role::Assistant, &spoken, was_cut);
        }
        if reply.audible {
            let event = AgentTurnEndedEvent {
                interrupted: was_cut,
                speech_id,
                reason: interrupted,
                generated_text: Some(reply.generated.clone()),
                spoken_text: Some(spoken.clone()),
                played_ms: Some(played_ms),
            };
            self.tell(turn_id, event).await;
        }
        if !spoken.is_empty() {
            self.history_changed(turn_id).await;
        }
        if turn_id.is_some() {
            let event = TurnMetricsEvent {
                transcript: reply.transcript.clone(),
                modality: reply.modality,
                eager_used: false,
                interrupted: was_cut,
                timestamps: reply.times.timestamps(now),
                durations: reply.times.durations(now),
                tool_time_ms: None,
            };
            self.tell(turn_id, event).await;
            if reply.failed {
                self.summary.failed += 1;
            } else {
                self.summary.answered += 1;
            }
        }
        self.summary.spoken_ms += played_ms;
        self.settle_in(turn_id, "agent.agent_turn_ended").await;
        drop(reply.answered.take());
    }
}

fn transcript(
    text: String,
    mode: TranscriptMode,
    message_id: String,
    chunk: Option<usize>,
    interrupted: bool,
) -> AgentTranscriptEvent {
    AgentTranscriptEvent {
        text,
        mode,
        message_id,
        content_index: chunk.map(|chunk| u32::try_from(chunk).unwrap_or(u32::MAX)),
        utterance_id: None,
        interrupted,
        end_of_speech: mode == TranscriptMode::Final,
        cue_tag: None,
        model: None,
    }
}

fn try_receive<S>(stage: &mut Option<Stage<S>>) -> Option<Arc<Envelope>> {
    link(stage)?.1.events.try_recv().ok()
}

fn try_receive_audio<S>(stage: &mut Option<Stage<S>>) -> Option<Incoming> {
    link(stage)?.1.audio.try_recv().ok()
}

/// What the agent's own error is called: a plugin that is gone is told apart from one that failed.
fn code_of<'a>(code: Option<&'a str>, other: &'a str) -> &'a str {
    code.filter(|code| *code == CRASHED).unwrap_or(other)
}
