//! The frozen surface between host and plugin, from the crate that it is frozen in. Plugin authors never use it.
//!
//! Not here: the types themselves; `antiphon-plugin-abi` has them, in `plugin-api/abi`, with a version that never moves.

pub use antiphon_plugin_abi::*;

/// Version of this crate, for messages about plugins that do not fit.
pub const API_VERSION: &str = env!("CARGO_PKG_VERSION");
