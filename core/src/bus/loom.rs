//! Models of `queue.rs` and `ready.rs`: every interleaving of a few threads, run by `cargo xtask prove`.
//!
//! A model does by hand what `shards.rs` and `deliver.rs` do around the two, without handlers, runtimes and clocks. Where a
//! wake-up is lost a thread waits for ever, which loom reports. What the models count is no part of what is modelled, so it
//! is in std's atomics, which add no interleavings.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex as Notes,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Wake, Waker},
};

use loom::{model::Builder, sync::Notify, thread};

use super::{
    queue::{Ended, Full, Keyed, Leave, Pushed, Queue, Ring},
    ready::ReadyList,
};

/// How often threads are interrupted where they could have gone on, unless `LOOM_MAX_PREEMPTIONS` says more. Two are enough
/// for nearly all known bugs. Source: Musuvathi and Qadeer, "Iterative context bounding" (PLDI 2007).
const INTERRUPTIONS: usize = 2;

type Item = u32;

impl Keyed for Item {
    fn has_same_key(&self, newer: &Self) -> bool {
        self % 10 == newer % 10
    }
}

/// What a call works with; there are never more than calls at a time.
struct Worker;

/// One subscription and the lists of two shards.
struct Bus {
    queue: Queue<Item, Worker>,
    concurrency: u32,
    lists: [ReadyList<()>; 2],
    wakes: [Notify; 2],
    /// As the lists tell it.
    awake: [AtomicBool; 2],
    /// On how many ready lists the queue is.
    listed: AtomicU32,
    /// How many work now.
    workers: AtomicU32,
    /// How often the last worker was told so.
    ends: AtomicU32,
    /// What was handled, in the order in which the calls began.
    handled: Notes<Vec<Item>>,
    /// What was not queued, was lost for another, or was given up.
    returned: Notes<Vec<Item>>,
}

