//! Calling handlers: one visit of a shard, calls that have to wait, and what becomes of failures.

use std::{
    any::Any,
    collections::VecDeque,
    future::poll_fn,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tracing::{Instrument, Span};

use super::{
    current::{self, Handling, Place, Thread},
    entry::{Entry, Extra},
    handler::{Failure, WorkerBox},
    mailbox::Mailbox,
    queue::Leave,
    shards::BATCH,
    watchdog,
};
use crate::{
    SessionId,
    event::{
        BaseEvent, Envelope, EventName, EventPayload, EventView, Stamp,
        bus::{ExceptionEvent, HandlerBlockedEvent, SubscriberLaggedEvent, SubscriptionSuspendedEvent},
        values::{ErrorInfo, panic_message},
    },
};

/// How a call of a handler ended: `None` when the event was not of a type that it takes.
type Outcome = Option<Result<(), Box<ErrorInfo>>>;

/// What is left of an event when its handler has it.
struct Call {
    handling: Handling,
    session_id: Option<SessionId>,
    event_type: EventName,
    extra: Option<Box<Extra>>,
    /// If anybody listens.
    span: Option<Span>,
}

impl Call {
    /// Parts an event from what is told of it if the handler fails.
    fn new(mailbox: &Mailbox, entry: Entry, is_traced: bool) -> (Self, Arc<Envelope>) {
        let Entry { envelope, extra } = entry;
        let base = envelope.base();
        let call = Self {
            handling: Handling::of(base),
            session_id: base.session_id,
            event_type: base.event_type.clone(),
            extra,
            span: if is_traced { span(mailbox, base) } else { None },
        };
        (call, envelope)
    }
}

/// A call after its first poll.
enum Started {
    Done(Outcome),
    Waits,
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
    let mut worker = mailbox.queue.begin_visit(hand, most);
    let count = hand.len();
    if count > 0 {
        mailbox.took();
        report_lag(&mailbox);
        worker = worker.or_else(|| mailbox.hire());
    }
    let waits = current::at(Place::of(&mailbox, Some(shard)), |thread| {
        work_off(&mailbox, worker.as_mut(), hand, thread)
    });
    if let Some(call) = waits {
        let worker = worker.expect("it has begun a call");
        let waiting = Waiting { mailbox: Arc::clone(&mailbox), worker: Some(worker), began_ns: *now_ns };
        // First of all, so that the task finds what is left in hand, and nobody what comes after that.
        let leave = mailbox.queue.promote(hand);
        mailbox.shards.runtime().spawn(waiting.run(call));
        follow(&mailbox, leave);
        return count;
    }
    if count > 0 {
        let began_ns = std::mem::replace(now_ns, mailbox.shards.mono_ns());
        mailbox.note_time(now_ns.saturating_sub(began_ns));
    }
    let (leave, unneeded) = mailbox.queue.end_visit(worker);
    drop_worker(unneeded);
    follow(&mailbox, leave);
    count
}

/// Calls the handler for what is in hand, until a call has to wait; that is what it returns.
fn work_off(
    mailbox: &Arc<Mailbox>,
    mut worker: Option<&mut WorkerBox>,
    hand: &mut VecDeque<Entry>,
    thread: &Thread,
) -> Option<Call> {
    let is_traced = is_traced();
    while let Some(entry) = hand.pop_front() {
        let Some(worker) = worker.as_deref_mut().filter(|_| !mailbox.is_cancelled()) else {
            drop_quietly(entry);
            continue;
        };
        let (call, envelope) = Call::new(mailbox, entry, is_traced);
        let started = match &call.span {
            None => start(worker, envelope, call.handling, thread),
            Some(span) => span.in_scope(|| start(worker, envelope, call.handling, thread)),
        };
        match started {
            Started::Done(outcome) => done(mailbox, call, outcome),
            Started::Waits => return Some(call),
        }
    }
    None
}

/// Calls the handler and polls it once, which is all that most need.
fn start(worker: &mut WorkerBox, envelope: Arc<Envelope>, handling: Handling, thread: &Thread) -> Started {
    let first = || {
        if !worker.as_mut().begin(envelope) {
            return Started::Done(None);
        }
        // Nobody needs to be woken: if it is not done, its own task polls it again at once.
        match worker.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Started::Done(Some(outcome.map_err(explain))),
            Poll::Pending => Started::Waits,
        }
    };
    match thread.handle(handling, first) {
        Ok(started) => started,
        Err(panic) => Started::Done(Some(Err(explain_panic(panic, worker)))),
    }
}

