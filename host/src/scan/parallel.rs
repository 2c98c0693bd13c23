//! Work on many things at once, with as many threads as there are processors.

use std::{
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

/// Does the same with each item; the results are in the order of the items. Blocks.
pub(super) fn parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let waiting = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let take = || {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, item)) = next else { break };
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // This thread does it all, if there is no other.
            let _ = thread::Builder::new().name("plugin-scan".into()).spawn_scoped(scope, take);
        }
        take();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        assert_eq!(
            parallel((0..100).collect(), |number| number * 2),
            (0..200).step_by(2).collect::<Vec<_>>()
        );
        assert!(parallel(Vec::<u8>::new(), |byte| byte).is_empty());
    }
}
