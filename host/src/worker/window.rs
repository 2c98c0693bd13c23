//! What may be under way from one side to the other, for one session.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use antiphon_plugin_api::abi::{Status, WakerBox};

/// Things that may be under way: two thirds of a second of audio, and a third of what the agent lets wait itself.
const MAX_COUNT: usize = 32;

/// Bytes that may be under way before the last thing, which may be of any size. Not a limit for the sum: the other side
/// tells of a quarter at a time, so a sender that waits for room must know that more than a quarter is under way.
const MAX_BYTES: usize = 1 << 20;

/// The sender's side.
#[derive(Default)]
pub(super) struct Window {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    under_way: VecDeque<usize>,
    bytes: usize,
    wakers: Vec<WakerBox>,
    closed: bool,
}

impl Window {
    /// Asks for room for so many bytes.
    pub(super) fn enter(&self, bytes: usize) -> Status {
        let mut state = self.lock();
        if state.closed {
            return Status::CLOSED;
        }
        if state.is_full() {
            return Status::FULL;
        }
        state.bytes += bytes;
        state.under_way.push_back(bytes);
        Status::ACCEPTED
    }

    /// The other side has taken so many, the oldest.
    pub(super) fn taken(&self, count: u32) {
        let wakers = {
            let mut state = self.lock();
            for _ in 0..count {
                let bytes = state.under_way.pop_front().unwrap_or_default();
                state.bytes -= bytes;
            }
            std::mem::take(&mut state.wakers)
        };
        wakers.iter().for_each(|waker| waker.wake());
    }

    /// Lets nothing through any more.
    pub(super) fn close(&self) {
        let wakers = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.iter().for_each(|waker| waker.wake());
    }

    /// Calls the waker as soon as there may be room, or none will ever be.
    pub(super) fn wake_when_ready(&self, waker: WakerBox) {
        {
            let mut state = self.lock();
            if !state.closed && !state.under_way.is_empty() {
                state.wakers.push(waker);
                return;
            }
        }
        waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.under_way.len() >= MAX_COUNT || self.bytes >= MAX_BYTES
    }
}

/// The receiver's side: when to say what was taken. Not after each, which would double the traffic; yet before the
/// sender can run out of room.
#[derive(Debug, Default)]
pub(super) struct Tally {
    count: u32,
    bytes: usize,
}

impl Tally {
    /// One more was taken; the number to tell the sender, if it is time.
    pub(super) fn take(&mut self, bytes: usize) -> Option<u32> {
        self.count += 1;
        self.bytes += bytes;
        let is_time = self.count as usize >= MAX_COUNT / 4 || self.bytes >= MAX_BYTES / 4;
        is_time.then(|| {
            self.bytes = 0;
            std::mem::take(&mut self.count)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use antiphon_plugin_api::abi::{WakerV1, abi_stable::erased_types::TD_Opaque};

    use super::*;

    struct Count(Arc<AtomicUsize>);

    impl WakerV1 for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends until there is no room, and receives all of it.
    #[track_caller]
    fn fill_and_drain(bytes: usize, fits: usize) {
        let (window, mut tally) = (Window::default(), Tally::default());
        let woken = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let mut sent = 0;
            while window.enter(bytes) == Status::ACCEPTED {
                sent += 1;
            }
            window.wake_when_ready(WakerBox::from_value(Count(Arc::clone(&woken)), TD_Opaque));
            let before = woken.load(Ordering::Relaxed);
            let told: u32 =
                (0..sent).filter_map(|_| tally.take(bytes)).inspect(|count| window.taken(*count)).sum();
            assert!(told > 0 && window.enter(bytes) == Status::ACCEPTED, "{bytes}: {sent} sent, {told} told");
            tally.take(bytes).inspect(|count| window.taken(*count));
            assert_eq!(woken.load(Ordering::Relaxed), before + 1);
            assert!(sent <= fits, "{bytes}: {sent}");
        }
    }

    #[test]
    fn a_sender_without_room_always_hears_of_room() {
        fill_and_drain(0, MAX_COUNT);
        fill_and_drain(640, MAX_COUNT);
        fill_and_drain(100_000, 11);
        fill_and_drain(50_000_000, 1);
    }

    #[test]
    fn what_is_small_does_not_keep_what_is_large_waiting() {
        let (window, mut tally) = (Window::default(), Tally::default());
        for _ in 0..5 {
            assert_eq!(window.enter(10_000), Status::ACCEPTED);
            assert_eq!(tally.take(10_000), None);
        }
        assert_eq!(window.enter(50_000_000), Status::ACCEPTED);
    }

    #[test]
    fn nothing_enters_a_closed_window_and_who_waits_is_woken() {
        let window = Window::default();
        while window.enter(1) == Status::ACCEPTED {}
        let woken = Arc::new(AtomicUsize::new(0));
        window.wake_when_ready(WakerBox::from_value(Count(Arc::clone(&woken)), TD_Opaque));
        window.close();
        window.wake_when_ready(WakerBox::from_value(Count(Arc::clone(&woken)), TD_Opaque));
        assert_eq!((woken.load(Ordering::Relaxed), window.enter(1)), (2, Status::CLOSED));
    }
}
