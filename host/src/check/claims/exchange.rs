//! Ordinary work: an answer, its events, its interruption, and many of them at once.

use antiphon_plugin_api::abi::{Outcome, Status};
use serde_json::Value;

use super::about;
use crate::{
    Kind,
    check::{
        Problem,
        material::Input,
        message::Checked,
        record::{Output, Room},
        running::Context,
        session::{Open, conclude_all},
    },
};

pub(in crate::check) fn exchange(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let session = running.open(kind)?;
    session.succeed(&context.input(kind))?;
    let answered = answer(context, kind, &session);
    session.conclude()?;
    answered.and_then(|()| running.stop())
}

/// What belongs to an answer, by kind.
fn answer(context: &Context, kind: Kind, session: &Open) -> Checked {
    let fail = |seen: String, expected: &str, advice: &str| {
        Err(context.tell.fail(Problem::new(seen, expected, advice)))
    };
    let count = |name: &str| session.record.events(name).len();
    match kind {
        Kind::Turn => {
            let (started, ended) = (count("turn.started"), count("turn.ended"));
            if started != ended {
                return fail(
                    format!("{started} turns started and {ended} ended, after `flush`"),
                    "as many ends as starts",
                    "end an open turn in `flush`",
                );
            }
        }
        Kind::Stt => {
            let said = count("stt.transcript.utterance_final");
            if said != 1 {
                return fail(
                    format!("stt.transcript.utterance_final came {said} times for one utterance"),
                    "once before `end` is finished, with empty text if nothing was understood",
                    "call `SttOutput::utterance` in `end`, always",
                );
            }
        }
        Kind::Llm => {
            let deltas = session.record.events("llm.response.delta");
            if deltas.is_empty() {
                return fail(
                    "no llm.response.delta came, so nothing would be said".into(),
                    "the answer in pieces",
                    "call `LlmReply::text` for each piece; --text asks something that the model has an answer to",
                );
            }
            return pieces(context, session, &deltas);
        }
        Kind::Tts => {
            let samples: usize = session.record.outputs().iter().map(samples).sum();
            if samples == 0 {
                return fail(
                    "no audio came".into(),
                    "audio for a short sentence",
                    "call `TtsOutput::audio`; --text gives a sentence in the language of the voice",
                );
            }
        }
        Kind::Vision => {
            let detections = session
                .record
                .outputs()
                .iter()
                .filter(|output| matches!(output, Output::Event { .. }))
                .count();
            if detections == 0 {
                return fail(
                    "no event came of a picture".into(),
                    "an event that extends vision.detection, also when there is nothing to see",
                    "emit a detection for each picture",
                );
            }
        }
    }
    Ok(())
}

/// The pieces of an answer are numbered, and together they are the whole.
pub(super) fn pieces(context: &Context, session: &Open, deltas: &[Value]) -> Checked {
    let advice = "let `LlmReply` number the pieces, and wait for each to be taken before the next";
    let numbers: Vec<u64> =
        deltas.iter().filter_map(|delta| delta.get("sequence_number").and_then(Value::as_u64)).collect();
    if numbers.len() == deltas.len() && numbers.iter().zip(0..).any(|(number, place)| *number != place) {
        return Err(context.tell.fail(Problem::new(
            format!("the pieces of the answer came as {:?}", &numbers[..numbers.len().min(20)]),
            "all of them, in their order",
            advice,
        )));
    }
    let whole: String =
        deltas.iter().filter_map(|delta| delta.get("delta").and_then(Value::as_str)).collect();
    let finals = session.record.events("llm.response.final");
    let text = finals.first().and_then(|last| last.get("text")).and_then(Value::as_str);
    match text {
        Some(text) if text != whole => Err(context.tell.fail(Problem::new(
            format!("the pieces are {} bytes together, the whole answer has {}", whole.len(), text.len()),
            "pieces that are the whole answer together",
            advice,
        ))),
        _ => Ok(()),
    }
}

pub(super) fn samples(output: &Output) -> usize {
    match output {
        Output::Audio { samples, .. } => *samples,
        _ => 0,
    }
}

pub(in crate::check) fn events(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let session = running.open(kind)?;
    session.exchange(&context.input(kind))?;
    // What is refused or fails has events too.
    let odd = match context.input(kind) {
        Input::Messages(_) => Some(Input::Messages(Vec::new())),
        Input::Text(_) => Some(Input::Text(String::new())),
        Input::Audio(_) => Some(Input::Audio(Vec::new())),
        Input::Picture(_) => None,
    };
    if let Some(odd) = odd {
        session.exchange(&odd)?;
    }
    session.conclude()?;
    // What is interrupted, too.
    let session = running.open(kind)?;
    session.begin(&context.input(kind))?;
    session.conclude()?;
    running.stop()
}

