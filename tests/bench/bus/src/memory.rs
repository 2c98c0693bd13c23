//! Memory: of idle sessions, and of events behind a handler that is stuck. Each figure is a fresh process's.

use std::{future::pending, process::Command, sync::Arc};

use antiphon_core::{Event, EventBus, SystemClock, event::audio::AudioReceivedEvent};
use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    Bench, Hidden,
    contest::BURST,
    cpu,
    event::{SmallEvent, audio},
    peers::{Peer, number},
    rivals::OURS,
    sessions::{Loaded, delivered},
    stats::{Target, median, ratio},
};

/// Events behind the stuck handler.
const EVENTS: u64 = 100_000;

/// Rounds; memory hardly varies.
const ROUNDS: usize = 3;

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let rounds = bench.settings.rounds.min(ROUNDS);
    for (what, unit) in [("idle", "bytes per session"), ("stuck", "MB")] {
        let mut found: Vec<(&str, Vec<f64>)> = Vec::new();
        for _ in 0..rounds {
            for peer in bench.peers() {
                add(&mut found, peer.who, theirs(&peer, what, bench.settings.idle_sessions)?);
            }
            add(&mut found, OURS, ours(what, bench.settings.idle_sessions)?);
        }
        for (who, values) in &found {
            bench.report.figure("memory", what, who, 0, unit, values);
        }
        let of = |wanted: &str| found.iter().find(|(who, _)| *who == wanted).map(|(_, values)| values);
        let Some(ours) = of(OURS) else { continue };
        if what == "idle" {
            let target = Some(Target::AtMost(1024.0));
            bench.report.claim("memory", "memory of an idle session", median(ours), "bytes", target);
        } else {
            for peer in bench.peers() {
                let Some(theirs) = of(peer.who) else { continue };
                let name = format!("memory behind a stuck handler: {} / ours", peer.who);
                bench.report.claim("memory", name, ratio(theirs, ours), "x", None);
            }
        }
    }
    Ok(())
}

fn add<'a>(found: &mut Vec<(&'a str, Vec<f64>)>, who: &'a str, value: f64) {
    match found.iter_mut().find(|(known, _)| *known == who) {
        Some((_, values)) => values.push(value),
        None => found.push((who, vec![value])),
    }
}

fn theirs(peer: &Peer, what: &str, sessions: u64) -> Result<f64> {
    let argument = if what == "idle" { sessions } else { EVENTS };
    let bytes = number(&peer.start()?.ask(&json!([what, argument]))?, "bytes")?;
    Ok(if what == "idle" { bytes / sessions as f64 } else { bytes / 1e6 })
}

fn ours(what: &str, sessions: u64) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    match what {
        "idle" => command.args(["idle", &sessions.to_string()]),
        _ => command.arg("stuck"),
    };
    let output = command.output().context("cannot start myself")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(if what == "idle" { bytes / sessions as f64 } else { bytes / 1e6 })
}

/// The work of the fresh process; bytes by which it grew.
pub(crate) fn child(what: &Hidden) -> Result<i64> {
    let runtime = crate::contest::runtime()?;
    runtime.block_on(async {
        match what {
            Hidden::Idle { sessions } => idle(*sessions).await,
            _ => stuck().await,
        }
    })
}

async fn idle(sessions: u64) -> Result<i64> {
    let bus = EventBus::with(tokio::runtime::Handle::current(), Arc::new(SystemClock::new()));
    let seen = Arc::default();
    let before = cpu::resident()?;
    let mut open = Vec::with_capacity(sessions as usize);
    for number in 0..sessions {
        let loaded = Loaded::open(&bus, number as usize, &seen);
        loaded.session.emit(audio());
        loaded.session.emit(SmallEvent::hello());
        open.push(loaded);
        if number % BURST == 0 {
            delivered(&seen, 2 * number).await;
        }
    }
    delivered(&seen, 2 * sessions).await;
    grown(before)
}

async fn stuck() -> Result<i64> {
    let bus = EventBus::with(tokio::runtime::Handle::current(), Arc::new(SystemClock::new()));
    let _stuck = bus.subscribe(async |_: Event<AudioReceivedEvent>| pending::<()>().await);
    let session = bus.open_session();
    let before = cpu::resident()?;
    for number in 0..EVENTS {
        session.emit(audio());
        if number % BURST == 0 {
            tokio::task::yield_now().await;
        }
    }
    grown(before)
}

fn grown(before: u64) -> Result<i64> {
    Ok(cpu::resident()?.cast_signed() - before.cast_signed())
}
