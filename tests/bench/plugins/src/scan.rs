//! A directory of plugins: scanned for the first time, and when nothing has changed since.

use std::{thread, time::Duration};

use antiphon_bench_support::{cpu, stats::median};
use antiphon_core::{Clock, SystemClock};
use antiphon_host::{
    child::ChildProgram,
    scan::{Cache, Outcome, Report, Scanner},
};
use anyhow::{Result, ensure};

use crate::{Bench, files::Place, system::used_by_children};

/// Plugin files.
pub(crate) const FILES: usize = 100;

/// What has been written a moment ago may be written again within the same tick of the file system's clock, so a scan
/// does not remember it by its times.
const SETTLED: Duration = Duration::from_millis(300);

/// What a scan took, in milliseconds.
struct Took {
    wall: f64,
    cpu: f64,
}

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let (colds, warms) = bench.settings.scans;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..colds {
        let place = Place::empty()?;
        place.put_many(FILES)?;
        thread::sleep(SETTLED);
        cold.push(scan(&place, Report { files: FILES, hashed: FILES, remembered: 0, children: FILES })?);
        for _ in 0..warms.div_ceil(colds) {
            warm.push(scan(&place, Report { files: FILES, hashed: 0, remembered: FILES, children: 0 })?);
        }
    }
    let mut medians = Vec::new();
    for (who, took) in [("cold", &cold), ("warm", &warm)] {
        let (wall, cpu): (Vec<f64>, Vec<f64>) = took.iter().map(|took| (took.wall, took.cpu)).unzip();
        bench.report.figure("scan", "wall", who, FILES as u64, "ms wall", &wall);
        bench.report.figure("scan", "cpu", who, FILES as u64, "ms CPU, children included", &cpu);
        medians.push((median(&wall), median(&cpu)));
    }
    let name = "scan: CPU of a cold one / of a warm one";
    bench.report.claim("scan", name, medians[0].1 / medians[1].1, "x", None);
    bench.report.claim("scan", "scan: warm, per file", medians[1].0 * 1e3 / FILES as f64, "us wall", None);
    Ok(())
}

/// A scan by a scanner that knows nothing but the cache, which must cost what is expected.
fn scan(place: &Place, expected: Report) -> Result<Took> {
    let clock = SystemClock::new();
    let used = || anyhow::Ok(cpu::used() + used_by_children()?);
    let (begin, used_before) = (clock.mono_ns(), used()?);
    let scanner = Scanner::new(ChildProgram::find(), Cache::open(Some(place.cache())));
    let scanned = scanner.scan(&[place.plugins().to_owned()]);
    let wall = (clock.mono_ns() - begin) as f64 / 1e6;
    let cpu = (used()? - used_before).as_secs_f64() * 1e3;
    for file in &scanned {
        if let Outcome::Refused { reason, .. } = &file.outcome {
            anyhow::bail!("{} was refused: {reason}", file.name);
        }
    }
    ensure!(scanner.report() == expected, "the scan took {:?}, expected {expected:?}", scanner.report());
    Ok(Took { wall, cpu })
}
