//! Tells what a file holds from its first bytes, so that a refusal can name it.
//!
//! Not here: decoding. Only wav and headerless samples are ever decoded.

use std::fmt;

/// How many first bytes are looked at. Less is fine when the input is shorter.
pub(super) const HEAD_BYTES: usize = 512;

/// What an input that is no recording we can read looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// MPEG audio, with or without an ID3 tag.
    Mp3,
    /// An Ogg container: Vorbis, Opus, Speex.
    Ogg,
    /// Native FLAC.
    Flac,
    /// An MPEG-4 container: M4A, MP4, 3GP, QuickTime.
    Mp4,
    /// A Matroska container: WebM, MKV.
    Matroska,
    /// AIFF or AIFF-C.
    Aiff,
    /// Sun/NeXT audio.
    Au,
    /// AMR, narrow or wide band.
    Amr,
    /// Apple's Core Audio format.
    Caf,
    /// Sony Wave64.
    Wave64,
    /// A wav file with big-endian numbers.
    BigEndianWav,
    /// A RIFF file that is not a wav file, for example AVI.
    OtherRiff,
    /// A program or library.
    Elf,
    /// Text of some kind.
    Text,
    /// Nothing that is recognised.
    Unknown,
}

impl Content {
    /// Whether a converter such as ffmpeg can be expected to find sound in it.
    pub(super) fn is_media(self) -> bool {
        !matches!(self, Content::Elf | Content::Text | Content::Unknown)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Content::Mp3 => "MP3",
            Content::Ogg => "Ogg (Vorbis or Opus)",
            Content::Flac => "FLAC",
            Content::Mp4 => "MP4 or M4A",
            Content::Matroska => "WebM or Matroska",
            Content::Aiff => "AIFF",
            Content::Au => "Sun AU",
            Content::Amr => "AMR",
            Content::Caf => "Core Audio (CAF)",
            Content::Wave64 => "Sony Wave64",
            Content::BigEndianWav => "big-endian wav (RIFX)",
            Content::OtherRiff => "a RIFF file without audio of its own, such as AVI",
            Content::Elf => "a program or shared library (ELF)",
            Content::Text => "text",
            Content::Unknown => "nothing known",
        })
    }
}

/// Whether `head` starts a wav file, of the usual or of the 64-bit kind.
pub(super) fn is_wav(head: &[u8]) -> bool {
    (head.starts_with(b"RIFF") || head.starts_with(b"RF64") || head.starts_with(b"BW64"))
        && head.get(8..12) == Some(b"WAVE")
}

/// Recognises formats by signatures so long that samples do not show them by chance.
///
/// For inputs that may be headerless: anything else is taken for samples.
pub(super) fn signature(head: &[u8]) -> Option<Content> {
    const SIGNATURES: [(usize, &[u8], Content); 15] = [
        (0, b"ID3", Content::Mp3),
        (0, b"OggS", Content::Ogg),
        (0, b"fLaC", Content::Flac),
        (4, b"ftyp", Content::Mp4),
        (0, b"\x1a\x45\xdf\xa3", Content::Matroska),
        (8, b"AIFF", Content::Aiff),
        (8, b"AIFC", Content::Aiff),
        (0, b".snd", Content::Au),
        (0, b"#!AMR", Content::Amr),
        (0, b"caff", Content::Caf),
        (0, b"riff\x2e\x91\xcf\x11", Content::Wave64),
        (0, b"RIFX", Content::BigEndianWav),
        (0, b"RIFF", Content::OtherRiff),
        (0, b"RF64", Content::OtherRiff),
        (0, b"\x7fELF", Content::Elf),
    ];
    let found = SIGNATURES.iter().find(|(at, magic, _)| head.get(*at..*at + magic.len()) == Some(*magic));
    match found {
        Some((_, _, content)) => Some(*content),
        // Sixteen samples-worth of printable bytes would be a steady roar at a third of full scale.
        None => (head.len() >= 16 && head.iter().all(|byte| is_printable(*byte))).then_some(Content::Text),
    }
}

/// Names the likeliest content, on weaker evidence than [`signature`]: for inputs that cannot be headerless.
pub(super) fn guess(head: &[u8]) -> Content {
    if let Some(content) = signature(head) {
        return content;
    }
    // MPEG frame header: eleven sync bits, then a layer that is not the reserved one.
    if let [0xff, second, ..] = head
        && second & 0xe0 == 0xe0
        && second & 0x06 != 0
    {
        return Content::Mp3;
    }
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a character.
        Err(err) if err.error_len().is_none() => {
            str::from_utf8(&head[..err.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => "",
    };
    let is_text =
        !text.is_empty() && text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\r' | '\n'));
    if is_text { Content::Text } else { Content::Unknown }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &[u8], sure: Option<Content>, likely: Content) {
        assert_eq!(signature(head), sure);
        assert_eq!(guess(head), likely);
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        check(b"ID3\x04\0\0\0\0\0\0", Some(Content::Mp3), Content::Mp3);
        check(b"\xff\xfb\x90\x64", None, Content::Mp3);
        check(b"OggS\0\x02", Some(Content::Ogg), Content::Ogg);
        check(b"fLaC\0\0\0\x22", Some(Content::Flac), Content::Flac);
        check(b"\0\0\0\x20ftypM4A ", Some(Content::Mp4), Content::Mp4);
        check(b"FORM\0\0\0\0AIFF", Some(Content::Aiff), Content::Aiff);
        check(b"RIFF\0\0\0\0AVI ", Some(Content::OtherRiff), Content::OtherRiff);
        check(b"\x7fELF\x02\x01\x01\0", Some(Content::Elf), Content::Elf);
        check(b"[agent]\nname = \"demo\"\n", Some(Content::Text), Content::Text);
        check("gr\u{fc}n".as_bytes(), None, Content::Text);
        check(b"short", None, Content::Text);
        check(&[0; 64], None, Content::Unknown);
        check(b"", None, Content::Unknown);
    }

    #[test]
    fn text_cut_within_a_character_is_still_text() {
        let head = "gr\u{fc}\u{fc}".as_bytes();
        assert_eq!(guess(&head[..head.len() - 1]), Content::Text);
    }

    #[test]
    fn both_kinds_of_wav_are_known() {
        assert!(is_wav(b"RIFF\0\0\0\0WAVEfmt "));
        assert!(is_wav(b"RF64\xff\xff\xff\xffWAVEds64"));
        assert!(!is_wav(b"RIFF\0\0\0\0AVI "));
        assert!(!is_wav(b"RIFF"));
    }
}
