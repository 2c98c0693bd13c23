//! Directories of plugins, each with just the libraries that a test wants in it.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tempfile::TempDir;

use crate::built;

/// A directory of plugins that goes away with the last of its handles.
#[derive(Debug, Clone)]
pub struct PluginDir {
    directory: Arc<TempDir>,
}

impl PluginDir {
    /// Nothing in it yet.
    ///
    /// # Panics
    ///
    /// When there is no room for temporary files.
    #[must_use]
    pub fn empty() -> Self {
        let directory = TempDir::with_prefix("antiphon-plugins-").expect("room for temporary files");
        Self { directory: Arc::new(directory) }
    }

    /// All plugins that we ship.
    #[must_use]
    #[track_caller]
    pub fn all() -> Self {
        Self::of(&built::plugin_names())
    }

    /// Some of the plugins that we ship.
    #[must_use]
    #[track_caller]
    pub fn of(names: &[impl AsRef<str>]) -> Self {
        let directory = Self::empty();
        names.iter().for_each(|name| directory.link(&built::plugin(name.as_ref())));
        directory
    }

    /// Adds the plugin that misbehaves. A library that is opened twice is one library, and the host knows libraries by
    /// their content; with a number at its end, which no linker reads, each test has its own threads to break.
    #[must_use]
    #[track_caller]
    pub fn with_misbehave(self) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let library = built::fixture_plugin("misbehave");
        let mut bytes = ok(fs::read(&library), "misbehave.so");
        bytes.extend(NUMBER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        self.write("misbehave.so", bytes);
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Path of a file in it, which need not be there.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Adds a file.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    #[track_caller]
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        ok(fs::write(self.file(name), bytes), name);
    }

    /// Adds a copy of a file.
    ///
    /// # Panics
    ///
    /// When it cannot be copied.
    #[track_caller]
    pub fn copy(&self, from: &Path, name: &str) {
        ok(fs::copy(from, self.file(name)), name);
    }

    #[track_caller]
    fn link(&self, library: &Path) {
        let name = library.file_name().expect("a library has a name").to_string_lossy().into_owned();
        ok(symlink(library, self.file(&name)), &name);
    }
}

#[track_caller]
fn ok<T>(outcome: io::Result<T>, name: &str) -> T {
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"))
}