impl Bus {
    fn new(concurrency: u32) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(concurrency, None),
            concurrency,
            lists: [ReadyList::new(), ReadyList::new()],
            wakes: [Notify::new(), Notify::new()],
            awake: [AtomicBool::new(false), AtomicBool::new(false)],
            listed: AtomicU32::new(0),
            workers: AtomicU32::new(0),
            ends: AtomicU32::new(0),
            handled: Notes::default(),
            returned: Notes::default(),
        })
    }

    /// As `Shards::schedule`.
    fn schedule(&self, shard: usize) {
        assert_eq!(self.listed.fetch_add(1, Relaxed), 0, "the queue is on two ready lists");
        match self.lists[shard].push([()], || self.awaken(shard)) {
            Ok(true) => self.wakes[shard].notify(),
            Ok(false) => {}
            Err(_) => {
                self.listed.fetch_sub(1, Relaxed);
                self.give_back(self.queue.abandon());
            }
        }
    }

    fn awaken(&self, shard: usize) {
        assert!(!self.awake[shard].swap(true, Relaxed), "it is woken once");
    }

    fn obey(&self, ring: Ring, shard: usize) {
        match ring {
            Ring::Nobody => {}
            Ring::Shard => self.schedule(shard),
            Ring::Stream(reader) => reader.wake(),
        }
    }

    fn follow(&self, leave: Leave, shard: usize) {
        match leave {
            Leave::Idle => {}
            Leave::Reschedule => self.schedule(shard),
            Leave::Over => {
                self.ends.fetch_add(1, Relaxed);
                self.queue.end();
                // Shards run until the bus is gone, but a model ends.
                self.wakes.iter().for_each(Notify::notify);
            }
        }
    }

    fn give_back(&self, items: impl IntoIterator<Item = Item>) {
        self.returned.lock().expect("no model panics here").extend(items);
    }

    fn handle(&self, item: Item) {
        self.handled.lock().expect("no model panics here").push(item);
    }

    /// As `Mailbox::push`.
    fn publish(&self, item: Item, capacity: usize, full: Full, shard: usize) {
        let ring = match self.queue.push(item, capacity) {
            Ok(ring) => ring,
            Err(item) => {
                let (pushed, ring, _) = self.queue.push_full(item, capacity, full);
                match pushed {
                    Pushed::Queued | Pushed::Crowded => {}
                    Pushed::Lost(item) | Pushed::Replaced(item) | Pushed::Closed(item) => {
                        self.give_back([item])
                    }
                }
                ring
            }
        };
        self.obey(ring, shard);
    }

    fn close(&self, shard: usize) {
        let ring = self.queue.close();
        self.obey(ring, shard);
    }

    fn cancel(&self, shard: usize) {
        let (forgotten, ring) = self.queue.cancel();
        self.obey(ring, shard);
        self.give_back(forgotten);
    }

    /// Begins to work, as a visit.
    fn begin(&self, hand: &mut VecDeque<Item>, most: usize) -> Worker {
        self.listed.fetch_sub(1, Relaxed);
        let idle = self.queue.begin_visit(hand, most);
        let workers = self.workers.fetch_add(1, Relaxed) + 1;
        assert!(workers <= self.concurrency, "{workers} workers at a time");
        idle.unwrap_or(Worker)
    }

    fn end_visit(&self, worker: Worker, shard: usize) {
        self.workers.fetch_sub(1, Relaxed);
        let (leave, _unneeded) = self.queue.end_visit(Some(worker));
        self.follow(leave, shard);
    }

    fn end_task(&self, worker: Worker, shard: usize) {
        self.workers.fetch_sub(1, Relaxed);
        let (leave, _unneeded) = self.queue.end_task(Some(worker));
        self.follow(leave, shard);
    }

    /// As `deliver::visit` with calls that never wait.
    fn visit(&self, shard: usize) {
        let mut hand = VecDeque::new();
        let worker = self.begin(&mut hand, 2);
        hand.drain(..).for_each(|item| self.handle(item));
        self.end_visit(worker, shard);
    }

    /// As `deliver::visit` with a first call that has to wait, in a task of its own.
    fn visit_and_wait(self: &Arc<Self>, shard: usize, spawn: impl FnOnce(Box<dyn FnOnce() + Send>)) {
        let mut hand = VecDeque::new();
        let worker = self.begin(&mut hand, 2);
        let Some(first) = hand.pop_front() else { return self.end_visit(worker, shard) };
        self.handle(first);
        let leave = self.queue.promote(&mut hand);
        let bus = Arc::clone(self);
        spawn(Box::new(move || {
            while let Some(item) = bus.queue.next() {
                bus.handle(item);
            }
            bus.end_task(worker, shard);
        }));
        self.follow(leave, shard);
    }

    /// As a shard's own task: works its list off, then what it can take from the other, and sleeps until it is woken.
    fn run(&self, shard: usize, visit: impl Fn()) {
        loop {
            while self.lists[shard]
                .pop(|| self.awake[shard].store(false, Relaxed))
                .or_else(|| self.lists[1 - shard].steal())
                .is_some()
            {
                visit();
            }
            if self.queue.is_over() {
                return;
            }
            self.wakes[shard].wait();
        }
    }

    /// The subscription is over, once, and each of these items was handled or given back, once.
    fn check_end(&self, items: impl IntoIterator<Item = Item>) -> Vec<Item> {
        assert!(self.queue.is_over());
        assert_eq!(self.ends.load(Relaxed), 1, "`Leave::Over` comes once");
        assert_eq!(self.listed.load(Relaxed), 0, "nothing is left on a list");
        assert_eq!(self.workers.load(Relaxed), 0);
        let handled = self.handled.lock().expect("no model panics here").clone();
        let mut all = self.returned.lock().expect("no model panics here").clone();
        all.extend(&handled);
        all.sort_unstable();
        assert_eq!(all, items.into_iter().collect::<Vec<_>>(), "nothing is lost, nothing doubled");
        handled
    }
}

