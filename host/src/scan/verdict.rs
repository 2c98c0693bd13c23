//! What came of trying a library, as it is remembered.

use std::{io, path::Path, time::SystemTime};

use antiphon_plugin_api::PluginManifest;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Version of the form of these files.
const FORMAT: u32 = 1;

/// A verdict on the content of a library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    format: u32,
    /// Version of the host that tried it: another one tries again.
    antiphon: String,
    /// When it was tried.
    at: DateTime<Utc>,
    /// Where it was found then.
    path: String,
    /// Its name by its section.
    pub(super) name: String,
    /// Length of the library.
    pub(super) bytes: u64,
    /// Whether it must be opened where it is, because others are looked for beside it.
    pub(super) in_place: bool,
    #[serde(flatten)]
    pub(super) judgement: Judgement,
}

/// Whether a library can be opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "judgement")]
pub(super) enum Judgement {
    /// It can.
    Accepted {
        manifest: Box<PluginManifest>,
        /// What is odd about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// It took its process down, or lies.
    Quarantined {
        reason: String,
        /// The end of what it wrote.
        output: String,
    },
}

impl Verdict {
    pub(super) fn new(at: SystemTime, path: &Path, name: &str, judgement: Judgement) -> Self {
        Self {
            format: FORMAT,
            antiphon: env!("CARGO_PKG_VERSION").into(),
            at: at.into(),
            path: path.display().to_string(),
            name: name.to_owned(),
            bytes: 0,
            in_place: false,
            judgement,
        }
    }

    /// With what must still be so for the verdict to hold.
    pub(super) fn of_library(self, bytes: u64, in_place: bool) -> Self {
        Self { bytes, in_place, ..self }
    }

    /// Reads a verdict; none where it is damaged, or another version's.
    pub(super) fn from_json(bytes: &[u8]) -> Option<Self> {
        let verdict: Self = serde_json::from_slice(bytes).ok()?;
        (verdict.format == FORMAT && verdict.antiphon == env!("CARGO_PKG_VERSION")).then_some(verdict)
    }

    pub(super) fn to_json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// When it was tried, in words.
    pub(super) fn at(&self) -> String {
        self.at.format("%Y-%m-%d %H:%M UTC").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_of_another_version_counts_as_absent() {
        let judgement = Judgement::Quarantined { reason: "crashed".into(), output: String::new() };
        let verdict = Verdict::new(SystemTime::UNIX_EPOCH, Path::new("/a.so"), "a", judgement);
        let json = verdict.to_json().expect("plain data");
        assert_eq!(Verdict::from_json(&json), Some(verdict.clone()));
        assert_eq!(verdict.at(), "1970-01-01 00:00 UTC");
        assert_eq!(Verdict::from_json(&json[..json.len() / 2]), None);
        assert_eq!(Verdict::from_json(b""), None);
        for other in
            [Verdict { format: 2, ..verdict.clone() }, Verdict { antiphon: "9.9.9".into(), ..verdict }]
        {
            assert_eq!(Verdict::from_json(&other.to_json().expect("plain data")), None);
        }
    }
}
