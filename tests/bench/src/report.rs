//! The table and the file that a bench ends in.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

/// What was measured.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    skipped: Vec<(String, String)>,
}

/// One figure.
#[derive(Serialize)]
pub(crate) struct Row {
    name: String,
    median: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<(String, f64)>,
}

impl Row {
    /// Processor time in nanoseconds.
    pub(crate) fn cpu(name: &str, median: f64, target: Option<f64>) -> Self {
        Self { name: name.into(), median, unit: "ns cpu", target, ratio: None }
    }

    /// Wall time in milliseconds.
    pub(crate) fn wall(name: &str, median: f64, target: Option<f64>) -> Self {
        Self { name: name.into(), median, unit: "ms wall", target, ratio: None }
    }

    /// Beside another figure of the same run.
    pub(crate) fn ratio(mut self, unit: &str, ratio: f64) -> Self {
        self.ratio = Some((unit.into(), ratio));
        self
    }
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push((name.into(), reason.into()));
    }

    /// Prints the table and writes `results.json`.
    #[expect(clippy::print_stdout, reason = "a command line tool")]
    pub(crate) fn finish(&self, out: &Path) -> Result<()> {
        println!("\n{:<66} {:>12}  {:>12}  ratio", "", "median", "target");
        for Row { name, median, unit, target, ratio } in &self.rows {
            let target = target.map_or(String::new(), |target| {
                format!("{target:.0} {}", if *median <= target { "met" } else { "MISSED" })
            });
            let ratio = ratio.as_ref().map_or(String::new(), |(unit, ratio)| format!("{ratio:.2} {unit}"));
            println!("{name:<66} {median:>9.2} {unit:<7} {target:>10}  {ratio}");
        }
        for (name, reason) in &self.skipped {
            println!("{name:<66} skipped: {reason}");
        }
        fs::create_dir_all(out)?;
        let path = out.join("results.json");
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nwritten: {}", path.display());
        Ok(())
    }
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
