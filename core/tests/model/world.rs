//! Does each step on a real bus and on the model, and compares.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    BaseEvent, Event, EventBus, PluginBaseEvent, SessionBus, SessionId, Subscription,
    bus::{EventStream, PluginEmission, Stats, SubscriptionBuilder, TryEmitError},
    event::{EventPayload, FromEvent, Stamp, bus::ExceptionEvent},
};
use futures_util::{FutureExt, poll};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{
    Act, How, Kind, SESSIONS, Spec, Step, Takes,
    reference::{Item, Reference},
};

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "model.tick", base = BaseEvent)]
struct TickEvent {
    number: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "model.tock", base = PluginBaseEvent)]
struct TockEvent {
    number: u64,
}

const MEANT: &str = "this event makes handlers panic";

/// One handler.
struct Probe {
    spec: Spec,
    /// What the event with this number says.
    acts: Arc<Mutex<Vec<Act>>>,
    seen: Mutex<Vec<u64>>,
    running: AtomicU32,
    gate: Semaphore,
}

impl Probe {
    /// Notes an event, and tells what is to be done.
    fn saw(&self, number: u64) -> Act {
        self.seen.lock().expect("not held in a panic").push(number);
        let act = self.acts.lock().expect("not held in a panic")[number as usize];
        if self.spec.makes_trouble { act } else { Act::Return }
    }

    async fn handle(self: Arc<Self>, number: u64) -> Result<(), std::fmt::Error> {
        let Kind::Handler { concurrency, .. } = self.spec.kind else { unreachable!("it is called") };
        let running = Running::new(&self.running);
        assert!(running.now <= concurrency, "{} calls at a time", running.now);
        match self.saw(number) {
            Act::Return => {}
            Act::Yield => tokio::task::yield_now().await,
            Act::Fail => return Err(std::fmt::Error),
            Act::Panic => panic!("{MEANT}"),
            Act::Wait => self.gate.acquire().await.expect("never closed").forget(),
        }
        Ok(())
    }
}

struct Running<'a> {
    counter: &'a AtomicU32,
    now: u32,
}

impl<'a> Running<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        Self { counter, now: counter.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Guard {
    Subscription(Subscription),
    Stream(EventStream<Event<BaseEvent>>),
    /// Unsubscribed.
    Gone,
}

/// One subscription of the real bus.
struct Actual {
    guard: Guard,
    probe: Arc<Probe>,
}

impl Actual {
    fn stats(&self) -> Option<Stats> {
        match &self.guard {
            Guard::Subscription(guard) => Some(guard.stats()),
            Guard::Stream(stream) => Some(stream.stats()),
            Guard::Gone => None,
        }
    }
}

/// What taps of the host saw.
#[derive(Default)]
struct Seen {
    /// The last `seq` of each session.
    seqs: HashMap<Option<SessionId>, u64>,
    /// Failures by subscription.
    exceptions: HashMap<u64, u64>,
}

pub(crate) struct World {
    bus: EventBus,
    sessions: Vec<SessionBus>,
    all: Vec<Actual>,
    reference: Reference,
    acts: Arc<Mutex<Vec<Act>>>,
    seen: Arc<Mutex<Seen>>,
    _taps: [Subscription; 2],
}

/// The number of an event of either type: that of ticks and tocks is in their payload.
fn number(event: &Event<BaseEvent>) -> u64 {
    event.to_json()["number"].as_u64().expect("ticks and tocks have a number")
}

impl World {
    /// Does the steps, at a time of its own in which nothing happens by chance.
    pub(crate) fn run(steps: &[Step]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("the system gives a thread").block_on(async {
            let mut world = Self::new();
            for step in steps {
                world.step(*step).await;
            }
            world.end().await;
        });
    }

    fn new() -> Self {
        let bus = EventBus::new();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let order = bus.subscription().patterns(["*"]).observe({
            let seen = Arc::clone(&seen);
            move |event: Event<BaseEvent>| {
                let mut seen = seen.lock().expect("not held in a panic");
                let last = seen.seqs.entry(event.session_id()).or_default();
                *last += 1;
                // Outside of the lock: the panic would be one of a handler, and shows as a failure too many.
                let is_next = *last == event.seq();
                drop(seen);
                assert!(is_next, "`seq` has a gap");
            }
        });
        let exceptions = bus.observe({
            let seen = Arc::clone(&seen);
            move |event: Event<ExceptionEvent>| {
                let id = event.handler.subscription_id;
                *seen.lock().expect("not held in a panic").exceptions.entry(id).or_default() += 1;
            }
        });
        Self {
            sessions: (0..SESSIONS).map(|_| bus.open_session()).collect(),
            all: Vec::new(),
            reference: Reference::default(),
            acts: Arc::default(),
            seen,
            _taps: [order, exceptions],
            bus,
        }
    }

