//! Calling handlers: one visit of a shard, calls that have to wait, and what becomes of failures.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::{
    current::{self, Handling, Place},
    handler::{Call, Failure, Running},
    mailbox::{Entry, Mailbox},
    queue::Leave,
    shards::BATCH,
};
use crate::event::{
    Envelope, EventPayload, EventView, Stamp,
    bus::{ExceptionEvent, HandlerBlockedEvent, SubscriberLaggedEvent, SubscriptionSuspendedEvent},
    values::{ErrorInfo, panic_message},
};

/// How a call of a handler ended: `None` when the event was not of a type that it takes.
type Outcome = Option<Result<(), ErrorInfo>>;

/// A call after its first poll.
enum Started {
    Done(Outcome),
    Waits(Running),
}

/// A shard's visit: calls the handler for up to [`BATCH`] events, at most until a call has to wait. Returns how many
/// events that were, and moves `now_ns` to its end.
pub(super) fn visit(
    mailbox: Arc<Mailbox>,
    shard: usize,
    hand: &mut VecDeque<Entry>,
    now_ns: &mut u64,
) -> usize {
    let most = if mailbox.options.once { 1 } else { BATCH };
    let call = mailbox.queue.begin_visit(hand, most);
    let count = hand.len();
    if count > 0 {
        mailbox.took();
        report_lag(&mailbox);
    }
    let entered = current::enter(Place::of(&mailbox, Some(shard)));
    while let Some(entry) = hand.pop_front() {
        let Some(call) = call.as_ref().filter(|_| !mailbox.is_cancelled()) else {
            drop_quietly(entry);
            continue;
        };
        let span = span(&mailbox, &entry.envelope);
        match span.in_scope(|| start(call, &entry.envelope)) {
            Started::Done(outcome) => done(&mailbox, entry, outcome),
            Started::Waits(running) => {
                drop(entered);
                let waiting = Waiting::new(&mailbox, call, *now_ns);
                mailbox.shards.runtime().spawn(waiting.run(entry, running, span));
                let leave = mailbox.queue.end_visit(hand, true);
                follow(&mailbox, leave);
                return count;
            }
        }
    }
    drop(entered);
    if count > 0 {
        let began_ns = std::mem::replace(now_ns, mailbox.shards.mono_ns());
        mailbox.note_time(now_ns.saturating_sub(began_ns));
    }
    let leave = mailbox.queue.end_visit(hand, false);
    drop(call);
    follow(&mailbox, leave);
    count
}

/// Calls the handler and polls it once, which is all that most need.
fn start(call: &Call, envelope: &Arc<Envelope>) -> Started {
    let first = || {
        let mut running = call(envelope)?;
        // Nobody needs to be woken: if it is not done, its own task polls it again at once.
        match running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(Ok(outcome.map_err(explain))),
            Poll::Pending => Some(Err(running)),
        }
    };
    let attempt = current::handle(Handling::of(envelope), || std::panic::catch_unwind(AssertUnwindSafe(first)));
    match attempt {
        Ok(None) => Started::Done(None),
        Ok(Some(Ok(outcome))) => Started::Done(Some(outcome)),
        Ok(Some(Err(running))) => Started::Waits(running),
        Err(panic) => Started::Done(Some(Err(explain_panic(panic)))),
    }
}

/// A worker in a task of its own: begins with a call that has to wait, and goes on with what is queued.
struct Waiting {
    mailbox: Arc<Mailbox>,
    call: Option<Call>,
    began_ns: u64,
    left: bool,
}

impl Waiting {
    fn new(mailbox: &Arc<Mailbox>, call: &Call, began_ns: u64) -> Self {
        Self { mailbox: Arc::clone(mailbox), call: Some(Arc::clone(call)), began_ns, left: false }
    }

    async fn run(mut self, entry: Entry, running: Running, span: Span) {
        let mut current = (entry, running, span);
        loop {
            let (entry, running, span) = current;
            let outcome = self.wait(&entry.envelope, running).instrument(span).await;
            let now_ns = self.mailbox.shards.mono_ns();
            self.mailbox.note_time(now_ns.saturating_sub(self.began_ns));
            done(&self.mailbox, entry, outcome);
            match self.next().await {
                Some(next) => current = next,
                None => return,
            }
        }
    }

