//! The peers in other languages: found or installed, started, and asked for a round at a time.
//!
//! What they do is in `peers/`; a command is a line of JSON, and so is the answer.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    contest::{BURST, Contender},
    report::say,
};

/// How the peers are called in tables.
pub(crate) const NODE: &str = "Node EventEmitter";
pub(crate) const VISION_AGENTS: &str = "Vision Agents";

const VISION_AGENTS_PACKAGE: &str = "vision-agents==0.6.9";

/// A peer that can be started, or why not.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) who: &'static str,
    pub(crate) version: String,
    command: Vec<OsString>,
}

/// A started peer; ends with its stdin.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    /// # Errors
    ///
    /// When there is no Node here.
    pub(crate) fn node() -> Result<Self> {
        let command = ["node".into(), "--expose-gc".into(), script("bus.js")].to_vec();
        Self { who: NODE, version: String::new(), command }.introduced(|hello| text(hello, "version"))
    }

    /// Installs the package on first use, below `out`.
    ///
    /// # Errors
    ///
    /// When there is no Python here, or the package cannot be installed.
    pub(crate) fn vision_agents(out: &Path) -> Result<Self> {
        let venv = out.join("venv");
        let python = venv.join("bin/python");
        let peer = || {
            let command = [python.clone().into(), script("vision_agents_bus.py")].to_vec();
            let peer = Self { who: VISION_AGENTS, version: String::new(), command };
            peer.introduced(|hello| format!("{}, Python {}", text(hello, "version"), text(hello, "python")))
        };
        if python.is_file()
            && let Ok(peer) = peer()
        {
            return Ok(peer);
        }
        say(format_args!("    installing {VISION_AGENTS_PACKAGE} into {}, once", venv.display()));
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let pip = ["-m", "pip", "install", "--disable-pip-version-check", VISION_AGENTS_PACKAGE];
        run(Command::new(&python).args(pip))?;
        peer()
    }

    fn introduced(mut self, version: impl Fn(&Value) -> String) -> Result<Self> {
        self.version = version(&self.start()?.ask(&json!(["hello"]))?);
        Ok(self)
    }

    pub(crate) fn start(&self) -> Result<Running> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.who))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("its stdout is a pipe")?);
        Ok(Running { child, stdin, stdout })
    }

    /// Takes part with a command whose last argument is the number of bursts and whose answer has `cpu_s`.
    pub(crate) fn contender(&self, at: u64, per_burst: u64, command: Vec<Value>) -> Result<Contender> {
        let mut running = self.start()?;
        let round = move |bursts: u64| {
            let mut command = command.clone();
            command.push(bursts.into());
            let answer = running.ask(&Value::Array(command))?;
            Ok(Duration::from_secs_f64(number(&answer, "cpu_s")?))
        };
        Ok(Contender::new(self.who, at, per_burst, Box::new(round)))
    }

    /// As [`Peer::contender`], for one delivery per event to each of so many handlers; counts events.
    pub(crate) fn delivering(&self, handlers: u64) -> Result<Contender> {
        self.contender(handlers, BURST, vec!["deliver".into(), handlers.into()])
    }
}

impl Running {
    /// # Errors
    ///
    /// When the peer has ended or does not answer in JSON; what it complained about is on stderr.
    pub(crate) fn ask(&mut self, command: &Value) -> Result<Value> {
        let stdin = self.stdin.as_mut().context("a peer that runs has a stdin")?;
        writeln!(stdin, "{command}").with_context(|| format!("the peer ended before {command}"))?;
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line)?;
        ensure!(read > 0, "the peer ended at {command}");
        serde_json::from_str(&line).with_context(|| format!("the peer answered {line:?} to {command}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// A number in an answer.
pub(crate) fn number(answer: &Value, name: &str) -> Result<f64> {
    answer[name].as_f64().with_context(|| format!("the answer {answer} has no number {name}"))
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or("unknown").to_owned()
}

fn script(name: &str) -> OsString {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers").join(name).into()
}

/// Runs a command on our terminal.
fn run(command: &mut Command) -> Result<()> {
    // Its name alone: this text may get into the book, where a path of this machine is of no use.
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}
