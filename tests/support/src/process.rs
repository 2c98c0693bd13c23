//! Processes as the system sees them: what they may do, what they hold, and when they end.

use std::{fs, os::fd::OwnedFd, path::PathBuf};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::HANG;

/// A process that need not be a child of the test. Its number cannot become another's as far as this is concerned.
#[derive(Debug)]
pub struct Process {
    id: u32,
    handle: OwnedFd,
}

impl Process {
    /// A running process.
    ///
    /// # Panics
    ///
    /// When there is none of this number.
    #[must_use]
    #[track_caller]
    pub fn of(id: u32) -> Self {
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a number that a process can have");
        let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap_or_else(|error| panic!("{id}: {error}"));
        Self { id, handle }
    }

    /// The children of a process, by their numbers. Those that have ended and were not waited for are none.
    ///
    /// # Panics
    ///
    /// Without `/proc`.
    #[must_use]
    pub fn children(parent: u32) -> Vec<u32> {
        let all = fs::read_dir("/proc").expect("the system has /proc");
        let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_child = |id: &u32| {
            stat(*id).is_some_and(|stat| stat[0] != "Z" && stat[1].parse().is_ok_and(|of: u32| of == parent))
        };
        let mut children: Vec<u32> = numbers.filter(is_child).collect();
        children.sort_unstable();
        children
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether it runs.
    ///
    /// # Panics
    ///
    /// When the system cannot say.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.wait(&Timespec { tv_sec: 0, tv_nsec: 0 }) == 0
    }

    /// Waits for its end. Blocks.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn ended(&self) {
        let time = Timespec::try_from(HANG).expect("some minutes");
        assert!(self.wait(&time) > 0, "process {} does not end:\n{}", self.id, self.read("status"));
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.handle, signal).unwrap_or_else(|error| panic!("{}: {error}", self.id));
    }

    /// A line of `/proc/PID/status`, or of `limits`: what stands behind its name.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn line(&self, file: &str, name: &str) -> String {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {file}:\n{text}")).trim().to_owned()
    }

    /// Its environment.
    #[must_use]
    #[track_caller]
    pub fn environment(&self) -> Vec<String> {
        self.read("environ").split_terminator('\0').map(str::to_owned).collect()
    }

    /// What it has open: `/dev/null`, `socket:[123]`; sorted, and each once.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[must_use]
    #[track_caller]
    pub fn open_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.id)).expect("it runs");
        // What it closes meanwhile is not open.
        let mut files: Vec<PathBuf> =
            entries.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Its process group.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[must_use]
    #[track_caller]
    pub fn group(&self) -> u32 {
        let stat = stat(self.id).expect("it runs");
        stat[2].parse().expect("a number")
    }

    fn wait(&self, time: &Timespec) -> usize {
        poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(time))
            .expect("processes can be waited for")
    }

    #[track_caller]
    fn read(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.id);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `/proc/PID/stat` from the state on; before it is the name, which may be anything.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
