//! What happened, as the JSON that everybody outside of the process sees.

use std::{collections::BTreeSet, fmt, fs, path::Path};

use serde_json::Value;

/// Events in the order in which they were recorded.
#[derive(Debug, Clone, Default)]
pub struct EventLog(pub Vec<Value>);

impl EventLog {
    /// Reads a file of lines.
    ///
    /// # Panics
    ///
    /// When it does not end in a newline, or a line is no event.
    #[must_use]
    #[track_caller]
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&text)
    }

    /// Reads lines.
    ///
    /// # Panics
    ///
    /// When the last does not end in a newline, or a line is no event.
    #[must_use]
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        assert!(text.is_empty() || text.ends_with('\n'), "ends within a line: {text}");
        let event = |line: &str| -> Value {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(event["type"].is_string(), "no event: {line}");
            event
        };
        Self(text.lines().map(event).collect())
    }

    /// The events.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// The events of a type.
    pub fn of<'a>(&'a self, event_type: &'a str) -> impl Iterator<Item = &'a Value> {
        self.iter().filter(move |event| event["type"] == event_type)
    }

    /// How many events of a type there are.
    #[must_use]
    pub fn count(&self, event_type: &str) -> usize {
        self.of(event_type).count()
    }

    /// The only event of a type.
    ///
    /// # Panics
    ///
    /// When there is none, or several.
    #[must_use]
    #[track_caller]
    pub fn only(&self, event_type: &str) -> &Value {
        assert_eq!(self.count(event_type), 1, "events {event_type} in:\n{self}");
        self.iter().find(|event| event["type"] == event_type).expect("counted above")
    }

    /// A text field of all events of a type.
    #[must_use]
    pub fn texts<'a>(&'a self, event_type: &'a str, field: &'a str) -> Vec<&'a str> {
        self.of(event_type).filter_map(|event| event[field].as_str()).collect()
    }

    /// Position of the first event of a type that `is_wanted`.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn position(&self, event_type: &str, is_wanted: impl Fn(&Value) -> bool) -> usize {
        let found = self.iter().position(|event| event["type"] == event_type && is_wanted(event));
        found.unwrap_or_else(|| panic!("no such event {event_type} in:\n{self}"))
    }

    /// The first event of each type stands in this order, others between them.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn assert_order(&self, types: &[&str]) {
        for pair in types.windows(2) {
            let [first, second] = [pair[0], pair[1]].map(|event_type| self.position(event_type, |_| true));
            assert!(first < second, "{} before {} in:\n{self}", pair[1], pair[0]);
        }
    }

    /// The sessions, in the order in which they began.
    #[must_use]
    pub fn sessions(&self) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let ids: Vec<&str> = self
            .iter()
            .filter_map(|event| event["session_id"].as_str())
            .filter(|id| seen.insert(*id))
            .collect();
        let of = |id: &str| Self(self.iter().filter(|event| event["session_id"] == id).cloned().collect());
        ids.into_iter().map(of).collect()
    }

    /// The events of one turn.
    #[must_use]
    pub fn turn(&self, turn_id: u64) -> Self {
        Self(self.iter().filter(|event| event["turn_id"] == turn_id).cloned().collect())
    }
}

/// One line for each event: its type, its turn, and what is said in it. Of many of a type in a row the first and the
/// last are enough.
impl fmt::Display for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for run in self.0.chunk_by(|one, next| one["type"] == next["type"]) {
            let [first, .., last] = run else {
                line(f, &run[0])?;
                continue;
            };
            line(f, first)?;
            if run.len() > 2 {
                writeln!(f, "      .. {} more", run.len() - 2)?;
            }
            line(f, last)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, event: &Value) -> fmt::Result {
    let field = |name: &str| match &event[name] {
        Value::Null => String::new(),
        Value::String(text) => format!(" {text}"),
        other => format!(" {other}"),
    };
    let said: String = ["text", "delta", "error_code", "error_message"].map(field).concat();
    let name = event["type"].as_str().unwrap_or("?");
    writeln!(f, "{:>5}{} {name}{said:.200}", field("seq"), field("turn_id"))
}
