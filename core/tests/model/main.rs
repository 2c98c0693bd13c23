//! Property test: after any sequence of steps, the bus has done what a model of a few hundred plain lines does.
//!
//! A failure shows the shortest sequence of steps that still fails. More cases than usual: `PROPTEST_CASES=2000`, other
//! ones: `PROPTEST_RNG_SEED=1`.

mod reference;
mod world;

use antiphon_core::event::Overflow;
use proptest::{
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, RngSeed, TestRunner},
};

use crate::world::World;

/// Sessions of a case; events also go to the host, and subscriptions belong to it.
const SESSIONS: usize = 2;

/// Cases unless `PROPTEST_CASES` says another number: as many as nobody minds to wait for.
const CASES: u32 = 3000;

/// What a handler does with an event, if it is one of those that make trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Return,
    /// Lets others run before it returns.
    Yield,
    Fail,
    Panic,
    /// Waits for [`Step::OpenGate`].
    Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Ticks,
    /// Only tocks are events of plugins.
    PluginEvents,
    /// Both, by pattern.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Handler { concurrency: u32, once: bool },
    Stream,
    Tap,
}

/// A subscription to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) takes: Takes,
    pub(crate) session: Option<usize>,
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    /// Does what the events say; otherwise it returns at once, whatever happens elsewhere.
    pub(crate) makes_trouble: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// `emit`
    Plainly,
    /// `emit_wait`, given up after its first poll.
    Waiting,
    /// `emit_and_settle`
    Settling,
    /// `try_emit_plugin`, for tocks.
    AsPlugin,
}

/// One step. Subscriptions are named by any number, modulo how many there are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Subscribe(Spec),
    Emit {
        session: Option<usize>,
        is_tick: bool,
        act: Act,
        how: How,
    },
    Unsubscribe(usize),
    Mute(usize, bool),
    /// Mutes ticks for everybody.
    MuteTicks(bool),
    /// One call that waits may go on.
    OpenGate(usize),
    /// A stream's reader takes one.
    Receive(usize),
    Close(usize),
    /// Everybody does what there is to do.
    Rest,
}

fn session() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![1 => Just(None), 3 => (0..SESSIONS).prop_map(Some)]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Return), 2 => Just(Act::Yield), 1 => Just(Act::Fail), 1 => Just(Act::Panic), 2 => Just(Act::Wait)
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![
        6 => (1..=3u32).prop_map(|concurrency| Kind::Handler { concurrency, once: false }),
        1 => Just(Kind::Handler { concurrency: 1, once: true }),
        1 => Just(Kind::Stream),
        1 => Just(Kind::Tap),
    ];
    let takes = prop_oneof![Just(Takes::Ticks), Just(Takes::PluginEvents), Just(Takes::All)];
    let overflow = prop_oneof![
        2 => Just(Overflow::Wait),
        2 => Just(Overflow::DropOldest),
        2 => Just(Overflow::DropNewest),
        2 => Just(Overflow::Coalesce),
        1 => Just(Overflow::Disconnect),
    ];
    (kind, takes, session(), 1..5usize, overflow, any::<bool>()).prop_map(
        |(kind, takes, session, capacity, overflow, makes_trouble)| Spec {
            kind,
            takes,
            session,
            capacity,
            overflow,
            makes_trouble,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        4 => Just(How::Plainly), 3 => Just(How::Waiting), 1 => Just(How::Settling), 1 => Just(How::AsPlugin)
    ];
    let emit = (session(), any::<bool>(), act(), how).prop_map(|(session, is_tick, act, how)| Step::Emit {
        session,
        is_tick,
        act,
        how,
    });
    prop_oneof![
        4 => spec().prop_map(Step::Subscribe),
        24 => emit,
        1 => any::<usize>().prop_map(Step::Unsubscribe),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, muted)| Step::Mute(which, muted)),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Step::MuteTicks),
        4 => any::<usize>().prop_map(Step::OpenGate),
        2 => any::<usize>().prop_map(Step::Receive),
        1 => prop_oneof![8 => Just(None), 1 => (0..SESSIONS).prop_map(Some)]
            .prop_map(|session| session.map_or(Step::Rest, Step::Close)),
        4 => Just(Step::Rest),
    ]
}

#[test]
fn the_bus_does_what_the_model_does_whatever_happens() {
    world::silence_panics();
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(0);
    }
    let steps = proptest::collection::vec(step(), 1..80);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        World::run(&steps);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
