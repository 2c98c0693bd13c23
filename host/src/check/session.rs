//! One session of a plugin, whatever it is for: commands with bounded waits, and an end that is looked at closely.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::{AudioChunk, SpeechId, VideoFrame};
use antiphon_plugin_api::{
    LlmRequest, TtsRequest,
    abi::{
        LlmSessionBox, Outcome, SinkBox, Status, SttSessionBox, TtsSessionBox, TurnSessionBox, VideoV1,
        VisionSessionBox, WakerBox,
        abi_stable::{erased_types::TD_Opaque, std_types::RSlice},
    },
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Problem,
    material::Input,
    message::Checked,
    record::{Output, Record, Sink, Types},
    running::{Bell, Patience, Tell},
};
use crate::Kind;

/// The plugin's object of a session.
pub(super) enum Session {
    Turn(TurnSessionBox),
    Stt(SttSessionBox),
    Llm(LlmSessionBox),
    Tts(TtsSessionBox),
    Vision(VisionSessionBox),
}

impl Session {
    fn close(&self, token: u64) {
        match self {
            Self::Turn(session) => session.close(token),
            Self::Stt(session) => session.close(token),
            Self::Llm(session) => session.close(token),
            Self::Tts(session) => session.close(token),
            Self::Vision(session) => session.close(token),
        }
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        match self {
            Self::Turn(session) => session.wake_when_ready(waker),
            Self::Stt(session) => session.wake_when_ready(waker),
            Self::Llm(session) => session.wake_when_ready(waker),
            Self::Tts(session) => session.wake_when_ready(waker),
            Self::Vision(session) => session.wake_when_ready(waker),
        }
    }
}

/// An open session. Its object is dropped only where a test says so.
pub(super) struct Open {
    kind: Kind,
    id: String,
    session: Option<Session>,
    pub(super) record: Arc<Record>,
    tell: Tell,
    patience: Patience,
    slowest: Mutex<Duration>,
}

/// Numbers that no other command, turn or session of this process has.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A call into the plugin that takes longer than this holds up the host. Commands only queue, so it is never near.
const BLOCKING: Duration = Duration::from_millis(500);

impl Open {
    /// A new id, the sink for the plugin, and the record of what comes into it.
    pub(super) fn sink(kind: Kind, types: &Arc<Types>) -> (String, SinkBox, Arc<Record>) {
        let id = format!("check-{}", next());
        let record = Arc::new(Record::new(kind, Arc::clone(types)));
        let sink = Sink { record: Arc::clone(&record), prefix: format!("{id}-") };
        (id, SinkBox::from_value(sink, TD_Opaque), record)
    }

    pub(super) fn new(
        kind: Kind,
        id: String,
        session: Session,
        record: Arc<Record>,
        tell: Tell,
        patience: Patience,
    ) -> Self {
        Self { kind, id, session: Some(session), record, tell, patience, slowest: Mutex::default() }
    }

