//! The real library and the recordings of Debian's package `pocketsphinx-testdata`, for the tests of this crate.
//!
//! `POCKETSPHINX_LIBRARY` names another library to test, for example one of PocketSphinx 5.

use crate::{
    decoder::{Decoder, Library, SAMPLE_RATE_HZ, Settings},
    grammar,
};
use std::{fs, path::Path};

const DATA: &str = "/usr/share/pocketsphinx/test/data";

pub(crate) fn library() -> Library {
    let library = std::env::var_os("POCKETSPHINX_LIBRARY");
    Library::open(library.as_deref().map(Path::new)).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn decoder(settings: &Settings) -> Decoder {
    Decoder::new(library(), settings).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn with_grammar(name: &str) -> Settings {
    let grammar = grammar::text_of(&format!("{DATA}/{name}")).unwrap_or_else(|error| panic!("{error}"));
    Settings { grammar: Some(grammar), ..Settings::default() }
}

/// 16 kHz, mono: a `.wav`, or samples without a header.
pub(crate) fn recording(name: &str) -> Vec<i16> {
    let path = if name.starts_with('/') { name.to_owned() } else { format!("{DATA}/{name}") };
    let missing = "recordings are in the Debian package `pocketsphinx-testdata`";
    if path.ends_with(".wav") {
        let mut reader = hound::WavReader::open(path).expect(missing);
        assert_eq!((reader.spec().sample_rate, reader.spec().channels), (SAMPLE_RATE_HZ, 1));
        reader.samples::<i16>().map(Result::unwrap).collect()
    } else {
        let bytes = fs::read(path).expect(missing);
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

/// Names of the recordings of a set, each with what is said.
pub(crate) fn transcripts(set: &str) -> Vec<(String, String)> {
    let name = if set == "cards" { "cards/cards.transcription" } else { "librivox/transcription" };
    let text = fs::read_to_string(format!("{DATA}/{name}")).expect("pocketsphinx-testdata is installed");
    text.lines()
        .map(|line| {
            let (said, name) = line.trim_end().rsplit_once('(').unwrap();
            let said = said.replace("<s>", "").replace("</s>", "");
            (format!("{set}/{}.wav", name.trim_end_matches(')')), said.trim().to_owned())
        })
        .collect()
}
