//! What the whole-system tests stand on: the programs and plugins that cargo built, recordings of people, conversations
//! and their events.
//!
//! Reading order: [`built`] finds what cargo made, [`plugins`] lays out plugin directories, [`hostile`] and [`damaged`] put
//! files into them that break what opens them, [`program`] runs `antiphon`, [`conversation`] runs an agent in the test's own
//! process, [`events`] reads what happened, [`recordings`] and [`words`] bring speech and judge transcripts.
//!
//! Not here: stand-ins. What these helpers run is what users run.
#![forbid(unsafe_code)]

pub mod built;
pub mod conversation;
pub mod damaged;
pub mod events;
pub mod hostile;
pub mod plugins;
pub mod program;
pub mod recordings;
pub mod words;

use std::time::Duration;

/// Time after which something counts as hung, so that a test fails instead of waiting for ever. No test depends on
/// anything being faster than this: the longest job of the suite takes some seconds.
pub const HANG: Duration = Duration::from_secs(120);
