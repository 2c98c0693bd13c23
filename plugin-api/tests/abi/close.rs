//! The end of sessions whose commands run side by side, and of plugins.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use antiphon_plugin_api::{
    abi::{LlmBox, Outcome, Status, abi_stable::std_types::RStr},
    prelude::{Llm, LlmReply, LlmRequest, NoConfig, Plugin, PluginContext, PluginError},
};

use crate::{
    llm::{Script, open, open_as},
    stt,
    support::{Bell, Bomb, Record, exported, start},
};

#[test]
fn closing_cancels_what_runs_and_is_answered_last() {
    let running = start::<Script>();
    let session = open(&running);
    for token in 1..=3 {
        session.ask(token, "one wait");
    }
    session.ask(4, "bomb");
    session.record.wait_for_count("llm.response.delta", 3);
    session.session.close(5);
    assert_eq!(session.ask(6, "fine"), Status::CLOSED);
    assert_eq!(session.record.finished(5), Outcome::COMPLETED);
    let said = session.record.said();
    let mut ends: Vec<_> = said.iter().filter(|said| said.starts_with("finished")).collect();
    assert_eq!(ends.pop().map(String::as_str), Some("finished 5 COMPLETED"));
    ends.sort();
    assert_eq!(
        ends,
        ["finished 1 CANCELLED", "finished 2 CANCELLED", "finished 3 CANCELLED", "finished 4 CANCELLED"]
    );
    assert_eq!(session.record.events("llm.response.aborted").len(), 4);
    assert_eq!(said.last().map(String::as_str), Some("finished 5 COMPLETED"));
}

#[test]
fn the_plugin_is_told_of_the_end_of_a_session_before_the_host() {
    let running = start::<Script>();
    let session = open_as(&running, "first");
    session.session.close(1);
    session.record.finished(1);
    let other = open(&running);
    other.run(1, "closed");
    assert_eq!(other.record.wait_for("llm.response.final")["text"], "first");
}

#[test]
fn a_plugin_that_panics_at_the_end_of_a_session_ends_it() {
    let session = open_as(&start::<Script>(), "bad");
    session.session.close(1);
    assert_eq!(session.record.finished(1), Outcome::COMPLETED);
}

#[test]
fn every_close_is_answered_when_the_session_has_ended() {
    let session = open(&start::<Script>());
    session.ask(1, "wait");
    session.session.close(2);
    session.session.close(3);
    session.record.finished(3);
    session.session.close(4);
    session.record.finished(4);
    let said = session.record.said();
    assert!(
        said.ends_with(
            &["finished 2 COMPLETED", "finished 3 COMPLETED", "finished 4 COMPLETED"].map(str::to_owned)
        ),
        "{said:?}"
    );
}

#[test]
fn a_session_whose_object_is_dropped_ends() {
    let running = start::<Script>();
    let session = open_as(&running, "dropped");
    session.ask(1, "wait");
    session.record.wait_for("llm.request.start");
    drop(session.session);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    session.record.dropped();
    let other = open(&running);
    other.run(1, "closed");
    assert_eq!(other.record.wait_for("llm.response.final")["text"], "dropped");
}

/// Sends commands from another thread, each with its own token from 1, until the session takes no more, while this one
/// closes it. All that were taken are answered once, and the close last.
fn close_while_sending(record: &Record, send: impl Fn(u64) -> Status + Sync, close: impl Fn(u64)) {
    let last = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut taken = 0;
            loop {
                match send(taken + 1) {
                    Status::ACCEPTED => taken += 1,
                    Status::FULL => std::thread::yield_now(),
                    _ => break taken,
                }
            }
        });
        record.finished(1);
        close(u64::MAX);
        sender.join().expect("no panic")
    });
    record.finished(u64::MAX);
    let mut ended = record.ended();
    assert_eq!(ended.last(), Some(&u64::MAX));
    ended.sort_unstable();
    assert_eq!(ended, (1..=last).chain([u64::MAX]).collect::<Vec<_>>());
}

#[test]
fn what_was_accepted_while_the_session_closes_is_answered() {
    let (llm, stt) = (start::<Script>(), start::<stt::Script>());
    for _ in 0..50 {
        let session = open(&llm);
        close_while_sending(
            &session.record,
            |token| session.ask(token, ""),
            |token| session.session.close(token),
        );
        let stt::Session { session, record, .. } = &stt::open(&stt);
        close_while_sending(record, |token| session.cancel(token), |token| session.close(token));
    }
}

/// A plugin that panics whenever it is told to end.
struct Stubborn {
    _bomb: Bomb,
    stopped: AtomicBool,
}

impl Plugin for Stubborn {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { _bomb: Bomb, stopped: AtomicBool::new(false) })
    }

    async fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        panic!("as told");
    }
}

impl Llm for Stubborn {
    async fn respond(&self, _: LlmRequest, reply: LlmReply) -> Result<(), PluginError> {
        reply.text(self.stopped.load(Ordering::Relaxed).to_string()).await
    }
}

exported! { Stubborn, "llm-stubborn", [llm] }

#[test]
fn a_plugin_that_panics_while_it_is_stopped_is_stopped() {
    let running = start::<Stubborn>();
    let stopped = Bell::default();
    running.plugin.stop(stopped.waker());
    stopped.wait();
    let (sink, record) = running.sink();
    let session = running.capability::<LlmBox>().open(RStr::from_str("after"), sink);
    let session = crate::llm::Session { session, record: Arc::clone(&record) };
    session.run(1, "still there?");
    assert_eq!(record.wait_for("llm.response.final")["text"], "true");
}

#[test]
fn a_plugin_that_panics_while_it_is_dropped_does_not_reach_the_host() {
    let running = start::<Stubborn>();
    let session = {
        let (sink, record) = running.sink();
        let session = running.capability::<LlmBox>().open(RStr::from_str("last"), sink);
        crate::llm::Session { session, record }
    };
    drop(running);
    session.run(1, "still there?");
    session.session.close(2);
    session.record.finished(2);
    drop(session.session);
    session.record.dropped();
}
