//! How many sessions with audio the machine carries, and what one costs, beside Pipecat.

use antiphon_bench_support::{
    peers::{Peer, Running},
    report::say,
    stats::{Target, median, ratio},
};
use anyhow::Result;
use serde_json::json;

use crate::{Bench, load::Answer, system::fresh};

/// How ours is called in tables.
pub(crate) const OURS: &str = "Antiphon";

/// What has to fit.
pub(crate) const MANY: u64 = 2_000;

/// Few enough for every contender.
pub(crate) const FEW: u64 = 50;

/// Length of a step of a ramp: who does not keep up is behind by more than a chunk long before its half.
const RAMP_SECONDS: f64 = 3.0;

/// A ramp is done when it knows the number this well.
const PRECISION: f64 = 0.15;

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let seconds = bench.settings.load.as_secs_f64();
    let many = (0..bench.settings.loads).map(|_| ours(MANY, seconds)).collect::<Result<Vec<_>>>()?;
    add(bench, OURS, MANY, &many);
    let part =
        |pick: fn(&Answer) -> f64| -> Vec<f64> { many.iter().map(|answer| pick(answer) * 100.0).collect() };
    let keeps_up = many.iter().filter(|answer| answer.keeps_up()).count() * 2 > many.len();
    let name = format!("sessions: chunks of {MANY} that came late, in the middle run");
    bench.report.claim("sessions", name, median(&part(|answer| answer.late)), "%", Some(Target::AtMost(1.0)));
    let name = format!("sessions: chunks of {MANY} that were dropped, in the middle run");
    bench.report.claim(
        "sessions",
        name,
        median(&part(|answer| answer.dropped)),
        "%",
        Some(Target::AtMost(0.0)),
    );
    let core: Vec<f64> = part(|answer| answer.load);
    bench.report.claim("sessions", format!("sessions: {MANY}"), median(&core), "% of a core", None);
    beside(bench, seconds)?;
    if bench.settings.ramps || !keeps_up {
        let most = ramp(OURS, MANY, |number| ours(number, RAMP_SECONDS))?;
        bench.report.figure("sessions", "most", OURS, 0, "sessions", &[most as f64]);
    }
    if let (true, Some(peer)) = (bench.settings.ramps, bench.pipecat.clone()) {
        let most = ramp(peer.who, FEW, |number| theirs(&mut peer.start()?, number, RAMP_SECONDS))?;
        bench.report.figure("sessions", "most", peer.who, 0, "sessions", &[most as f64]);
    }
    Ok(())
}

/// The same few sessions for each, in turn.
fn beside(bench: &mut Bench, seconds: f64) -> Result<()> {
    let peer: Option<Peer> = bench.pipecat.clone();
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for _ in 0..bench.settings.loads {
        own.push(ours(FEW, seconds)?);
        if let Some(peer) = &peer {
            other.push(theirs(&mut peer.start()?, FEW, seconds)?);
        }
    }
    add(bench, OURS, FEW, &own);
    if let Some(peer) = &peer {
        add(bench, peer.who, FEW, &other);
        let load = |answers: &[Answer]| -> Vec<f64> { answers.iter().map(|answer| answer.load).collect() };
        let name = format!("sessions: CPU of {FEW}, {} / ours", peer.who);
        bench.report.claim("sessions", name, ratio(&load(&other), &load(&own)), "x", None);
    }
    Ok(())
}

fn add(bench: &mut Bench, who: &str, sessions: u64, answers: &[Answer]) {
    let values = |pick: &dyn Fn(&Answer) -> f64| -> Vec<f64> { answers.iter().map(pick).collect() };
    for (what, unit, pick) in [
        ("load", "% of a core", &(|answer: &Answer| answer.load * 100.0) as &dyn Fn(&Answer) -> f64),
        ("cost", "us CPU per session and second", &|answer| answer.load * 1e6 / sessions as f64),
        ("late", "% of the chunks", &|answer| answer.late * 100.0),
        ("dropped", "% of the chunks", &|answer| answer.dropped * 100.0),
        ("p50", "ms late", &|answer| answer.p50_ms),
        ("p99", "ms late", &|answer| answer.p99_ms),
    ] {
        bench.report.figure("sessions", what, who, sessions, unit, &values(pick));
    }
}

fn ours(sessions: u64, seconds: f64) -> Result<Answer> {
    Answer::of(&fresh(&["load", &sessions.to_string(), &seconds.to_string()])?)
}

fn theirs(running: &mut Running, sessions: u64, seconds: f64) -> Result<Answer> {
    Answer::of(&running.ask(&json!(["load", sessions, seconds]))?)
}

/// The highest number that it keeps up with: half as many more each time until it does not, then halving the gap. Each
/// gets a second chance, because the machine may be shared.
fn ramp(who: &str, start: u64, mut step: impl FnMut(u64) -> Result<Answer>) -> Result<u64> {
    let mut keeps_up = |number: u64| -> Result<bool> {
        for _ in 0..2 {
            let answer = step(number)?;
            let Answer { load, late, dropped, p99_ms, .. } = answer;
            say(format_args!(
                "    {who}: {number} sessions, load {load:.2}, late {:.2} %, dropped {:.2} %, p99 {p99_ms:.1} ms",
                late * 100.0,
                dropped * 100.0
            ));
            if answer.keeps_up() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let (mut good, mut bad, mut next) = (0, None, start);
    loop {
        if keeps_up(next)? {
            good = next;
        } else {
            bad = Some(next);
        }
        next = match bad {
            None => good + good / 2,
            Some(bad) if (bad - good) as f64 <= bad as f64 * PRECISION => return Ok(good),
            Some(bad) => u64::midpoint(good, bad),
        };
    }
}
