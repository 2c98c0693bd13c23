//! A subscription to pull from.

use std::{
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_core::Stream;

use super::{mailbox::Stats, queue::Ended, subscription::Subscription};
use crate::event::FromEvent;

/// The events of a subscription, one after the other. Ends with its session or bus; dropping it unsubscribes.
pub struct EventStream<F> {
    subscription: Subscription,
    item: PhantomData<fn() -> F>,
}

impl<F: FromEvent> EventStream<F> {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription, item: PhantomData }
    }

    /// The next event; `None` when no more will come.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<F> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// How the subscription is doing.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.subscription.stats()
    }

    fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<F>> {
        match self.take(context.waker()) {
            Ok(Some(event)) => Poll::Ready(Some(event)),
            Ok(None) => Poll::Pending,
            Err(Ended) => Poll::Ready(None),
        }
    }

    /// The next event of a type that it takes; if there is none yet, `reader` is woken for the next.
    fn take(&self, reader: &Waker) -> Result<Option<F>, Ended> {
        loop {
            let Some(envelope) = self.subscription.mailbox.take(Some(reader.clone()))? else {
                return Ok(None);
            };
            self.subscription.taken();
            if let Ok(event) = F::from_envelope(envelope) {
                return Ok(Some(event));
            }
        }
    }
}

impl<F: FromEvent> Stream for EventStream<F> {
    type Item = F;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F>> {
        self.poll_recv(context)
    }
}

impl<F> fmt::Debug for EventStream<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}
