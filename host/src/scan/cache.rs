//! What scans leave behind: copies of libraries by their content, verdicts on them, and which file had which content.
//!
//! ```text
//! libraries/SHA256.so             what is opened, so that nobody overwrites a library under a running host
//! verdicts/SHA256.json            what came of trying it
//! files/DEVICE-INODE-SIZE-..      the hash of a file that has not changed since
//! ```
//!
//! Every file is written beside its place and renamed, so hosts that share a cache see whole files. What is damaged
//! counts as missing.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, DirBuilder, File, FileTimes, Metadata, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustix::process::geteuid;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    now,
    prune::{BOUNDS, LEFT_BEHIND, prune},
    trust::not_ours_alone,
    verdict::Verdict,
};
use crate::plugins::MOVED_OUT;

/// Names the cache directory, before all other places.
const CACHE_DIR: &str = "ANTIPHON_CACHE_DIR";

pub(super) const LIBRARIES: &str = "libraries";
pub(super) const VERDICTS: &str = "verdicts";
pub(super) const FILES: &str = "files";

/// The directory that keeps what scans have found out.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Why a directory cannot be the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Who can write there can have this program run what they like.
    #[error(
        "the plugin cache {} is not safe: {why}; or name another place with {CACHE_DIR} or plugins.cache",
        path.display()
    )]
    Unsafe {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It cannot be made or written.
    #[error("the plugin cache {} cannot be used", path.display())]
    Io {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The content of a file.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) sha256: String,
    pub(super) identity: Identity,
}

impl Cache {
    /// Opens, and makes if need be, the cache: in the directory that is named; else in `ANTIPHON_CACHE_DIR`,
    /// `XDG_CACHE_HOME/antiphon` or `~/.cache/antiphon`; else, with a warning, in a temporary directory. Blocks.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when the directory is not safe, or one that somebody named cannot be used.
    pub fn open(named: Option<&Path>) -> Result<Self, CacheError> {
        let variable = |name: &str| std::env::var_os(name);
        let opened = match place(named, variable) {
            Some((root, _)) => Self::at(&root),
            None => {
                let source = io::Error::new(io::ErrorKind::NotFound, "HOME is not set");
                Err(CacheError::Io { path: "~/.cache/antiphon".into(), source })
            }
        };
        match (opened, place(named, variable)) {
            (Err(error @ CacheError::Io { .. }), None | Some((_, false))) => {
                let cache = Self::at(&temporary()?)?;
                tracing::warn!(
                    "{}; plugins are scanned anew each time. Name a place with {CACHE_DIR} or plugins.cache",
                    crate::plugins::chain(&error)
                );
                Ok(cache)
            }
            (opened, _) => opened,
        }
    }

    /// Opens, and makes if need be, the cache in a certain directory.
    fn at(root: &Path) -> Result<Self, CacheError> {
        let failed = |source: io::Error| CacheError::Io { path: root.to_owned(), source };
        let root = std::path::absolute(root).map_err(failed)?;
        make_private(&root).map_err(failed)?;
        let metadata = root.metadata().map_err(failed)?;
        if let Some(why) = not_ours_alone(&metadata, geteuid().as_raw()) {
            return Err(CacheError::Unsafe { path: root, why });
        }
        let cache = Self { root };
        for folder in [LIBRARIES, VERDICTS, FILES] {
            make_private(&cache.root.join(folder)).map_err(failed)?;
        }
        // The directory can be there and its file system read-only.
        let probe = cache.beside(FILES);
        File::create_new(&probe).and_then(|_| fs::remove_file(&probe)).map_err(failed)?;
        Ok(cache)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the copy of a content is, or would be.
    pub(super) fn library(&self, sha256: &str) -> PathBuf {
        self.root.join(LIBRARIES).join(format!("{sha256}.so"))
    }

    /// Whether there is a copy of a content that is not obviously damaged. It counts as used then.
    pub(super) fn has_library(&self, sha256: &str, bytes: u64) -> bool {
        let path = self.library(sha256);
        let is_whole =
            path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes);
        if is_whole {
            used(&path);
        }
        is_whole
    }

    /// Copies a file to where its content belongs. The hash is that of the copy.
    pub(super) fn store(&self, path: &Path) -> io::Result<Content> {
        let copy = self.beside(LIBRARIES);
        let stored = File::create_new(&copy)
            .and_then(|mut file| read(path, &mut file).map(|content| (content, file)))
            .and_then(|(content, file)| {
                file.set_permissions(Permissions::from_mode(0o500))?;
                let place = self.library(&content.sha256);
                // Another host may have it open by this name: it keeps the file that it has.
                fs::rename(&copy, &place)?;
                used(&place);
                Ok(content)
            });
        if stored.is_err() {
            // It may never have been there.
            let _ = fs::remove_file(&copy);
        }
        stored
    }

    /// What came of a content when it was tried by this version.
    pub(super) fn verdict(&self, sha256: &str) -> Option<Verdict> {
        let path = self.verdict_file(sha256);
        let verdict = Verdict::from_json(&fs::read(&path).ok()?)?;
        used(&path);
        Some(verdict)
    }

