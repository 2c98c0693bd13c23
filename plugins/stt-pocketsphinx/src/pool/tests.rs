//! The pool of decoders, with the real library.

use super::*;
use crate::testing::{library, recording, transcripts, with_grammar};

/// What the next update must be.
#[track_caller]
fn text_of(update: Option<Update>) -> String {
    match update {
        Some(Update::Final(hypothesis)) => hypothesis.text,
        other => panic!("wanted the end, got {other:?}"),
    }
}

async fn last(updates: &mut Updates) -> Option<Update> {
    let mut last = None;
    while let Some(update) = updates.next().await {
        last = Some(update);
    }
    last
}

#[tokio::test]
async fn utterances_wait_for_each_other_in_a_pool_of_one() {
    let pool = Pool::new(library(), with_grammar("goforward.gram"), 1);
    let samples = recording("goforward.raw");
    let (first, mut first_updates) = pool.begin();
    let (second, mut second_updates) = pool.begin();
    first.push(samples[..16_000].to_vec()).await.unwrap();
    second.push(samples.clone()).await.unwrap();
    second.finish();
    // The first one has the decoder, so the second one must not come to an end.
    assert!(matches!(first_updates.next().await, Some(Update::Partial(_))));
    let second_ends = tokio::spawn(async move { text_of(last(&mut second_updates).await) });
    tokio::task::yield_now().await;
    assert!(!second_ends.is_finished());
    first.push(samples[16_000..].to_vec()).await.unwrap();
    first.finish();
    assert_eq!(text_of(last(&mut first_updates).await), "go forward ten meters");
    assert_eq!(second_ends.await.unwrap(), "go forward ten meters");
}

#[tokio::test]
async fn cancelled_utterance_frees_its_decoder() {
    let pool = Pool::new(library(), with_grammar("goforward.gram"), 1);
    let samples = recording("goforward.raw");
    // The way in is dropped; then the way out, while the way in stays and says nothing.
    let (utterance, mut updates) = pool.begin();
    utterance.push(samples[..24_000].to_vec()).await.unwrap();
    assert!(matches!(updates.next().await, Some(Update::Partial(_))));
    drop(utterance);
    assert!(last(&mut updates).await.is_none());
    let (idle, mut updates) = pool.begin();
    idle.push(samples[..24_000].to_vec()).await.unwrap();
    assert!(matches!(updates.next().await, Some(Update::Partial(_))));
    drop(updates);
    let (utterance, mut updates) = pool.begin();
    utterance.push(samples).await.unwrap();
    utterance.finish();
    assert_eq!(text_of(last(&mut updates).await), "go forward ten meters");
    assert!(idle.push(Vec::new()).await.is_err());
    assert_eq!(idle.try_push(vec![1]), Err(PushError::Ended(Ended)));
}

#[tokio::test]
async fn decoders_work_side_by_side() {
    let pool = Pool::new(library(), with_grammar("cards/cards.gram"), 2);
    let mut running = Vec::new();
    for (name, said) in transcripts("cards") {
        let (utterance, mut updates) = pool.begin();
        running.push(tokio::spawn(async move {
            for chunk in recording(&name).chunks(320) {
                utterance.push(chunk.to_vec()).await.unwrap();
            }
            utterance.finish();
            (text_of(last(&mut updates).await), said)
        }));
    }
    for running in running {
        let (heard, said) = running.await.unwrap();
        assert_eq!(heard, said);
    }
    pool.close();
}

