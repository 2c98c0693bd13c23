//! The tests themselves. Each drives the plugin, tells of what is wrong where it sees it, and returns.

pub(super) mod close;
pub(super) mod exchange;
pub(super) mod input;
pub(super) mod life;
pub(super) mod manifest;
pub(super) mod pressure;
pub(super) mod settings;
pub(super) mod steady;

use crate::Kind;

/// The capability that a test is about.
fn about(kind: Option<Kind>) -> Kind {
    kind.expect("the catalogue runs this test for capabilities alone")
}
