//! Millions of events through the bus with everything that goes wrong in handlers, and books that must balance in the end.
//!
//! Of what was published for a subscription each event is delivered, dropped, muted or coalesced; each failure is one
//! `ExceptionEvent`; each loss is told; each session's order is kept; no handler runs after `unsubscribe().await`. Prints
//! one line of totals; exit code 1 and the differences where something does not add up. Run by `cargo xtask prove`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![expect(clippy::disallowed_methods, reason = "tells a person how long it took; no logic depends on it")]

use std::{
    collections::HashMap,
    fmt,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    BaseEvent, Event, EventBus, SessionBus, Subscription,
    bus::{Stats, SubscriptionBuilder},
    event::{
        Overflow,
        bus::{ExceptionEvent, SubscriberLaggedEvent},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const HELP: &str = "\
Sends events through the bus and checks that every counter adds up.

Usage: soak [--events N] [--json]

  --events N   how many to publish (default 50000000)
  --json       the totals as JSON";

const SESSIONS: usize = 4;
const PUBLISHERS: u64 = 4;

/// Events that a publisher emits between two chances for others to run.
const BURST: u64 = 64;

/// Events of each session that comes and goes.
const SHORT_LIFE: u64 = 200;

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "soak.tick", base = BaseEvent)]
struct TickEvent {
    number: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "soak.tock", base = BaseEvent)]
struct TockEvent {
    number: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("event {0} is one of those that fail")]
struct Fault(u64);

/// What all tasks share.
#[derive(Default)]
struct Books {
    published: AtomicU64,
    /// Handler calls that failed.
    failed: AtomicU64,
    /// Losses that were told, by subscription.
    told: Mutex<HashMap<u64, u64>>,
    problems: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Books {
    fn problem(&self, problem: impl fmt::Display) {
        self.problems.lock().expect("nobody panics here").push(problem.to_string());
    }

    fn check(&self, what: impl fmt::Display, want: u64, found: u64) {
        if want != found {
            self.problem(format_args!("{what}: {want} wanted, {found} found"));
        }
    }
}

/// One subscription as its handler sees it.
struct Probe {
    name: String,
    books: Arc<Books>,
    /// Of other events than other handlers, this one makes trouble.
    salt: u64,
    /// In the order of one session's `seq`.
    is_ordered: bool,
    calls: AtomicU64,
    last: AtomicU64,
    is_gone: AtomicBool,
}

impl Probe {
    fn new(books: &Arc<Books>, name: String, salt: u64, is_ordered: bool) -> Arc<Self> {
        Arc::new(Self {
            name,
            books: Arc::clone(books),
            salt,
            is_ordered,
            calls: AtomicU64::new(0),
            last: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
        })
    }

    fn saw(&self, seq: u64) {
        self.calls.fetch_add(1, Relaxed);
        if self.is_gone.load(Relaxed) {
            self.books.problem(format_args!("{}: called after it was unsubscribed", self.name));
        }
        if self.is_ordered && self.last.swap(seq, Relaxed) >= seq {
            self.books.problem(format_args!("{}: event {seq} came too late", self.name));
        }
    }

