//! A host that has no room for a while, and one that has gone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use antiphon_plugin_api::abi::Outcome;

use super::{about, exchange};
use crate::{
    Kind,
    check::{
        Problem,
        message::Checked,
        record::{Output, Room},
        running::Context,
        session::Open,
    },
};

/// How long the host has no room.
const HOLD: Duration = Duration::from_millis(300);

/// Attempts in that time that are still no spinning: two for each output that waits, and some to spare.
const ATTEMPTS: usize = 200;

/// Outputs that are taken one at a time before there is room for all.
const ONE_BY_ONE: usize = 3;

#[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
pub(in crate::check) fn full(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let (running, input) = (context.start()?, context.input(kind));
    let free = running.open(kind)?;
    free.exchange(&input)?;
    let want = said(&free);
    free.conclude()?;

    let session = running.open(kind)?;
    session.record.set_room(Room::For(0));
    let token = session.begin(&input)?;
    context.tell.stage("waiting until the plugin waits for room");
    let spins = |in_vain: usize| in_vain > ATTEMPTS;
    session.record.wait(context.patience.until, |state| {
        (state.in_vain > 0 && state.is_waiting()) || state.has_ended(token) || spins(state.in_vain)
    });
    context.tell.stage("having no room for a while");
    let until = Instant::now() + HOLD;
    session.record.wait(until, |state| state.has_ended(token) || spins(state.in_vain));
    let (in_vain, has_ended) = (session.record.in_vain(), session.record.outcome(token).is_some());
    if spins(in_vain) {
        return Err(context.tell.fail(Problem::new(
            format!("{in_vain} attempts while there was no room"),
            "a plugin that waits until its waker is called",
            "on FULL register a waker with `wake_when_ready`, try once more, then wait for it",
        )));
    }
    if has_ended && in_vain > 0 {
        return Err(context.tell.fail(Problem::new(
            "the command was finished while its outputs found no room",
            "outputs that wait for room, and the end after them",
            "repeat an output until it is answered with something else than FULL",
        )));
    }
    if has_ended {
        session.conclude()?;
        running.stop()?;
        return Err(context.tell.skip("this input gives rise to no output, so nothing can be held back"));
    }
    let stuck = |context: &Context| {
        context.tell.fail(Problem::new(
            "the plugin did not go on when there was room and its waker was called",
            "the output that waited, tried again",
            "let the waker wake the task that waits; register one each time you find no room",
        ))
    };
    for _ in 0..ONE_BY_ONE {
        context.tell.stage("making room for one output");
        let before = session.record.outputs().len();
        session.record.set_room(Room::For(1));
        // The last output may have gone with the room before; then the end is all that is left to come.
        if !session
            .record
            .wait(context.patience.until, |state| state.said() > before || state.has_ended(token))
        {
            return Err(stuck(context));
        }
        if session.record.outcome(token).is_some() {
            break;
        }
    }
    context.tell.stage("making room for all outputs");
    session.record.set_room(Room::Any);
    if !session.record.wait(context.patience.until, |state| state.has_ended(token)) {
        return Err(stuck(context));
    }
    let outcome = session.finished(token)?;
    complete(context, &session, outcome, &want)?;
    session.conclude()?;
    running.stop()
}

/// How many of each: events by type, and samples of audio.
fn said(session: &Open) -> BTreeMap<String, usize> {
    let mut said = BTreeMap::new();
    for output in session.record.outputs() {
        match output {
            // Come and go beside the command.
            Output::Event { name, .. } if name.ends_with(".connected") || name.ends_with(".disconnected") => {
            }
            Output::Event { name, .. } => *said.entry(name).or_default() += 1,
            Output::Audio { samples, .. } => *said.entry("audio".to_owned()).or_default() += samples,
            Output::Finished { .. } => {}
        }
    }
    said
}

/// Nothing is missing of what there was without a wait.
fn complete(context: &Context, session: &Open, outcome: Outcome, want: &BTreeMap<String, usize>) -> Checked {
    let advice = "wait with an output until the host has taken it; queue what comes meanwhile";
    let found = said(session);
    if let Some((lost, _)) = want.iter().find(|(name, _)| !found.contains_key(*name)) {
        return Err(context.tell.fail(Problem::new(
            format!("{lost} never came after the wait (the command ended as {outcome:?})"),
            "everything that comes when there is room",
            advice,
        )));
    }
    exchange::pieces(context, session, &session.record.events("llm.response.delta"))?;
    if let Some(complete) = session.record.events("tts.synthesis.complete").first() {
        let bytes: usize = session.record.outputs().iter().map(|output| exchange::samples(output) * 2).sum();
        let told = complete.get("total_audio_bytes").and_then(serde_json::Value::as_u64);
        if told.is_some_and(|told| told != bytes as u64) {
            return Err(context.tell.fail(Problem::new(
                format!("{bytes} bytes of audio came, and tts.synthesis.complete tells of {told:?}"),
                "all of the audio",
                advice,
            )));
        }
    }
    // A model may say something else each time.
    if found != *want && session.kind() != Kind::Llm {
        let text = |said: &BTreeMap<String, usize>| {
            said.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        context.tell.warn(Problem::new(
            format!("with waits there were {}, without {}", text(&found), text(want)),
            "the same for the same input",
            advice,
        ));
    }
    Ok(())
}

pub(in crate::check) fn gone(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let session = running.open(kind)?;
    session.record.set_room(Room::Gone);
    let token = session.begin(&context.input(kind))?;
    context.tell.stage("waiting for the end of a command whose outputs are refused");
    session.finished(token)?;
    session.conclude()?;
    running.stop()
}
