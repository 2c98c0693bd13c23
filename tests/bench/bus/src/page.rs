//! The page of the book: prose, tables and plots, made anew by each full run.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    delivery::{BUILT, HANDLERS, SUBSCRIBERS},
    growth::{SESSIONS, TYPES},
    markdown::table,
    peers::{NODE, VISION_AGENTS},
    plot::{self, Bar, Line, Words},
    report::{Claim, Report, Skipped, many, number, say, target_text, verdict_text},
    rivals::{DESIGNS, MPSC, OURS},
    sessions::THOUSAND,
};

/// Writes `performance.md` and its plots.
pub(crate) fn write(report: &Report, docs: &Path) -> Result<()> {
    let plots = docs.join("performance");
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    for (name, svg) in drawn(report)? {
        fs::write(plots.join(name), svg).with_context(|| format!("cannot write {name}"))?;
    }
    let path = docs.join("performance.md");
    fs::write(&path, text(report)).with_context(|| format!("cannot write {}", path.display()))?;
    say(format_args!("written: {} and its plots", path.display()));
    Ok(())
}

fn text(report: &Report) -> String {
    let quick = match report.quick {
        true => "\n> From a quick run, with small counts: good for a look, not to be quoted.\n",
        false => "",
    };
    let machine = &report.machine;
    let loads = format!("{} before, {} after", number(machine.load_before), number(machine.load_after));
    let facts = [
        ("cores", number(machine.cores as f64)),
        ("processor", machine.cpu.clone()),
        ("rustc", machine.rustc.clone()),
        ("tokio", machine.version("tokio")),
        ("flume", machine.version("flume")),
        ("Node", machine.version("node")),
        ("Vision Agents", machine.version("vision_agents")),
        ("load average", loads),
    ];
    let facts: Vec<Vec<String>> =
        facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let skipped = match report.skipped.as_slice() {
        [] => String::new(),
        skipped => {
            let line = |Skipped { what, reason }: &Skipped| format!("- {what}: {}\n", one_line(reason));
            format!("\nNot measured:\n\n{}", skipped.iter().map(line).collect::<String>())
        }
    };
    let mut page = include_str!("page.md").to_owned();
    for (mark, text) in [
        ("QUICK", quick.to_owned()),
        ("CLAIMS", claims(report)),
        ("DELIVERY", designs(report)),
        ("THROUGHPUT", throughput(report)),
        ("SINGLE", single(report)),
        ("LATENCY", latency(report)),
        ("SESSIONS", sessions(report)),
        ("MEMORY", memory(report)),
        ("GROWTH", growth(report)),
        ("LIMITS", limits(report)),
        ("MACHINE", table(&["", "value"], &facts) + &skipped),
    ] {
        page = page.replace(&format!("{{{{{mark}}}}}"), text.trim_end_matches('\n'));
    }
    page
}

/// The first line of a reason; paths and further lines are of no use to readers of the book.
fn one_line(reason: &str) -> &str {
    reason.lines().next().unwrap_or_default()
}

fn claims(report: &Report) -> String {
    let row = |claim: &Claim| {
        let value = format!("{} {}", number(claim.value), claim.unit);
        let target = claim.target.map_or("-".to_owned(), target_text);
        let verdict = claim.verdict.map_or("-".to_owned(), verdict_text);
        vec![claim.name.clone(), value.trim_end().to_owned(), target, verdict]
    };
    let rows: Vec<Vec<String>> = report.claims.iter().map(row).collect();
    table(&["", "measured", "target", ""], &rows)
}

/// A figure with its spread, or a dash.
fn cell(report: &Report, group: &str, what: &str, who: &str, at: u64) -> String {
    report.find(group, what, who, at).map_or("-".to_owned(), |figure| {
        let spread = figure.spread;
        match spread.rounds {
            0 | 1 => number(spread.median),
            _ => format!("{} ({}..{})", number(spread.median), number(spread.lowest), number(spread.highest)),
        }
    })
}

/// Ours first.
fn designs_ours_first() -> impl Iterator<Item = &'static str> {
    DESIGNS.into_iter().rev()
}