    /// What every handler does: mostly nothing.
    async fn handle(self: Arc<Self>, number: u64, seq: u64) -> Result<(), Fault> {
        self.saw(seq);
        let dice = (number + self.salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        // On a busy machine, whatever it waited for could take it too long.
        let is_timed = self.salt == TIMED;
        match dice % 20_000 {
            0..10 if !is_timed => tokio::task::yield_now().await,
            10 if !is_timed => tokio::time::sleep(Duration::from_millis(1)).await,
            11 => {
                self.books.failed.fetch_add(1, Relaxed);
                return Err(Fault(number));
            }
            12 => {
                if !is_timed {
                    tokio::task::yield_now().await;
                }
                self.books.failed.fetch_add(1, Relaxed);
                panic!("event {number} is one of those that panic");
            }
            13 if is_timed => {
                self.books.failed.fetch_add(1, Relaxed);
                std::future::pending().await
            }
            _ => {}
        }
        Ok(())
    }
}

/// The handler with this number has a timeout.
const TIMED: u64 = 3;

/// A subscription that lives to the end.
struct Account {
    guard: Subscription,
    probe: Arc<Probe>,
    /// None for the host.
    session: Option<usize>,
    takes_tocks: bool,
    /// Losses of taps are told with the next loss, not at the end.
    is_tap: bool,
}

impl Account {
    /// `published`: ticks and tocks of each session.
    fn check(&self, books: &Books, published: &[[u64; 2]; SESSIONS], short_lived: u64) -> Stats {
        let mine = |session: &usize| self.session.is_none_or(|own| own == *session);
        let of = |session: usize| {
            let [ticks, tocks] = published[session];
            if self.takes_tocks { ticks + tocks } else { ticks }
        };
        let mut want: u64 = (0..SESSIONS).filter(mine).map(of).sum();
        if self.session.is_none() {
            want += short_lived;
        }
        let stats = self.guard.stats();
        let name = &self.probe.name;
        let found = stats.delivered + stats.dropped + stats.muted + stats.coalesced;
        if want != found || stats.depth > 0 {
            books.problem(format_args!("{name}: {want} were published for it: {stats:?}"));
        }
        books.check(format_args!("{name}: calls"), stats.delivered, self.probe.calls.load(Relaxed));
        let told = books
            .told
            .lock()
            .expect("nobody panics here")
            .get(&self.guard.handler().subscription_id)
            .copied();
        if !self.is_tap {
            books.check(format_args!("{name}: losses told"), stats.dropped, told.unwrap_or_default());
        }
        stats
    }
}

#[track_caller]
fn subscribe(builder: SubscriptionBuilder, probe: &Arc<Probe>, takes_tocks: bool) -> Subscription {
    let probe = Arc::clone(probe);
    if takes_tocks {
        builder.patterns(["soak.*"]).subscribe_with(probe, |probe: Arc<Probe>, event: Event<BaseEvent>| {
            probe.handle(event.seq(), event.seq())
        })
    } else {
        builder.subscribe_with(probe, |probe: Arc<Probe>, event: Event<TickEvent>| {
            probe.handle(event.number, event.seq())
        })
    }
}

/// The subscriptions of one session that live to the end.
fn open_accounts(books: &Arc<Books>, index: usize, session: &SessionBus) -> Vec<Account> {
    let mut accounts = Vec::new();
    let mut open = |name: &str, takes_tocks: bool, concurrency: u32, builder: SubscriptionBuilder| {
        let salt = accounts.len() as u64;
        let name = format!("session {index}, {name}");
        let probe = Probe::new(books, name.clone(), salt, concurrency == 1);
        let builder = builder.name(name).concurrent(concurrency);
        let builder = if salt == TIMED { builder.timeout(Duration::from_millis(5)) } else { builder };
        let guard = subscribe(builder, &probe, takes_tocks);
        accounts.push(Account { guard, probe, session: Some(index), takes_tocks, is_tap: false });
    };
    let new = || session.subscription();
    open("waits", false, 1, new().capacity(64));
    open("drops the oldest", true, 1, new().capacity(16).overflow(Overflow::DropOldest));
    open("drops the newest", false, 1, new().capacity(16).overflow(Overflow::DropNewest));
    open("has a timeout", false, 1, new().capacity(32).overflow(Overflow::DropNewest));
    open("coalesces", true, 1, new().capacity(4).overflow(Overflow::Coalesce));
    open("coalesces by key", false, 1, new().capacity(8).coalesce_by(|event: &TickEvent| event.number % 5));
    open("three at a time", true, 3, new().capacity(64));
    open("two at a time", false, 2, new().capacity(4096));

    let probe = Probe::new(books, format!("session {index}, tap"), 0, false);
    let guard = session.observe({
        let probe = Arc::clone(&probe);
        move |event: Event<TickEvent>| probe.saw(event.seq())
    });
    accounts.push(Account { guard, probe, session: Some(index), takes_tocks: false, is_tap: true });
    accounts
}

/// Publishes `events`; gives how many ticks and tocks each session got.
async fn publish(
    books: Arc<Books>,
    sessions: Vec<SessionBus>,
    publisher: u64,
    events: u64,
) -> [[u64; 2]; SESSIONS] {
    let mut published = [[0; 2]; SESSIONS];
    let mut random = fastrand::Rng::with_seed(publisher);
    let mut left = events;
    while left > 0 {
        let index = random.usize(..SESSIONS);
        let (session, counts) = (&sessions[index], &mut published[index]);
        let burst = left.min(random.u64(1..=BURST));
        for number in (left - burst + 1)..left {
            if random.u8(..) < 160 {
                session.emit(TickEvent { number });
                counts[0] += 1;
            } else {
                session.emit(TockEvent { number });
                counts[1] += 1;
            }
        }
        match random.u8(..8) {
            0 => {
                let _ = session.emit_and_settle(TickEvent { number: left }).await;
            }
            1..6 => session.emit_wait(TickEvent { number: left }).await,
            _ => session.emit(TickEvent { number: left }),
        }
        counts[0] += 1;
        left -= burst;
        books.published.fetch_add(burst, Relaxed);
        tokio::task::yield_now().await;
    }
    published
}

/// Subscriptions, sessions and mutes that come and go; gives how many ticks the sessions saw.
async fn churn(books: Arc<Books>, bus: EventBus, sessions: Vec<SessionBus>) -> u64 {
    let mut random = fastrand::Rng::with_seed(99);
    let mut short_lived = 0;
    let policies = [
        Overflow::Wait,
        Overflow::DropOldest,
        Overflow::DropNewest,
        Overflow::Coalesce,
        Overflow::Disconnect,
    ];
    while !books.is_over.load(Relaxed) {
        let session = &sessions[random.usize(..SESSIONS)];
        let policy = policies[random.usize(..policies.len())];
        let builder = session.subscription().capacity(random.usize(1..50)).overflow(policy);
        let probe = Probe::new(&books, format!("{policy:?} for a while"), 7, true);
        let guard = subscribe(builder, &probe, random.bool());
        tokio::time::sleep(Duration::from_micros(random.u64(..2_000))).await;
        guard.unsubscribe().await;
        probe.is_gone.store(true, Relaxed);

        let session = bus.open_session();
        let probe = Probe::new(&books, "session for a while".to_owned(), 7, true);
        let guard = subscribe(session.subscription().capacity(32), &probe, false);
        for number in 0..SHORT_LIFE {
            session.emit_wait(TickEvent { number }).await;
        }
        short_lived += SHORT_LIFE;
        session.close().await;
        probe.is_gone.store(true, Relaxed);
        books.check(
            "delivered to a session for a while",
            SHORT_LIFE,
            guard.stats().delivered + guard.stats().dropped,
        );

        let pattern = ["soak.tock", "soak.tick", "soak.*"][random.usize(..3)];
        if random.u8(..8) == 0 {
            bus.mute(pattern);
            tokio::task::yield_now().await;
            bus.unmute(pattern);
        }
    }
    short_lived
}

/// Mutes one subscription now and then.
async fn mute(books: Arc<Books>, account: Arc<Account>) {
    while !books.is_over.load(Relaxed) {
        account.guard.mute();
        tokio::time::sleep(Duration::from_millis(1)).await;
        account.guard.unmute();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What it came to.
#[derive(Debug, Default, Serialize)]
struct Totals {
    published: u64,
    delivered: u64,
    dropped: u64,
    muted: u64,
    coalesced: u64,
    failures: u64,
    exceptions: u64,
    seconds: f64,
    cpu_seconds: f64,
    peak_rss_mb: f64,
    problems: Vec<String>,
}

async fn soak(events: u64) -> Totals {
    let books = Arc::new(Books::default());
    let bus = EventBus::new();
    let sessions: Vec<SessionBus> = (0..SESSIONS).map(|_| bus.open_session()).collect();
    let exceptions = bus.observe(|_: Event<ExceptionEvent>| ());
    let _lags = bus.observe({
        let books = Arc::clone(&books);
        move |event: Event<SubscriberLaggedEvent>| {
            let mut told = books.told.lock().expect("nobody panics here");
            *told.entry(event.handler.subscription_id).or_default() += event.dropped;
        }
    });
    let mut accounts = Vec::new();
    for (index, session) in sessions.iter().enumerate() {
        accounts.extend(open_accounts(&books, index, session).into_iter().map(Arc::new));
    }
    let probe = Probe::new(&books, "host".to_owned(), 11, false);
    let guard = subscribe(bus.subscription().name("host").capacity(256), &probe, false);
    accounts.push(Arc::new(Account { guard, probe, session: None, takes_tocks: false, is_tap: false }));

    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let share = events / PUBLISHERS + u64::from(publisher < events % PUBLISHERS);
            tokio::spawn(publish(Arc::clone(&books), sessions.clone(), publisher, share))
        })
        .collect();
    let churning = tokio::spawn(churn(Arc::clone(&books), bus.clone(), sessions.clone()));
    let muting = tokio::spawn(mute(Arc::clone(&books), Arc::clone(&accounts[2])));
    tokio::spawn(tell_progress(Arc::clone(&books), events));

    let mut published = [[0; 2]; SESSIONS];
    for publisher in publishers {
        let part = publisher.await.expect("publishers do not panic");
        for (sum, part) in published.iter_mut().flatten().zip(part.iter().flatten()) {
            *sum += part;
        }
    }
    books.is_over.store(true, Relaxed);
    let short_lived = churning.await.expect("it does not panic");
    muting.await.expect("it does not panic");
    if !bus.drain(Duration::from_secs(60)).await {
        books.problem("the bus does not come to rest");
    }
    let mut totals =
        Totals { published: published.iter().flatten().sum::<u64>() + short_lived, ..Totals::default() };
    for account in &accounts {
        let stats = account.check(&books, &published, short_lived);
        totals.delivered += stats.delivered;
        totals.dropped += stats.dropped;
        totals.muted += stats.muted;
        totals.coalesced += stats.coalesced;
    }
    totals.failures = books.failed.load(Relaxed);
    totals.exceptions = exceptions.stats().delivered;
    books.check("an `ExceptionEvent` for each failure", totals.failures, totals.exceptions);
    books.check("events published", events + short_lived, totals.published);
    bus.shutdown().await;
    totals.problems = std::mem::take(&mut books.problems.lock().expect("nobody panics here"));
    totals
}

async fn tell_progress(books: Arc<Books>, events: u64) {
    const EVERY: Duration = Duration::from_secs(5);
    let mut before = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let published = books.published.load(Relaxed);
        let rate = (published - before) / EVERY.as_secs();
        eprintln!("{published} of {events} events, {rate} per second");
        before = published;
    }
}

/// Processor time of all threads of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The most memory that this process ever had, in MB; 0 where the system does not say.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0 / 1e6
}

