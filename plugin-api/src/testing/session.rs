//! The sessions of a plugin under test.

use std::sync::{Arc, Weak};

use super::{
    Events, check,
    recorder::{CancelAfter, Piece, Recorder, Said},
};
use crate::{
    abi::{
        LlmSessionBox, Outcome, Status, SttSessionBox, TtsSessionBox, TurnSessionBox, VisionSessionBox,
        WakerBox,
    },
    runtime::when_ready,
};

/// One session and what it says.
pub(super) struct Driven<S> {
    pub(super) session: Arc<S>,
    pub(super) recorder: Arc<Recorder>,
}

impl<S> Clone for Driven<S> {
    fn clone(&self) -> Self {
        Self { session: Arc::clone(&self.session), recorder: Arc::clone(&self.recorder) }
    }
}

/// The sessions that were used so far.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) turn: Option<Driven<TurnSessionBox>>,
    pub(super) stt: Option<Driven<SttSessionBox>>,
    pub(super) llm: Option<Driven<LlmSessionBox>>,
    pub(super) tts: Option<Driven<TtsSessionBox>>,
    pub(super) vision: Option<Driven<VisionSessionBox>>,
}

pub(super) const SESSION_ID: &str = "session-under-test";

impl Sessions {
    pub(super) async fn close(&mut self, plugin: &str) -> Events {
        let mut events = Vec::new();
        macro_rules! close {
            ($($field:ident),+) => {$(
                if let Some(driven) = self.$field.take() {
                    driven.session.close(u64::MAX);
                    driven.recorder.finished(u64::MAX).await;
                    driven.recorder.close();
                    let said = driven.recorder.take();
                    check::report(plugin, &said);
                    events.extend(said.events);
                }
            )+};
        }
        close!(turn, stt, llm, tts, vision);
        Events(events)
    }
}

impl<S: Send + Sync + 'static> Driven<S> {
    /// Runs one command that can be cancelled.
    pub(super) async fn run(
        &self,
        token: u64,
        cancel_after: Option<usize>,
        of: Piece,
        cancel: fn(&S, u64),
        send: impl Fn(&S) -> Status,
    ) -> (Outcome, Said) {
        let session: Weak<S> = Arc::downgrade(&self.session);
        self.recorder.cancel_after(cancel_after.map(|left| {
            let cancel = move || {
                if let Some(session) = session.upgrade() {
                    cancel(&session, token);
                }
            };
            CancelAfter { of, left, cancel: Box::new(cancel) }
        }));
        accepted(send(&self.session));
        if cancel_after == Some(0) && of == Piece::AnyEvent {
            // Its first sign of life is its answer.
            cancel(&self.session, token);
        }
        let outcome = self.recorder.finished(token).await;
        self.recorder.cancel_after(None);
        (outcome, self.recorder.take())
    }

    /// Sends a command of a session that takes one after the other.
    pub(super) async fn push(&self, wake_when_ready: fn(&S, WakerBox), send: impl Fn(&S) -> Status) {
        let status = when_ready(|| send(&self.session), |waker| wake_when_ready(&self.session, waker));
        accepted(status.await);
    }
}

#[track_caller]
fn accepted(status: Status) {
    assert_eq!(status, Status::ACCEPTED, "the session does not take the command");
}