    /// Remembers what came of a content.
    pub(super) fn remember(&self, sha256: &str, verdict: &Verdict) -> io::Result<()> {
        self.write(VERDICTS, &self.verdict_file(sha256), &verdict.to_json()?)
    }

    /// Forgets what came of a content, so that it is tried again. Whether there was something to forget.
    pub(super) fn forget(&self, sha256: &str) -> io::Result<bool> {
        match fs::remove_file(self.root.join(MOVED_OUT).join(sha256)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::remove_file(self.verdict_file(sha256)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// The content that a file had when it was read last, if it has not been written since.
    pub(super) fn content_of(&self, identity: &Identity) -> Option<String> {
        let path = self.root.join(FILES).join(identity.to_name());
        let text = fs::read_to_string(&path).ok()?;
        let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        used(&path);
        is_hash.then_some(text)
    }

    /// Remembers which content a file has.
    pub(super) fn remember_content(&self, content: &Content) -> io::Result<()> {
        if !content.identity.is_settled(now()) {
            return Ok(());
        }
        let path = self.root.join(FILES).join(content.identity.to_name());
        self.write(FILES, &path, content.sha256.as_bytes())
    }

    /// Deletes what has not been used for long, or is too much; once in the life of a process.
    pub(super) fn prune_once(&self) {
        static DONE: AtomicBool = AtomicBool::new(false);
        if !DONE.swap(true, Ordering::Relaxed) {
            let used = USED.lock().unwrap_or_else(PoisonError::into_inner).clone();
            prune(&self.root, now(), BOUNDS, &used);
        }
    }

    fn verdict_file(&self, sha256: &str) -> PathBuf {
        self.root.join(VERDICTS).join(format!("{sha256}.json"))
    }

    /// A name that nobody else has.
    fn beside(&self, folder: &str) -> PathBuf {
        self.root.join(folder).join(format!("{LEFT_BEHIND}{}", Uuid::new_v4().simple()))
    }

    fn write(&self, folder: &str, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let beside = self.beside(folder);
        let written = File::create_new(&beside)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&beside, path));
        match &written {
            Ok(()) => used(path),
            // It may never have been there.
            Err(_) => drop(fs::remove_file(&beside)),
        }
        written
    }
}

/// The place of the cache, and whether somebody named it.
fn place(named: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<(PathBuf, bool)> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = named.map(Path::to_owned).or_else(|| set(CACHE_DIR)).map(|path| (path, true));
    // The XDG specification has relative paths ignored.
    let xdg = || set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("antiphon"));
    let home = || set("HOME").map(|path| path.join(".cache/antiphon"));
    named.or_else(|| xdg().or_else(home).map(|path| (path, false)))
}

/// What stands in for the cache in this process.
static STAND_IN: Mutex<Option<PathBuf>> = Mutex::new(None);

/// What stand-ins are called: this, and the number of their process.
const STAND_IN_NAME: &str = "antiphon-cache-";

/// A fresh directory, one for the process. It stays: plugins that are loaded lie in it. Those of processes that are gone
/// are deleted.
fn temporary() -> Result<PathBuf, CacheError> {
    let mut stand_in = STAND_IN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*stand_in {
        return Ok(path.clone());
    }
    let parent = std::env::temp_dir();
    for entry in parent.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(STAND_IN_NAME)?.split('-').next());
        let is_ours = || entry.metadata().is_ok_and(|metadata| metadata.uid() == geteuid().as_raw());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) && is_ours() {
            // Another host may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let path = parent.join(format!("{STAND_IN_NAME}{}-{}", std::process::id(), Uuid::new_v4().simple()));
    // Not the parents: what is there already is somebody else's.
    let made = DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|source| CacheError::Io { path: path.clone(), source })?;
    *stand_in = Some(path.clone());
    Ok(path)
}

fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What this process uses of any cache, which it does not delete.
static USED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How exactly the time of the last use is kept. Writing it each time would cost more than it tells.
const USE_RESOLUTION: Duration = Duration::from_secs(3600);

/// Notes that an entry is used.
fn used(path: &Path) {
    USED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
    let (now, modified) = (now(), path.metadata().and_then(|metadata| metadata.modified()));
    if modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > USE_RESOLUTION)) {
        // Another host may have deleted it; it is made again when it is missed.
        let _ = File::open(path).and_then(|file| file.set_times(FileTimes::new().set_modified(now)));
    }
}

/// What changes when a file is written, replaced or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Seconds and nanoseconds. Nobody can set it, other than `modified`.
    changed: (i64, i64),
}

/// Time after which a write cannot have the same time stamp as the one before: some ticks of the kernel, which are at
/// most 10 ms.
const SETTLED: Duration = Duration::from_millis(100);

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn to_name(self) -> String {
        let Self { device, inode, bytes, modified: (m, m_ns), changed: (c, c_ns) } = self;
        format!("{device:x}-{inode:x}-{bytes:x}-{m}.{m_ns:09}-{c}.{c_ns:09}")
    }

    /// Whether the file has been left alone for long enough that a later write shows.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        now.duration_since(changed).is_ok_and(|age| age > SETTLED)
    }
}

