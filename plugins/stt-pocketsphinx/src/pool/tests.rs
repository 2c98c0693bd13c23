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