    fn session(&self) -> &Session {
        self.session.as_ref().expect("taken by `let_go` alone, which consumes this")
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Sends a command that may well be refused.
    pub(super) fn try_short(&self, input: &Input) -> Checked<(u64, Status)> {
        self.try_command(|session, token, turn| match input {
            Input::Audio(_) => session.end(token),
            Input::Picture(frame) => session.look(token, frame),
            Input::Messages(_) | Input::Text(_) => session.ask(token, turn, &request(&self.id, token, input)),
        })
    }

    /// Calls into the plugin, and notes how long that took.
    #[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
    fn call<T>(&self, call: impl FnOnce(&Session) -> T) -> T {
        let begun = Instant::now();
        let answer = call(self.session());
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = (*slowest).max(begun.elapsed());
        answer
    }

    /// Sends a command; waits where the plugin has no room.
    fn send(&self, attempt: impl Fn(&Session) -> Status) -> Checked<Status> {
        loop {
            let status = self.call(&attempt);
            if status != Status::FULL {
                return Ok(status);
            }
            let bell = Bell::default();
            self.call(|session| session.wake_when_ready(bell.waker()));
            let status = self.call(&attempt);
            if status != Status::FULL {
                return Ok(status);
            }
            if !bell.wait(self.patience.quick()) {
                return Err(self.tell.fail(Problem::new(
                    format!("a command was answered with FULL, and the waker was not called within {:.1} s", self.patience.quick().as_secs_f64()),
                    "a waker that is called as soon as there may be room",
                    "wake whoever waits whenever a command was taken from the queue, and when the session ends",
                )));
            }
        }
    }

    fn accepted(&self, what: &str, status: Status) -> Checked {
        if status == Status::ACCEPTED {
            return Ok(());
        }
        Err(self.tell.fail(Problem::new(
            format!("{what} was answered with {status:?}"),
            "ACCEPTED, or FULL until there is room",
            "take commands as long as the session is open",
        )))
    }

    /// A command with a token: sends it, whatever becomes of it.
    pub(super) fn try_command(
        &self,
        attempt: impl Fn(&Session, u64, u64) -> Status,
    ) -> Checked<(u64, Status)> {
        let (token, turn_id) = (next(), next());
        self.record.begin(token, turn_id);
        let status = self.send(|session| attempt(session, token, turn_id))?;
        if status != Status::ACCEPTED {
            self.record.not_taken(token);
        }
        Ok((token, status))
    }

    fn command(&self, what: &str, attempt: impl Fn(&Session, u64, u64) -> Status) -> Checked<u64> {
        let (token, status) = self.try_command(attempt)?;
        self.accepted(what, status)?;
        Ok(token)
    }

    /// Begins to work on something; the token that is finished when it is done.
    pub(super) fn begin(&self, input: &Input) -> Checked<u64> {
        self.tell.stage(format!("working on {} in a session of {}", input.shown(), self.kind));
        match (input, self.session()) {
            (Input::Audio(chunks), Session::Turn(_)) => {
                for chunk in chunks {
                    self.command("audio", |session, token, _| session.hear(token, chunk))?;
                }
                self.command("flush", |session, token, _| session.end(token))
            }
            (Input::Audio(chunks), Session::Stt(_)) => {
                self.utter(chunks)?;
                self.command("end", |session, token, _| session.end(token))
            }
            (Input::Messages(_), _) => self.command("a request", |session, token, turn| {
                session.ask(token, turn, &request(&self.id, token, input))
            }),
            (Input::Text(_), _) => self.command("a request", |session, token, turn| {
                session.ask(token, turn, &request(&self.id, token, input))
            }),
            (Input::Picture(frame), _) => {
                self.command("a picture", |session, token, _| session.look(token, frame))
            }
            (Input::Audio(_), _) => unreachable!("tests give audio to what hears"),
        }
    }

    /// Gives a recogniser the audio of an utterance, and leaves it open.
    pub(super) fn utter(&self, chunks: &[AudioChunk]) -> Checked {
        let turn_id = next();
        self.record.listen(turn_id);
        let status = self.send(|session| match session {
            Session::Stt(session) => session.begin(turn_id),
            _ => Status::REFUSED,
        })?;
        self.accepted("begin", status)?;
        for chunk in chunks {
            let status = self.send(|session| session.hear(0, chunk))?;
            self.accepted("audio", status)?;
        }
        Ok(())
    }

    /// Drops an utterance.
    pub(super) fn cancel_utterance(&self) -> Checked<u64> {
        self.command("cancel", |session, token, _| match session {
            Session::Stt(session) => session.cancel(token),
            _ => Status::REFUSED,
        })
    }

    /// Sends a request of any bytes.
    pub(super) fn ask_bytes(&self, bytes: &[u8]) -> Checked<(u64, Status)> {
        self.try_command(|session, token, turn| session.ask(token, turn, bytes))
    }

    pub(super) fn cancel(&self, token: u64) {
        self.call(|session| match session {
            Session::Llm(session) => session.cancel(token),
            Session::Tts(session) => session.cancel(token),
            Session::Vision(session) => session.cancel(token),
            Session::Turn(_) | Session::Stt(_) => {}
        });
    }

    /// Waits until a command has ended.
    pub(super) fn finished(&self, token: u64) -> Checked<Outcome> {
        self.finished_until(token, self.patience.until)
    }

    pub(super) fn finished_until(&self, token: u64, until: Instant) -> Checked<Outcome> {
        self.record.wait(until, |state| state.has_ended(token));
        self.record.outcome(token).ok_or_else(|| {
            for problem in self.record.problems() {
                self.tell.fail(problem);
            }
            let said = self.record.outputs().len();
            self.tell.fail(Problem::new(
                format!("a command was not finished in time, after {said} outputs{}", self.errors()),
                "finished for each accepted command",
                "finish the token also on errors, and answer in time; --timeout gives slow plugins more of it",
            ))
        })
    }

    /// Works on something to its end.
    pub(super) fn exchange(&self, input: &Input) -> Checked<Outcome> {
        let token = self.begin(input)?;
        self.finished(token)
    }

    /// As an exchange, and it must succeed.
    pub(super) fn succeed(&self, input: &Input) -> Checked {
        self.exchange(input)?;
        // What hears is given many commands in a row.
        let bad = |output: &Output| match output {
            Output::Finished { outcome, .. } if *outcome != Outcome::COMPLETED => Some(*outcome),
            _ => None,
        };
        self.completed(self.record.outputs().iter().find_map(bad).unwrap_or(Outcome::COMPLETED))?;
        match self.errors() {
            error if error.is_empty() => Ok(()),
            error => Err(self.tell.fail(Problem::new(
                format!("an ordinary command brought an error{error}"),
                "an answer without errors",
                "see the error and the log of the plugin",
            ))),
        }
    }

    pub(super) fn completed(&self, outcome: Outcome) -> Checked {
        if outcome == Outcome::COMPLETED {
            return Ok(());
        }
        Err(self.tell.fail(Problem::new(
            format!("an ordinary command ended as {outcome:?}{}", self.errors()),
            "COMPLETED",
            "see the error and the log of the plugin; the conversation would go without this answer",
        )))
    }

    /// What the plugin said of its errors.
    pub(super) fn errors(&self) -> String {
        let of = |output: &Output| match output {
            Output::Event { name, payload, .. } if name.ends_with(".error") => payload
                .get("error_message")
                .and_then(|text| text.as_str())
                .map(|text| format!(": {name}: {text}")),
            _ => None,
        };
        self.record.outputs().iter().rev().find_map(of).unwrap_or_default()
    }

    /// Closes the session; the token that is finished last.
    pub(super) fn close(&self) -> u64 {
        self.tell.stage(format!("closing a session of {}", self.kind));
        let token = next();
        self.record.close(token);
        self.call(|session| session.close(token));
        token
    }

    /// Waits for the end of the session.
    pub(super) fn closed(&self, token: u64) -> Checked {
        let quick = self.patience.quick();
        if !self.record.wait(self.patience.soon(), |state| state.has_ended(token)) {
            return Err(self.tell.fail(Problem::new(
                format!("`close` was not finished within {:.1} s", quick.as_secs_f64()),
                "a session that ends at once: what it does is cancelled, and what it has to say is dropped",
                "drop the session's work when it is closed; do not wait for room in the sink, nor for the network",
            )));
        }
        Ok(())
    }

    /// Drops the session's object.
    pub(super) fn let_go(mut self) -> Ended {
        self.tell.stage(format!("dropping a session of {}", self.kind));
        drop(self.session.take());
        let slowest = *self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        Ended { record: Arc::clone(&self.record), tell: self.tell.clone(), slowest }
    }

    /// Closes and drops the session, and tells of all that was wrong in it.
    pub(super) fn conclude(self) -> Checked {
        let token = self.close();
        self.closed(token)?;
        let left = self.record.running();
        let ended = self.let_go();
        ended.settle(grace());
        ended.look(&left)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        std::mem::forget(self.session.take());
    }
}

/// Time for the plugin to let go of the sink, and to say what it must not say any more.
#[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
pub(super) fn grace() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

/// A session that is over.
pub(super) struct Ended {
    pub(super) record: Arc<Record>,
    tell: Tell,
    slowest: Duration,
}

impl Ended {
    /// Waits until the plugin has let go of the sink, and says whether it has.
    pub(super) fn settle(&self, until: Instant) -> bool {
        self.record.wait(until, |state| state.is_dropped)
    }

