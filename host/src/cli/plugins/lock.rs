//! `antiphon plugins lock`: what is installed now, and nothing else, is loaded from now on.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use antiphon_host::{
    Plugin,
    scan::{Lock, LockedPlugin},
};
use anyhow::{Context, Result, bail};

use crate::cli::{
    Exit,
    output::{count, print, warn},
    setup::{Setup, from_here},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  antiphon plugins lock
  antiphon plugins lock --output deploy/antiphon.lock
  antiphon --lock deploy/antiphon.lock --locked talk question.wav";

pub(super) async fn run(setup: &Setup, output: Option<PathBuf>) -> Result<Exit> {
    setup.has_libraries()?;
    let (plugins, _) = setup.load().await?;
    let path = output.unwrap_or_else(|| setup.lock_path.clone());
    let lock = Lock::of(path, plugins.iter().filter_map(locked));
    if lock.plugins().is_empty() {
        bail!("no plugin can be used, so there is nothing to lock; `antiphon plugins list` says why");
    }
    for plugin in plugins.iter().filter(|plugin| plugin.sha256.is_none()) {
        let problem = setup.problem(plugin).unwrap_or_default();
        warn(format!("left out: {} {problem}", from_here(&plugin.path)));
    }
    write(lock.path(), &lock.to_toml()).with_context(|| format!("cannot write {}", lock.path().display()))?;
    let plugins = count(lock.plugins().len() as u64, "plugin");
    print(&format!("{plugins} in {}\n", from_here(lock.path())))?;
    Ok(Exit::Done)
}

/// The entry of a plugin that was opened. One that is switched off may be switched on.
fn locked(plugin: &Plugin) -> Option<LockedPlugin> {
    Some(LockedPlugin {
        name: plugin.name.clone(),
        version: plugin.version().to_owned(),
        sha256: plugin.sha256.clone()?,
        file: plugin.path.file_name()?.to_string_lossy().into_owned(),
    })
}

/// Writes a file that is whole or not there: half a lock would lock plugins out.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It may never have been there.
        let _ = fs::remove_file(&beside);
    }
    written
}
