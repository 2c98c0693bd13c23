//! What goes wrong with recordings, in words that say what to do about it.
//!
//! Not here: anything about what a conversation does with the audio.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::media::content::Content;

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// Nothing is at the path.
    #[error("wanted a recording, found no file at {}; check the path", shown(path))]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file was wanted, a directory is there.
    #[error("wanted a file, found a directory at {}; name a file in it", shown(path))]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The user who runs this may not open the file.
    #[error("no permission to {access} {}; check its owner and mode with ls -l", shown(path))]
    PermissionDenied {
        /// The file.
        path: PathBuf,
        /// What was tried.
        access: Access,
    },
    /// The directory that should hold the output does not exist.
    #[error(
        "cannot write {}: there is no directory {}; make it with mkdir -p",
        shown(path),
        shown(directory)
    )]
    NoOutputDirectory {
        /// The output.
        path: PathBuf,
        /// The directory that is missing.
        directory: PathBuf,
    },
    /// Samples were wanted from standard input, but a person is typing there.
    #[error("wanted a recording on standard input, found a terminal; pipe one in: sox in.mp3 -t wav - | ...")]
    Terminal,
    /// The input has no bytes at all.
    #[error("wanted a recording, found no bytes at all in {}", shown(path))]
    Empty {
        /// The input.
        path: PathBuf,
    },
    /// The input is neither wav nor named as headerless samples.
    #[error("wanted a wav recording, found {found} in {}{}", shown(path), advice(path, *found))]
    NotWav {
        /// The input.
        path: PathBuf,
        /// What it looks like.
        found: Content,
    },
    /// The header of a wav file makes no sense.
    #[error("{} is a damaged wav file: {fault}; make or copy it again", shown(path))]
    Header {
        /// The input.
        path: PathBuf,
        /// What is wrong in it.
        fault: HeaderFault,
    },
    /// The samples are compressed.
    #[error(
        "wanted uncompressed samples, found wav codec {tag:#06x}{} in {}; convert it: {}",
        codec_name(*tag),
        shown(path),
        Convert(path)
    )]
    Codec {
        /// The input.
        path: PathBuf,
        /// The codec, as registered in Microsoft's `mmreg.h`.
        tag: u16,
    },
    /// The sample rate cannot be converted.
    #[error("wanted a sample rate of 4000 to 192000 Hz, found {sample_rate_hz} Hz in {}", shown(path))]
    SampleRate {
        /// The recording, read or written.
        path: PathBuf,
        /// The rate.
        sample_rate_hz: u32,
    },
    /// There are more channels than can be mixed without guessing what they are.
    #[error(
        "wanted 1 or 2 channels, found {channels} in {}; mix or pick first: {}",
        shown(path),
        Convert(path)
    )]
    Channels {
        /// The input.
        path: PathBuf,
        /// How many there are.
        channels: u16,
    },
    /// The samples are of a size that is not read.
    #[error(
        "wanted integer samples of 8, 16, 24 or 32 bits or floats of 32 or 64, found {} of {bits} bits in \
         {}; convert it: {}",
        if *is_float { "floats" } else { "integers" },
        shown(path),
        Convert(path)
    )]
    SampleSize {
        /// The input.
        path: PathBuf,
        /// Bits that one sample takes.
        bits: u16,
        /// Whether they are floating-point numbers.
        is_float: bool,
    },
    /// A headerless file ends within a sample, so it is cut off or something else.
    #[error(
        "wanted headerless 16-bit samples, found {bytes} bytes in {}, not a multiple of {frame_bytes}; \
         it is cut off or holds something else",
        shown(path)
    )]
    Ragged {
        /// The input.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// Bytes of one sample of every channel.
        frame_bytes: u64,
    },
    /// The system failed to open or read the input.
    #[error("cannot read {}", shown(path))]
    Read {
        /// The input.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system failed to open or write the output.
    #[error("cannot write {}", shown(path))]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What was tried with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// To read it.
    Read,
    /// To write it.
    Write,
}

/// What is wrong in the header of a wav file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The file is cut off within the header.
    #[error("it ends after {bytes} bytes, before any audio")]
    Ends {
        /// Where it ends.
        bytes: u64,
    },
    /// No `data` chunk where one could be expected.
    #[error("no 'data' chunk in its first {bytes} bytes")]
    NoData {
        /// How far it was looked for.
        bytes: u64,
    },
    /// The samples come before the description of them.
    #[error("its 'data' chunk comes before its 'fmt ' chunk")]
    NoFormat,
    /// The `fmt ` chunk is too short.
    #[error("its 'fmt ' chunk has {found} bytes where {wanted} are needed")]
    ShortFormat {
        /// What the format needs.
        wanted: u32,
        /// What there is.
        found: u32,
    },
    /// The numbers of the `fmt ` chunk contradict each other.
    #[error("{channels} channels of {bits} bits do not make frames of {block_bytes} bytes")]
    BlockAlign {
        /// How many channels it claims.
        channels: u16,
        /// How many bits per sample it claims.
        bits: u16,
        /// How many bytes per sample of every channel it claims.
        block_bytes: u16,
    },
}

