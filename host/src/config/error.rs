//! What goes wrong with the configuration, in words that say where and what to do.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::{similar, source::Source};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nothing is at the path.
    #[error("wanted a configuration file, found no file at {}; check the path", .path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file was wanted, a directory is there.
    #[error("wanted a configuration file, found a directory at {}; name a file in it", .path.display())]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The system does not let it be read.
    #[error("cannot read the configuration file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else, or in another encoding.
    #[error("{} is no text (UTF-8) in line {line}; save it as UTF-8", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first line that cannot be read.
        line: usize,
    },
    /// It is no TOML, has a key that there is not, or a value that does not fit.
    #[error(
        "{}:{line}:{column}: {}{message}{}",
        .path.display(),
        .key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default(),
        DidYouMean(.suggestion)
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// Dotted path of the key, where there is one.
        key: Option<String>,
        /// What was wanted and what was found.
        message: String,
        /// A key of a similar name.
        suggestion: Option<String>,
    },
}

/// Why a single setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// There is no such setting.
    #[error("{key}: no such key, there are {}{}", .known.join(", "), DidYouMean(.suggestion))]
    Unknown {
        /// Dotted path of the key.
        key: String,
        /// What there is.
        known: Vec<String>,
        /// A key of a similar name.
        suggestion: Option<String>,
    },
    /// The setting takes other values.
    #[error("{key}: {message}")]
    Value {
        /// Dotted path of the key.
        key: String,
        /// What was wanted and what was found.
        message: String,
    },
    /// The path leads through a value.
    #[error("{key}: a key on the way holds a value, not a table")]
    NoTable {
        /// Dotted path of the key.
        key: String,
    },
}

impl ConfigError {
    /// Tells apart why a file could not be opened.
    pub(super) fn opening(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::IsADirectory => Self::IsDirectory { path },
            _ => Self::Read { path, source },
        }
    }

    /// What the TOML reader found, at its place in the text.
    pub(super) fn invalid(source: &Source, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = Source::position(text, at);
        let key = source.key_at(at);
        let (message, suggestion) = match unknown_field(error.message()) {
            Some((name, known)) => {
                (format!("no such key, there are {}", known.join(", ")), similar(name, &known))
            }
            None => (reworded(error.message()), None),
        };
        Self::Invalid { path: source.path().to_owned(), line, column, key, message, suggestion }
    }

    /// A value that its type takes and the schema does not.
    pub(super) fn out_of_range(source: &Source, key: String, message: String) -> Self {
        let (line, column) = source.value_position(&key).unwrap_or((1, 1));
        let path = source.path().to_owned();
        Self::Invalid { path, line, column, key: Some(key), message, suggestion: None }
    }
}

impl SetError {
    pub(super) fn unknown(key: String, name: &str, known: Vec<String>) -> Self {
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let suggestion = similar(name, &names);
        Self::Unknown { key, known, suggestion }
    }
}

/// The end of a message: the name that was probably meant.
struct DidYouMean<'a>(&'a Option<String>);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|name| write!(f, " (did you mean {name}?)"))
    }
}

/// The field and the known ones from serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (name, expected) = rest.split_once('`')?;
    let known = expected.split('`').skip(1).step_by(2).collect();
    Some((name, known))
}

/// Serde's "invalid type: string \"x\", expected u64" for people who do not write Rust.
pub(super) fn reworded(message: &str) -> String {
    let misfit = ["invalid type: ", "invalid value: "].iter().find_map(|start| message.strip_prefix(start));
    let Some((found, expected)) = misfit.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.lines().collect::<Vec<_>>().join(", ");
    };
    // Of JSON, "at line 1 column 2" follows.
    let expected = expected.split(" at line ").next().unwrap_or(expected);
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "path string" => "a path",
        "a sequence" => "a list",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    };
    let found = match found {
        "map" => "a table",
        "sequence" => "a list",
        _ => found,
    };
    format!("wanted {expected}, found {found}")
}
