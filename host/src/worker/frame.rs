//! What goes over the socket: MessagePack behind its length. Both ends are of one version, so nothing here need last.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::INTEREST_WORDS;

/// Bytes of a frame: a picture of 8192 x 8192 pixels in RGBA has less.
const MAX_FRAME: usize = 300 << 20;

/// From the host to the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker<'a> {
    /// Which events are wanted.
    Interest([u64; INTEREST_WORDS]),
    /// Opens a session of a capability.
    Open { session: u32, kind: &'a str, session_id: &'a str },
    /// A command of a session; the window counts it.
    Command {
        session: u32,
        #[serde(borrow)]
        command: Command<'a>,
    },
    /// Stops the command of a token.
    Cancel { session: u32, token: u64 },
    /// Ends a session.
    Close { session: u32, token: u64 },
    /// Nobody has the session any more.
    Drop { session: u32 },
    /// So many outputs of a session were taken.
    Taken { session: u32, outputs: u32 },
    /// Asks whether the plugin still answers.
    Ping { number: u64 },
    /// Ends the plugin.
    Stop { number: u64 },
}

/// A command that can be answered by Full.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command<'a> {
    Audio {
        token: u64,
        rate: u32,
        channels: u16,
        #[serde(with = "serde_bytes")]
        samples: &'a [u8],
    },
    Flush {
        token: u64,
    },
    Begin {
        turn_id: u64,
    },
    End {
        token: u64,
    },
    CancelUtterance {
        token: u64,
    },
    Request {
        token: u64,
        turn_id: u64,
        #[serde(with = "serde_bytes")]
        request: &'a [u8],
    },
    Picture {
        token: u64,
        sequence: u64,
        width: u32,
        height: u32,
        format: u32,
        #[serde(with = "serde_bytes")]
        pixels: &'a [u8],
    },
}

/// From the worker to the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToHost<'a> {
    /// The plugin runs.
    Started,
    /// It does not, and why.
    Refused {
        message: &'a str,
        recoverable: bool,
    },
    Log {
        level: u32,
        target: &'a str,
        message: &'a str,
    },
    /// An event; the window counts it.
    Event {
        session: u32,
        #[serde(borrow)]
        event: Event<'a>,
    },
    /// Synthesised audio; the window counts it.
    Audio {
        session: u32,
        token: u64,
        rate: u32,
        channels: u16,
        #[serde(with = "serde_bytes")]
        samples: &'a [u8],
    },
    Finished {
        session: u32,
        token: u64,
        outcome: u32,
    },
    /// The plugin has let go of the session: nothing comes any more.
    Gone {
        session: u32,
    },
    /// So many commands of a session were taken.
    Taken {
        session: u32,
        commands: u32,
    },
    Pong {
        number: u64,
    },
    Stopped {
        number: u64,
    },
}

/// An event on its way, as at the ABI.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Event<'a> {
    pub(super) type_index: u32,
    pub(super) emitted_unix_ns: u64,
    pub(super) turn_id: u64,
    pub(super) causation_id: [u8; 16],
    #[serde(with = "serde_bytes")]
    pub(super) payload: &'a [u8],
}

/// A frame with its length in front.
pub(super) fn encode(frame: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&[0; 4]);
    rmp_serde::encode::write(&mut bytes, frame).expect("frames are plain data");
    let length = u32::try_from(bytes.len() - 4).expect("media and events are much smaller than 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Samples as bytes.
pub(super) fn bytes_of(samples: &[i16]) -> &[u8] {
    bytemuck::cast_slice(samples)
}

/// Bytes as samples.
pub(super) fn samples_of(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_ne_bytes([pair[0], pair[1]])).collect()
}

/// Reads one frame, and nothing beyond it; none at the end of the stream. Blocks.
pub(super) fn read_one(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(too_long(length));
    }
    let mut frame = Vec::new();
    from.take(length as u64).read_to_end(&mut frame)?;
    Ok((frame.len() == length).then_some(frame))
}

fn too_long(length: usize) -> io::Error {
    io::Error::other(format!("a frame of {length} bytes; at most {MAX_FRAME} are allowed"))
}

/// Cuts a stream into frames.
pub(super) struct Frames<R> {
    from: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// Bytes that are read at once; many small frames need one system call.
const READ: usize = 64 << 10;

impl<R: Read> Frames<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: vec![0; READ], start: 0, end: 0 }
    }

    /// The next frame; none at the end of the stream. Blocks.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if !self.fill(4)? {
            return Ok(None);
        }
        let length =
            self.buffer[self.start..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
        if length > MAX_FRAME {
            return Err(too_long(length));
        }
        if !self.fill(4 + length)? {
            return Ok(None);
        }
        let frame = self.start + 4;
        self.start = frame + length;
        Ok(Some(&self.buffer[frame..frame + length]))
    }

    /// Reads until there are so many bytes; `false` at the end of the stream.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.end - self.start < wanted {
            if self.start + wanted > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                if wanted > self.buffer.len() {
                    self.buffer.resize(wanted, 0);
                }
            } else if self.start == self.end {
                self.start = 0;
                self.end = 0;
                // What a picture needed is given back.
                if self.buffer.len() > 16 * READ && wanted <= READ {
                    self.buffer = vec![0; READ];
                }
            }
            match self.from.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            to[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let picture = vec![7_u8; 3 * READ];
        let sent: Vec<&[u8]> = vec![b"first", b"", &picture, b"last"];
        let stream: Vec<u8> = sent
            .iter()
            .flat_map(|payload| encode(&Command::Request { token: 1, turn_id: 2, request: payload }))
            .collect();
        let mut whole = Frames::new(&stream[..]);
        let mut trickled = Frames::new(Trickle(&stream));
        for payload in sent {
            for frame in [whole.next(), trickled.next()] {
                let frame = frame.expect("readable").expect("not the end");
                let command: Command<'_> = rmp_serde::from_slice(frame).expect("a command");
                assert!(
                    matches!(command, Command::Request { token: 1, turn_id: 2, request } if request == payload)
                );
            }
        }
        assert!(whole.next().expect("readable").is_none());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        assert!(Frames::new(&u32::MAX.to_le_bytes()[..]).next().is_err());
    }
}