    async fn step(&mut self, step: Step) {
        let count = self.all.len();
        match step {
            Step::Subscribe(spec) => self.subscribe(spec),
            Step::Emit { session, is_tick, act, how } => {
                // Plugins have sessions only, and no ticks.
                let how = match how {
                    How::AsPlugin if is_tick || session.is_none() => How::Plainly,
                    // It would stamp no plugin.
                    How::Settling if !is_tick => How::Plainly,
                    how => how,
                };
                self.emit(session, is_tick, act, how).await;
            }
            Step::MuteTicks(muted) => {
                self.reference.mute_ticks(muted);
                if muted { self.bus.mute("model.tick") } else { self.bus.unmute("model.tick") }
            }
            Step::Close(session) => {
                self.reference.close(session);
                // Given up at once: what waits is handled all the same, and some may stand at a gate.
                let _ = poll!(Box::pin(self.sessions[session].close()));
            }
            Step::Rest => self.rest().await,
            _ if count == 0 => {}
            Step::Unsubscribe(which) => self.unsubscribe(which % count).await,
            Step::Mute(which, muted) => {
                if let Guard::Subscription(guard) = &self.all[which % count].guard {
                    self.reference.all[which % count].mute(muted);
                    if muted { guard.mute() } else { guard.unmute() }
                }
            }
            Step::OpenGate(which) => {
                // At rest, or the model would not know who stands there.
                self.rest().await;
                if self.reference.all[which % count].open_gate() {
                    self.all[which % count].probe.gate.add_permits(1);
                    self.rest().await;
                }
            }
            Step::Receive(which) => {
                if let Guard::Stream(stream) = &mut self.all[which % count].guard {
                    let expected = &mut self.reference.all[which % count];
                    let received = stream.recv().now_or_never();
                    let want = expected.receive();
                    match received {
                        Some(Some(event)) => assert_eq!(Some(number(&event)), want),
                        Some(None) => assert!(want.is_none() && expected.is_closed, "the stream ended early"),
                        None => {
                            assert!(want.is_none() && !expected.is_closed, "the reader waits for {want:?}")
                        }
                    }
                }
            }
        }
    }

    fn subscribe(&mut self, spec: Spec) {
        if spec.session.is_some_and(|session| self.reference.is_closed[session]) {
            return;
        }
        let probe = Arc::new(Probe {
            spec,
            acts: Arc::clone(&self.acts),
            seen: Mutex::default(),
            running: AtomicU32::new(0),
            gate: Semaphore::new(0),
        });
        let builder = match spec.session {
            None => self.bus.subscription(),
            Some(session) => self.sessions[session].subscription(),
        };
        let builder = builder.capacity(spec.capacity).overflow(spec.overflow);
        let guard = match (spec.kind, spec.takes) {
            (Kind::Stream, Takes::Ticks) => Guard::Stream(builder.patterns(["model.tick"]).stream()),
            (Kind::Stream, Takes::PluginEvents) => Guard::Stream(builder.patterns(["model.tock"]).stream()),
            (Kind::Stream, Takes::All) => Guard::Stream(builder.patterns(["model.*"]).stream()),
            (_, Takes::Ticks) => listen(builder, &probe, |event: &Event<TickEvent>| event.number),
            (_, Takes::PluginEvents) => listen(builder, &probe, |event: &Event<PluginBaseEvent>| {
                event.to_json()["number"].as_u64().expect("tocks have a number")
            }),
            (_, Takes::All) => listen(builder.patterns(["model.*"]), &probe, number),
        };
        self.reference.subscribe(spec);
        self.all.push(Actual { guard, probe });
    }

    async fn emit(&mut self, session: Option<usize>, is_tick: bool, act: Act, how: How) {
        let number = {
            let mut acts = self.acts.lock().expect("not held in a panic");
            acts.push(act);
            acts.len() as u64 - 1
        };
        let item = Item { number, session, is_tick, act };
        let accepted = self.reference.emit(item, how);
        let (tick, tock) = (TickEvent { number }, TockEvent { number });
        let plugin = Arc::new(PluginBaseEvent {
            plugin_name: "model".into(),
            plugin_version: "1".into(),
            plugin_instance: None,
        });
        let stamp = Stamp { plugin: Some(Arc::clone(&plugin)), ..Stamp::default() };
        let (bus, session) = (&self.bus, session.map(|session| self.sessions[session].clone()));
        match (how, session) {
            (How::Plainly, None) if is_tick => bus.emit(tick),
            (How::Plainly, None) => drop(bus.emit_with(tock, stamp)),
            (How::Plainly, Some(session)) if is_tick => session.emit(tick),
            (How::Plainly, Some(session)) => drop(session.emit_with(tock, stamp)),
            (How::Waiting, None) if is_tick => drop(poll!(Box::pin(bus.emit_wait(tick)))),
            (How::Waiting, None) => drop(poll!(Box::pin(bus.emit_wait_with(tock, stamp)))),
            (How::Waiting, Some(session)) if is_tick => drop(poll!(Box::pin(session.emit_wait(tick)))),
            (How::Waiting, Some(session)) => drop(poll!(Box::pin(session.emit_wait_with(tock, stamp)))),
            (How::Settling, session) => {
                let bus = self.bus.clone();
                let mut settled = Box::pin(async move {
                    match session {
                        None => bus.emit_and_settle(tick).await,
                        Some(session) => session.emit_and_settle(tick).await,
                    }
                });
                let mut is_settled = poll!(settled.as_mut()).is_ready();
                self.rest().await;
                is_settled = is_settled || poll!(settled.as_mut()).is_ready();
                assert_eq!(is_settled, !self.reference.is_unsettled(number), "settling of {number}");
            }
            (How::AsPlugin, session) => {
                let emitted = session.expect("plugins have a session").try_emit_plugin(&PluginEmission {
                    event: TockEvent::event_type(),
                    payload: &rmp_serde::to_vec_named(&tock).expect("plain values"),
                    plugin: &plugin,
                    turn_id: None,
                    causation_id: None,
                    emitted_at: None,
                    always: false,
                });
                assert_eq!(!matches!(emitted, Err(TryEmitError::Full)), accepted, "{emitted:?}");
            }
        }
    }