#[tokio::test]
async fn pool_without_a_model_fails_each_utterance() {
    let settings = Settings { model: Some("/nowhere".into()), ..Settings::default() };
    let pool = Pool::new(library(), settings, 1);
    pool.warm_up();
    for _ in 0..2 {
        let (_utterance, mut updates) = pool.begin();
        match last(&mut updates).await {
            Some(Update::Failed(error @ PoolError::Decoder(decoder::Error::Missing { .. }))) => {
                assert!(!error.is_retryable());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn queue_of_an_utterance_has_a_bound() {
    let pool = Pool::new(library(), with_grammar("goforward.gram"), 1);
    let (first, _first_updates) = pool.begin();
    let (second, _second_updates) = pool.begin();
    for _ in 0..QUEUE {
        second.try_push(vec![0; 320]).unwrap();
    }
    assert_eq!(second.try_push(vec![7; 320]), Err(PushError::Full(vec![7; 320])));
    drop(first);
}

/// An engine that repeats numbers, and keeps account of the utterances that it finished.
#[derive(Default)]
struct Parrot {
    heard: Vec<i16>,
    finished: Arc<Mutex<Vec<Vec<i16>>>>,
}

/// Samples at which a [`Parrot`] panics, and fails.
const PANIC: i16 = -1;
const FAIL: i16 = -2;

impl Engine for Parrot {
    fn start(&mut self) -> Result<(), PoolError> {
        self.heard.clear();
        Ok(())
    }

    fn process(&mut self, samples: &[i16]) -> Result<(), PoolError> {
        assert!(!samples.contains(&PANIC), "told to");
        if samples.contains(&FAIL) {
            return Err(decoder::Error::Search.into());
        }
        self.heard.extend(samples);
        Ok(())
    }

    fn partial(&mut self) -> Option<String> {
        self.heard.last().map(i16::to_string)
    }

    fn finish(&mut self) -> Result<Hypothesis, PoolError> {
        self.finished.lock().unwrap().push(self.heard.clone());
        Ok(Hypothesis { text: format!("{:?}", self.heard), ..Hypothesis::default() })
    }

    fn abandon(&mut self) {}
}

fn parrots(threads: usize) -> Pool {
    Pool::with(threads, || Ok(Box::new(Parrot::default())))
}

/// Starts an utterance that has a decoder when this returns.
async fn begin_served(pool: &Pool) -> (Utterance, Updates) {
    let (utterance, mut updates) = pool.begin();
    utterance.push(vec![0]).await.unwrap();
    assert!(matches!(updates.next().await, Some(Update::Partial(_))));
    (utterance, updates)
}

#[tokio::test]
async fn panic_fails_the_utterance_and_not_the_pool() {
    let pool = parrots(1);
    for _ in 0..3 {
        let (utterance, mut updates) = pool.begin();
        utterance.push(vec![PANIC]).await.unwrap();
        match last(&mut updates).await {
            Some(Update::Failed(error @ PoolError::Panicked { .. })) => {
                assert_eq!(error.to_string(), "the decoder panicked: told to");
                assert!(error.is_retryable());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(utterance.push(vec![1]).await, Err(Ended));
        let (utterance, mut updates) = pool.begin();
        utterance.push(vec![1, 2]).await.unwrap();
        utterance.finish();
        assert_eq!(text_of(last(&mut updates).await), "[1, 2]");
    }
}

#[tokio::test]
async fn decoder_that_panics_while_it_is_made_is_made_again() {
    let attempts = AtomicU8::new(0);
    let pool = Pool::with(1, move || {
        assert!(attempts.fetch_add(1, Ordering::Relaxed) >= 2, "not yet");
        Ok(Box::new(Parrot::default()))
    });
    // Once for the thread, once for this utterance.
    let (_utterance, mut updates) = pool.begin();
    assert!(matches!(last(&mut updates).await, Some(Update::Failed(PoolError::Panicked { .. }))));
    let (utterance, mut updates) = pool.begin();
    utterance.finish();
    assert_eq!(text_of(last(&mut updates).await), "[]");
}

#[tokio::test]
async fn failure_ends_one_utterance() {
    let pool = parrots(1);
    let (utterance, mut updates) = pool.begin();
    utterance.push(vec![FAIL]).await.unwrap();
    let update = last(&mut updates).await;
    assert!(matches!(update, Some(Update::Failed(PoolError::Decoder(decoder::Error::Search)))), "{update:?}");
    let (utterance, mut updates) = pool.begin();
    utterance.finish();
    assert_eq!(text_of(last(&mut updates).await), "[]");
}

#[tokio::test]
async fn partial_comes_only_when_it_changed() {
    let pool = parrots(1);
    let (utterance, mut updates) = begin_served(&pool).await;
    utterance.push(vec![0]).await.unwrap();
    utterance.push(vec![1]).await.unwrap();
    let Some(Update::Partial(text)) = updates.next().await else { panic!("wanted a partial text") };
    assert_eq!(text, "1");
}

#[tokio::test]
async fn slow_reader_gets_fewer_partials_and_the_end() {
    let pool = parrots(1);
    let (utterance, mut updates) = pool.begin();
    for sample in 0..1_000 {
        utterance.push(vec![sample]).await.unwrap();
    }
    utterance.finish();
    let mut partials = 0;
    let end = loop {
        match updates.next().await {
            Some(Update::Partial(_)) => partials += 1,
            end => break end,
        }
    };
    assert!(partials < UPDATES, "{partials}");
    assert!(text_of(end).ends_with("998, 999]"));
}

#[tokio::test]
async fn first_come_first_served() {
    let finished = Arc::new(Mutex::new(Vec::new()));
    let account = Arc::clone(&finished);
    let pool =
        Pool::with(1, move || Ok(Box::new(Parrot { finished: Arc::clone(&account), ..Parrot::default() })));
    let (holder, _holder_updates) = begin_served(&pool).await;
    let mut waiting = Vec::new();
    for number in 0..8 {
        let (utterance, updates) = pool.begin();
        utterance.push(vec![number]).await.unwrap();
        utterance.finish();
        waiting.push(updates);
    }
    drop(holder);
    for updates in waiting.iter_mut().rev() {
        text_of(last(updates).await);
    }
    let want: Vec<Vec<i16>> = (0..8).map(|number| vec![number]).collect();
    assert_eq!(*finished.lock().unwrap(), want);
}

#[tokio::test]
async fn too_many_utterances_are_told_so() {
    let pool = parrots(1);
    let (holder, _holder_updates) = begin_served(&pool).await;
    let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| pool.begin()).collect();
    let (_utterance, mut updates) = pool.begin();
    assert!(matches!(last(&mut updates).await, Some(Update::Failed(PoolError::Busy))));
    // One that is given up makes room.
    drop(waiting.pop());
    let (utterance, mut updates) = pool.begin();
    utterance.finish();
    drop((waiting, holder));
    assert_eq!(text_of(last(&mut updates).await), "[]");
}

#[tokio::test]
async fn pool_ends_although_utterances_are_open() {
    for is_closed in [true, false] {
        let pool = parrots(1);
        let (running, mut running_updates) = begin_served(&pool).await;
        let (waiting, mut waiting_updates) = pool.begin();
        if is_closed {
            tokio::task::spawn_blocking(|| pool.close()).await.unwrap();
        } else {
            drop(pool);
        }
        for updates in [&mut running_updates, &mut waiting_updates] {
            assert!(matches!(last(updates).await, Some(Update::Failed(PoolError::Closed))));
        }
        assert_eq!(running.push(vec![1]).await, Err(Ended));
        assert_eq!(waiting.push(vec![1]).await, Err(Ended));
    }
}

#[test]
fn no_thread_is_started_before_it_is_needed() {
    let pool = parrots(3);
    let workers = || pool.shared.lock().workers.len();
    assert_eq!(workers(), 0);
    pool.warm_up();
    pool.warm_up();
    assert_eq!(workers(), 1);
    let one_after_the_other = |number: i16| {
        let (utterance, mut updates) = pool.begin();
        utterance.try_push(vec![number]).unwrap();
        utterance.finish();
        while updates.blocking_next().is_some() {}
    };
    (0..5).for_each(one_after_the_other);
    assert_eq!(workers(), 1);
    let open: Vec<_> = (0..5).map(|_| pool.begin()).collect();
    assert_eq!(workers(), 3);
    drop(open);
}
