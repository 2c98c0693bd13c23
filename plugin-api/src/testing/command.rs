//! A question to a plugin that can be cut short.

use std::future::{Future, IntoFuture};

use futures_util::future::{BoxFuture, FutureExt};

/// Something that is asked of a plugin when it is awaited.
#[must_use = "nothing is asked unless it is awaited"]
pub struct Command<'a, T> {
    ask: Box<dyn FnOnce(Option<usize>) -> BoxFuture<'a, T> + Send + 'a>,
    cancel_after: Option<usize>,
}

impl<'a, T> Command<'a, T> {
    pub(super) fn new<F>(ask: impl FnOnce(Option<usize>) -> F + Send + 'a) -> Self
    where
        F: Future<Output = T> + Send + 'a,
    {
        Self { ask: Box::new(|cancel_after| ask(cancel_after).boxed()), cancel_after: None }
    }

    /// Cancels it when so many pieces have come: of text, of audio, or detections; when listening, so many chunks of
    /// 20 ms were heard. 0 is as soon as it has begun. What has fewer pieces is not cancelled.
    pub fn cancel_after(self, pieces: usize) -> Self {
        Self { cancel_after: Some(pieces), ..self }
    }
}

impl<'a, T> IntoFuture for Command<'a, T> {
    type Output = T;
    type IntoFuture = BoxFuture<'a, T>;

    fn into_future(self) -> BoxFuture<'a, T> {
        (self.ask)(self.cancel_after)
    }
}
