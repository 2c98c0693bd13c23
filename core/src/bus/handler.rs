//! What a handler may return, and the handler with its types erased.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use crate::event::{Envelope, FromEvent};

/// Why a handler failed.
pub type Failure = Box<dyn Error + Send + Sync + 'static>;

/// What a handler may return: nothing, or a `Result` whose error becomes an `ExceptionEvent`.
#[diagnostic::on_unimplemented(
    message = "a handler returns `()` or `Result<(), E>`, not `{Self}`",
    label = "expected `()`, or a `Result` whose error is an `std::error::Error + Send + Sync`"
)]
pub trait HandlerOutput {
    /// The failure, if it is one.
    ///
    /// # Errors
    ///
    /// The handler's own error.
    fn into_result(self) -> Result<(), Failure>;
}

impl HandlerOutput for () {
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Failure>> HandlerOutput for Result<(), E> {
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}

/// What calling a handler gives: any [`Future`]. A trait of its own, and not a subtrait, only because the compiler then
/// says what a handler is to those who wrote one that is not async.
#[diagnostic::on_unimplemented(
    message = "a handler is async, but this one returns `{Self}`, which is no future",
    label = "expected an `async fn`, or a closure like `async |event: Event<SomeEvent>| ..`"
)]
pub trait HandlerFuture {
    /// What the handler returns in the end.
    type Output;

    /// As [`Future::poll`].
    fn poll_handler(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output>;
}

#[diagnostic::do_not_recommend]
impl<Fut: Future> HandlerFuture for Fut {
    type Output = Fut::Output;

    fn poll_handler(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll(context)
    }
}

pub(super) type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Starts the handler for an event; `None` when the event is not of a type that it takes.
pub(super) type Call = Arc<dyn Fn(&Arc<Envelope>) -> Option<Running> + Send + Sync>;

pub(super) fn erase<F, H, Fut>(handler: H) -> Call
where
    F: FromEvent,
    H: Fn(F) -> Fut + Send + Sync + 'static,
    Fut: HandlerFuture + Send + 'static,
    Fut::Output: HandlerOutput,
{
    Arc::new(move |envelope| {
        let running = handler(F::from_envelope(envelope)?);
        Some(Box::pin(async move {
            let mut running = pin!(running);
            poll_fn(|context| running.as_mut().poll_handler(context)).await.into_result()
        }))
    })
}

/// Lets a tap look at an event; `false` when the event is not of a type that it takes.
pub(super) type Look = Arc<dyn Fn(&Arc<Envelope>) -> bool + Send + Sync>;
