//! Listening: gives the user's audio to the turn detector, cuts utterances by what it says, and has them recognised.
//!
//! The recogniser gets audio only after the turn detector has decided about it. Utterances are therefore the same to the
//! sample however fast the audio comes, and silence costs no recognition.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    AudioChunk, PluginBaseEvent, SessionBus, TurnId,
    event::{
        Envelope, EventPayload, Stamp,
        audio::AudioReceivedEvent,
        stt::{SttErrorEvent, SttUtteranceFinalEvent},
        turn::{TurnEndedEvent, TurnStartedEvent},
        values::{ComponentKind, PcmData},
    },
};
use antiphon_plugin_api::abi::Outcome;
use tokio::sync::{mpsc, oneshot};

use super::{
    Pace,
    stage::{Stage, link},
};
use crate::{
    plugins::{Received, SttSession, TurnSession},
    worker::CRASHED,
};

/// Time after which a turn detector that has not answered counts as hung: 500 times what the slowest takes.
const TURN_DEADLINE: Duration = Duration::from_secs(5);

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    TurnStarted {
        turn_id: TurnId,
    },
    TurnEnded {
        turn_id: TurnId,
        duration_ms: Option<f64>,
        trailing_silence_ms: Option<f64>,
    },
    /// What the user said; empty when nothing was understood. Whoever drops `answered` lets the listening go on.
    Utterance {
        turn_id: TurnId,
        text: String,
        confidence: Option<f64>,
        language: Option<String>,
        answered: oneshot::Sender<()>,
    },
    /// The turn has no transcript.
    Failed {
        turn_id: TurnId,
        code: &'static str,
        message: String,
    },
    /// Listening itself has a problem that is not one turn's.
    Broken {
        component: ComponentKind,
        code: &'static str,
        message: String,
        /// It stays so.
        lasting: bool,
    },
    /// No more will come.
    Ended,
}

pub(super) struct Ear {
    pub(super) session: SessionBus,
    pub(super) turn: Option<Stage<TurnSession>>,
    pub(super) stt: Option<Stage<SttSession>>,
    pub(super) audio: mpsc::Receiver<Option<AudioChunk>>,
    pub(super) heard: mpsc::Sender<Heard>,
    pub(super) turns: Arc<AtomicU64>,
    pub(super) pace: Pace,
    pub(super) pre_roll: Duration,
    pub(super) stt_deadline: Duration,
    pub(super) host: Arc<PluginBaseEvent>,
}

/// The state while it listens.
struct Listening {
    ear: Ear,
    recent: VecDeque<AudioChunk>,
    recent_length: Duration,
    current: Option<TurnId>,
}

/// The agent is gone.
struct Gone;

impl Ear {
    pub(super) async fn run(self) {
        let mut listening =
            Listening { ear: self, recent: VecDeque::new(), recent_length: Duration::ZERO, current: None };
        // An agent that is gone wants no more; what is open is closed all the same.
        let _ = listening.listen().await;
        let Listening { ear, .. } = listening;
        let _ = ear.heard.send(Heard::Ended).await;
        let turn = ear.turn.as_ref().and_then(|stage| stage.link.as_ref()).map(|(turn, _)| turn.close());
        let stt = ear.stt.as_ref().and_then(|stage| stage.link.as_ref()).map(|(stt, _)| stt.close());
        for closing in [turn, stt].into_iter().flatten() {
            if tokio::time::timeout(TURN_DEADLINE, closing.finished()).await.is_err() {
                tracing::warn!("a plugin did not close its session within {} s", TURN_DEADLINE.as_secs());
            }
        }
    }
}

