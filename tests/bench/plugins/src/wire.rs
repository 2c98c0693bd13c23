//! The yardstick of the worker: the same bytes to another process and back, over a Unix socket, and nothing else.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command},
};

use anyhow::{Context, Result};

/// Bytes of 20 ms of audio at 16 kHz.
pub(crate) const CHUNK: usize = 640;

/// This program in another process, which gives back what it is given.
pub(crate) struct Wire {
    socket: UnixStream,
    child: Child,
    bytes: Vec<u8>,
}

impl Wire {
    pub(crate) fn open() -> Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo").stdin(OwnedFd::from(theirs));
        let child = command.spawn().context("cannot start myself")?;
        Ok(Self { socket, child, bytes: vec![7; CHUNK] })
    }

    /// There and back. Blocks.
    pub(crate) fn trip(&mut self) -> Result<()> {
        self.socket.write_all(&self.bytes)?;
        Ok(self.socket.read_exact(&mut self.bytes)?)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The end of the stream ends the other side; it may have ended before.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// The other side.
pub(crate) fn echo() -> Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut bytes = [0; CHUNK];
    while socket.read_exact(&mut bytes).is_ok() {
        socket.write_all(&bytes)?;
    }
    Ok(())
}
