//! What a handler may return, and the handler with its types erased.

use std::{
    error::Error,
    future::Future,
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

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

/// Calls a handler, one call at a time, in memory that all its calls share.
pub(super) trait Worker: Send {
    /// Calls the handler; `false` when the event is not of a type that it takes.
    fn begin(self: Pin<&mut Self>, envelope: Arc<Envelope>) -> bool;

    /// Gets the call on. When it is done, its future has been dropped.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Failure>>;

    /// Gives the call up.
    fn clear(self: Pin<&mut Self>);
}

pub(super) type WorkerBox = Pin<Box<dyn Worker>>;

/// Makes a worker; they share the handler.
pub(super) type Hire = Arc<dyn Fn() -> WorkerBox + Send + Sync>;

pin_project! {
    struct Caller<F, P, Fut> {
        handler: P,
        #[pin]
        call: Option<Fut>,
        event: PhantomData<fn(F)>,
    }
}

impl<F, P, H, Fut> Worker for Caller<F, P, Fut>
where
    F: FromEvent,
    P: Deref<Target = H> + Send,
    H: Fn(F) -> Fut + Send + Sync + 'static,
    Fut: HandlerFuture + Send + 'static,
    Fut::Output: HandlerOutput,
{
    fn begin(self: Pin<&mut Self>, envelope: Arc<Envelope>) -> bool {
        let Ok(event) = F::from_envelope(envelope) else { return false };
        let mut this = self.project();
        let call = (this.handler)(event);
        this.call.set(Some(call));
        true
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut this = self.project();
        let Some(call) = this.call.as_mut().as_pin_mut() else { return Poll::Ready(Ok(())) };
        let Poll::Ready(output) = call.poll_handler(context) else { return Poll::Pending };
        this.call.set(None);
        Poll::Ready(output.into_result())
    }

    fn clear(self: Pin<&mut Self>) {
        self.project().call.set(None);
    }
}

/// A handler that has one worker.
struct Own<H>(H);

impl<H> Deref for Own<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.0
    }
}

/// A handler with its types erased: as the one worker that it needs, or as what makes several.
pub(super) enum Handler {
    One(WorkerBox),
    Several(Hire),
}

pub(super) fn erase<F, H, Fut>(handler: H, concurrency: u32) -> Handler
where
    F: FromEvent,
    H: Fn(F) -> Fut + Send + Sync + 'static,
    Fut: HandlerFuture + Send + 'static,
    Fut::Output: HandlerOutput,
{
    if concurrency == 1 {
        return Handler::One(Box::pin(Caller { handler: Own(handler), call: None, event: PhantomData }));
    }
    let handler = Arc::new(handler);
    Handler::Several(Arc::new(move || {
        Box::pin(Caller { handler: Arc::clone(&handler), call: None, event: PhantomData })
    }))
}

/// Lets a tap look at an event; `false` when the event is not of a type that it takes.
pub(super) type Look = Box<dyn Fn(Arc<Envelope>) -> bool + Send + Sync>;
