//! The peers in other languages. What they do is in `peers/`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde_json::Value;

use antiphon_bench_support::peers::text;
pub(crate) use antiphon_bench_support::peers::{Peer, Running, number};

use crate::contest::{BURST, Contender};

/// How the peers are called in tables.
pub(crate) const NODE: &str = "Node EventEmitter";
pub(crate) const VISION_AGENTS: &str = "Vision Agents";

const VISION_AGENTS_PACKAGE: &str = "vision-agents==0.6.9";

/// # Errors
///
/// When there is no Node here.
pub(crate) fn node() -> Result<Peer> {
    let command: Vec<OsString> = ["node".into(), "--expose-gc".into(), script("bus.js").into()].to_vec();
    Peer::new(NODE, command, |hello| text(hello, "version"))
}

/// Installs the package on first use, below `out`.
///
/// # Errors
///
/// When there is no Python here, or the package cannot be installed.
pub(crate) fn vision_agents(out: &Path) -> Result<Peer> {
    let script = script("vision_agents_bus.py");
    Peer::python(VISION_AGENTS, &script, VISION_AGENTS_PACKAGE, &out.join("venv"))
}

/// Peers as contenders.
pub(crate) trait TakesPart {
    /// Takes part with a command whose last argument is the number of bursts and whose answer has `cpu_s`.
    fn contender(&self, at: u64, per_burst: u64, command: Vec<Value>) -> Result<Contender>;

    /// As [`contender`](Self::contender), for one delivery per event to each of so many handlers; counts events.
    fn delivering(&self, handlers: u64) -> Result<Contender> {
        self.contender(handlers, BURST, vec!["deliver".into(), handlers.into()])
    }
}

impl TakesPart for Peer {
    fn contender(&self, at: u64, per_burst: u64, command: Vec<Value>) -> Result<Contender> {
        let mut running = self.start()?;
        let round = move |bursts: u64| {
            let mut command = command.clone();
            command.push(bursts.into());
            let answer = running.ask(&Value::Array(command))?;
            Ok(Duration::from_secs_f64(number(&answer, "cpu_s")?))
        };
        Ok(Contender::new(self.who, at, per_burst, Box::new(round)))
    }
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}
