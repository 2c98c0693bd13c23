//! The sending end of a socket, for callers that must not block.

use std::{
    io::{self, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::net::{SendFlags, send};
use serde::Serialize;

use super::frame;

/// Sends at once what the socket takes; the rest is sent by a thread, in order. What may wait is bounded by the windows
/// of the sessions, and for log records by [`MAX_REST`].
pub(super) struct Outbox {
    socket: UnixStream,
    state: Mutex<State>,
    waiting: Condvar,
}

#[derive(Default)]
struct State {
    /// What the socket has not taken.
    rest: Vec<u8>,
    /// The thread has some in its hands.
    writing: bool,
    closed: bool,
}

/// Bytes that may wait before what may be lost is.
const MAX_REST: usize = 1 << 20;

impl Outbox {
    /// Begins to send; the thread ends when the outbox is closed.
    pub(super) fn start(socket: UnixStream) -> io::Result<Arc<Self>> {
        let outbox = Arc::new(Self { socket, state: Mutex::default(), waiting: Condvar::new() });
        let own = Arc::clone(&outbox);
        thread::Builder::new().name("worker-send".into()).spawn(move || own.write_rest())?;
        Ok(outbox)
    }

    /// Sends a frame that may be lost, if not too much waits already: what no window bounds.
    pub(super) fn send_if_room(&self, message: &impl Serialize) {
        if self.lock().rest.len() < MAX_REST {
            self.send(message);
        }
    }

    /// Sends a frame. Never blocks for longer than others copy theirs. What is sent after the end is lost, as the
    /// other side is.
    pub(super) fn send(&self, message: &impl Serialize) {
        let bytes = frame::encode(message);
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let mut sent = 0;
        if state.rest.is_empty() && !state.writing {
            match send(&self.socket, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent = count,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => state.closed = true,
            }
        }
        if sent < bytes.len() {
            state.rest.extend_from_slice(&bytes[sent..]);
            drop(state);
            self.waiting.notify_one();
        }
    }

    /// Sends nothing more, and lets both ends see the end of the stream.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        // It is closed already: fine.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.waiting.notify_one();
    }

    fn write_rest(&self) {
        let mut bytes = Vec::new();
        loop {
            {
                let mut state = self.lock();
                state.writing = false;
                while state.rest.is_empty() && !state.closed {
                    state = self.waiting.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.closed {
                    return;
                }
                bytes.clear();
                std::mem::swap(&mut bytes, &mut state.rest);
                state.writing = true;
            }
            if (&self.socket).write_all(&bytes).is_err() {
                self.lock().closed = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
