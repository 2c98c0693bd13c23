//! Finds plugin libraries and tries them in child processes, so that nothing is opened here that takes its process down.
//!
//! What happens to a file: it is looked at ([`inspect`](crate::inspect)), hashed and copied into the [`Cache`], tried by
//! a child unless its content was tried before, and the verdict is remembered by content. The pages of the book call
//! this plugin safety.
//!
//! Not here: a protection against plugins that mean harm. What is accepted runs with all rights of the host.

mod cache;
mod conform;
mod judge;
mod lock;
mod parallel;
mod prune;
mod serve;
mod trust;
mod verdict;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use antiphon_core::event::values::PluginState;
use antiphon_plugin_api::PluginManifest;
use serde::Serialize;

pub(crate) use self::serve::{MAX_MANIFEST, try_library};
pub use self::{
    cache::{Cache, CacheError},
    lock::{LOCK_FILE, Lock, LockError, LockedPlugin},
};
use self::{
    cache::{Content, Identity, hash},
    judge::{Judged, judge},
    parallel::parallel,
    verdict::{Judgement, Verdict},
};
use crate::{
    child::{self, ChildProgram, Limits, NoChildProgram, Task},
    inspect::{inspect, libraries, needs_its_place},
    plugins::chain,
};

/// Time that a plugin may take to be opened, started with its default settings, and stopped. It is tried once, so it
/// may take as long as a host waits for its start.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Private memory that a plugin may take while it is tried. More than models in memory have, less than would have the
/// system kill others.
const MEMORY_BYTES: u64 = 8 << 30;

/// Looks for plugins and tries them.
#[derive(Debug)]
#[must_use = "nothing is looked for before `scan`"]
pub struct Scanner {
    program: Result<ChildProgram, NoChildProgram>,
    cache: Result<Cache, CacheError>,
    timeout: Duration,
    limits: Limits,
    allow_writable: bool,
    lock: Option<Lock>,
    counted: Counted,
}

/// What became of one file, or of a directory that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Scanned {
    /// Where it was found.
    pub path: PathBuf,
    /// Name of the plugin by its section; of the file, where that cannot be read.
    pub name: String,
    /// Whether it can be used.
    pub outcome: Outcome,
}

/// Whether a library can be used.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It can.
    Accepted {
        /// What it declares.
        manifest: Box<PluginManifest>,
        /// SHA-256 of the library, in hexadecimal digits.
        sha256: String,
        /// What to open: a copy in the cache, mostly.
        library: PathBuf,
        /// Why it does not start with its default settings, where it does not.
        note: Option<String>,
    },
    /// It cannot.
    Refused {
        /// [`Failed`](PluginState::Failed), or [`Quarantined`](PluginState::Quarantined).
        state: PluginState,
        /// Why, and what to do.
        reason: String,
    },
}

/// What scans cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files that were looked at.
    pub files: usize,
    /// Files that were read to the end, because they are new or have been written.
    pub hashed: usize,
    /// Files whose verdict was remembered.
    pub remembered: usize,
    /// Child processes that were started.
    pub children: usize,
}

#[derive(Debug, Default)]
struct Counted {
    files: AtomicUsize,
    hashed: AtomicUsize,
    remembered: AtomicUsize,
    children: AtomicUsize,
}

/// A library that is ready to be tried, or to be used.
#[derive(Debug)]
struct Prepared {
    path: PathBuf,
    name: String,
    sha256: String,
    bytes: u64,
    /// What to open.
    library: PathBuf,
    in_place: bool,
    verdict: Option<Verdict>,
}

impl Scanner {
    /// A scanner that lets this program try libraries, and remembers in this cache. Without either it refuses all
    /// files, with the reason.
    pub fn new(program: Result<ChildProgram, NoChildProgram>, cache: Result<Cache, CacheError>) -> Self {
        Self {
            program,
            cache,
            timeout: TIMEOUT,
            limits: Limits { memory_bytes: Some(MEMORY_BYTES), ..Limits::default() },
            allow_writable: false,
            lock: None,
            counted: Counted::default(),
        }
    }

