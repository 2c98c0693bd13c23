//! Which plugins ran inside a host that did not end properly: nobody is left to tell of such an end, so the next host reads it
//! from a file.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{Isolation, OnCrash, Plugin, Policies, policy::Policy};

/// Directory of the hosts that run, or have ended without a word: a file each, locked for as long as the host lives, with
/// the hash of each plugin that it ran inside and would rather not after a crash.
const RUNNING: &str = "running";

/// Directory of plugins that are not run inside any more: an empty file each, by hash.
pub(crate) const MOVED_OUT: &str = "moved-out";

/// What a host knows of those before it, and tells those after it.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Hashes of plugins that are not to be run inside.
    pub(super) moved_out: BTreeSet<String>,
    /// The entry of this host; none when it runs nothing inside that it would not after a crash.
    pub(super) journal: Option<Journal>,
}

impl Past {
    /// Reads what was, and enters what this host runs inside of those plugins whose policy asks for it. Blocks.
    pub(crate) fn of(cache: &Path, plugins: &[Plugin], policies: &Policies) -> Self {
        let careful = |plugin: &&Plugin| {
            let policy = Policy::of(policies, &plugin.name);
            policy.on_crash == OnCrash::Isolate && policy.isolation == Isolation::None
        };
        let mut hashes: Vec<String> =
            plugins.iter().filter(careful).filter_map(|plugin| plugin.sha256.clone()).collect();
        if hashes.is_empty() {
            return Self::default();
        }
        let failed = |what: &str, error: io::Error| tracing::warn!("{what} {}: {error}", cache.display());
        let moved_out = Journal::moved_out(cache).unwrap_or_else(|error| {
            failed("what ran in earlier hosts cannot be read in", error);
            BTreeSet::new()
        });
        hashes.retain(|sha256| !moved_out.contains(sha256));
        let journal = (!hashes.is_empty()).then(|| Journal::enter(cache, &hashes));
        let journal = journal.transpose().unwrap_or_else(|error| {
            failed("what runs in this host cannot be written in", error);
            None
        });
        Self { moved_out, journal }
    }
}

/// The entry of a host. It is taken out when the host ends properly.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Locked; a lock ends with its process, however that ends.
    _file: File,
}

impl Journal {
    /// Enters this host with the plugins that it runs inside.
    pub(super) fn enter(cache: &Path, inside: &[String]) -> io::Result<Self> {
        let directory = cache.join(RUNNING);
        fs::create_dir_all(&directory)?;
        let path = directory.join(Uuid::now_v7().to_string());
        let mut file = File::create_new(&path)?;
        file.lock()?;
        let journal = Self { path, _file: file.try_clone()? };
        for sha256 in inside {
            writeln!(file, "{sha256}")?;
        }
        Ok(journal)
    }

    /// Hashes of the plugins that are not to be run inside: those of hosts that did not end properly, now or before.
    pub(super) fn moved_out(cache: &Path) -> io::Result<BTreeSet<String>> {
        for entry in entries(&cache.join(RUNNING))? {
            let file = File::open(&entry)?;
            match file.try_lock() {
                Ok(()) => {}
                // That host runs.
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let moved_out = cache.join(MOVED_OUT);
            fs::create_dir_all(&moved_out)?;
            let text = fs::read_to_string(&entry)?;
            // A line that was cut off by the end of its host is no hash.
            for sha256 in text.lines().filter(|line| is_hash(line)) {
                File::create(moved_out.join(sha256))?;
            }
            fs::remove_file(&entry)?;
        }
        let names = entries(&cache.join(MOVED_OUT))?;
        Ok(names.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }
}

fn is_hash(line: &str) -> bool {
    line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a directory holds; nothing where there is none.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match directory.read_dir() {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_a_host_that_did_not_end_properly_moves_its_plugins_out() {
        let cache = TempDir::new().expect("a directory");
        let (crashed, fine, running) = ("c".repeat(64), "f".repeat(64), "a".repeat(64));
        drop(Journal::enter(cache.path(), &[fine]).expect("writable"));
        let _running = Journal::enter(cache.path(), &[running]).expect("writable");
        // As a crash leaves it: the file is there, and nobody has it locked.
        let left = cache.path().join(RUNNING).join("left-behind");
        fs::write(&left, format!("{crashed}\n")).expect("writable");
        let moved = Journal::moved_out(cache.path()).expect("readable");
        assert_eq!(moved, BTreeSet::from([crashed]));
        assert!(!left.exists());
        assert_eq!(Journal::moved_out(cache.path()).expect("readable"), moved, "it stays so");
    }
}
