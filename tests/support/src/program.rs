//! Runs `antiphon`, and the examples, as users do: a process with arguments, whose output and exit code are looked at.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::JoinHandle,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{HANG, built, plugins::PluginDir};

/// A program that is about to run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    input: Vec<u8>,
    plugins: Option<PluginDir>,
}

/// What became of a program.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything that it printed.
    pub stdout: String,
    /// Everything that it complained about.
    pub stderr: String,
    shown: String,
}

/// The command `antiphon`, with nothing of the user's own configuration.
#[must_use]
#[track_caller]
pub fn antiphon<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Program {
    Program::new(&built::program()).args(arguments)
}

/// An example of the host.
#[must_use]
#[track_caller]
pub fn example<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Program {
    Program::new(&built::example(name)).args(arguments)
}

impl Program {
    /// A program by its path, which looks for nothing outside of its arguments.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let mut command = Command::new(path);
        command.current_dir(built::workspace()).env("NO_COLOR", "1");
        command.env("ANTIPHON_CACHE_DIR", built::cache());
        for name in ["ANTIPHON_PLUGIN_PATH", "ANTIPHON_CONFIG", "RUST_LOG"] {
            command.env_remove(name);
        }
        Self { command, input: Vec::new(), plugins: None }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds `--plugins`, and keeps the directory until the program has ended.
    #[must_use]
    pub fn plugins(mut self, directory: &PluginDir) -> Self {
        self.plugins = Some(directory.clone());
        self.args([OsStr::new("--plugins"), directory.path().as_os_str()])
    }

    /// Where it runs. Default: the root of the workspace.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What comes from its standard input. Default: nothing.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started, or hangs.
    #[must_use]
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.start().end()
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    #[track_caller]
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{:?}", self.command);
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let mut stdin = child.stdin.take().expect("asked for above");
        let input = self.input;
        // Ends with the pipe, which the child closes at the latest when it ends.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        let mut complaints = child.stderr.take().expect("asked for above");
        let stderr = std::thread::spawn(move || read_all(&mut complaints));
        let lines = BufReader::new(child.stdout.take().expect("asked for above"));
        Running { child, lines, stdout: String::new(), stderr, shown, _plugins: self.plugins }
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
    stdout: String,
    stderr: JoinHandle<String>,
    shown: String,
    _plugins: Option<PluginDir>,
}

impl Running {
    /// Reads what it prints up to and with a line.
    ///
    /// # Panics
    ///
    /// When it ends without having printed such a line.
    #[track_caller]
    pub fn until_line(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let watchdog = Watchdog::over(&self.child);
        loop {
            let mut line = String::new();
            let length = self.lines.read_line(&mut line).expect("the program prints text");
            self.stdout.push_str(&line);
            assert!(
                length > 0,
                "{} ended without the line that was waited for:\n{}",
                self.shown,
                self.stdout
            );
            if is_wanted(&line) {
                break;
            }
        }
        drop(watchdog);
    }

    /// Number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// When it has ended already.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        send(pid(&self.child), signal).unwrap_or_else(|error| panic!("{}: {error}", self.shown));
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it hangs.
    #[must_use]
    #[track_caller]
    pub fn end(mut self) -> Outcome {
        let watchdog = Watchdog::over(&self.child);
        self.stdout.push_str(&read_all(&mut self.lines));
        let status = self.child.wait().expect("a child can be waited for");
        let stderr = self.stderr.join().expect("reading does not panic");
        let outcome = Outcome { status, stdout: self.stdout, stderr, shown: self.shown };
        assert!(!watchdog.has_barked(), "hung: {outcome}");
        outcome
    }
}

/// Ends a program that hangs, so that the test which waits for it can fail.
struct Watchdog {
    alive: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<bool>>,
}

impl Watchdog {
    fn over(child: &Child) -> Self {
        let (alive, rest) = mpsc::channel::<()>();
        let pid = pid(child);
        let watch = move || {
            let barked = rest.recv_timeout(HANG) == Err(mpsc::RecvTimeoutError::Timeout);
            barked && send(pid, Signal::KILL).is_ok()
        };
        Self { alive: Some(alive), thread: Some(std::thread::spawn(watch)) }
    }

    fn has_barked(mut self) -> bool {
        self.alive = None;
        self.thread.take().is_some_and(|thread| thread.join().expect("watching does not panic"))
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn send(pid: Pid, signal: Signal) -> rustix::io::Result<()> {
    kill_process(pid, signal)
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before a failure is still worth looking at.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Outcome {
    /// It did its job.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    pub fn done(self) -> Self {
        self.ended_with(0)
    }

    /// It ended with this exit code, and without a panic.
    ///
    /// # Panics
    ///
    /// When it ended otherwise.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        let all = [&self.stdout, &self.stderr];
        assert!(all.iter().all(|text| !text.contains("panicked at")), "{self}");
        self
    }

    /// It ended with this exit code and complained with each of these words.
    ///
    /// # Panics
    ///
    /// When it did not.
    #[track_caller]
    pub fn complained(self, code: i32, words: &[&str]) -> Self {
        let outcome = self.ended_with(code);
        for word in words {
            assert!(outcome.stderr.contains(word), "no {word:?} in the complaint of {outcome}");
        }
        outcome
    }

    /// A signal ended it.
    ///
    /// # Panics
    ///
    /// When it ended by itself.
    #[track_caller]
    pub fn killed_by(self, signal: Signal) -> Self {
        assert_eq!(self.status.signal(), Some(signal.as_raw()), "{self}");
        self
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    ///
    /// When that is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, stdout, stderr, shown } = self;
        write!(f, "{shown}\n{status}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}
