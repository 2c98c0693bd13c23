//! Asks a plugin whether it still answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant as RealInstant},
};

use antiphon_plugin_api::abi::{WakerBox, WakerV1, abi_stable::erased_types::TD_Opaque};

use super::PluginInstance;

/// A question whether a plugin answers.
pub(super) struct Ping {
    asked: RealInstant,
    answered: Arc<AtomicBool>,
}

#[expect(clippy::disallowed_methods, reason = "a plugin hangs in real time, whatever clock the host has")]
impl Ping {
    pub(super) fn ask(instance: &PluginInstance) -> Self {
        let answered = Arc::new(AtomicBool::new(false));
        instance.ping(WakerBox::from_value(Answer(Arc::clone(&answered)), TD_Opaque));
        Self { asked: RealInstant::now(), answered }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn since(&self) -> Duration {
        self.asked.elapsed()
    }
}

struct Answer(Arc<AtomicBool>);

impl WakerV1 for Answer {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