fn designs(report: &Report) -> String {
    let row = |who| {
        let cells = SUBSCRIBERS.iter().map(|at| cell(report, "delivery", "", who, *at));
        [who.to_owned()].into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = designs_ours_first().map(row).collect();
    table(&["subscribers", "1", "10", "100", "1,000"], &rows)
}

fn throughput(report: &Report) -> String {
    let row = |who: &str| {
        let cells = HANDLERS.iter().map(|at| cell(report, "throughput", "", who, *at));
        [who.to_owned()].into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = [OURS, NODE, VISION_AGENTS].into_iter().map(row).collect();
    table(&["async handlers", "1", "10"], &rows)
}

fn single(report: &Report) -> String {
    let row = |who: &str| {
        vec![who.to_owned(), cell(report, "observer", "", who, 0), cell(report, "unwanted", "", who, 0)]
    };
    let rows: Vec<Vec<String>> = [OURS, BUILT, NODE, VISION_AGENTS].into_iter().map(row).collect();
    table(&["", "to one sync observer", "that nobody wants"], &rows)
}

fn limits(report: &Report) -> String {
    let row = |step: &str| vec![step.to_owned(), cell(report, "limits", "", step, 0)];
    let rows: Vec<Vec<String>> = crate::limits::STEPS.into_iter().map(row).collect();
    table(&["", "ns"], &rows)
}

fn latency(report: &Report) -> String {
    let row = |who: &str| {
        vec![who.to_owned(), cell(report, "latency", "p50", who, 0), cell(report, "latency", "p99", who, 0)]
    };
    let rows: Vec<Vec<String>> = [OURS, MPSC, NODE, VISION_AGENTS].into_iter().map(row).collect();
    table(&["", "half are faster than", "99 % are faster than"], &rows)
}

fn memory(report: &Report) -> String {
    let row = |who: &str| {
        vec![who.to_owned(), cell(report, "memory", "idle", who, 0), cell(report, "memory", "stuck", who, 0)]
    };
    let rows: Vec<Vec<String>> = [OURS, NODE, VISION_AGENTS].into_iter().map(row).collect();
    table(&["", "bytes per idle session", "MB behind a stuck handler"], &rows)
}

fn sessions(report: &Report) -> String {
    let row = |who: &str| {
        vec![
            who.to_owned(),
            cell(report, "sessions", "", who, 0),
            cell(report, "sessions", "load", who, THOUSAND),
        ]
    };
    let rows: Vec<Vec<String>> = [OURS, NODE, VISION_AGENTS].into_iter().map(row).collect();
    table(&["", "sessions per core", "% of a core for 1,000 sessions"], &rows)
}

fn growth(report: &Report) -> String {
    let row = |name: &str, group: &str, what: &str, sizes: &[u64]| -> Vec<Vec<String>> {
        let row = |at: &u64| {
            let cells = [OURS, MPSC].map(|who| cell(report, group, what, who, *at));
            [vec![many(*at, name)], cells.to_vec()].concat()
        };
        sizes.iter().map(row).collect()
    };
    let rows = [
        row("event type", "growth", "types", &TYPES),
        row("session", "growth", "sessions", &SESSIONS),
        row("subscriber", "delivery", "", &SUBSCRIBERS),
    ];
    table(&["ns CPU per delivery", OURS, MPSC], &rows.concat())
}

/// The plots by file name.
fn drawn(report: &Report) -> Result<Vec<(&'static str, String)>> {
    let points = |group: &str, what: &str, who: &str, sizes: &[u64]| -> Vec<(f64, f64)> {
        let point = |at: &u64| Some((*at as f64, report.find(group, what, who, *at)?.spread.median));
        sizes.iter().filter_map(point).collect()
    };
    let line = |who: &str| Line { name: who.to_owned(), points: points("delivery", "", who, &SUBSCRIBERS) };
    let delivery: Vec<Line> = designs_ours_first().map(line).collect();
    let relative = |name: &str, points: Vec<(f64, f64)>| {
        let lowest = points.iter().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
        Line { name: name.to_owned(), points: points.into_iter().map(|(x, y)| (x, y / lowest)).collect() }
    };
    let growth = [
        relative("sessions", points("growth", "sessions", OURS, &SESSIONS)),
        relative("event types", points("growth", "types", OURS, &TYPES)),
        relative("subscribers, from 10", points("delivery", "", OURS, &SUBSCRIBERS[1..])),
    ];
    let bar = |name: String, group: &str, what: &str, who: &str, at: u64| {
        let value = report.find(group, what, who, at)?.spread.median;
        Some(Bar { name, value, is_ours: who == OURS })
    };
    let throughput: Vec<Bar> = HANDLERS
        .iter()
        .flat_map(|at| {
            [OURS, NODE, VISION_AGENTS]
                .map(|who| bar(format!("{who}, {}", many(*at, "handler")), "throughput", "", who, *at))
        })
        .flatten()
        .collect();
    let latency: Vec<Bar> = ["p50", "p99"]
        .into_iter()
        .flat_map(|what| {
            [OURS, MPSC, NODE, VISION_AGENTS]
                .map(|who| bar(format!("{who}, {what}"), "latency", what, who, 0))
        })
        .flatten()
        .collect();
    let sessions: Vec<Bar> = [OURS, NODE, VISION_AGENTS]
        .into_iter()
        .filter_map(|who| bar(who.to_owned(), "sessions", "", who, 0))
        .collect();
    let words = |title, across, up| Words { title, across, up };
    Ok(vec![
        (
            "delivery.svg",
            plot::lines(
                &words("Processor time per delivery", "subscribers", "ns CPU per delivery"),
                &delivery,
                true,
            )?,
        ),
        (
            "growth.svg",
            plot::lines(
                &words("Cost of a delivery as the system grows", "how many", "times the cheapest"),
                &growth,
                false,
            )?,
        ),
        (
            "throughput.svg",
            plot::bars(
                &words(
                    "Events per second of processor time",
                    "events per CPU second (logarithmic), more is better",
                    "",
                ),
                &throughput,
            )?,
        ),
        (
            "latency.svg",
            plot::bars(
                &words(
                    "From emit to handler, 1,000 events a second",
                    "microseconds (logarithmic), less is better",
                    "",
                ),
                &latency,
            )?,
        ),
        (
            "sessions.svg",
            plot::bars(
                &words("Sessions with audio on one core", "sessions (logarithmic), more is better", ""),
                &sessions,
            )?,
        ),
    ])
}