/// Runs a model in all its interleavings.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(INTERRUPTIONS);
    builder.check(model);
}

#[test]
fn two_publishers_and_a_shard_lose_nothing_and_keep_the_order() {
    check(|| {
        let bus = Bus::new(1);
        let one = thread::spawn({
            let bus = Arc::clone(&bus);
            move || {
                bus.publish(1, 8, Full::DropNewest, 0);
                bus.publish(2, 8, Full::DropNewest, 0);
                bus.close(0);
            }
        });
        let other = thread::spawn({
            let bus = Arc::clone(&bus);
            move || bus.publish(3, 8, Full::DropNewest, 0)
        });
        bus.run(0, || bus.visit(0));
        one.join().expect("it only publishes");
        other.join().expect("it only publishes");
        let handled = bus.check_end([1, 2, 3]);
        // The other may have come too late.
        assert_eq!(handled.iter().filter(|item| **item < 3).collect::<Vec<_>>(), [&1, &2]);
    });
}

#[test]
fn a_full_queue_gives_back_what_it_loses() {
    for full in [Full::DropOldest, Full::DropNewest, Full::Coalesce, Full::Close, Full::Stretch(2)] {
        check(move || {
            let bus = Bus::new(1);
            let publisher = thread::spawn({
                let bus = Arc::clone(&bus);
                move || {
                    for item in [1, 11, 21] {
                        bus.publish(item, 1, full, 0);
                    }
                    bus.close(0);
                }
            });
            bus.run(0, || bus.visit(0));
            publisher.join().expect("it only publishes");
            let handled = bus.check_end([1, 11, 21]);
            assert!(handled.is_sorted(), "{handled:?}");
        });
    }
}

#[test]
fn a_call_that_waits_lets_nothing_overtake_it() {
    check(|| {
        let bus = Bus::new(1);
        let publisher = thread::spawn({
            let bus = Arc::clone(&bus);
            move || {
                for item in [1, 2, 3] {
                    bus.publish(item, 8, Full::DropNewest, 0);
                }
                bus.close(0);
            }
        });
        let task = Notes::new(None);
        bus.run(0, || {
            let is_first = task.lock().expect("no model panics here").is_none();
            if is_first {
                bus.visit_and_wait(0, |work| {
                    *task.lock().expect("no model panics here") = Some(thread::spawn(work));
                });
            } else {
                bus.visit(0);
            }
        });
        publisher.join().expect("it only publishes");
        let task = task.into_inner().expect("no model panics here");
        task.expect("the first visit began it").join().expect("it only works");
        assert_eq!(bus.check_end([1, 2, 3]), [1, 2, 3]);
    });
}

#[test]
fn two_shards_never_exceed_the_concurrency_and_begin_calls_in_order() {
    for concurrency in [1, 2] {
        check(move || {
            let bus = Bus::new(concurrency);
            let shard = thread::spawn({
                let bus = Arc::clone(&bus);
                move || bus.run(1, || bus.visit(1))
            });
            let publisher = thread::spawn({
                let bus = Arc::clone(&bus);
                move || {
                    bus.publish(1, 8, Full::DropNewest, 0);
                    bus.publish(2, 8, Full::DropNewest, 1);
                    bus.close(1);
                }
            });
            // Its calls end here and not in a task, or there were too many threads.
            bus.run(0, || bus.visit_and_wait(0, |work| work()));
            shard.join().expect("it only works");
            publisher.join().expect("it only publishes");
            assert_eq!(bus.check_end([1, 2]), [1, 2], "calls begin in order");
        });
    }
}

#[test]
fn a_cancelled_subscription_ends_once_whoever_is_at_it() {
    check(|| {
        let bus = Bus::new(1);
        let publisher = thread::spawn({
            let bus = Arc::clone(&bus);
            move || {
                bus.publish(1, 8, Full::DropNewest, 0);
                bus.publish(2, 8, Full::DropNewest, 0);
            }
        });
        let canceller = thread::spawn({
            let bus = Arc::clone(&bus);
            move || {
                bus.cancel(0);
                // As a guard that is dropped after its session was closed.
                bus.close(0);
            }
        });
        bus.run(0, || bus.visit(0));
        publisher.join().expect("it only publishes");
        canceller.join().expect("it only cancels");
        bus.check_end([1, 2]);
    });
}

