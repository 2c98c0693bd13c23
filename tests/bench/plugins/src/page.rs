//! The page of the book: prose, tables and plots, made anew by each full run.

use std::{fs, path::Path};

use antiphon_bench_support::{
    markdown::table,
    plot::{self, Bar, Line, Words},
    report::{Claim, Report, Skipped, number, say, target_text, verdict_text},
};
use anyhow::{Context, Result};

use crate::{
    chunk, generations,
    peers::PIPECAT,
    restart, scan,
    sessions::{FEW, MANY, OURS},
};

/// Writes `performance-plugins.md` and its plots.
pub(crate) fn write(report: &Report, docs: &Path) -> Result<()> {
    let plots = docs.join("performance-plugins");
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    for (name, svg) in drawn(report)? {
        fs::write(plots.join(name), svg).with_context(|| format!("cannot write {name}"))?;
    }
    let path = docs.join("performance-plugins.md");
    fs::write(&path, text(report)).with_context(|| format!("cannot write {}", path.display()))?;
    say(format_args!("written: {} and its plots", path.display()));
    Ok(())
}

fn text(report: &Report) -> String {
    let quick = match report.quick {
        true => "\n> From a quick run, with small counts: good for a look, not to be quoted.\n",
        false => "",
    };
    // Of those before it began: what it does itself comes afterwards.
    let busy = match report.machine.load_before > report.machine.cores as f64 {
        true => {
            "\n> The machine was busy with other work: times are longer and more chunks late than on an idle one. Ratios and \
             processor time suffer less.\n"
        }
        false => "",
    };
    let mut page = include_str!("page.md").to_owned();
    for (mark, text) in [
        ("NOTES", format!("{quick}{busy}")),
        ("CLAIMS", claims(report)),
        ("SCAN", scanned(report)),
        ("CHUNK", chunks(report)),
        ("RESTART", restarts(report)),
        ("MEMORY", memory(report)),
        ("SESSIONS", sessions(report)),
        ("MACHINE", machine(report)),
    ] {
        page = page.replace(&format!("{{{{{mark}}}}}"), text.trim_end_matches('\n'));
    }
    page
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

/// A row: its name, then a cell for each thing that was measured.
fn row(report: &Report, group: &str, whats: &[&str], who: &str, at: u64) -> Vec<String> {
    let cells = whats.iter().map(|what| cell(report, group, what, who, at));
    [who.to_owned()].into_iter().chain(cells).collect()
}

fn scanned(report: &Report) -> String {
    let rows = ["cold", "warm"].map(|who| row(report, "scan", &["wall", "cpu"], who, scan::FILES as u64));
    table(&["", "wall", "CPU, all processes"], &rows)
}

fn chunks(report: &Report) -> String {
    let head = ["", "p50 to the sink", "p99", "p50 to the task", "p99"];
    let of = |whats: &[&str]| table(&head, &chunk::WAYS.map(|who| row(report, "chunk", whats, who, 0)));
    let (fast, paced) = (of(&chunk::QUANTILES), of(&chunk::PACED));
    format!("One after the other:\n\n{fast}\nAt the pace of speech, every 20 ms:\n\n{paced}")
}

fn restarts(report: &Report) -> String {
    let rows = [restart::SEEN, restart::READY, restart::CHILD]
        .map(|who| row(report, "restart", &["p50", "p99"], who, 0));
    table(&["", "p50", "p99"], &rows)
}

fn memory(report: &Report) -> String {
    let rss = |who, at| cell(report, "generations", "rss", who, at);
    let rows = [generations::HERE, generations::WORKER].map(|who| {
        let worker = |what| cell(report, "worker", what, who, 0);
        let worker = [worker("rss"), worker("pss"), worker("private")];
        let host =
            [cell(report, "generations", "host", who, 0), rss(who, 1), rss(who, generations::REPLACED + 1)];
        [vec![who.to_owned()], host.to_vec(), worker.to_vec()].concat()
    });
    let replaced = format!("after {} replacements", generations::REPLACED);
    let head = ["", "host before", "with the plugin", &replaced, "worker", "its share", "of it private"];
    table(&head, &rows)
}

fn sessions(report: &Report) -> String {
    let whats = ["load", "cost", "late", "dropped", "p50", "p99"];
    let named = |who: &str, at| {
        let mut row = row(report, "sessions", &whats, who, at);
        row[0] = format!("{who}, {}", number(at as f64));
        row
    };
    let rows = [named(OURS, MANY), named(OURS, FEW), named(PIPECAT, FEW)];
    let head =
        ["", "% of a core", "us CPU per session and second", "% late", "% dropped", "p50 ms", "p99 ms"];
    let most = [OURS, PIPECAT].map(|who| vec![who.to_owned(), cell(report, "sessions", "most", who, 0)]);
    format!("{}\n{}", table(&head, &rows), table(&["", "most sessions that it keeps up with"], &most))
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let loads = format!("{} before, {} after", number(machine.load_before), number(machine.load_after));
    let facts = [
        ("cores", number(machine.cores as f64)),
        ("processor", machine.cpu.clone()),
        ("rustc", machine.rustc.clone()),
        ("tokio", machine.version("tokio")),
        ("Pipecat", machine.version("pipecat")),
        ("load average", loads),
    ];
    let facts: Vec<Vec<String>> =
        facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let skipped = match report.skipped.as_slice() {
        [] => String::new(),
        skipped => {
            // Further lines, and paths, are of no use to readers of the book.
            let line = |Skipped { what, reason }: &Skipped| {
                format!("- {what}: {}\n", reason.lines().next().unwrap_or_default())
            };
            format!("\nNot measured:\n\n{}", skipped.iter().map(line).collect::<String>())
        }
    };
    table(&["", "value"], &facts) + &skipped
}

/// The plots by file name.
fn drawn(report: &Report) -> Result<Vec<(&'static str, String)>> {
    let bar = |name: String, group: &str, what: &str, who: &str, at: u64, is_ours: bool| {
        let value = report.find(group, what, who, at)?.spread.median;
        Some(Bar { name, value, is_ours })
    };
    let chunks: Vec<Bar> = ["p50", "p99"]
        .into_iter()
        .flat_map(|what| {
            chunk::WAYS.map(|who| bar(format!("{who}, {what}"), "chunk", what, who, 0, who != chunk::WIRE))
        })
        .flatten()
        .collect();
    let cost: Vec<Bar> = [(OURS, MANY), (OURS, FEW), (PIPECAT, FEW)]
        .into_iter()
        .filter_map(|(who, at)| {
            bar(format!("{who}, {} sessions", number(at as f64)), "sessions", "cost", who, at, who == OURS)
        })
        .collect();
    let versions = |who: &str| {
        let point = |at: u64| {
            let size = report.find("generations", "rss", who, at)?.spread.median;
            Some((at as f64, size))
        };
        Line { name: who.to_owned(), points: (1..=generations::REPLACED + 1).filter_map(point).collect() }
    };
    let words = |title, across, up| Words { title, across, up };
    let trip = words("A chunk to a plugin and back", "microseconds (logarithmic), less is better", "");
    let price =
        words("Processor time of a session", "microseconds CPU per second (logarithmic), less is better", "");
    let grown = words("Memory of the host as a plugin is replaced", "versions", "MB");
    let lines = [versions(generations::HERE), versions(generations::WORKER)];
    Ok(vec![
        ("chunk.svg", plot::bars(&trip, &chunks)?),
        ("sessions.svg", plot::bars(&price, &cost)?),
        ("generations.svg", plot::lines(&grown, &lines, false)?),
    ])
}

#[cfg(test)]
mod tests {
    use antiphon_bench_support::machine::Machine;

    use super::*;

    #[test]
    fn a_page_of_nothing_has_no_mark_left() {
        let page = text(&Report::new(Machine::here(&["tokio"]), true));
        assert!(!page.contains("{{"), "{page}");
        assert!(page.contains("# Performance of plugins") && page.contains("quick run"));
    }
}
