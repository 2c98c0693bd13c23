//! Opens plugin libraries: the only unsafe code of the host.
//!
//! A library is never closed: its thread-local destructors, panic payloads and vtables point into it.
#![expect(
    unsafe_code,
    reason = "opening a library runs its code, and its entry symbol is trusted to be what it says"
)]

use std::{
    error::Error as _,
    fmt,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
};

use antiphon_plugin_api::{
    PluginManifest,
    abi::{
        ABI_VERSION, API_VERSION, AbiError, ENTRY_SYMBOL, HostBox, PluginBox, PluginRootRef,
        abi_stable::{
            library::{AbiHeaderRef, LibraryError},
            std_types::{RResult, RSlice},
        },
    },
};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use crate::inspect::{self, InspectError};

/// An open plugin library.
pub struct Library {
    manifest: PluginManifest,
    root: PluginRootRef,
    path: PathBuf,
    /// Never dropped, because a library is never closed. Last, as the owner of all of the above.
    _handle: ManuallyDrop<Handle>,
}

/// Why a library was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is no plugin for this host.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The dynamic linker refused it.
    #[error("cannot be opened: {0}")]
    Open(String),
    /// It has the manifest of a plugin, but not its entry.
    #[error("has no entry symbol: `export_plugin!` makes it, and nothing may strip it")]
    NoEntry,
    /// It was built with another abi_stable, or another plugin-api with the same number.
    #[error(
        "does not fit this host (ABI {ABI_VERSION}, antiphon-plugin-api {API_VERSION}): it was built with \
         antiphon-plugin-api {plugin_api}; rebuild it with the host's. {detail}"
    )]
    Layout {
        /// The plugin-api that it was built with.
        plugin_api: String,
        /// The beginning of what abi_stable says.
        detail: String,
    },
    /// Its manifest cannot be read.
    #[error("has a manifest that cannot be read: {0}")]
    Manifest(serde_json::Error),
}

/// Characters of abi_stable's report that are worth showing; the whole can have 80,000.
const DETAIL_CHARS: usize = 200;

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Library {
    /// Opens a plugin library, after its file was inspected. Runs the library's initialisers, so call it from a thread
    /// that may block.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says why the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_in_steps(path, || {})
    }

    /// As [`open`](Self::open); `before_manifest` is called when the library is open, and before it is asked for its
    /// manifest.
    pub(crate) fn open_in_steps(path: &Path, before_manifest: impl FnOnce()) -> Result<Self, LoadError> {
        let section = inspect::inspect(path)?;
        // SAFETY: the file says that it is a plugin; that its initialisers are sound is its author's promise, as with
        // every library that a program links.
        let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
            // libloading's own text hides what the dynamic linker said.
            let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            LoadError::Open(cause)
        })?;
        let handle = ManuallyDrop::new(handle);
        // SAFETY: `export_plugin!`, the only maker of this symbol, gives it the type `LibHeader`, which begins with an
        // `AbiHeader` in every version of abi_stable.
        let header = unsafe { handle.get::<AbiHeaderRef>(ENTRY_SYMBOL) }.map_err(|_| LoadError::NoEntry)?;
        let layout = |error: LibraryError| LoadError::Layout {
            plugin_api: section.api_version.clone(),
            detail: error.to_string().chars().take(DETAIL_CHARS).collect(),
        };
        let root = (*header)
            .upgrade()
            .and_then(|header| header.init_root_module::<PluginRootRef>())
            .map_err(layout)?;
        before_manifest();
        let manifest = serde_json::from_slice(&root.manifest()()).map_err(LoadError::Manifest)?;
        Ok(Self { manifest, root, path: path.to_owned(), _handle: handle })
    }

    /// All that the plugin declares.
    #[must_use]
    pub fn manifest(&self) -> &PluginManifest {
        &self.manifest
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts an instance with its settings as JSON. Takes as long as the plugin needs: call it from a thread that may
    /// block.
    ///
    /// # Errors
    ///
    /// What the plugin says.
    pub fn create(&self, host: HostBox, settings: &[u8]) -> Result<PluginBox, AbiError> {
        match self.root.create()(host, RSlice::from_slice(settings)) {
            RResult::ROk(plugin) => Ok(plugin),
            RResult::RErr(error) => Err(error),
        }
    }
}
