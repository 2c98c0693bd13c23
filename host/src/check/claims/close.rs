//! The end of sessions: at once, in the middle, twice, and without a word.

use antiphon_plugin_api::abi::Status;

use super::{about, exchange::expect_status};
use crate::{
    Kind,
    check::{
        Problem,
        message::Checked,
        record::Room,
        running::{Context, Running},
        session::{Open, grace},
    },
};

pub(in crate::check) fn open_close(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    // Closed at once, while it may still be opening, and after it had time to.
    running.open(kind)?.conclude()?;
    let session = running.open(kind)?;
    if running.ping().is_none() {
        return Err(context.tell.fail(Problem::new(
            "a ping was not answered after a session was opened",
            "an answer",
            "do what takes long in `open` in `spawn_blocking`",
        )));
    }
    session.conclude()?;
    running.stop()
}

/// A session with a command that cannot be done, for want of room. What the sink has room for is the start of it.
fn busy(context: &Context, running: &Running, kind: Kind) -> Checked<(Open, u64)> {
    let session = running.open(kind)?;
    session.record.set_room(Room::For(if kind == Kind::Vision { 0 } else { 1 }));
    let token = session.begin(&context.input(kind))?;
    context.tell.stage("waiting until a command is in its middle");
    session.record.wait(context.patience.soon(), |state| state.is_waiting() || state.has_ended(token));
    Ok((session, token))
}

pub(in crate::check) fn midway(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let (session, _) = busy(context, &running, kind)?;
    session.conclude()?;
    // And without any wait, where it is a matter of chance how far the command is.
    for _ in 0..5 {
        let session = running.open(kind)?;
        session.begin(&context.short_input(kind))?;
        session.conclude()?;
    }
    running.stop()
}

pub(in crate::check) fn twice(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let session = running.open(kind)?;
    session.exchange(&context.short_input(kind))?;
    let tokens = [session.close(), session.close()];
    for token in tokens {
        session.closed(token)?;
    }
    context.tell.stage("closing a session that is closed");
    session.closed(session.close())?;
    context.tell.stage("sending a command to a session that is closed");
    let (_, status) = session.try_short(&context.short_input(kind))?;
    let what = "a command after the end of `close`";
    let advice = "answer CLOSED as soon as the session was told to close";
    let closed = expect_status(context, what, status, Status::CLOSED, advice);
    session.conclude()?;
    closed.and_then(|()| running.stop())
}

pub(in crate::check) fn dropped(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    let (session, token) = busy(context, &running, kind)?;
    let ended = session.let_go();
    context.tell.stage("waiting for the end of a session whose object was dropped");
    if !ended.record.wait(context.patience.soon(), |state| state.has_ended(token)) {
        return Err(context.tell.fail(Problem::new(
            "a command of a session whose object was dropped was not finished",
            "its finished, as CANCELLED",
            "close the session in `Drop` of its object",
        )));
    }
    if !ended.settle(grace()) {
        context.tell.warn(Problem::new(
            "the plugin kept the sink of a session that is over for more than a second",
            "a sink that is dropped with its session",
            "drop clones of outputs and contexts when the session is closed",
        ));
    }
    ended.look(&[])?;
    running.stop()
}
