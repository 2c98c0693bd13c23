//! Plugin files: directories of them, and copies that are other plugins.

use std::{
    fs,
    path::{Path, PathBuf},
};

use antiphon_host::{Host, HostBuilder};
use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection};
use tempfile::TempDir;

/// The plugin that passes audio through, by the name in its manifest.
pub(crate) const PLUGIN: &str = "bench-plugin";

const PLUGIN_FILE: &str = "libantiphon_bench_plugin.so";

/// A small plugin whose manifest is a text in its file.
const PATCHED_FILE: &str = "libantiphon_fixture_hostile.so";

/// A directory of plugins, and a cache of its own.
pub(crate) struct Place {
    plugins: TempDir,
    cache: TempDir,
}

impl Place {
    /// Nothing in it yet.
    pub(crate) fn empty() -> Result<Self> {
        let made = || tempfile::Builder::new().prefix("antiphon-bench-").tempdir();
        Ok(Self { plugins: made()?, cache: made()? })
    }

    /// With the plugin that passes audio through.
    pub(crate) fn with_plugin() -> Result<Self> {
        let place = Self::empty()?;
        place.put_plugin(0)?;
        Ok(place)
    }

    /// Puts a version of that plugin there. What differs is a number at its end, which no linker reads.
    pub(crate) fn put_plugin(&self, version: u64) -> Result<()> {
        let mut bytes = built(PLUGIN_FILE)?;
        bytes.extend(version.to_le_bytes());
        self.put(PLUGIN_FILE, &bytes)
    }

    /// Puts so many plugins there, each of its own name and content.
    pub(crate) fn put_many(&self, count: usize) -> Result<()> {
        let mut bytes = built(PATCHED_FILE)?;
        let section = object::File::parse(&*bytes)?
            .section_by_name(antiphon_plugin_api::SECTION_NAME)
            .and_then(|section| section.file_range())
            .context("the fixture has no manifest in its file")?;
        let (start, len) = (usize::try_from(section.0)?, usize::try_from(section.1)?);
        for number in 0..count {
            let name = format!("bench-{number}");
            let (abi, api) = (antiphon_plugin_api::abi::ABI_VERSION, antiphon_plugin_api::abi::API_VERSION);
            let manifest = format!(
                r#"{{"name":"{name}","version":"1.0.0","abi_version":{abi},"api_version":"{api}","kinds":"llm"}}"#
            );
            ensure!(manifest.len() <= len, "the fixture has no room for a manifest");
            let place = &mut bytes[start..start + len];
            place.fill(b' ');
            place[..manifest.len()].copy_from_slice(manifest.as_bytes());
            self.put(&format!("{name}.so"), &bytes)?;
        }
        Ok(())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // Renamed, as what runs is not to be overwritten.
        let fresh = self.plugins.path().join("fresh");
        fs::write(&fresh, bytes)?;
        Ok(fs::rename(fresh, self.plugins.path().join(name))?)
    }

    pub(crate) fn plugins(&self) -> &Path {
        self.plugins.path()
    }

    pub(crate) fn cache(&self) -> &Path {
        self.cache.path()
    }

    /// A host of these plugins.
    pub(crate) fn host(&self) -> HostBuilder {
        Host::builder().plugin_dir(self.plugins()).cache_dir(self.cache())
    }
}

/// A library that cargo put beside this program.
fn built(name: &str) -> Result<Vec<u8>> {
    let path: PathBuf = std::env::current_exe()?.with_file_name(name);
    fs::read(&path)
        .with_context(|| format!("{name} is not beside this program: `cargo xtask bench plugins` builds it"))
}
