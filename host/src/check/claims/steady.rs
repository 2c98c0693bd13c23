//! What must not grow from session to session: memory and threads.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::{about, life::threads};
use crate::{
    Kind,
    check::{
        Problem,
        message::Checked,
        running::{Context, Running},
        session::conclude_all,
    },
};

/// Sessions of a block.
const BLOCK: usize = 50;

/// Blocks that are measured, after one that warms up.
const BLOCKS: usize = 4;

/// Growth per session that fails. Allocators give back late and in pieces, so it is far above what a good plugin shows.
const TOO_MUCH: usize = 64 << 10;

/// Growth per session that is told.
const MUCH: usize = 8 << 10;

/// A slow plugin has smaller blocks.
const TIME: Duration = Duration::from_secs(3);

/// Opens a session, works and closes it.
fn one(context: &Context, running: &Running, kind: Kind) -> Checked {
    let session = running.open(kind)?;
    session.exchange(&context.short_input(kind))?;
    session.conclude()
}

/// Bytes of memory that this process has in use.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size()
}

#[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
pub(in crate::check) fn memory(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    // The first loads models.
    one(context, &running, kind)?;
    let begun = Instant::now();
    for _ in 0..5 {
        one(context, &running, kind)?;
    }
    let each = (begun.elapsed() / 5).max(Duration::from_micros(1));
    let affordable = TIME.min(context.patience.quick()).as_micros() / each.as_micros() / (BLOCKS as u128 + 1);
    let block = usize::try_from(affordable).unwrap_or(BLOCK).clamp(3, BLOCK);
    let mut sizes = Vec::new();
    for _ in 0..=BLOCKS {
        for _ in 0..block {
            one(context, &running, kind)?;
        }
        sizes.push(resident());
    }
    context.tell.stage("stopping the plugin after many sessions");
    // What is leaked grows in every block; what an allocator keeps does not.
    let growth =
        sizes.windows(2).map(|sizes| sizes[1].saturating_sub(sizes[0]) / block).min().unwrap_or_default();
    let problem = Problem::new(
        format!("memory grows by {} KiB with every session, over {} sessions", growth >> 10, block * BLOCKS),
        "memory that is used again by the next session",
        "remove in `session_closed` what is kept for a session; drop what a C library allocated with its own function",
    );
    if growth > TOO_MUCH {
        return Err(context.tell.fail(problem));
    }
    if growth > MUCH {
        context.tell.warn(problem);
    }
    running.stop()
}

/// Sessions that are opened one after the other to see what they leave.
const SESSIONS: usize = 32;

pub(in crate::check) fn many_threads(context: &Context, kind: Option<Kind>) -> Checked {
    let kind = about(kind);
    let running = context.start()?;
    // Pools grow to what this needs at a time.
    let warm = (0..4).map(|_| running.open(kind)).collect::<Checked<Vec<_>>>()?;
    for session in &warm {
        session.exchange(&context.short_input(kind))?;
    }
    conclude_all(warm)?;
    let before = threads();
    for _ in 0..SESSIONS {
        one(context, &running, kind)?;
    }
    let after = threads();
    if after >= before + SESSIONS / 2 {
        return Err(context.tell.fail(Problem::new(
            format!("{before} threads before and {after} after {SESSIONS} sessions were opened and closed"),
            "threads that end with their session",
            "end a session's threads when it is closed, or share them",
        )));
    }
    running.stop()
}
