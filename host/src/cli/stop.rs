//! Ctrl-C: the first one asks for an orderly end, the second one ends the program at once.

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{Exit, output::Stderr};

/// Whether the user wants this to end. Clones see the same.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<Option<u8>>);

impl Stop {
    /// Begins to listen for Ctrl-C and for SIGTERM.
    pub(super) fn install() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let (tell, asked) = watch::channel(None);
        // Ends with the program: a second signal may come at any time.
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = interrupt.recv() => 130_u8,
                    _ = terminate.recv() => 143,
                }
            };
            tell.send_replace(Some(next().await));
            use std::io::Write;
            // Standard error may be gone, which changes nothing.
            let _ = writeln!(Stderr, "stopping; once more to stop at once");
            std::process::exit(next().await.into());
        });
        Ok(Self(asked))
    }

    /// Resolves when the user has asked.
    pub(super) async fn asked(&self) {
        // An error would mean that the listening task has ended, which it does only with the program.
        let _ = self.0.clone().wait_for(Option::is_some).await;
    }

    /// How the program ends, if the user has asked.
    pub(super) fn exit(&self) -> Option<Exit> {
        (*self.0.borrow()).map(Exit::Stopped)
    }
}