    async fn unsubscribe(&mut self, which: usize) {
        let (actual, expected) = (&mut self.all[which], &mut self.reference.all[which]);
        let running = match std::mem::replace(&mut actual.guard, Guard::Gone) {
            Guard::Gone => return,
            Guard::Stream(_) => return expected.cancel(),
            Guard::Subscription(guard) => {
                expected.cancel();
                let mut end = Box::pin(guard.unsubscribe());
                // Calls that run go on to their end, and are waited for.
                let running = expected.at_gate.len();
                assert!(running == 0 || poll!(end.as_mut()).is_pending(), "calls that run are waited for");
                self.all[which].probe.gate.add_permits(running);
                end.await;
                running
            }
        };
        let expected = &mut self.reference.all[which];
        for _ in 0..running {
            expected.open_gate();
        }
        let probe = &self.all[which].probe;
        assert_eq!(probe.running.load(Ordering::Relaxed), 0, "it still runs");
        // While it waited, others may have done something.
        self.rest().await;
    }

    /// Lets everybody do what there is to do, and compares.
    async fn rest(&mut self) {
        // The time is stopped, and goes on when there is nothing else to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.reference.rest();
        for (which, (actual, expected)) in self.all.iter().zip(&self.reference.all).enumerate() {
            let context = || format!("subscription {which}: {:?}", expected.spec);
            if expected.spec.kind != Kind::Stream {
                assert_eq!(
                    *actual.probe.seen.lock().expect("not held in a panic"),
                    expected.seen,
                    "{}",
                    context()
                );
            }
            let Some(stats) = actual.stats() else { continue };
            assert_eq!(Stats { slowest_ns: 0, ..stats }, expected.stats(), "{}", context());
            let Guard::Subscription(guard) = &actual.guard else { continue };
            let id = guard.handler().subscription_id;
            let told = self.seen.lock().expect("not held in a panic").exceptions.get(&id).copied();
            assert_eq!(told.unwrap_or_default(), stats.failures, "exceptions of {}", context());
        }
        assert_eq!(self._taps[0].stats().failures, 0, "`seq` has a gap");
    }

    /// Opens all gates, and looks whether everything ends.
    async fn end(&mut self) {
        self.rest().await;
        for (actual, expected) in self.all.iter().zip(&mut self.reference.all) {
            while expected.open_gate_and_rest() {
                actual.probe.gate.add_permits(1);
            }
        }
        self.rest().await;
        self.bus.shutdown().await;
        let left = self.bus.subscriptions().into_iter().filter(|report| report.stats.depth > 0);
        assert!(left.count() <= self.streams(), "handlers have handled what waited for them");
    }

    fn streams(&self) -> usize {
        self.all.iter().filter(|actual| matches!(actual.guard, Guard::Stream(_))).count()
    }
}

/// A handler or a tap.
fn listen<F: FromEvent>(builder: SubscriptionBuilder, probe: &Arc<Probe>, number: fn(&F) -> u64) -> Guard {
    let probe = Arc::clone(probe);
    Guard::Subscription(match probe.spec.kind {
        Kind::Tap => builder.observe(move |event: F| {
            assert!(probe.saw(number(&event)) != Act::Panic, "{MEANT}");
        }),
        Kind::Handler { once: true, .. } => {
            builder.once(move |event: F| Arc::clone(&probe).handle(number(&event)))
        }
        Kind::Handler { concurrency, .. } => builder
            .concurrent(concurrency)
            .subscribe(move |event: F| Arc::clone(&probe).handle(number(&event))),
        Kind::Stream => unreachable!("a stream has no handler"),
    })
}

/// Handlers panic on purpose here; nobody wants to read it.
pub(crate) fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some(MEANT) {
                usual(info);
            }
        }));
    });
}
