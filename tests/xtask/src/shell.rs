//! Lines on the terminal and commands that a reader could paste into a shell. No knowledge of Antiphon.

use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Prints one line to stdout. A reader that has gone (`| head`) is no reason to stop working.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints one line to stderr.
pub(crate) fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Announces a step, does it, and says how long it took if that was long enough to wonder.
pub(crate) fn step<T>(name: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    const WORTH_SAYING: Duration = Duration::from_secs(2);

    say(format_args!("==> {name}"));
    let (outcome, time) = timed(work);
    if time >= WORTH_SAYING {
        let verb = if outcome.is_ok() { "took" } else { "failed after" };
        say(format_args!("    {verb} {}", seconds(time)));
    }
    outcome
}

/// The result of some work and how long it took.
#[expect(
    clippy::disallowed_methods,
    reason = "tells a person how long a command took; no logic depends on it"
)]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Echoes a command, then runs it with our terminal as its own.
///
/// # Errors
///
/// When it cannot be started or does not end with exit code 0; the text holds the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = render(command);
    say(format_args!("    $ {text}"));
    let status = command.status().with_context(|| format!("cannot start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed ({status})");
    }
    Ok(())
}

/// The command as one would type it: what it sets of the environment, programs by their short name, arguments quoted where needed.
pub(crate) fn render(command: &Command) -> String {
    let program = Path::new(command.get_program());
    // Programs are started by their full path; nobody types that.
    let short = match command.get_current_dir().map(|directory| program.strip_prefix(directory)) {
        _ if program.ends_with("cargo") => "cargo".as_ref(),
        Some(Ok(below)) => below.as_os_str(),
        _ => program.as_os_str(),
    };
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={}", name.to_string_lossy(), quote(&value?.to_string_lossy())))
    });
    let words = std::iter::once(short).chain(command.get_args()).map(|word| quote(&word.to_string_lossy()));
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `7.3 s`, or `2 min 05 s` once seconds are hard to read.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..100 => format!("{:.1} s", duration.as_secs_f64()),
        total => format!("{} min {:02} s", total / 60, total % 60),
    }
}

/// A size for people: `812 B`, `1.4 MB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &mut Command, want: &str) {
        assert_eq!(render(command), want);
    }

    #[test]
    fn an_echoed_command_can_be_pasted() {
        check(
            Command::new("/opt/toolchain/bin/cargo").args(["test", "--workspace"]),
            "cargo test --workspace",
        );
        check(Command::new("/w/target/dist/antiphon").current_dir("/w"), "target/dist/antiphon");
        check(Command::new("/w/target/dist/antiphon").current_dir("/else"), "/w/target/dist/antiphon");
        check(Command::new("aplay").arg("my reply.wav"), "aplay 'my reply.wav'");
        check(Command::new("echo").args(["it's", ""]), r"echo 'it'\''s' ''");
        check(
            Command::new("cargo").env("B", "2 words").env("A", "1").env_remove("C").arg("test"),
            "A=1 B='2 words' cargo test",
        );
        check(Command::new("antiphon").args(["--set", "a.b=c/d"]), "antiphon --set a.b=c/d");
    }

    #[test]
    fn durations_and_sizes_are_short() {
        assert_eq!(seconds(Duration::from_millis(7_340)), "7.3 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!([size(812), size(1_400), size(1_440_000)], ["812 B", "1.4 kB", "1.4 MB"]);
    }
}
