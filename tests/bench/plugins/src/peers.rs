//! The peer in Python. What it does is in `peers/`.

use std::path::{Path, PathBuf};

use antiphon_bench_support::peers::Peer;
use anyhow::Result;

/// How it is called in tables.
pub(crate) const PIPECAT: &str = "Pipecat";

const PACKAGE: &str = "pipecat-ai==1.14.0";

/// Installs the package on first use, below `out`.
///
/// # Errors
///
/// When there is no Python here, or the package cannot be installed.
pub(crate) fn pipecat(out: &Path) -> Result<Peer> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers/pipecat_sessions.py");
    Peer::python(PIPECAT, &script, PACKAGE, &out.join("venv-pipecat"))
}