    /// Tells of all that was wrong; `left` had not ended when the session was.
    pub(super) fn look(&self, left: &[u64]) -> Checked {
        let mut all = Ok(());
        if let Some(token) = left.first() {
            all = Err(self.tell.fail(Problem::new(
                format!("command {token} was accepted, and `close` was finished without it"),
                "exactly one finished for each accepted command, before that of `close`",
                "finish what still waits or runs as CANCELLED when the session is closed",
            )));
        }
        for problem in self.record.problems() {
            all = Err(self.tell.fail(problem));
        }
        if self.slowest > BLOCKING {
            self.tell.warn(Problem::new(
                format!("a call into the plugin took {} ms", self.slowest.as_millis()),
                "calls that only queue",
                "do the work on a thread or task of the plugin's own: the host's thread waits meanwhile",
            ));
        }
        all
    }
}

/// Concludes many sessions at once.
pub(super) fn conclude_all(sessions: Vec<Open>) -> Checked {
    let tokens: Vec<u64> = sessions.iter().map(Open::close).collect();
    for (session, token) in sessions.iter().zip(tokens) {
        session.closed(token)?;
    }
    let left: Vec<Vec<u64>> = sessions.iter().map(|session| session.record.running()).collect();
    let ended: Vec<Ended> = sessions.into_iter().map(Open::let_go).collect();
    let until = grace();
    ended.iter().for_each(|session| {
        session.settle(until);
    });
    ended.iter().zip(left).map(|(session, left)| session.look(&left)).fold(Ok(()), Result::and)
}

impl Session {
    fn hear(&self, token: u64, chunk: &AudioChunk) -> Status {
        match self {
            Self::Turn(session) => session.push_audio(token, chunk.clone().into()),
            Self::Stt(session) => session.push_audio(chunk.clone().into()),
            _ => Status::REFUSED,
        }
    }

