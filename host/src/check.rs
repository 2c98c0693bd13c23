//! Holds one plugin file to the contract of the ABI: `antiphon plugins check`.
//!
//! Each test runs in a child process of its own, so that a crash or a hang is the result of that test and the others go
//! on. Reading order: `catalogue` lists the tests; `run` is the host's side, which starts the children; `serve` is the
//! child's, which opens the plugin and lets `claims` drive it through `running` and `session`; `record` is the sink that
//! remembers all that the plugin says.

mod catalogue;
mod claims;
#[cfg(test)]
mod fake;
mod material;
mod message;
mod record;
mod run;
mod running;
mod serve;
mod session;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::{
    catalogue::{TestInfo, tests},
    run::check,
};
pub(crate) use self::{message::Job, serve::serve};
use crate::child::{ChildError, ChildProgram};

/// How to check a plugin.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The program that is started as a child.
    pub program: ChildProgram,
    /// What the plugin is started with.
    pub settings: Map<String, Value>,
    /// What language models are asked and what is to be spoken, in place of a greeting.
    pub text: Option<String>,
    /// Variables of the environment that the plugin may see, by name.
    pub environment: Vec<String>,
    /// Time for each test.
    pub timeout: Duration,
    /// Tests to run; none: all. What they need is run as well.
    pub only: Vec<String>,
}

impl CheckOptions {
    /// All tests with the plugin's own defaults.
    #[must_use]
    pub fn new(program: ChildProgram) -> Self {
        Self {
            program,
            settings: Map::new(),
            text: None,
            environment: Vec::new(),
            timeout: Duration::from_secs(20),
            only: Vec::new(),
        }
    }
}

/// What a test came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It proved what it claims.
    Passed,
    /// It did, but something should be better.
    Warning,
    /// It could not be run; the reason says why.
    Skipped,
    /// It disproved it.
    Failed,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was seen.
    pub seen: String,
    /// What was expected.
    pub expected: String,
    /// What to do about it.
    pub advice: String,
}

/// What one test came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestResult {
    /// Its stable name.
    pub id: String,
    /// `plugin`, or the capability that it is about.
    pub group: String,
    /// What it proves.
    pub claim: &'static str,
    /// The outcome.
    pub verdict: Verdict,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What makes it fail.
    pub problems: Vec<Problem>,
    /// What should be better.
    pub warnings: Vec<Problem>,
    /// What the plugin did last, as far as the test has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The end of what the child wrote to standard output and error, where something is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// How long it took.
    pub seconds: f64,
}

/// What all tests came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// The file.
    pub path: PathBuf,
    /// The plugin's name, where its file says it.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Each test, in the order of the list.
    pub tests: Vec<TestResult>,
    /// How long all of it took.
    pub seconds: f64,
}

impl CheckReport {
    /// How many tests came to this.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.tests.iter().filter(|test| test.verdict == verdict).count()
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.count(Verdict::Failed) == 0
    }
}

/// What a check tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum CheckProgress<'a> {
    /// So many tests are to be run in all.
    Planned(usize),
    /// A test begins.
    Begun(&'a str),
    /// A test has ended.
    Ended(&'a TestResult),
}

/// Why a plugin was not checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// There is no such test.
    #[error("there is no test {name}{}", .similar.as_ref().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default())]
    NoSuchTest {
        /// What was asked for.
        name: String,
        /// The most similar one.
        similar: Option<String>,
    },
    /// The plugin has no capability that the test is about.
    #[error("{test} is about a capability that the plugin does not have")]
    NotForThis {
        /// What was asked for.
        test: String,
    },
    /// No child process can be started.
    #[error("no test can be run")]
    Child(#[from] ChildError),
}
