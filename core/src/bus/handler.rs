//! What a handler may return, and the handler with its types erased.

use std::{error::Error, future::Future, pin::Pin, sync::Arc};

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

pub(super) type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Starts the handler for an event; `None` when the event is not of a type that it takes.
pub(super) type Call = Arc<dyn Fn(&Arc<Envelope>) -> Option<Running> + Send + Sync>;

pub(super) fn erase<F, H, Fut>(handler: H) -> Call
where
    F: FromEvent,
    H: Fn(F) -> Fut + Send + Sync + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: HandlerOutput,
{
    Arc::new(move |envelope| {
        let running = handler(F::from_envelope(envelope)?);
        Some(Box::pin(async move { running.await.into_result() }))
    })
}