    fn end(&self, token: u64) -> Status {
        match self {
            Self::Turn(session) => session.flush(token),
            Self::Stt(session) => session.end(token),
            _ => Status::REFUSED,
        }
    }

    fn ask(&self, token: u64, turn_id: u64, bytes: &[u8]) -> Status {
        match self {
            Self::Llm(session) => session.respond(token, turn_id, RSlice::from_slice(bytes)),
            Self::Tts(session) => session.synthesize(token, turn_id, RSlice::from_slice(bytes)),
            _ => Status::REFUSED,
        }
    }

    fn look(&self, token: u64, frame: &VideoFrame) -> Status {
        match self {
            Self::Vision(session) => session.process(token, token, VideoV1::from(frame.clone())),
            _ => Status::REFUSED,
        }
    }
}

/// A request as a host sends it. Its id leads from events back to the command.
fn request(session: &str, token: u64, input: &Input) -> Vec<u8> {
    fn encode(request: &impl Serialize) -> Vec<u8> {
        rmp_serde::to_vec_named(request).expect("requests are plain data")
    }
    match input {
        Input::Messages(messages) => encode(&LlmRequest {
            request_id: format!("{session}-{token}"),
            instructions: "You are helpful.".into(),
            messages: messages.clone(),
            eager: false,
        }),
        Input::Text(text) => encode(&TtsRequest {
            text: text.clone(),
            synthesis_id: Uuid::from_u128(u128::from(token)),
            speech_id: SpeechId(Uuid::from_u128(u128::from(token) << 64)),
            chunk_id: 0,
        }),
        Input::Audio(_) | Input::Picture(_) => Vec::new(),
    }
}

impl Input {
    fn shown(&self) -> String {
        match self {
            Self::Audio(chunks) => {
                let frames: usize = chunks.iter().map(AudioChunk::frames).sum();
                format!("{frames} samples of audio")
            }
            Self::Messages(messages) => {
                format!(
                    "a question of {} bytes",
                    messages.iter().map(|message| message.content.len()).sum::<usize>()
                )
            }
            Self::Text(text) => format!("a text of {} bytes", text.len()),
            Self::Picture(frame) => format!("a picture of {} x {}", frame.width(), frame.height()),
        }
    }
}