    /// Time that a plugin may take to be tried. Default: 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Takes plugins also from directories that every user of the machine can write. Default: no.
    pub fn allow_writable_dirs(mut self, allow: bool) -> Self {
        self.allow_writable = allow;
        self
    }

    /// Takes only the plugins of a lock. Files are then read to the end each time.
    pub fn lock(mut self, lock: Option<Lock>) -> Self {
        self.lock = lock;
        self
    }

    /// Looks at every library of the directories: in their order, and by name in each. Blocks; uses all processors.
    #[must_use]
    pub fn scan(&self, directories: &[PathBuf]) -> Vec<Scanned> {
        let mut found = Vec::new();
        for directory in directories {
            match self.files_of(directory) {
                Ok(files) => found.extend(files.into_iter().map(Ok)),
                Err(reason) => found.push(Err(failed(directory, directory.display().to_string(), reason))),
            }
        }
        let prepared = parallel(found, |found| self.prepare(&found?));
        let scanned = self.tried(prepared);
        if let Ok(cache) = &self.cache {
            cache.prune_once();
        }
        scanned
    }

    /// Looks at one library. Blocks.
    #[must_use]
    pub fn scan_file(&self, path: &Path) -> Scanned {
        let place = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let distrusted = place.and_then(|place| self.distrust(place).ok()?);
        let prepared = match distrusted {
            Some(reason) => Err(failed(path, stem(path), format!("is in a directory that {reason}"))),
            None => self.prepare(path),
        };
        self.tried(vec![prepared]).remove(0)
    }

    /// Forgets what is known of a library, and tries it again. Blocks.
    #[must_use]
    pub fn retry(&self, path: &Path) -> Scanned {
        // What cannot be read is told by the scan.
        if let (Ok(cache), Ok(content)) = (&self.cache, hash(path))
            && let Err(error) = cache.forget(&content.sha256)
        {
            return *failed(path, stem(path), format!("has a verdict that cannot be deleted: {error}"));
        }
        self.scan_file(path)
    }

    /// What all scans of this scanner have cost.
    #[must_use]
    pub fn report(&self) -> Report {
        let Counted { files, hashed, remembered, children } = &self.counted;
        let [files, hashed, remembered, children] =
            [files, hashed, remembered, children].map(|count| count.load(Ordering::Relaxed));
        Report { files, hashed, remembered, children }
    }

    /// Where verdicts are remembered.
    ///
    /// # Errors
    ///
    /// There is no such place.
    pub fn cache(&self) -> Result<&Cache, &CacheError> {
        self.cache.as_ref()
    }

    /// What tries libraries.
    ///
    /// # Errors
    ///
    /// There is no such program.
    pub fn program(&self) -> Result<&ChildProgram, NoChildProgram> {
        self.program.as_ref().map_err(|none| *none)
    }

    fn files_of(&self, directory: &Path) -> Result<Vec<PathBuf>, String> {
        let unreadable = |error| format!("the plugin directory cannot be read: {error}");
        if let Some(reason) = self.distrust(directory).map_err(unreadable)? {
            return Err(format!("is a plugin directory that {reason}"));
        }
        libraries(directory).map_err(unreadable)
    }

    fn distrust(&self, path: &Path) -> std::io::Result<Option<String>> {
        if self.allow_writable { Ok(None) } else { trust::distrust(path) }
    }

