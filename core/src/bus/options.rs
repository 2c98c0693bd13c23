//! What a subscription is told when it is made.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    hash::{Hash, Hasher},
    panic::Location,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use super::lock;
use crate::event::{Envelope, EventType, Filter, Overflow};

/// Computes what makes two events stand for each other; `None` for events of other types.
pub(super) type KeyOf = Arc<dyn Fn(&Envelope) -> Option<u64> + Send + Sync>;

/// What a subscription is told when it is made.
pub(super) struct Options {
    pub(super) name: Cow<'static, str>,
    pub(super) location: &'static Location<'static>,
    pub(super) filter: Filter,
    pub(super) capacity: usize,
    pub(super) overflow: Option<Overflow>,
    pub(super) key: Option<KeyOf>,
    pub(super) timeout: Option<Duration>,
    pub(super) concurrency: u32,
    pub(super) suspend_after: Option<u32>,
    pub(super) once: bool,
    pub(super) unique: bool,
    pub(super) answers: Answers,
}

/// What the filter says of each event type, once it was asked.
#[derive(Default)]
pub(super) struct Answers(OnceLock<Box<[AtomicU8]>>);

/// Event types whose answer is kept. Those with a higher number are looked up each time.
const ANSWERS: usize = 512;

const YES: u8 = 1;
const NO: u8 = 2;

impl Options {
    /// Whether events of a type are wanted.
    #[inline]
    pub(super) fn wants(&self, event: &EventType) -> bool {
        let answers = self.answers.0.get_or_init(|| (0..ANSWERS).map(|_| AtomicU8::new(0)).collect());
        let Some(answer) = answers.get(event.index()) else { return self.filter.wants(event) };
        match answer.load(Ordering::Relaxed) {
            YES => true,
            NO => false,
            _ => {
                let wanted = self.filter.wants(event);
                answer.store(if wanted { YES } else { NO }, Ordering::Relaxed);
                wanted
            }
        }
    }

    /// What makes two of them the same; a key is a function and only the same as itself.
    fn identity(&self) -> impl Hash + Eq + '_ {
        let key = self.key.as_ref().map(|key| Arc::as_ptr(key).addr());
        (
            (&self.name, self.location, &self.filter, self.capacity, self.overflow, key),
            (self.timeout, self.concurrency, self.suspend_after, self.once, self.unique),
        )
    }
}

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Options {}

impl Hash for Options {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// Options by their value: the same code makes the same subscription in every session.
#[derive(Debug, Default)]
pub(super) struct SharedOptions(Mutex<HashSet<Arc<Options>>>);

impl SharedOptions {
    pub(super) fn share(&self, options: Options) -> Arc<Options> {
        let mut all = lock(&self.0);
        if let Some(same) = all.get(&options) {
            return Arc::clone(same);
        }
        let options = Arc::new(options);
        all.insert(Arc::clone(&options));
        options
    }

    /// A subscription with these options is over.
    pub(super) fn release(&self, options: &Arc<Options>) {
        let mut all = lock(&self.0);
        // Here, and in the subscription.
        let last = if Arc::strong_count(options) <= 2 { all.take(options) } else { None };
        drop(all);
        drop(last);
    }
}
