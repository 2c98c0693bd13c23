//! What the two sides say to each other: the job, and what is told while it is done.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Problem;

/// One test, for the child.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(super) path: PathBuf,
    /// Id of the test.
    pub(super) test: String,
    pub(super) settings: Map<String, Value>,
    pub(super) text: Option<String>,
    /// When the host kills the child.
    pub(super) timeout: Duration,
}

/// What a child tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// What comes next: the last one is where it crashed.
    Stage(String),
    Failed(Problem),
    Warned(Problem),
    /// There is nothing to test.
    Skipped(String),
    /// The plugin logged something.
    Log(String),
    /// What the plugin is, from its manifest.
    Plugin {
        name: String,
        version: String,
        capabilities: Vec<String>,
    },
    /// The test has come to its end.
    Done,
}

/// A test is over; why was told before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop;

pub(super) type Checked<T = ()> = Result<T, Stop>;
