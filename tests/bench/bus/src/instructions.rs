//! Instructions per delivery, counted by valgrind's callgrind: a figure that no other load on the machine moves.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    Bench,
    contest::BURST,
    report::{many, say},
    rivals::{self, MPSC, OURS},
};

const SUBSCRIBERS: [u64; 2] = [1, 10];

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        bench.report.skip("instructions", "valgrind is not installed");
        return Ok(());
    }
    let bursts = bench.settings.counted_bursts;
    for subscribers in SUBSCRIBERS {
        let mut found = Vec::new();
        for design in [MPSC, OURS] {
            say(format_args!("    {design}, {subscribers}"));
            // The difference leaves out what starting and stopping take.
            let more = count(design, subscribers, 2 * bursts)? - count(design, subscribers, bursts)?;
            let each = more / (bursts * BURST * subscribers) as f64;
            bench.report.figure("instructions", "", design, subscribers, "per delivery", &[each]);
            found.push(each);
        }
        let subscribers = many(subscribers, "subscriber");
        let name = format!("instructions per delivery to {subscribers}: ours / {MPSC}");
        bench.report.claim("instructions", name, found[1] / found[0], "x", None);
    }
    Ok(())
}

/// Instructions of a process that does so many bursts.
fn count(design: &str, subscribers: u64, bursts: u64) -> Result<f64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?).arg("bursts").arg(design);
    let output = command.args([subscribers.to_string(), bursts.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}");
    collected(&text).with_context(|| format!("callgrind tells no number: {text}"))
}

/// The number that callgrind ends with.
fn collected(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// The work of the counted process.
pub(crate) fn child(design: &str, subscribers: usize, bursts: u64) -> Result<()> {
    rivals::contender(design, subscribers)?.run(bursts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_callgrind_is_found() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 1234\n==7==\n"), Some(1234.0));
        assert_eq!(collected("==7== nothing\n"), None);
    }
}