/// A worker in a task of its own: begins with a call that has to wait, and goes on with what is queued if it is the only
/// worker.
struct Waiting {
    mailbox: Arc<Mailbox>,
    /// Until it has ended in good order.
    worker: Option<WorkerBox>,
    began_ns: u64,
}

impl Waiting {
    async fn run(mut self, first: Call) {
        let mut current = Some(first);
        while let Some(call) = current {
            let outcome =
                self.wait(call.handling).instrument(call.span.clone().unwrap_or_else(Span::none)).await;
            let now_ns = self.mailbox.shards.mono_ns();
            self.mailbox.note_time(now_ns.saturating_sub(self.began_ns));
            done(&self.mailbox, call, outcome);
            current = self.next().await;
        }
        end_task(&self.mailbox, self.worker.take());
    }

    /// Waits for the call, as long as the subscription allows.
    async fn wait(&mut self, handling: Handling) -> Outcome {
        let worker = self.worker.as_mut().expect("it has not ended");
        let place = Place::of(&self.mailbox, None);
        let call = poll_fn(|context| {
            let polled = current::at(place, |thread| {
                watchdog::rouse();
                thread.handle(handling, || worker.as_mut().poll(context).map_err(explain))
            });
            match polled {
                Ok(polled) => polled,
                Err(panic) => Poll::Ready(Err(explain_panic(panic, worker))),
            }
        });
        let Some(timeout) = self.mailbox.options.timeout else { return Some(call.await) };
        // Most calls are done before this, so that a timer costs only those that wait.
        let in_time = tokio::time::timeout(timeout, call).await;
        Some(in_time.unwrap_or_else(|_| {
            clear(worker);
            Err(explain(TimedOut(timeout).into()))
        }))
    }

    /// The next call that has to wait; calls that are done at once are made on the way.
    async fn next(&mut self) -> Option<Call> {
        let mut hand = VecDeque::new();
        loop {
            // Handlers that never wait would keep the other tasks of this thread from running.
            tokio::task::consume_budget().await;
            hand.push_back(self.mailbox.queue.next()?);
            self.mailbox.took();
            report_lag(&self.mailbox);
            self.began_ns = self.mailbox.shards.mono_ns();
            let (mailbox, worker) = (&self.mailbox, self.worker.as_mut());
            let place = Place::of(mailbox, None);
            let waits = current::at(place, |thread| work_off(mailbox, worker, &mut hand, thread));
            if waits.is_some() {
                return waits;
            }
        }
    }
}

impl Drop for Waiting {
    /// Left in the middle: by a runtime that shuts down.
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            drop_quietly(worker);
            abandon(&self.mailbox);
            end_task(&self.mailbox, None);
        }
    }
}

/// A call has ended.
fn done(mailbox: &Arc<Mailbox>, call: Call, outcome: Outcome) {
    if let Some(outcome) = outcome {
        let failed = outcome.is_err();
        if mailbox.count_call(failed) {
            report_suspension(mailbox);
        }
        if let Err(error) = outcome {
            if let Some(ticket) = call.extra.as_ref().and_then(|extra| extra.ticket.as_ref()) {
                ticket.failed();
            }
            report_failure(mailbox, call.handling, call.session_id, &call.event_type, *error);
        }
        if mailbox.options.once {
            mailbox.cancel().into_iter().for_each(drop_quietly);
        }
    }
    mailbox.count_done();
}

/// The task of a call has ended.
fn end_task(mailbox: &Arc<Mailbox>, worker: Option<WorkerBox>) {
    let (leave, unneeded) = mailbox.queue.end_task(worker);
    drop_worker(unneeded);
    follow(mailbox, leave);
}