#[test]
fn a_runtime_that_ends_leaves_nothing_behind() {
    check(|| {
        let bus = Bus::new(1);
        let publisher = thread::spawn({
            let bus = Arc::clone(&bus);
            move || {
                bus.publish(1, 8, Full::DropNewest, 0);
                bus.publish(2, 8, Full::DropNewest, 0);
            }
        });
        // As a shard that has one visit, and then is dropped with its runtime.
        if bus.lists[0].pop(|| ()).is_some() {
            bus.visit(0);
        }
        for () in bus.lists[0].close() {
            bus.listed.fetch_sub(1, Relaxed);
        }
        bus.give_back(bus.queue.abandon());
        publisher.join().expect("it only publishes");
        bus.queue.end();
        assert_eq!((bus.queue.len(), bus.queue.is_idle()), (0, true));
        assert_eq!(bus.listed.load(Relaxed), 0);
        let both = bus.handled.lock().expect("no model panics here").len()
            + bus.returned.lock().expect("no model panics here").len();
        assert_eq!(both, 2);
    });
}

/// Wakes a thread of a model.
struct Reader(Notify);

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

#[test]
fn a_reader_is_woken_for_each_event_and_for_the_end() {
    check(|| {
        let bus = Bus::new(0);
        let publishers = [1, 2].map(|item| {
            let bus = Arc::clone(&bus);
            thread::spawn(move || {
                bus.publish(item, 8, Full::DropNewest, 0);
                if item == 2 {
                    bus.close(0);
                }
            })
        });
        let reader = Arc::new(Reader(Notify::new()));
        loop {
            match bus.queue.take(Some(Waker::from(Arc::clone(&reader)))) {
                Ok(Some(item)) => bus.handle(item),
                Ok(None) => reader.0.wait(),
                Err(Ended) => break,
            }
        }
        for publisher in publishers {
            publisher.join().expect("it only publishes");
        }
        let handled = bus.handled.lock().expect("no model panics here").clone();
        let returned = bus.returned.lock().expect("no model panics here").clone();
        let mut all = [handled, returned.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        assert!(returned.is_empty() || returned == [1], "what comes after the end is refused");
    });
}

#[test]
fn a_sleeping_shard_is_woken_whoever_else_takes_from_its_list() {
    check(|| {
        let list = Arc::new(ReadyList::new());
        let woken = Arc::new(Notify::new());
        let taken = Arc::new(Notes::new(Vec::new()));
        let publishers = [1, 2].map(|item: Item| {
            let (list, woken) = (Arc::clone(&list), Arc::clone(&woken));
            thread::spawn(move || {
                if list.push([item], || ()).expect("it is open") {
                    woken.notify();
                }
            })
        });
        let thief = thread::spawn({
            let (list, woken, taken) = (Arc::clone(&list), Arc::clone(&woken), Arc::clone(&taken));
            move || {
                let stolen = list.steal();
                taken.lock().expect("no model panics here").extend(stolen);
                // As `Lists::wake_another`.
                if list.rouse(|| ()) {
                    woken.notify();
                }
            }
        });
        while taken.lock().expect("no model panics here").len() < 2 {
            match list.pop(|| ()) {
                Some(item) => taken.lock().expect("no model panics here").push(item),
                // Nobody wakes it for what the thief took last.
                None if taken.lock().expect("no model panics here").len() == 2 => break,
                None => woken.wait(),
            }
        }
        for publisher in publishers {
            publisher.join().expect("it only publishes");
        }
        thief.join().expect("it only takes");
        let mut taken = taken.lock().expect("no model panics here").clone();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
    });
}
