//! Recognisers: one command after the other, whatever happens to one of them.

use std::{future::pending, sync::Arc};

use antiphon_core::AudioChunk;
use antiphon_plugin_api::{
    abi::{Outcome, Status, SttBox, SttSessionBox, abi_stable::std_types::RStr},
    prelude::{NoConfig, Plugin, PluginContext, PluginError, Stt, SttOutput, SttSession, Transcript},
};
use tokio::sync::Semaphore;

use crate::support::{Bomb, Record, Running, exported, session_id, start};

/// What the first sample of a chunk asks for; others are understood as their number.
pub(crate) const FAIL: i16 = -1;
const PANIC: i16 = -2;
const BOMB: i16 = -3;
/// Waits for [`RELEASE`], in whatever session.
pub(crate) const HOLD: i16 = -4;
const RELEASE: i16 = -5;

/// Understands the first sample of each chunk.
pub(crate) struct Script {
    released: Arc<Semaphore>,
}

pub(crate) struct Recogniser {
    output: SttOutput,
    heard: Vec<String>,
    released: Arc<Semaphore>,
    _bomb: Option<Bomb>,
}

impl Plugin for Script {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { released: Arc::new(Semaphore::new(0)) })
    }
}

impl Stt for Script {
    type Session = Recogniser;

    async fn open(&self, output: SttOutput) -> Result<Recogniser, PluginError> {
        let id = output.context().session_id();
        if id.starts_with("no-model") {
            return Err(PluginError::new("model_missing", "there is no model").fatal());
        }
        if id.starts_with("slow") {
            output.listening().await?;
            let _bomb = id.starts_with("slow-bomb").then(|| Bomb);
            pending::<()>().await;
        }
        assert!(!id.starts_with("panic"), "as told");
        let _bomb = id.starts_with("bomb").then(|| Bomb);
        Ok(Recogniser { output, heard: Vec::new(), released: Arc::clone(&self.released), _bomb })
    }
}

impl SttSession for Recogniser {
    async fn begin(&mut self) -> Result<(), PluginError> {
        self.heard.clear();
        self.output.listening().await
    }

    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        match audio.samples()[0] {
            FAIL => return Err(PluginError::new("line", "the line is dead")),
            PANIC => panic!("as told"),
            BOMB => {
                let _bomb = Bomb;
                self.output.listening().await?;
                pending().await
            }
            HOLD => {
                self.output.listening().await?;
                self.released.acquire().await?.forget();
            }
            RELEASE => self.released.add_permits(1),
            sample => self.heard.push(sample.to_string()),
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), PluginError> {
        let transcript = Transcript { text: self.heard.join(" "), ..Transcript::default() };
        self.output.transcript(transcript.clone()).await?;
        self.output.utterance(transcript).await
    }

    async fn cancel(&mut self) -> Result<(), PluginError> {
        self.heard.clear();
        Ok(())
    }
}

exported! { Script, "stt-script", [stt] }

pub(crate) struct Session {
    pub(crate) session: SttSessionBox,
    pub(crate) record: Arc<Record>,
    other: SttSessionBox,
}

pub(crate) fn open(running: &Running) -> Session {
    open_as(running, &session_id())
}

pub(crate) fn open_as(running: &Running, id: &str) -> Session {
    let (sink, record) = running.sink();
    let capability = running.capability::<SttBox>();
    let other = capability.open(RStr::from_str("other"), running.sink().0);
    Session { session: capability.open(RStr::from_str(id), sink), record, other }
}

impl Session {
    pub(crate) fn audio(&self, sample: i16) -> Status {
        self.session.push_audio(AudioChunk::mono(vec![sample; 320]).into())
    }

    /// Lets a chunk of [`HOLD`] go on.
    pub(crate) fn release(&self) {
        assert_eq!(self.other.push_audio(AudioChunk::mono(vec![RELEASE]).into()), Status::ACCEPTED);
    }
}

#[test]
fn an_utterance_is_begun_heard_and_ended_in_order() {
    let session = open(&start::<Script>());
    assert_eq!(session.session.begin(4), Status::ACCEPTED);
    for sample in [3, 1, 2] {
        assert_eq!(session.audio(sample), Status::ACCEPTED);
    }
    assert_eq!(session.session.end(1), Status::ACCEPTED);
    assert_eq!(session.session.begin(5), Status::ACCEPTED);
    session.audio(9);
    session.session.cancel(2);
    session.session.end(3);
    assert_eq!(session.record.finished(3), Outcome::COMPLETED);
    assert_eq!(
        session.record.said(),
        [
            "stt.connected",
            "stt.listening",
            "stt.transcript.final",
            "stt.transcript.utterance_final",
            "finished 1 COMPLETED",
            "stt.listening",
            "finished 2 COMPLETED",
            "stt.transcript.final",
            "stt.transcript.utterance_final",
            "finished 3 COMPLETED",
        ]
    );
    let utterances = session.record.events("stt.transcript.utterance_final");
    assert_eq!((&utterances[0]["text"], &utterances[1]["text"]), (&"3 1 2".into(), &"".into()));
}