    /// Waits for a call, as long as the subscription allows.
    async fn wait(&self, envelope: &Arc<Envelope>, running: Running) -> Outcome {
        let limited = with_timeout(self.mailbox.options.timeout, running);
        let explained = async { limited.await.map_err(explain) };
        let mut attempt = std::pin::pin!(AssertUnwindSafe(explained).catch_unwind());
        let (place, handling) = (Place::of(&self.mailbox, None), Handling::of(envelope));
        let outcome = poll_fn(|context| {
            let _entered = current::enter(place);
            current::handle(handling, || attempt.as_mut().poll(context))
        });
        Some(outcome.await.unwrap_or_else(|panic| Err(explain_panic(panic))))
    }

    /// The next call that has to wait; calls that are done at once are made on the way.
    async fn next(&mut self) -> Option<(Entry, Running, Span)> {
        loop {
            // Handlers that never wait would keep the other tasks of this thread from running.
            tokio::task::consume_budget().await;
            let entry = match self.mailbox.queue.next() {
                Ok(entry) => entry,
                Err(leave) => {
                    self.left = true;
                    drop(self.call.take());
                    follow(&self.mailbox, leave);
                    return None;
                }
            };
            self.mailbox.took();
            report_lag(&self.mailbox);
            let Some(call) = self.call.as_ref().filter(|_| !self.mailbox.is_cancelled()) else {
                drop_quietly(entry);
                continue;
            };
            self.began_ns = self.mailbox.shards.mono_ns();
            let entered = current::enter(Place::of(&self.mailbox, None));
            let span = span(&self.mailbox, &entry.envelope);
            let started = span.in_scope(|| start(call, &entry.envelope));
            drop(entered);
            match started {
                Started::Done(outcome) => done(&self.mailbox, entry, outcome),
                Started::Waits(running) => return Some((entry, running, span)),
            }
        }
    }
}

impl Drop for Waiting {
    /// Left in the middle: by a runtime that shuts down.
    fn drop(&mut self) {
        if !self.left {
            drop(self.call.take());
            abandon(&self.mailbox);
            follow(&self.mailbox, self.mailbox.queue.leave());
        }
    }
}

/// A call has ended.
fn done(mailbox: &Arc<Mailbox>, entry: Entry, outcome: Outcome) {
    if let Some(outcome) = outcome {
        let failed = outcome.is_err();
        if mailbox.count_call(failed) {
            report_suspension(mailbox);
        }
        if let Err(error) = outcome {
            if let Some(ticket) = entry.extra.as_ref().and_then(|extra| extra.ticket.as_ref()) {
                ticket.failed();
            }
            report_failure(mailbox, &entry.envelope, error);
        }
        if mailbox.options.once {
            mailbox.cancel().into_iter().for_each(drop_quietly);
        }
    }
    drop_quietly(entry);
    mailbox.count_done();
}

/// A worker has ended.
fn follow(mailbox: &Arc<Mailbox>, leave: Leave) {
    match leave {
        Leave::Idle => {}
        Leave::Reschedule => return mailbox.shards.schedule([Arc::clone(mailbox)]),
        Leave::Over => end(mailbox),
    }
    mailbox.shards.settled.ring();
}

/// The subscription is over: the state of its handler goes first, so that it is gone when the end is announced.
fn end(mailbox: &Arc<Mailbox>) {
    if let Some(call) = mailbox.queue.take_tool() {
        drop_quietly(call);
    }
    if let Some(bus) = mailbox.shards.bus() {
        bus.unlist(mailbox);
    }
    mailbox.queue.end();
    mailbox.bell.ring();
}

/// The runtime that would have called the handler is gone.
pub(super) fn abandon(mailbox: &Arc<Mailbox>) {
    mailbox.queue.abandon().into_iter().for_each(drop_quietly);
    end(mailbox);
    mailbox.shards.settled.ring();
}

/// Waits until subscriptions are over. Inside a handler it does not wait for that handler itself, nor for handlers that
/// are waiting here too: they would wait for each other without end.
pub(super) async fn wait_for_end(mailboxes: &[Arc<Mailbox>]) {
    let in_handler = current::place().is_some();
    let own = current::mailbox();
    let _stopping = own.as_ref().map(|own| own.stopping());
    for mailbox in mailboxes {
        if !current::is_own(mailbox) {
            mailbox.wait_for_end(in_handler).await;
        }
    }
}

