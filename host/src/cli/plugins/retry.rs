//! `antiphon plugins retry`: what was quarantined gets another chance.

use std::path::PathBuf;

use antiphon_host::scan::{Outcome, Scanned};
use anyhow::{Context, Result, anyhow};

use crate::cli::{
    Exit,
    output::{clean, complain, print},
    setup::{Setup, from_here},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  antiphon plugins retry ./plugins/libmy_plugin.so
  antiphon plugins list --json | jq -r '.plugins[] | select(.state == \"quarantined\") | .path'";

pub(super) async fn run(setup: &Setup, path: PathBuf) -> Result<Exit> {
    let host = setup.host();
    let scanned = tokio::task::spawn_blocking(move || host.scanner().retry(&path));
    let Scanned { path, name, outcome } = scanned.await.context("trying the plugin failed")?;
    match outcome {
        Outcome::Accepted { manifest, note, .. } => {
            let but = note.map(|note| format!("; with its default settings it does not start: {note}"));
            let but = but.unwrap_or_default();
            print(&format!("{} {} is accepted{}\n", clean(&name), clean(&manifest.version), clean(&but)))?;
            Ok(Exit::Done)
        }
        Outcome::Refused { reason, .. } => {
            complain(&anyhow!("{} {reason}", from_here(&path)));
            Ok(Exit::NotDone)
        }
    }
}