fn drop_worker(worker: Option<WorkerBox>) {
    if worker.is_some() {
        drop_quietly(worker);
    }
}

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
    let (hire, worker) = mailbox.take_handler();
    drop_quietly(worker);
    drop_quietly(hire);
    if let Some(bus) = mailbox.shards.bus() {
        bus.unlist(mailbox);
    }
    mailbox.queue.end();
    mailbox.ring();
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

/// What an `ExceptionEvent` says of an error. Runs the error's own code, down to its destructor.
fn explain(failure: Failure) -> Box<ErrorInfo> {
    let mut error = ErrorInfo::from_error(&*failure, true);
    if failure.is::<TimedOut>() {
        error.kind = "timeout".to_owned();
    }
    Box::new(error)
}

fn explain_panic(panic: Box<dyn Any + Send>, worker: &mut WorkerBox) -> Box<ErrorInfo> {
    clear(worker);
    Box::new(panic_info(panic))
}

pub(super) fn panic_info(panic: Box<dyn Any + Send>) -> ErrorInfo {
    let error = ErrorInfo::panic(panic_message(&*panic));
    drop_quietly(panic);
    error
}

/// Gives a call up.
fn clear(worker: &mut WorkerBox) {
    quietly(|| worker.as_mut().clear());
}

/// Drops something of the user's whose destructor may panic; the task must survive that.
pub(super) fn drop_quietly<T>(value: T) {
    quietly(|| drop(value));
}

fn quietly(destruct: impl FnOnce()) {
    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(destruct)) {
        tracing::error!(panic = panic_message(&*panic), "the destructor of an event or a panic panicked");
        // The destructor of anything but text may panic too, without end.
        if !panic.is::<&'static str>() && !panic.is::<String>() {
            std::mem::forget(panic);
        }
    }
}

/// Whether anybody listens for the spans of handlers.
fn is_traced() -> bool {
    tracing::enabled!(target: SPANS, tracing::Level::DEBUG)
}

/// One call as a span.
fn span(mailbox: &Mailbox, base: &BaseEvent) -> Option<Span> {
    if mailbox.shards.bus().is_some_and(|bus| bus.is_silent(&base.event_type)) {
        return None;
    }
    Some(tracing::debug_span!(
        target: SPANS,
        "handle",
        event_type = %base.event_type,
        event_id = %base.event_id,
        seq = base.seq,
        handler = %mailbox.options.name,
    ))
}

/// Target of the spans of handlers, to filter by.
const SPANS: &str = "antiphon::handler";

fn emit_about<T: EventPayload>(mailbox: &Mailbox, event: T) {
    if let Some(bus) = mailbox.shards.bus() {
        bus.emit_in(mailbox.session_id(), event, Stamp::default());
    }
}

/// Tells of a panic on the emitter's thread.
pub(super) fn report_panic(mailbox: &Mailbox, base: &BaseEvent, panic: Box<dyn Any + Send>) {
    report_failure(mailbox, Handling::of(base), base.session_id, &base.event_type, panic_info(panic));
}

/// Tells of a failed call.
pub(super) fn report_failure(
    mailbox: &Mailbox,
    handling: Handling,
    session_id: Option<SessionId>,
    event_type: &EventName,
    exc: ErrorInfo,
) {
    let handler = mailbox.info();
    tracing::warn!(
        handler = handler.name,
        location = handler.location,
        event = %event_type,
        error = exc.message,
        "an event handler failed"
    );
    // A failing handler of exceptions would answer itself for ever.
    if *event_type == *ExceptionEvent::NAME {
        return;
    }
    let Handling { event_id, turn_id } = handling;
    let event =
        ExceptionEvent { exc, handler, source_type: event_type.to_string(), source_event_id: event_id };
    let stamp = Stamp { turn_id, causation_id: Some(event_id), ..Stamp::default() };
    if let Some(bus) = mailbox.shards.bus() {
        bus.emit_in(session_id, event, stamp);
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
