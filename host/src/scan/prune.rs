//! Keeps the cache from growing for ever.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::cache::{FILES, LIBRARIES, VERDICTS};

/// How much a cache may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Time without use.
    pub(super) age: Duration,
    /// Of all files together.
    pub(super) bytes: u64,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A month in which a plugin is not used, or about a hundred versions of twenty megabytes.
pub(super) const BOUNDS: Bounds = Bounds { age: Duration::from_secs(30 * 24 * 3600), bytes: 2 << 30 };

/// What names of files begin with that are being written, or were when their host ended.
pub(super) const LEFT_BEHIND: &str = ".new-";

/// Deletes what has not been used for too long, then the oldest of what is too much; never what this process uses.
pub(super) fn prune(root: &Path, now: SystemTime, bounds: Bounds, used: &BTreeSet<PathBuf>) {
    let mut kept: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for folder in [LIBRARIES, VERDICTS, FILES] {
        for entry in root.join(folder).read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            let Ok(modified) = metadata.modified() else { continue };
            let age = now.duration_since(modified).unwrap_or_default();
            let is_left = entry.file_name().to_string_lossy().starts_with(LEFT_BEHIND);
            let limit = if is_left { DAY } else { bounds.age };
            if age > limit && !used.contains(&path) {
                delete(&path);
            } else {
                kept.push((modified, metadata.len(), path));
            }
        }
    }
    let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
    kept.sort();
    for (_, len, path) in kept.iter().filter(|(_, _, path)| !used.contains(path)) {
        if bytes <= bounds.bytes {
            break;
        }
        delete(path);
        bytes = bytes.saturating_sub(*len);
    }
}

fn delete(path: &Path) {
    // Another host may have been faster. One that has a library open keeps what it has.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use tempfile::TempDir;

    use super::*;

    /// A cache with files: path, age in days, bytes. What is left of it after pruning.
    #[track_caller]
    fn check(files: &[(&str, u64, usize)], bounds: Bounds, used: &[&str], want: &[&str]) {
        let root = TempDir::new().expect("a directory");
        let now = SystemTime::UNIX_EPOCH + DAY * 10_000;
        for folder in [LIBRARIES, VERDICTS, FILES] {
            fs::create_dir(root.path().join(folder)).expect("writable");
        }
        for (name, days, bytes) in files {
            let path = root.path().join(name);
            fs::write(&path, vec![0; *bytes]).expect("writable");
            let at = FileTimes::new().set_modified(now - DAY * u32::try_from(*days).expect("some days"));
            File::open(&path).and_then(|file| file.set_times(at)).expect("it is ours");
        }
        prune(root.path(), now, bounds, &used.iter().map(|name| root.path().join(name)).collect());
        let left: Vec<&str> =
            files.iter().map(|(name, ..)| *name).filter(|name| root.path().join(name).exists()).collect();
        assert_eq!(left, want);
    }

    #[test]
    fn what_is_old_or_too_much_goes_and_what_is_used_stays() {
        let files = [
            ("libraries/old.so", 31, 10),
            ("libraries/used.so", 90, 10),
            ("libraries/b.so", 20, 10),
            ("libraries/a.so", 10, 10),
            ("verdicts/a.json", 10, 1),
            ("files/1-2-3", 31, 1),
            ("libraries/.new-1", 2, 5),
            ("libraries/.new-2", 0, 5),
        ];
        let kept = |without: &[&str]| -> Vec<&str> {
            let all = ["libraries/used.so", "libraries/b.so", "libraries/a.so", "verdicts/a.json"];
            let all = all.into_iter().chain(["libraries/.new-2"]);
            all.filter(|name| !without.contains(name)).collect()
        };
        let used = ["libraries/used.so"];
        check(&files, BOUNDS, &used, &kept(&[]));
        check(&files, Bounds { bytes: 30, ..BOUNDS }, &used, &kept(&["libraries/b.so"]));
        // What is used stays, even where it is too much alone.
        let rest = ["libraries/b.so", "libraries/a.so", "verdicts/a.json", "libraries/.new-2"];
        check(&files, Bounds { bytes: 5, ..BOUNDS }, &used, &kept(&rest));
    }
}
