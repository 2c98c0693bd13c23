//! Peers in other languages: found or installed, started, and asked for a round at a time.
//!
//! A command is a line of JSON, and so is the answer.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::report::say;

/// A peer that can be started.
#[derive(Debug, Clone)]
pub struct Peer {
    /// How it is called in tables.
    pub who: &'static str,
    /// What it says of itself.
    pub version: String,
    command: Vec<OsString>,
}

/// A started peer; ends with its stdin.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a peer once, to ask for its version.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not answer.
    pub fn new(
        who: &'static str,
        command: Vec<OsString>,
        version: impl Fn(&Value) -> String,
    ) -> Result<Self> {
        let peer = Self { who, version: String::new(), command };
        let version = version(&peer.start()?.ask(&json!(["hello"]))?);
        Ok(Self { version, ..peer })
    }

    /// A script for Python with a package, which is installed into a virtual environment on first use.
    ///
    /// # Errors
    ///
    /// When there is no Python here, or the package cannot be installed.
    pub fn python(who: &'static str, script: &Path, package: &str, venv: &Path) -> Result<Self> {
        let python = venv.join("bin/python");
        let peer = || {
            let command = [python.clone().into(), script.into()].to_vec();
            Self::new(who, command, |hello| {
                format!("{}, Python {}", text(hello, "version"), text(hello, "python"))
            })
        };
        if python.is_file()
            && let Ok(peer) = peer()
        {
            return Ok(peer);
        }
        say(format_args!("    installing {package} into {}, once", venv.display()));
        run(Command::new("python3").args(["-m", "venv"]).arg(venv))?;
        let pip = ["-m", "pip", "install", "--disable-pip-version-check", package];
        run(Command::new(&python).args(pip))?;
        peer()
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// When its program is not there.
    pub fn start(&self) -> Result<Running> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.who))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("its stdout is a pipe")?);
        Ok(Running { child, stdin, stdout })
    }
}

impl Running {
    /// Has it do something, and waits for the answer.
    ///
    /// # Errors
    ///
    /// When the peer has ended or does not answer in JSON; what it complained about is on stderr.
    pub fn ask(&mut self, command: &Value) -> Result<Value> {
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
///
/// # Errors
///
/// When there is none.
pub fn number(answer: &Value, name: &str) -> Result<f64> {
    answer[name].as_f64().with_context(|| format!("the answer {answer} has no number {name}"))
}

/// A text in an answer.
#[must_use]
pub fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or("unknown").to_owned()
}

/// Runs a command on our terminal.
fn run(command: &mut Command) -> Result<()> {
    // Its name alone: this text may get into the book, where a path of this machine is of no use.
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}
