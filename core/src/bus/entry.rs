//! An event in a queue, how hard it was pushed, and what became of it.

use std::sync::Arc;

use super::{queue::Keyed, settle::Ticket};
use crate::event::Envelope;

/// How far an emitter may fill the queue of a subscription that must not lose events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Patience {
    /// Does not wait: up to the capacity.
    #[default]
    None,
    /// Would wait, but must not because it is a handler: up to twice the capacity.
    Handler,
    /// Waits before, while the queue holds twice its capacity, and afterwards: no limit at the push itself. What comes
    /// on top is at most one event for each thread that was between check and push.
    Waits,
}

impl Patience {
    pub(super) fn limit(self, capacity: usize) -> usize {
        match self {
            Self::None => capacity,
            Self::Handler => capacity.saturating_mul(2),
            Self::Waits => usize::MAX,
        }
    }
}

/// An event that waits, and what only few events have beside it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) envelope: Arc<Envelope>,
    pub(super) extra: Option<Box<Extra>>,
}

#[derive(Debug)]
pub(super) struct Extra {
    /// Somebody waits until this is handled.
    pub(super) ticket: Option<Ticket>,
    /// Stands for what has the same.
    pub(super) key: Option<u64>,
}

impl Keyed for Entry {
    fn has_same_key(&self, newer: &Self) -> bool {
        let key = |entry: &Self| entry.extra.as_ref().and_then(|extra| extra.key);
        match (key(self), key(newer)) {
            (Some(older), Some(newer)) => older == newer,
            _ => {
                let (older, newer) = (self.envelope.base(), newer.envelope.base());
                older.event_type == newer.event_type && older.session_id == newer.session_id
            }
        }
    }
}

/// What became of an event at one mailbox.
#[derive(Debug)]
pub(super) enum Delivery {
    Queued,
    /// Queued, and now the emitter should wait for room if it can.
    Crowded,
    /// Something was lost; it is dropped by the caller, outside of all locks.
    Lost(Entry),
    /// Nothing to tell, but something to drop.
    Spare(Entry),
}