    /// Everything up to the verdict. Nothing of the file is run.
    fn prepare(&self, path: &Path) -> Result<Prepared, Box<Scanned>> {
        count(&self.counted.files);
        // Two of the ways on compare paths, and the dynamic linker searches for names without a slash.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = path.as_path();
        let fail = |name: &str, reason: String| failed(path, name.to_owned(), reason);
        let fail_by_file = |reason: String| failed(path, stem(path), reason);
        let cache = self.cache.as_ref().map_err(|error| {
            fail_by_file(format!("was not tried, and is not loaded untried: {}", chain(error)))
        })?;
        // Where it cannot be read, inspecting it says so.
        if let Ok(Some(reason)) = self.distrust(path) {
            return Err(fail_by_file(format!("is a file that {reason}")));
        }
        if self.lock.is_none()
            && let Some(prepared) = remembered(cache, path)
        {
            count(&self.counted.remembered);
            return Ok(prepared);
        }
        let section = inspect(path).map_err(|error| fail_by_file(chain(&error)))?;
        let name = section.name;
        let in_place = needs_its_place(path).map_err(|error| fail(&name, chain(&error)))?;
        count(&self.counted.hashed);
        let read = match (&self.lock, in_place) {
            (None, false) => cache.store(path),
            _ => hash(path),
        };
        let unread = |error| fail(&name, format!("cannot be copied into the plugin cache: {error}"));
        let content = read.map_err(unread)?;
        if let Some(lock) = &self.lock {
            if let Some(reason) = lock.refusal(&name, &content.sha256) {
                return Err(fail(&name, reason));
            }
            // What is opened is the copy: it is held to the lock as well.
            let is_copied =
                || hash(&cache.library(&content.sha256)).is_ok_and(|copy| copy.sha256 == content.sha256);
            if !in_place && !is_copied() {
                let copied = cache.store(path).map_err(unread)?;
                if copied.sha256 != content.sha256 {
                    return Err(fail(
                        &name,
                        "was written while it was read; try again when it is whole".into(),
                    ));
                }
            }
        }
        if let Err(error) = cache.remember_content(&content) {
            tracing::warn!("the plugin cache {} cannot be written: {error}", cache.root().display());
        }
        let verdict = cache.verdict(&content.sha256).filter(|verdict| verdict.in_place == in_place);
        if verdict.is_some() {
            count(&self.counted.remembered);
        }
        let Content { sha256, identity: Identity { bytes, .. } } = content;
        let library = if in_place { path.to_owned() } else { cache.library(&sha256) };
        Ok(Prepared { path: path.to_owned(), name, sha256, bytes, library, in_place, verdict })
    }

    /// Has those tried that nobody remembers: each content once.
    fn tried(&self, mut prepared: Vec<Result<Prepared, Box<Scanned>>>) -> Vec<Scanned> {
        let mut new: BTreeMap<&str, &Prepared> = BTreeMap::new();
        for library in prepared.iter().flatten().filter(|library| library.verdict.is_none()) {
            new.entry(&library.sha256).or_insert(library);
        }
        let tried = parallel(new.into_values().collect(), |library| {
            (library.sha256.clone(), self.try_in_child(library))
        });
        let tried: BTreeMap<String, Result<Verdict, String>> = tried.into_iter().collect();
        let scanned = |prepared: Result<Prepared, Box<Scanned>>| {
            let Prepared { path, name, sha256, library, verdict, .. } = match prepared {
                Ok(prepared) => prepared,
                Err(refused) => return *refused,
            };
            let verdict = verdict.map_or_else(|| tried[&sha256].clone(), Ok);
            let outcome = match verdict {
                Err(reason) => Outcome::Refused { state: PluginState::Failed, reason },
                Ok(verdict) => outcome(verdict, sha256, library, &path),
            };
            Scanned { path, name, outcome }
        };
        prepared.drain(..).map(scanned).collect()
    }