/// The content of a file, which is only read.
pub(super) fn hash(path: &Path) -> io::Result<Content> {
    read(path, &mut io::sink())
}

/// Reads a file once: what is hashed is what is copied.
fn read(path: &Path, to: &mut impl Write) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let before = Identity::of(&file.metadata()?);
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
            }
        }
    }
    let identity = Identity::of(&file.metadata()?);
    if identity != before {
        return Err(io::Error::other("it was written while it was read; try again when it is whole"));
    }
    let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Content { sha256, identity })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn cache() -> (TempDir, Cache) {
        let directory = TempDir::new().expect("a directory");
        let cache = Cache::at(&directory.path().join("a/cache")).expect("a cache");
        (directory, cache)
    }

    #[test]
    fn the_cache_is_for_its_owner_alone() {
        let (_directory, cache) = cache();
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        for path in [cache.root().to_owned(), cache.root().join(LIBRARIES), cache.root().join(VERDICTS)] {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
        fs::set_permissions(cache.root(), Permissions::from_mode(0o770)).expect("it is ours");
        let error = Cache::at(cache.root()).expect_err("others can write it").to_string();
        assert!(error.contains("is not safe: others can write it (mode 0770)"), "{error}");
        assert!(error.contains("ANTIPHON_CACHE_DIR"), "{error}");
    }

    #[test]
    fn a_place_that_somebody_named_is_the_only_one() {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("writable");
        let error = Cache::open(Some(&file)).expect_err("a file is no directory");
        assert!(matches!(error, CacheError::Io { .. }), "{error}");
    }

    #[test]
    fn the_place_is_named_or_where_caches_are() {
        #[track_caller]
        fn check(named: Option<&str>, variables: &[(&str, &str)], want: Option<(&str, bool)>) {
            let value =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            let want = want.map(|(path, is_named)| (PathBuf::from(path), is_named));
            assert_eq!(place(named.map(Path::new), value), want);
        }
        let all = [("ANTIPHON_CACHE_DIR", "/env"), ("XDG_CACHE_HOME", "/xdg"), ("HOME", "/house")];
        check(Some("/named"), &all, Some(("/named", true)));
        check(None, &all, Some(("/env", true)));
        check(None, &all[1..], Some(("/xdg/antiphon", false)));
        check(None, &[("XDG_CACHE_HOME", "relative"), all[2]], Some(("/house/.cache/antiphon", false)));
        check(None, &[("ANTIPHON_CACHE_DIR", ""), all[2]], Some(("/house/.cache/antiphon", false)));
        check(None, &[], None);
    }

    #[test]
    fn a_copy_is_found_by_its_content_and_made_anew_when_it_is_short() {
        let (directory, cache) = cache();
        let file = directory.path().join("a.so");
        fs::write(&file, "abc").expect("writable");
        let content = cache.store(&file).expect("a copy");
        // FIPS 180-2, B.1.
        assert_eq!(content.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash(&file).expect("readable").sha256, content.sha256);
        assert!(cache.has_library(&content.sha256, 3));
        let copy = cache.library(&content.sha256);
        assert_eq!(copy.metadata().expect("it is there").permissions().mode() & 0o777, 0o500);
        fs::set_permissions(&copy, Permissions::from_mode(0o700)).expect("it is ours");
        fs::write(&copy, "ab").expect("writable");
        assert!(!cache.has_library(&content.sha256, 3));
        cache.store(&file).expect("a copy");
        assert!(cache.has_library(&content.sha256, 3));
        assert_eq!(fs::read(&copy).expect("readable"), b"abc");
        let left = cache.root().join(LIBRARIES).read_dir().expect("readable").count();
        assert_eq!(left, 1, "nothing is left beside the copy");
    }

    #[test]
    fn the_content_of_a_file_is_remembered_until_it_is_written() {
        let (directory, cache) = cache();
        let file = directory.path().join("a.so");
        fs::write(&file, "abc").expect("writable");
        let mut content = hash(&file).expect("readable");
        // A file that was written just now may be written again without that it shows.
        content.identity.changed = (i64::MAX, 0);
        cache.remember_content(&content).expect("writable");
        assert_eq!(cache.content_of(&content.identity), None);
        content.identity.changed = (1_000_000, 7);
        cache.remember_content(&content).expect("writable");
        assert_eq!(cache.content_of(&content.identity).as_ref(), Some(&content.sha256));
        for other in [
            Identity { bytes: 4, ..content.identity },
            Identity { changed: (1_000_000, 8), ..content.identity },
            Identity { modified: (1_000_000, 7), ..content.identity },
            Identity { inode: 0, ..content.identity },
        ] {
            assert_eq!(cache.content_of(&other), None);
        }
        // Damaged: as if it were not there.
        let entry = cache.root().join(FILES).join(content.identity.to_name());
        fs::write(entry, "abc").expect("writable");
        assert_eq!(cache.content_of(&content.identity), None);
    }
}