/// What a user should hear about a recording that was read nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MediaWarning {
    /// The file ends before its header says so. All that is there was delivered.
    #[error("{} is cut off: its header promises {promised:?}, it holds {found:?}", shown(path))]
    Truncated {
        /// The input.
        path: PathBuf,
        /// Duration that the header promises.
        promised: Duration,
        /// Duration that was found.
        found: Duration,
    },
    /// The input ends within a sample; the rest was left out.
    #[error("{} ends within a sample; bytes left out at its end: {bytes}", shown(path))]
    Ragged {
        /// The input.
        path: PathBuf,
        /// How many bytes were left out.
        bytes: u64,
    },
}

impl MediaError {
    /// Tells apart why an input could not be opened.
    pub(super) fn opening(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => MediaError::NotFound { path },
            io::ErrorKind::PermissionDenied => MediaError::PermissionDenied { path, access: Access::Read },
            io::ErrorKind::IsADirectory => MediaError::IsDirectory { path },
            _ => MediaError::Read { path, source },
        }
    }

    /// Tells apart why an output could not be created.
    pub(super) fn creating(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(&path).to_owned();
                MediaError::NoOutputDirectory { path, directory }
            }
            io::ErrorKind::PermissionDenied => MediaError::PermissionDenied { path, access: Access::Write },
            io::ErrorKind::IsADirectory => MediaError::IsDirectory { path },
            _ => MediaError::Write { path, source },
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
        })
    }
}

/// The path in a sentence, with a name for standard input.
fn shown(path: &Path) -> impl fmt::Display {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// The command that makes a readable recording out of `path`, fit for pasting into a shell.
struct Convert<'a>(&'a Path);

impl fmt::Display for Convert<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Path::new("-") {
            return f.write_str("ffmpeg -i - -ar 16000 -ac 1 -f wav -");
        }
        let renamed = self.0.with_extension("wav");
        let output = if renamed == self.0 { self.0.with_extension("16k.wav") } else { renamed };
        write!(f, "ffmpeg -i {} -ar 16000 -ac 1 {}", quoted(self.0), quoted(&output))
    }
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-+,=@%".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn advice(path: &Path, found: Content) -> String {
    match found {
        Content::Unknown if path != Path::new("-") => {
            "; if it is headerless s16le at 16 kHz, give it the extension .raw".to_owned()
        }
        found if found.is_media() => format!("; convert it: {}", Convert(path)),
        _ => String::new(),
    }
}

fn codec_name(tag: u16) -> &'static str {
    match tag {
        0x0002 => " (Microsoft ADPCM)",
        0x0006 => " (G.711 A-law)",
        0x0007 => " (G.711 mu-law)",
        0x0011 => " (IMA ADPCM)",
        0x0031 => " (GSM 6.10)",
        0x0045 => " (G.726)",
        0x0050 => " (MPEG)",
        0x0055 => " (MP3)",
        0x00ff | 0x1600..=0x1610 => " (AAC)",
        0x0160..=0x0163 => " (WMA)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: MediaError, want: &str) {
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn text_says_what_was_found_and_what_to_do() {
        check(
            MediaError::NotWav { path: "talk.mp3".into(), found: Content::Mp3 },
            "wanted a wav recording, found MP3 in talk.mp3; convert it: \
             ffmpeg -i talk.mp3 -ar 16000 -ac 1 talk.wav",
        );
        check(
            MediaError::NotWav { path: "notes.txt".into(), found: Content::Text },
            "wanted a wav recording, found text in notes.txt",
        );
        check(
            MediaError::Codec { path: "it's a call.wav".into(), tag: 7 },
            "wanted uncompressed samples, found wav codec 0x0007 (G.711 mu-law) in it's a call.wav; \
             convert it: ffmpeg -i 'it'\\''s a call.wav' -ar 16000 -ac 1 'it'\\''s a call.16k.wav'",
        );
        check(
            MediaError::NotWav { path: "-".into(), found: Content::Ogg },
            "wanted a wav recording, found Ogg (Vorbis or Opus) in standard input; convert it: \
             ffmpeg -i - -ar 16000 -ac 1 -f wav -",
        );
    }

    #[test]
    fn the_reason_of_the_system_becomes_a_situation() {
        let path = Path::new("out/reply.wav");
        let kind = |kind| io::Error::from(kind);
        check(
            MediaError::creating(path, kind(io::ErrorKind::NotFound)),
            "cannot write out/reply.wav: there is no directory out; make it with mkdir -p",
        );
        check(
            MediaError::creating(path, kind(io::ErrorKind::PermissionDenied)),
            "no permission to write out/reply.wav; check its owner and mode with ls -l",
        );
        check(
            MediaError::opening(path, kind(io::ErrorKind::PermissionDenied)),
            "no permission to read out/reply.wav; check its owner and mode with ls -l",
        );
        check(
            MediaError::opening(path, kind(io::ErrorKind::NotFound)),
            "wanted a recording, found no file at out/reply.wav; check the path",
        );
    }
}
