//! Settings: where the models are, what may be said, and how many decoders there are.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{decoder, grammar};

/// What the recogniser works with. Every default is that of Debian's package `pocketsphinx-en-us`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Shared library of PocketSphinx (0.8 or 5). Default: the one that the system finds.
    pub(crate) library: Option<PathBuf>,

    /// Directory of the acoustic model, for 16 kHz.
    pub(crate) model: Option<PathBuf>,

    /// File of the language model. Not read when there is a grammar.
    pub(crate) language_model: Option<PathBuf>,

    /// File with the pronunciation of each word.
    pub(crate) dictionary: Option<PathBuf>,

    /// JSGF grammar: its text (which begins with `#JSGF`), or the path of a file. Only what it says is understood,
    /// and far better so.
    pub(crate) grammar: Option<String>,

    /// Decode everything only once: less work at the end of an utterance, more errors.
    pub(crate) single_pass: bool,

    /// Utterances that are recognised at a time, in all sessions. Each takes a thread, and 93 MB (with a grammar
    /// 4 MB) when it is first needed.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            library: None,
            model: None,
            language_model: None,
            dictionary: None,
            grammar: None,
            single_pass: false,
            threads: 2,
        }
    }
}

impl Config {
    /// What a decoder is made with. Reads the grammar's file.
    pub(crate) fn decoder(&self) -> Result<decoder::Settings, grammar::ReadError> {
        Ok(decoder::Settings {
            model: self.model.clone(),
            language_model: self.language_model.clone(),
            dictionary: self.dictionary.clone(),
            grammar: self.grammar.as_deref().map(grammar::text_of).transpose()?,
            is_single_pass: self.single_pass,
        })
    }
}
