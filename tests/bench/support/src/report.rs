//! The figures, the targets and what was skipped; on the terminal and as JSON.

use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    machine::Machine,
    stats::{Spread, Target, Verdict},
};

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it was measured on.
    pub machine: Machine,
    /// Whether the counts were small.
    pub quick: bool,
    /// One of each contender.
    pub figures: Vec<Figure>,
    /// What somebody may hold us to.
    pub claims: Vec<Claim>,
    /// What is missing.
    pub skipped: Vec<Skipped>,
}

/// One figure of one contender.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Which measurement it belongs to, as `--only` selects it.
    pub group: &'static str,
    /// What of it, where there is more than one thing.
    pub what: &'static str,
    /// Whose.
    pub who: String,
    /// What varies: subscribers, types, sessions.
    pub at: u64,
    /// Of its numbers.
    pub unit: &'static str,
    /// Its rounds.
    pub spread: Spread,
}

/// A figure, or a comparison of two, that somebody may hold us to.
#[derive(Debug, Serialize)]
pub struct Claim {
    /// Which measurement it belongs to.
    pub group: &'static str,
    /// What it says.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of its numbers.
    pub unit: &'static str,
    /// What it should be.
    pub target: Option<Target>,
    /// Whether it is.
    pub verdict: Option<Verdict>,
}

/// What could not be measured.
#[derive(Debug, Serialize)]
pub struct Skipped {
    /// What it is.
    pub what: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// Nothing in it yet.
    #[must_use]
    pub fn new(machine: Machine, quick: bool) -> Self {
        Self { machine, quick, figures: Vec::new(), claims: Vec::new(), skipped: Vec::new() }
    }

    /// Adds a figure.
    pub fn figure(
        &mut self,
        group: &'static str,
        what: &'static str,
        who: &str,
        at: u64,
        unit: &'static str,
        values: &[f64],
    ) {
        self.figures.push(Figure { group, what, who: who.to_owned(), at, unit, spread: Spread::of(values) });
    }

    /// Adds a claim.
    pub fn claim(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    ) {
        let verdict = target.map(|target| target.judge(value));
        self.claims.push(Claim { group, name: name.into(), value, unit, target, verdict });
    }

    /// Adds what could not be measured, and says so.
    pub fn skip(&mut self, what: impl Into<String>, reason: impl Display) {
        let skipped = Skipped { what: what.into(), reason: reason.to_string() };
        say(format_args!("    skipped {}: {}", skipped.what, skipped.reason));
        self.skipped.push(skipped);
    }

    /// A figure.
    #[must_use]
    pub fn find(&self, group: &str, what: &str, who: &str, at: u64) -> Option<&Figure> {
        self.figures.iter().find(|figure| {
            figure.group == group && figure.what == what && figure.who == who && figure.at == at
        })
    }

    /// Prints the tables.
    pub fn print(&self) {
        say(format_args!("\n{:<58} {:>11} {:>23}", "", "median", "lowest .. highest"));
        for Figure { group, what, who, at, unit, spread } in &self.figures {
            let at = if *at == 0 { String::new() } else { format!(", {}", number(*at as f64)) };
            let what = if what.is_empty() { String::new() } else { format!(" {what}") };
            let name = format!("{group}{what}: {who}{at}");
            let edges = format!("{} .. {}", number(spread.lowest), number(spread.highest));
            say(format_args!("{name:<58} {:>11} {edges:>23} {unit}", number(spread.median)));
        }
        say(format_args!("\n{:<76} {:>12} {:>10}", "", "value", "target"));
        for Claim { name, value, unit, target, verdict, .. } in &self.claims {
            let value = format!("{} {unit}", number(*value));
            let target = target.map_or(String::new(), target_text);
            let verdict = verdict.map_or(String::new(), verdict_text);
            say(format_args!("{name:<76} {value:>12} {target:>10}  {verdict}"));
        }
        for Skipped { what, reason } in &self.skipped {
            say(format_args!("skipped {what}: {reason}"));
        }
    }

    /// Writes it as JSON into a file of a directory, which is made if need be.
    ///
    /// # Errors
    ///
    /// When that cannot be written.
    pub fn write(&self, out: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        let path = out.join(name);
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        say(format_args!("\nwritten: {}", path.display()));
        Ok(())
    }
}

/// Prints one line. A reader that has gone (`| head`) is no reason to stop measuring.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// `at most 0.6`.
#[must_use]
pub fn target_text(target: Target) -> String {
    match target {
        Target::AtMost(limit) => format!("<= {}", number(limit)),
        Target::AtLeast(limit) => format!(">= {}", number(limit)),
    }
}

/// `met, 1.8 x better`.
#[must_use]
pub fn verdict_text(verdict: Verdict) -> String {
    let Verdict { met, factor } = verdict;
    match (met, factor.is_finite()) {
        (true, true) => format!("met, {} x better", number(factor)),
        (false, true) => format!("MISSED by {} x", number(factor)),
        // Of nothing at all there is no factor.
        (met, false) => if met { "met" } else { "MISSED" }.to_owned(),
    }
}

/// `1 handler`, `10 handlers`.
#[must_use]
pub fn many(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(count as f64), if count == 1 { "" } else { "s" })
}

/// A number with three digits that count, and commas.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let places = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let rest = if rest.trim_matches(['.', '0']).is_empty() { "" } else { rest };
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let first = digits.len() % 3;
    let mut groups: Vec<&str> = Vec::new();
    if first > 0 {
        groups.push(&digits[..first]);
    }
    groups.extend((first..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    format!("{sign}{}{rest}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f64, want: &str) {
        assert_eq!(number(value), want);
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        check(0.0, "0");
        check(0.614, "0.61");
        check(2.0, "2");
        check(35.26, "35.3");
        check(512.4, "512");
        check(5_600_123.0, "5,600,123");
        check(-1_234.0, "-1,234");
        check(f64::NAN, "-");
    }

    #[test]
    fn verdicts_can_be_read_aloud() {
        assert_eq!(verdict_text(Target::AtMost(0.6).judge(0.3)), "met, 2 x better");
        assert_eq!(verdict_text(Target::AtLeast(30.0).judge(20.0)), "MISSED by 1.50 x");
        assert_eq!(verdict_text(Target::AtMost(0.0).judge(0.0)), "met");
        assert_eq!(target_text(Target::AtLeast(20_000.0)), ">= 20,000");
    }
}