#[test]
fn events_of_an_utterance_belong_to_its_turn() {
    let session = open(&start::<Script>());
    session.session.begin(4);
    session.session.end(1);
    session.session.begin(5);
    session.audio(FAIL);
    session.session.end(2);
    session.record.finished(2);
    let turns = session.record.turns();
    assert_eq!(
        turns,
        [
            ("stt.connected", 0),
            ("stt.listening", 4),
            ("stt.transcript.final", 4),
            ("stt.transcript.utterance_final", 4),
            ("stt.listening", 5),
            ("stt.error", 5),
            ("stt.transcript.final", 5),
            ("stt.transcript.utterance_final", 5),
        ]
        .map(|(name, turn)| (name.to_owned(), turn))
    );
}

#[test]
fn a_failing_chunk_is_reported_and_the_session_goes_on() {
    for (sample, code) in [(FAIL, "line"), (PANIC, "panic")] {
        let session = open(&start::<Script>());
        session.session.begin(1);
        session.audio(1);
        session.audio(sample);
        session.audio(2);
        session.session.end(1);
        assert_eq!(session.record.finished(1), Outcome::COMPLETED);
        assert_eq!(session.record.wait_for("stt.error")["error_code"], code);
        assert_eq!(session.record.wait_for("stt.transcript.utterance_final")["text"], "1 2");
    }
}

#[test]
fn a_session_that_cannot_be_opened_fails_every_command() {
    for (id, code) in [("no-model", "model_missing"), ("panic", "panic")] {
        let session = open_as(&start::<Script>(), id);
        assert_eq!(session.session.begin(1), Status::ACCEPTED);
        session.audio(1);
        session.session.end(1);
        session.session.cancel(2);
        assert_eq!(session.record.finished(1), Outcome::FAILED);
        assert_eq!(session.record.finished(2), Outcome::FAILED);
        session.session.close(3);
        assert_eq!(session.record.finished(3), Outcome::COMPLETED);
        assert_eq!(session.record.events("stt.error")[0]["error_code"], code);
        assert_eq!(
            session.record.said(),
            ["stt.error", "finished 1 FAILED", "finished 2 FAILED", "finished 3 COMPLETED"]
        );
    }
}

#[test]
fn a_session_closes_in_the_middle_of_a_command_and_answers_what_waits() {
    for sample in [HOLD, BOMB] {
        let session = open(&start::<Script>());
        session.audio(sample);
        session.record.wait_for("stt.listening");
        session.session.end(1);
        session.session.cancel(2);
        session.session.close(3);
        assert_eq!(session.session.end(4), Status::CLOSED);
        session.record.finished(3);
        assert_eq!(
            session.record.said(),
            [
                "stt.connected",
                "stt.listening",
                "finished 1 CANCELLED",
                "finished 2 CANCELLED",
                "stt.disconnected",
                "finished 3 COMPLETED"
            ]
        );
    }
}

#[test]
fn a_session_closes_while_it_is_opened() {
    for id in ["slow", "slow-bomb"] {
        let session = open_as(&start::<Script>(), id);
        session.record.wait_for("stt.listening");
        session.session.end(1);
        session.session.close(2);
        session.record.finished(2);
        assert_eq!(session.record.said(), ["stt.listening", "finished 1 CANCELLED", "finished 2 COMPLETED"]);
    }
}

#[test]
fn a_session_that_panics_while_it_is_dropped_is_closed() {
    let session = open_as(&start::<Script>(), "bomb");
    session.record.wait_for("stt.connected");
    session.session.close(1);
    assert_eq!(session.record.finished(1), Outcome::COMPLETED);
}

#[test]
fn every_close_is_answered_when_the_session_has_ended() {
    let session = open(&start::<Script>());
    session.record.wait_for("stt.connected");
    session.session.close(1);
    session.session.close(2);
    session.record.finished(2);
    session.session.close(3);
    session.record.finished(3);
    let ends: Vec<_> =
        session.record.said().into_iter().filter(|said| said.starts_with("finished")).collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    assert_eq!(session.record.said()[1], "stt.disconnected");
}

#[test]
fn a_session_whose_object_is_dropped_ends() {
    let session = open(&start::<Script>());
    session.audio(HOLD);
    session.record.wait_for("stt.listening");
    session.session.end(1);
    drop(session.session);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    session.record.dropped();
    assert_eq!(session.record.said().last().map(String::as_str), Some("stt.disconnected"));
}
