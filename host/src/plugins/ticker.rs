//! Tells each second of real time, whatever clock the host's runtime has: a plugin that hangs does so in real time.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use tokio::sync::watch;

/// How often plugins are asked whether they answer.
const INTERVAL: Duration = Duration::from_secs(1);

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct Ticker {
    ticks: watch::Receiver<()>,
    _end: Sender<()>,
}

impl Ticker {
    pub(super) fn start() -> Self {
        let (tick, ticks) = watch::channel(());
        let (end, ended) = channel::<()>();
        let run = move || {
            // Ends when the ticker is dropped, as that is all that can happen to the channel.
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                tick.send_replace(());
            }
        };
        if let Err(error) = thread::Builder::new().name("plugin-watch".into()).spawn(run) {
            tracing::error!("there is no thread to watch plugins; those that hang are not found: {error}");
        }
        Self { ticks, _end: end }
    }

    pub(super) fn ticks(&self) -> watch::Receiver<()> {
        self.ticks.clone()
    }
}
