//! What it was measured on, and with which versions.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::Serialize;

/// Facts that figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// What the processor calls itself.
    pub cpu: String,
    /// Version of the compiler.
    pub rustc: String,
    /// Versions of what takes part, by name; none of what is not there.
    #[serde(flatten)]
    pub versions: BTreeMap<&'static str, Option<String>>,
    /// Of the last minute, before the first round.
    pub load_before: f64,
    /// After the last round; what is measured itself is in it.
    pub load_after: f64,
}

impl Machine {
    /// This machine, with the versions of some packages of the lock file.
    #[must_use]
    pub fn here(packages: &[&'static str]) -> Self {
        let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../Cargo.lock"))
            .unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            rustc: rustc(),
            versions: packages.iter().map(|name| (*name, Some(locked(&lock, name)))).collect(),
            load_before: load(),
            load_after: 0.0,
        }
    }

    /// The version of something, for people.
    #[must_use]
    pub fn version(&self, name: &str) -> String {
        self.versions.get(name).cloned().flatten().unwrap_or_else(|| "not there".to_owned())
    }
}

/// Load average of the last minute.
#[must_use]
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}
fn cpu(info: &str) -> String {
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name).to_owned()
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output().map(|output| output.stdout);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    text.split(' ').nth(1).unwrap_or("unknown").to_owned()
}

/// The version of a package in a lock file.
fn locked(lock: &str, name: &str) -> String {
    let rest = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_what_the_system_says() {
        assert_eq!(cpu("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: x\n"), "Some CPU @ 2 GHz");
        assert_eq!(cpu(""), "unknown");
        let lock = "[[package]]\nname = \"tokio-util\"\nversion = \"0.7\"\n\n[[package]]\nname = \"tokio\"\nversion = \"1.54\"\n";
        assert_eq!(locked(lock, "tokio"), "1.54");
        assert_eq!(locked(lock, "flume"), "unknown");
    }
}
