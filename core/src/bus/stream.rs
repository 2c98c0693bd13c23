//! A subscription to pull from.

use std::{
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{
    mailbox::{Ended, Stats},
    subscription::Subscription,
};
use crate::event::FromEvent;

/// The events of a subscription, one after the other. Ends with its session or bus; dropping it unsubscribes.
pub struct EventStream<F> {
    subscription: Subscription,
    /// The one waiter for `items`: a second would take the ring away from the first.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    item: PhantomData<fn() -> F>,
}

impl<F: FromEvent> EventStream<F> {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription, waiting: None, item: PhantomData }
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
        loop {
            match self.try_recv() {
                Ok(Some(event)) => return Poll::Ready(Some(event)),
                Ok(None) => {}
                Err(Ended) => return Poll::Ready(None),
            }
            let mailbox = Arc::clone(&self.subscription.mailbox);
            let waiting =
                self.waiting.get_or_insert_with(|| Box::pin(async move { mailbox.items.notified().await }));
            match waiting.as_mut().poll(context) {
                Poll::Ready(()) => self.waiting = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn try_recv(&self) -> Result<Option<F>, Ended> {
        loop {
            let Some(envelope) = self.subscription.mailbox.take_one()? else { return Ok(None) };
            self.subscription.taken();
            if let Some(event) = F::from_envelope(&envelope) {
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
