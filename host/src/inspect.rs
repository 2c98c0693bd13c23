//! What a plugin file says about itself, read from its ELF sections; none of its code runs.
//!
//! This also keeps files from the dynamic linker that would make it fault: truncated libraries, and files that are
//! something else.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use antiphon_plugin_api::{
    SECTION_NAME, SectionManifest,
    abi::{ABI_VERSION, API_VERSION},
};
use object::{Architecture, Object, ObjectKind, ObjectSection, ObjectSegment, ReadCache, ReadRef};

/// Why a file is not a plugin for this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// It is a directory, a socket or the like.
    #[error("is not a file")]
    NoFile,
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// It is something else.
    #[error("is {found}, not a shared library (ELF)")]
    NotElf {
        /// What it looks like.
        found: &'static str,
    },
    /// It is a program or an object file.
    #[error("is an ELF file, but {found}, not a shared library")]
    NotShared {
        /// What it is.
        found: String,
    },
    /// It is made for other machines.
    #[error("is built for {found}, this host runs on {wanted}: build the plugin for this machine", wanted = std::env::consts::ARCH)]
    Architecture {
        /// What it is built for.
        found: String,
    },
    /// Some of it is missing.
    #[error("is truncated: its segments reach to byte {wanted}, the file has {found}: copy it again")]
    Truncated {
        /// End of the last segment.
        wanted: u64,
        /// Length of the file.
        found: u64,
    },
    /// Its tables make no sense.
    #[error("is a damaged ELF file: {0}")]
    Damaged(object::Error),
    /// It is a library, but not one of ours.
    #[error(
        "is a shared library, but no Antiphon plugin: it has no section {SECTION_NAME} (`export_plugin!` makes it)"
    )]
    NoPlugin,
    /// Its manifest cannot be read.
    #[error("has a manifest section that cannot be read")]
    Section(#[source] serde_json::Error),
    /// It needs another host.
    #[error(
        "speaks ABI {plugin} (antiphon-plugin-api {plugin_api}), this host speaks ABI {ABI_VERSION} \
         (antiphon-plugin-api {API_VERSION}): {}",
        if *.plugin > ABI_VERSION { "update the host" } else { "rebuild the plugin" }
    )]
    Abi {
        /// ABI version of the plugin.
        plugin: u32,
        /// The plugin-api that it was built with.
        plugin_api: String,
    },
}

/// Reads what a file says about itself.
///
/// # Errors
///
/// [`InspectError`] says what the file is instead of a plugin for this host.
pub fn inspect(path: &Path) -> Result<SectionManifest, InspectError> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(InspectError::NoFile);
    }
    let cache = ReadCache::new(File::open(path)?);
    let len = metadata.len();
    if len == 0 {
        return Err(InspectError::Empty);
    }
    let magic = (&cache).read_bytes_at(0, len.min(64)).unwrap_or_default();
    if !magic.starts_with(b"\x7fELF") {
        return Err(InspectError::NotElf { found: look(magic) });
    }
    let file = object::File::parse(&cache).map_err(|error| damaged(error, len))?;
    if !is_this_machine(file.architecture()) {
        return Err(InspectError::Architecture { found: format!("{:?}", file.architecture()) });
    }
    if file.kind() != ObjectKind::Dynamic {
        return Err(InspectError::NotShared { found: format!("of kind {:?}", file.kind()) });
    }
    let end = file
        .segments()
        .map(|segment| segment.file_range())
        .map(|(start, size)| start.saturating_add(size))
        .max();
    if let Some(wanted) = end.filter(|end| *end > len) {
        return Err(InspectError::Truncated { wanted, found: len });
    }
    let section = file.section_by_name(SECTION_NAME).ok_or(InspectError::NoPlugin)?;
    let data = section.data().map_err(InspectError::Damaged)?;
    // A linker or a sanitizer may have padded it.
    let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
    let manifest: SectionManifest = serde_json::from_slice(text).map_err(InspectError::Section)?;
    if manifest.abi_version != ABI_VERSION {
        return Err(InspectError::Abi { plugin: manifest.abi_version, plugin_api: manifest.api_version });
    }
    Ok(manifest)
}

/// Whether a library has others looked for beside itself: such a library works nowhere else.
///
/// # Errors
///
/// [`InspectError`] when the file is no library whose names can be read.
pub fn needs_its_place(path: &Path) -> Result<bool, InspectError> {
    let cache = ReadCache::new(File::open(path)?);
    let file = object::File::parse(&cache).map_err(InspectError::Damaged)?;
    let Some(names) = file.section_by_name(".dynstr") else { return Ok(false) };
    let names = names.data().map_err(InspectError::Damaged)?;
    // Among the names are DT_RPATH and DT_RUNPATH, and nothing else has a use for the word.
    let has = |word: &[u8]| names.windows(word.len()).any(|part| part == word);
    Ok(has(b"$ORIGIN") || has(b"${ORIGIN}"))
}

/// The libraries of a directory, sorted by name: files that end in `.so`.
///
/// # Errors
///
/// The directory cannot be read.
pub fn libraries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "so") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn is_this_machine(architecture: Architecture) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => architecture == Architecture::X86_64,
        "aarch64" => architecture == Architecture::Aarch64,
        "x86" => architecture == Architecture::I386,
        "arm" => architecture == Architecture::Arm,
        "riscv64" => architecture == Architecture::Riscv64,
        // The dynamic linker checks it on machines that are not named here.
        _ => true,
    }
}

/// The section table stands at the end, so a truncated file mostly fails while it is parsed.
fn damaged(error: object::Error, len: u64) -> InspectError {
    if error.to_string().contains("section header") || error.to_string().contains("segment") {
        return InspectError::Truncated { wanted: len + 1, found: len };
    }
    InspectError::Damaged(error)
}

fn look(magic: &[u8]) -> &'static str {
    match magic {
        [b'M', b'Z', ..] => "a Windows program or library",
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => "a macOS program or library",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [0x1f, 0x8b, ..] => "gzip-compressed data",
        [b'!', b'<', b'a', b'r', ..] => "a static library or linker script archive",
        _ if std::str::from_utf8(magic).is_ok_and(|text| !text.contains('\0')) => "a text file",
        _ => "some other data",
    }
}