    /// Tries a library; the error is why it cannot be used now.
    fn try_in_child(&self, library: &Prepared) -> Result<Verdict, String> {
        let untried = |error: &dyn std::error::Error| {
            format!("was not tried, and is not loaded untried: {}", chain(error))
        };
        let program = self.program.as_ref().map_err(|error| untried(error))?;
        count(&self.counted.children);
        tracing::debug!(path = %library.path.display(), "trying a plugin in a child process");
        let task = Task::Scan(library.library.clone());
        let outcome =
            child::run(program, self.limits, task, &[], self.timeout).map_err(|error| untried(&error))?;
        let judgement = match judge(outcome) {
            Judged::Lasting(judgement) => judgement,
            Judged::ForNow(reason) => return Err(reason),
        };
        let Prepared { path, name, sha256, bytes, in_place, .. } = library;
        let verdict = Verdict::new(now(), path, name, judgement).of_library(*bytes, *in_place);
        if let Ok(cache) = &self.cache
            && let Err(error) = cache.remember(sha256, &verdict)
        {
            tracing::warn!("the plugin cache {} cannot be written: {error}", cache.root().display());
        }
        Ok(verdict)
    }
}

/// A library that is as it was when it was tried. It is not even read.
fn remembered(cache: &Cache, path: &Path) -> Option<Prepared> {
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let identity = Identity::of(&metadata);
    let sha256 = cache.content_of(&identity)?;
    let verdict = cache.verdict(&sha256)?;
    let (name, bytes, in_place) = (verdict.name.clone(), identity.bytes, verdict.in_place);
    let library = if in_place { path.to_owned() } else { cache.library(&sha256) };
    if verdict.bytes != bytes || !(in_place || cache.has_library(&sha256, bytes)) {
        return None;
    }
    Some(Prepared { path: path.to_owned(), name, sha256, bytes, library, in_place, verdict: Some(verdict) })
}

fn outcome(verdict: Verdict, sha256: String, library: PathBuf, path: &Path) -> Outcome {
    let at = verdict.at();
    match verdict.judgement {
        Judgement::Accepted { manifest, note } => Outcome::Accepted { manifest, sha256, library, note },
        Judgement::Quarantined { reason, output } => {
            let last = last_words(&output).map(|line| line.chars().take(LAST_WORDS).collect::<String>());
            let last = last.map(|line| format!("; its last words: {line:?}")).unwrap_or_default();
            let path = path.display();
            let reason = format!(
                "is quarantined: {reason}{last} (tried {at}); `antiphon plugins retry {path}` tries it again"
            );
            Outcome::Refused { state: PluginState::Quarantined, reason }
        }
    }
}

/// Characters of a plugin's last words that are shown. All that was kept is in the verdict.
const LAST_WORDS: usize = 200;

/// The line that says most of why a process ended: what was panicked with, else the last one.
fn last_words(output: &str) -> Option<&str> {
    let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
    let after_panic = lines.clone().skip_while(|line| !line.contains("panicked at ")).nth(1);
    let is_backtrace = |line: &str| {
        let frame = line.trim_start_matches(|c: char| c.is_ascii_digit());
        ["note: ", "at ", "stack backtrace:"].iter().any(|start| line.starts_with(start))
            || (frame.len() < line.len() && frame.starts_with(": "))
    };
    after_panic.or_else(|| lines.rfind(|line| !is_backtrace(line)))
}

fn failed(path: &Path, name: String, reason: String) -> Box<Scanned> {
    let outcome = Outcome::Refused { state: PluginState::Failed, reason };
    Box::new(Scanned { path: path.to_owned(), name, outcome })
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[expect(clippy::disallowed_methods, reason = "file systems stamp real time, whatever clock the host has")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_what_was_panicked_with_or_the_last_line() {
        let panic = "starting\nthread 'main' (7) panicked at src/lib.rs:3:5:\nno model\nstack backtrace:\n   0: main\nnote: \
                     run with `RUST_BACKTRACE=full`\nthread caused non-unwinding panic. aborting.\n";
        assert_eq!(last_words(panic), Some("no model"));
        let note = "memory allocation of 7 bytes failed\nstack backtrace:\n   0: main\n  at lib.rs:3\nnote: run with `RUST_BACKTRACE=full`\n\n";
        assert_eq!(last_words(note), Some("memory allocation of 7 bytes failed"));
        assert_eq!(last_words("\n \n"), None);
    }
}