/// The handler ran longer than its subscription allows.
#[derive(Debug, thiserror::Error)]
#[error("the handler was stopped after {} ms, its timeout", .0.as_millis())]
struct TimedOut(Duration);

async fn with_timeout(
    timeout: Option<Duration>,
    running: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let Some(timeout) = timeout else { return running.await };
    match tokio::time::timeout(timeout, running).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TimedOut(timeout).into()),
    }
}

/// What an `ExceptionEvent` says of an error. Runs the error's own code, down to its destructor.
fn explain(failure: Failure) -> ErrorInfo {
    let mut error = ErrorInfo::from_error(&*failure, true);
    if failure.is::<TimedOut>() {
        error.kind = "timeout".to_owned();
    }
    error
}

pub(super) fn explain_panic(panic: Box<dyn std::any::Any + Send>) -> ErrorInfo {
    let error = ErrorInfo::panic(panic_message(&*panic));
    drop_quietly(panic);
    error
}

/// Drops something of the user's whose destructor may panic; the task must survive that.
pub(super) fn drop_quietly<T>(value: T) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::error!(panic = panic_message(&*panic), "the destructor of an event or a panic panicked");
        std::mem::forget(panic);
    }
}

/// One call as a span; free while nobody listens for it.
fn span(mailbox: &Mailbox, envelope: &Envelope) -> Span {
    if !tracing::enabled!(target: SPANS, tracing::Level::DEBUG) {
        return Span::none();
    }
    let base = envelope.base();
    if mailbox.shards.bus().is_some_and(|bus| bus.is_silent(&base.event_type)) {
        return Span::none();
    }
    tracing::debug_span!(
        target: SPANS,
        "handle",
        event_type = %base.event_type,
        event_id = %base.event_id,
        seq = base.seq,
        handler = %mailbox.options.name,
    )
}

/// Target of the spans of handlers, to filter by.
const SPANS: &str = "antiphon::handler";

fn emit_about<T: EventPayload>(mailbox: &Mailbox, event: T) {
    if let Some(bus) = mailbox.shards.bus() {
        bus.emit_in(mailbox.session_id(), event, Stamp::default());
    }
}

pub(super) fn report_failure(mailbox: &Mailbox, envelope: &Envelope, exc: ErrorInfo) {
    let handler = mailbox.info();
    tracing::warn!(
        handler = handler.name,
        location = handler.location,
        event = envelope.event_type(),
        error = exc.message,
        "an event handler failed"
    );
    // A failing handler of exceptions would answer itself for ever.
    if envelope.event_type() == ExceptionEvent::NAME {
        return;
    }
    let base = envelope.base();
    let event = ExceptionEvent {
        exc,
        handler,
        source_type: base.event_type.to_string(),
        source_event_id: base.event_id,
    };
    let stamp = Stamp { turn_id: base.turn_id, causation_id: Some(base.event_id), ..Stamp::default() };
    if let Some(bus) = mailbox.shards.bus() {
        bus.emit_in(base.session_id, event, stamp);
    }
}

/// Tells of events that the subscription lost since the last call.
pub(super) fn report_lag(mailbox: &Mailbox) {
    let dropped = mailbox.take_unreported();
    if dropped == 0 {
        return;
    }
    let handler = mailbox.info();
    tracing::warn!(
        handler = handler.name,
        location = handler.location,
        dropped,
        "a subscription lost events"
    );
    emit_about(mailbox, SubscriberLaggedEvent { handler, dropped, event_type: None });
}

/// Tells of a handler that keeps its thread.
pub(super) fn report_blocked(mailbox: &Mailbox, time: Duration) {
    let handler = mailbox.info();
    let blocked_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(
        handler = handler.name,
        location = handler.location,
        blocked_ms,
        "an event handler blocks its thread; what blocks belongs into tokio::task::spawn_blocking"
    );
    emit_about(mailbox, HandlerBlockedEvent { handler, blocked_ms });
}

pub(super) fn report_suspension(mailbox: &Mailbox) {
    let handler = mailbox.info();
    let failures = mailbox.options.suspend_after.unwrap_or_default();
    tracing::warn!(
        handler = handler.name,
        location = handler.location,
        failures,
        "a subscription is suspended: its handler failed too often in a row"
    );
    emit_about(mailbox, SubscriptionSuspendedEvent { handler, failures });
}