impl Listening {
    async fn listen(&mut self) -> Result<(), Gone> {
        while let Some(Some(chunk)) = self.ear.audio.recv().await {
            self.hear(chunk).await?;
        }
        if let Some((turn, received)) = link(&mut self.ear.turn) {
            let flushed = async { Some(turn.flush().await.ok()?.finished().await) };
            let _ = tokio::time::timeout(TURN_DEADLINE, flushed).await;
            let events = drain(received);
            for event in events {
                self.turn_event(&event).await?;
            }
        }
        if let Some(turn_id) = self.current {
            self.end_turn(turn_id, None, None).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, chunk: AudioChunk) -> Result<(), Gone> {
        self.publish(&chunk);
        self.remember(&chunk);
        let was_open = self.current.is_some();
        if let Some(stage) = self.ear.turn.as_mut().filter(|stage| stage.link.is_none()) {
            stage.recover().await;
        }
        let events = match link(&mut self.ear.turn) {
            Some((turn, received)) => {
                let decided = async { Some(turn.push_audio(&chunk).await.ok()?.finished().await) };
                let problem = match tokio::time::timeout(TURN_DEADLINE, decided).await {
                    Ok(Some(Outcome::COMPLETED)) => None,
                    Ok(_) => {
                        Some("turn detection failed; without it the rest is taken as one turn".to_owned())
                    }
                    Err(_) => {
                        Some(format!("turn detection did not answer for {} s", TURN_DEADLINE.as_secs()))
                    }
                };
                let events = drain(received);
                if let Some(message) = problem {
                    self.lose_turn_detection(message).await?;
                }
                events
            }
            None => Vec::new(),
        };
        // Without a turn detector, everything is one turn.
        if link(&mut self.ear.turn).is_none() && !was_open {
            return self.begin_turn().await;
        }
        if was_open {
            self.recognise(&chunk).await?;
        }
        for event in events {
            self.turn_event(&event).await?;
        }
        Ok(())
    }

    async fn turn_event(&mut self, event: &Arc<Envelope>) -> Result<(), Gone> {
        if event.payload_as::<TurnStartedEvent>().is_some() && self.current.is_none() {
            return self.begin_turn().await;
        }
        if let (Some(ended), Some(turn_id)) = (event.payload_as::<TurnEndedEvent>(), self.current) {
            return self.end_turn(turn_id, ended.duration_ms, ended.trailing_silence_ms).await;
        }
        Ok(())
    }

    async fn begin_turn(&mut self) -> Result<(), Gone> {
        let turn_id = TurnId(self.ear.turns.fetch_add(1, Ordering::Relaxed) + 1);
        self.current = Some(turn_id);
        self.tell(Heard::TurnStarted { turn_id }).await?;
        if let Some(stage) = &mut self.ear.stt {
            stage.switch_back().await;
            let (stt, received) = match stage.ensure().await {
                Ok(link) => link,
                Err(down) => {
                    let message = down.to_string();
                    return self
                        .tell(Heard::Broken {
                            component: ComponentKind::Stt,
                            code: "provider_down",
                            message,
                            lasting: false,
                        })
                        .await;
                }
            };
            // What an earlier utterance left behind is not this one's.
            drain(received);
            let begun = tokio::time::timeout(self.ear.stt_deadline, stt.begin(turn_id)).await;
            if !matches!(begun, Ok(Ok(()))) {
                return self.lose_stt().await;
            }
        }
        let recent: Vec<_> = self.recent.iter().cloned().collect();
        for chunk in recent {
            self.recognise(&chunk).await?;
        }
        Ok(())
    }

    async fn recognise(&mut self, chunk: &AudioChunk) -> Result<(), Gone> {
        if let Some((stt, _)) = link(&mut self.ear.stt) {
            match tokio::time::timeout(self.ear.stt_deadline, stt.push_audio(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return self.lose_stt().await,
            }
        }
        Ok(())
    }

    async fn lose_stt(&mut self) -> Result<(), Gone> {
        // A plugin that is gone is told of at the end of the turn, which it cost; the next one has another.
        if self.ear.stt.as_ref().is_some_and(Stage::has_ended) {
            return Ok(());
        }
        let reason = link(&mut self.ear.stt).and_then(|(_, received)| error_in(&drain(received)));
        self.ear.stt = None;
        let message =
            reason.map_or_else(|| "the recogniser takes no more audio".into(), |(_, message)| message);
        self.tell(Heard::Broken { component: ComponentKind::Stt, code: "stt", message, lasting: true }).await
    }

    /// Goes on with another session, where the plugin itself is gone and comes back; until then the rest is one turn.
    async fn lose_turn_detection(&mut self, message: String) -> Result<(), Gone> {
        let component = ComponentKind::TurnDetector;
        let Some(stage) = &mut self.ear.turn else { return Ok(()) };
        if !stage.has_ended() {
            // It may be hung, which its supervisor finds out later.
            stage.link = None;
            return self
                .tell(Heard::Broken { component, code: "turn_detection", message, lasting: true })
                .await;
        }
        let (code, message, lasting) = match stage.ensure().await {
            Ok(_) => (CRASHED, "turn detection broke and was started again".to_owned(), false),
            Err(down) => {
                stage.link = None;
                ("turn_detection", format!("{down}; without it the rest is taken as one turn"), true)
            }
        };
        self.tell(Heard::Broken { component, code, message, lasting }).await
    }

    async fn end_turn(
        &mut self,
        turn_id: TurnId,
        duration_ms: Option<f64>,
        trailing_silence_ms: Option<f64>,
    ) -> Result<(), Gone> {
        self.current = None;
        self.recent.clear();
        self.recent_length = Duration::ZERO;
        self.tell(Heard::TurnEnded { turn_id, duration_ms, trailing_silence_ms }).await?;
        if let Some(stage) = &mut self.ear.turn {
            stage.switch_back().await;
        }
        let Some((stt, received)) = link(&mut self.ear.stt) else {
            let message = "there is no recogniser".to_owned();
            return self.tell(Heard::Failed { turn_id, code: "no_provider", message }).await;
        };
        let ended = async { Some(stt.end().await.ok()?.finished().await) };
        let outcome = tokio::time::timeout(self.ear.stt_deadline, ended).await;
        let events = drain(received);
        let utterance = events.iter().rev().find_map(|event| event.payload_as::<SttUtteranceFinalEvent>());
        let Some(utterance) = utterance else {
            let (code, message) = error_in(&events).unwrap_or_else(|| match outcome {
                Err(_) => {
                    let waited = self.ear.stt_deadline.as_secs();
                    ("stt", format!("the recogniser gave no transcript within {waited} s"))
                }
                Ok(_) => ("stt", "the recogniser gave no transcript".into()),
            });
            return self.tell(Heard::Failed { turn_id, code, message }).await;
        };
        let (answered, answer) = oneshot::channel();
        let heard = Heard::Utterance {
            turn_id,
            text: utterance.text.clone(),
            confidence: utterance.confidence,
            language: utterance.language.clone(),
            answered,
        };
        self.tell(heard).await?;
        if self.ear.pace == Pace::Fast {
            // Resolves when the reply is over, or when there is none.
            let _ = answer.await;
        }
        Ok(())
    }

    async fn tell(&self, heard: Heard) -> Result<(), Gone> {
        self.ear.heard.send(heard).await.map_err(|_| Gone)
    }

    fn remember(&mut self, chunk: &AudioChunk) {
        self.recent_length += chunk.duration();
        self.recent.push_back(chunk.clone());
        while let Some(first) = self.recent.front()
            && self.recent_length.saturating_sub(first.duration()) >= self.ear.pre_roll
        {
            self.recent_length -= first.duration();
            self.recent.pop_front();
        }
    }

    fn publish(&self, chunk: &AudioChunk) {
        if !self.ear.session.is_wanted(AudioReceivedEvent::event_type()) {
            return;
        }
        let event = AudioReceivedEvent {
            pcm_data: Some(PcmData(chunk.clone())),
            size_bytes: Some(chunk.samples().len() as u64 * 2),
            format: Some("s16".into()),
        };
        let stamp =
            Stamp { turn_id: self.current, plugin: Some(Arc::clone(&self.ear.host)), ..Stamp::default() };
        let _ = self.ear.session.emit_with(event, stamp);
    }
}

fn drain(received: &mut Received) -> Vec<Arc<Envelope>> {
    std::iter::from_fn(|| received.events.try_recv().ok()).collect()
}

/// The last error of a recogniser: its code, as the agent calls it, and its text.
fn error_in(events: &[Arc<Envelope>]) -> Option<(&'static str, String)> {
    events.iter().rev().find_map(|event| event.payload_as::<SttErrorEvent>()).map(|error| {
        let is_crash = error.error_code.as_deref() == Some(CRASHED);
        (if is_crash { CRASHED } else { "stt" }, error.error_message.clone())
    })
}
