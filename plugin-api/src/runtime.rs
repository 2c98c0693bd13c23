//! The plugin's own runtime, and what runs on it: sessions that take commands one after the other, and jobs that run
//! side by side.
//!
//! Nothing here blocks the calling thread, which is the host's, and no panic of author code passes it.

mod jobs;
mod serial;

use std::{
    future::{Future, poll_fn},
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::Poll,
};

use abi_stable::erased_types::TD_Opaque;
use antiphon_core::event::values::panic_message;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::Notify,
};

pub(crate) use self::{
    jobs::{Jobs, until_cancelled},
    serial::{Commands, Serial, spawn_serial},
};
use crate::{
    PluginError,
    abi::{Status, WakerBox, WakerV1},
    gate::Gate,
};

/// The runtime of this library; made at first use, never ended, because the library is never unloaded.
pub(crate) fn handle(name: &str) -> Result<&'static Handle, PluginError> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if RUNTIME.get().is_none() {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        // Whoever comes second drops its runtime; that may not happen on a runtime thread, and this is none.
        let _ = RUNTIME.set(runtime);
    }
    Ok(RUNTIME.get().expect("set above").handle())
}

/// The author's plugin. It is dropped on its runtime, whoever lets go of it last: its `Drop` may block or panic.
pub(crate) struct Held<P: Send + 'static> {
    plugin: Option<P>,
    runtime: &'static Handle,
}

impl<P: Send + 'static> Held<P> {
    pub(crate) fn new(plugin: P, runtime: &'static Handle) -> Self {
        Self { plugin: Some(plugin), runtime }
    }
}

impl<P: Send + 'static> Deref for Held<P> {
    type Target = P;

    fn deref(&self) -> &P {
        self.plugin.as_ref().expect("taken in `drop` alone")
    }
}

impl<P: Send + 'static> Drop for Held<P> {
    fn drop(&mut self) {
        let plugin = self.plugin.take();
        self.runtime.spawn(async move { drop(plugin) });
    }
}

/// Runs author code so that a panic becomes an error, also one while its future is dropped. `None` when the gate was
/// closed before the end, and when the code failed because it was.
pub(crate) async fn guarded_until<T>(
    gate: &Gate,
    work: impl Future<Output = Result<T, PluginError>>,
) -> Option<Result<T, PluginError>> {
    let mut work = pin!(Some(work));
    let polled = poll_fn(|context| {
        let work = work.as_mut().as_pin_mut().expect("dropped below");
        catch_unwind(AssertUnwindSafe(|| work.poll(context)))
            .unwrap_or_else(|panic| Poll::Ready(Err(PluginError::panic(panic_message(&*panic)))))
    });
    let result = tokio::select! {
        biased;
        () = gate.closed() => None,
        result = polled => Some(result),
    };
    // Here and not at the end of the function, where nobody could catch a panic. It is reported where it happens.
    let _ = catch_unwind(AssertUnwindSafe(|| work.set(None)));
    result.filter(|result| result.is_ok() || !gate.is_closed())
}

/// Runs author code that nobody stops.
pub(crate) async fn guarded<T>(work: impl Future<Output = Result<T, PluginError>>) -> Result<T, PluginError> {
    guarded_until(&Gate::new(), work).await.expect("the gate stays open")
}

/// Runs code that was called from the other side of the ABI; a panic, which is a bug of this crate, becomes `otherwise`.
pub(crate) fn shielded<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

struct NotifyWaker(Arc<Notify>);

impl WakerV1 for NotifyWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// A waker for the other side to ring.
#[must_use]
pub fn waker(notify: &Arc<Notify>) -> WakerBox {
    WakerBox::from_value(NotifyWaker(Arc::clone(notify)), TD_Opaque)
}

/// Repeats an attempt until it is not answered by [`Status::FULL`].
///
/// # Cancel safety
///
/// Nothing was sent while the future is pending.
pub async fn when_ready(mut attempt: impl FnMut() -> Status, register: impl Fn(WakerBox)) -> Status {
    loop {
        match attempt() {
            Status::FULL => {}
            status => return status,
        }
        let room = Arc::new(Notify::new());
        register(waker(&room));
        // Room that came before the waker was registered would not ring it.
        match attempt() {
            Status::FULL => room.notified().await,
            status => return status,
        }
    }
}

/// Who waits for room.
#[derive(Default)]
struct Wakers(Mutex<Vec<WakerBox>>);

impl Wakers {
    fn add(&self, waker: WakerBox) {
        lock(&self.0).push(waker);
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        for waker in wakers {
            waker.wake();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