pub(in crate::check) fn interest(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    running.want(false);
    let session = running.open(kind)?;
    session.exchange(&context.input(kind))?;
    let name = |output: &Output| match output {
        Output::Event { name, .. } => Some(name.clone()),
        _ => None,
    };
    let mut sent: Vec<String> = session.record.outputs().iter().filter_map(name).collect();
    session.conclude()?;
    sent.sort();
    sent.dedup();
    if !sent.is_empty() {
        context.tell.warn(Problem::new(
            format!("{} although nobody wants it", sent.join(", ")),
            "no events that nobody wants: each costs an encoding and a call",
            "look at the event's bit in the interest words before you encode it",
        ));
    }
    running.want(true);
    let session = running.open(kind)?;
    session.exchange(&context.input(kind))?;
    let has_events = session.record.outputs().iter().any(|output| name(output).is_some());
    session.conclude()?;
    // Whether tones are speech is for the detector to say.
    if !has_events && kind != Kind::Turn {
        return Err(context.tell.fail(Problem::new(
            "no event came once all were wanted",
            "the bits to be looked at before each event, not only at the start",
            "keep the words that the host gives, and read them each time",
        )));
    }
    running.stop()
}

pub(in crate::check) fn cancel(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let session = running.open(kind)?;
    let input = context.input(kind);
    match (&input, kind) {
        (Input::Audio(chunks), Kind::Stt) => {
            session.utter(chunks)?;
            let token = session.cancel_utterance()?;
            context.tell.stage("waiting for the end of a cancelled utterance");
            session.finished_until(token, context.patience.soon())?;
        }
        _ => cancel_in_the_middle(context, kind, &session, &input)?,
    }
    context.tell.stage("cancelling what was never sent");
    session.cancel(u64::MAX);
    let token = session.begin(&context.short_input(kind))?;
    let after = session.finished(token)?;
    let completed = if context.text.is_none() { session.completed(after) } else { Ok(()) };
    session.conclude()?;
    completed.and_then(|()| running.stop())
}

/// Takes away the room for outputs, so that the command cannot be done before it is cancelled.
fn cancel_in_the_middle(context: &Context, kind: Kind, session: &Open, input: &Input) -> Checked {
    session.record.set_room(Room::For(if kind == Kind::Vision { 0 } else { 1 }));
    let token = session.begin(input)?;
    context.tell.stage("waiting for the first output");
    session.record.wait(context.patience.soon(), |state| state.is_waiting() || state.has_ended(token));
    let had_ended = session.record.outcome(token).is_some();
    context.tell.stage("waiting for the end of a cancelled command");
    session.cancel(token);
    session.record.set_room(Room::Any);
    let outcome = session.finished_until(token, context.patience.soon())?;
    session.cancel(token);
    if !had_ended && outcome == Outcome::COMPLETED {
        context.tell.warn(Problem::new(
            "a command that was cancelled while it waited for room ended as COMPLETED",
            "CANCELLED",
            "look whether the command is cancelled before each output",
        ));
    }
    Ok(())
}

/// Sessions at once.
const SESSIONS: usize = 64;

pub(in crate::check) fn many(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let sessions = (0..SESSIONS).map(|_| running.open(kind)).collect::<Checked<Vec<_>>>()?;
    let input = context.short_input(kind);
    let tokens = sessions.iter().map(|session| session.begin(&input)).collect::<Checked<Vec<_>>>()?;
    context.tell.stage(format!("waiting for the answers of {SESSIONS} sessions"));
    let mut failed = 0;
    for (session, token) in sessions.iter().zip(tokens) {
        failed += usize::from(session.finished(token)? != Outcome::COMPLETED);
    }
    if failed > 0 {
        let error = sessions.iter().map(Open::errors).find(|text| !text.is_empty()).unwrap_or_default();
        return Err(context.tell.fail(Problem::new(
            format!("{failed} of {SESSIONS} commands at once failed{error}"),
            "an answer for each session, be it later",
            "let commands wait for what there is not enough of",
        )));
    }
    conclude_all(sessions)?;
    running.stop()
}

/// A status that is not what it should be.
pub(super) fn expect_status(
    context: &Context,
    what: &str,
    status: Status,
    want: Status,
    advice: &str,
) -> Checked {
    if status == want {
        return Ok(());
    }
    Err(context.tell.fail(Problem::new(
        format!("{what} was answered with {status:?}"),
        format!("{want:?}"),
        advice,
    )))
}