fn main() -> ExitCode {
    let (mut events, mut as_json) = (50_000_000, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.len()) {
            ("--json", _) => as_json = true,
            ("--events", 1..) => {
                match arguments.next().and_then(|number| number.replace('_', "").parse().ok()) {
                    Some(number) => events = number,
                    None => {
                        eprintln!("error: --events takes a number\n\n{HELP}");
                        return ExitCode::from(2);
                    }
                }
            }
            ("--help" | "-h", _) => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("error: {argument} is not understood\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    // Handlers panic on purpose, which the bus reports.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_meant = info.payload_as_str().is_some_and(|text| text.ends_with("is one of those that panic"));
        if !is_meant {
            usual(info);
        }
    }));
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build();
    let mut totals = runtime.expect("the system gives threads").block_on(soak(events));
    totals.seconds = began.elapsed().as_secs_f64();
    totals.cpu_seconds = cpu_time().as_secs_f64();
    totals.peak_rss_mb = peak_rss_mb();
    if as_json {
        println!("{}", serde_json::to_string_pretty(&totals).expect("plain values"));
    } else {
        println!("{totals}");
    }
    for problem in totals.problems.iter().take(50) {
        eprintln!("error: {problem}");
    }
    ExitCode::from(u8::from(!totals.problems.is_empty()))
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, delivered, dropped, muted, coalesced, failures, exceptions, .. } = self;
        write!(
            f,
            "{published} events published: {delivered} delivered, {dropped} dropped, {muted} muted, {coalesced} \
             coalesced; {failures} failures, {exceptions} exceptions; {:.1} s, {:.1} s of CPU, peak RSS {:.1} MB; {}",
            self.seconds,
            self.cpu_seconds,
            self.peak_rss_mb,
            if self.problems.is_empty() { "all counters add up" } else { "NOT ALL COUNTERS ADD UP" },
        )
    }
}
