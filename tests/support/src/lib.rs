//! What the whole-system tests stand on: the programs and plugins that cargo built, recordings of people, conversations
//! and their events.
//!
//! Reading order: [`built`] finds what cargo made, [`plugins`] lays out plugin directories, [`hostile`] and [`damaged`] put
//! files into them that break what opens them, [`program`] runs `antiphon`, [`process`] looks at what it
//! starts, [`conversation`] and [`hosted`] run agents in the test's own process, [`events`] reads what happened, [`recordings`] and [`words`] bring speech and judge transcripts.
//!
//! Not here: stand-ins. What these helpers run is what users run.
#![forbid(unsafe_code)]

pub mod built;
pub mod conversation;
pub mod damaged;
pub mod events;
pub mod hosted;
pub mod hostile;
pub mod plugins;
pub mod process;
pub mod program;
pub mod recordings;
pub mod words;

use std::time::Duration;

/// Time after which something counts as hung, so that a test fails instead of waiting for ever. No test depends on
/// anything being faster than this: the longest job of the suite takes some seconds.
pub const HANG: Duration = Duration::from_secs(120);
