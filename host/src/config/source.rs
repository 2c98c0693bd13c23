//! Where each key and value of a TOML text stands, so that whatever is wrong later can be found in the file.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::ConfigError;

/// A line of a file; shown as `antiphon.toml:12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// The keys of a file by dotted path.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    path: PathBuf,
    keys: BTreeMap<String, Entry>,
}

/// Bytes and positions (line and column from 1) of one key and of its value.
#[derive(Debug, Clone)]
struct Entry {
    key: Range<usize>,
    value: Range<usize>,
    key_line: usize,
    value_position: (usize, usize),
}

impl Source {
    /// Reads a text as TOML, whatever its keys.
    pub(super) fn of(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut source = Self { path: path.to_owned(), keys: BTreeMap::new() };
        match DeTable::parse(text) {
            Ok(table) => source.collect(text, table.get_ref(), ""),
            Err(error) => return Err(ConfigError::invalid(&source, text, &error)),
        }
        Ok(source)
    }

    fn collect(&mut self, text: &str, table: &DeTable<'_>, prefix: &str) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            self.add(text, &name, key.span(), value);
            if let DeValue::Table(inner) = value.get_ref() {
                self.collect(text, inner, &format!("{name}."));
            }
        }
    }

    fn add(&mut self, text: &str, name: &str, key: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let entry = Entry {
            key_line: Self::position(text, key.start).0,
            value_position: Self::position(text, value.span().start),
            key,
            value: value.span(),
        };
        self.keys.insert(name.to_owned(), entry);
    }

    /// Line and column, from 1, of a byte; the column counts characters.
    pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
        let before = text.get(..at.min(text.len())).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a key stands.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.keys.get(key).map(|entry| Place { path: self.path.clone(), line: entry.key_line })
    }

    /// Line and column of a key's value.
    pub(super) fn value_position(&self, key: &str) -> Option<(usize, usize)> {
        self.keys.get(key).map(|entry| entry.value_position)
    }

    /// The innermost key that a byte belongs to, in its name or in its value.
    pub(super) fn key_at(&self, at: usize) -> Option<String> {
        let holds = |range: &Range<usize>| range.contains(&at);
        let around = self.keys.iter().filter(|(_, entry)| holds(&entry.key) || holds(&entry.value));
        around.max_by_key(|(name, _)| name.matches('.').count()).map(|(name, _)| name.clone())
    }
}

/// TOML's dates come to JSON as a table with one private key; plugins get them as text.
pub(super) fn dates_as_text(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(dates_as_text),
        Value::Object(fields) => {
            if let (1, Some(Value::String(date))) = (fields.len(), fields.get("$__toml_private_datetime")) {
                *value = Value::String(date.clone());
            } else {
                fields.values_mut().for_each(dates_as_text);
            }
        }
        _ => {}
    }
}
