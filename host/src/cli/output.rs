//! The only place that prints: text to standard output, complaints to standard error, colours and tables.
//!
//! A reader who goes away (`| head`) is no error: what follows is dropped in silence.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
    sync::LazyLock,
};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

/// The progress bars; whatever is printed has them step aside. Without a terminal there are none.
pub(super) static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Prints text as it is.
pub(super) fn print(text: &str) -> Result<()> {
    let printed = BARS.suspend(|| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    });
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Prints text on standard error, where standard output is taken by data.
pub(super) fn print_beside(text: &str) {
    // Nobody is left to tell that standard error is gone.
    let _ = Stderr.write_all(text.as_bytes());
}

/// Prints a value as JSON for people and machines: indented, with a newline at its end.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write this as JSON")?;
    print(&format!("{text}\n"))
}

/// Tells of an error, with its causes, on standard error.
pub(super) fn complain(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors repeat their cause in their own text.
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    note(Ink::Red, "error", &text);
}

/// Tells of what is odd but keeps nothing from being done.
pub(super) fn warn(text: impl fmt::Display) {
    note(Ink::Yellow, "warning", &text.to_string());
}

fn note(ink: Ink, label: &str, text: &str) {
    let label = Style::of(&io::stderr()).paint(ink, format!("{label}:"));
    // Nobody is left to tell that standard error is gone.
    let _ = writeln!(Stderr, "{label} {}", clean(text));
}

/// Standard error, beside the progress bars.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        BARS.suspend(|| io::stderr().lock().write_all(bytes))
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        self.write_all(text.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a stream shows colours: a terminal, and nobody said `NO_COLOR`.
pub(super) fn has_colour(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A colour or weight of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

/// How a stream shows text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    pub(super) fn of(stream: &impl IsTerminal) -> Self {
        Self { colour: has_colour(stream) }
    }

    pub(super) fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// Text as it is, for tests.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { colour: false }
    }

    pub(super) fn paint(self, ink: Ink, text: impl fmt::Display) -> String {
        let code = match ink {
            Ink::Plain => return text.to_string(),
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Red => 31,
            Ink::Green => 32,
            Ink::Yellow => 33,
            Ink::Cyan => 36,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Text from outside without control characters, which could play tricks with a terminal.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => cleaned.push(character),
            _ if character.is_control() => cleaned.extend(character.escape_default()),
            _ => cleaned.push(character),
        }
    }
    cleaned
}

/// Lines of columns that stand below each other. The last column is as wide as it likes.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<(Ink, String)>>,
}

impl Table {
    /// A table whose first row names the columns.
    pub(super) fn with_header<const N: usize>(columns: [&str; N]) -> Self {
        let mut table = Self::default();
        table.row(columns.map(|column| (Ink::Dim, column.to_owned())));
        table
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = (Ink, String)>) {
        let one_line = |(ink, text): (Ink, String)| (ink, clean(&text).replace(['\n', '\t'], " "));
        self.rows.push(cells.into_iter().map(one_line).collect());
    }

    /// The lines, each after `indent`.
    pub(super) fn render(&self, style: Style, indent: &str) -> String {
        let width = |text: &str| text.chars().count();
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(|(_, text)| width(text)).max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = indent.to_owned();
            // Empty cells at the end of a row take no blanks.
            let used = row.iter().rposition(|(_, text)| !text.is_empty()).map_or(0, |last| last + 1);
            for (column, (ink, cell)) in row.iter().take(used).enumerate() {
                line.push_str(&style.paint(*ink, cell));
                if column + 1 < used {
                    line.extend(std::iter::repeat_n(' ', widths[column] - width(cell) + 2));
                }
            }
            writeln!(text, "{}", line.trim_end()).expect("text grows");
        }
        text
    }
}

/// A number of things, in words: `1 turn`, `2 turns`.
pub(super) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Milliseconds as people read them: `0.31 ms`, `35 ms`, `2.10 s`.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        _ if ms < 0.995 => format!("{ms:.2} ms"),
        _ if ms < 9.95 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::with_header(["NAME", "WHAT", "WHY"]);
        table.row([(Ink::Plain, "grün".into()), (Ink::Red, "a\nb".into()), (Ink::Plain, String::new())]);
        table.row([(Ink::Plain, "x".into()), (Ink::Plain, String::new()), (Ink::Plain, "z".into())]);
        let plain = Style { colour: false };
        assert_eq!(table.render(plain, "  "), "  NAME  WHAT  WHY\n  grün  a b\n  x           z\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::default();
        table.row([(Ink::Red, "ab".into()), (Ink::Plain, "c".into())]);
        assert_eq!(table.render(Style { colour: true }, ""), "\x1b[31mab\x1b[0m  c\n");
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}"), "a\\u{1b}[2Jb\nc\\u{9b}");
    }

    #[test]
    fn durations_have_two_or_three_digits() {
        for (ms, want) in
            [(0.31, "0.31 ms"), (2.04, "2.0 ms"), (35.2, "35 ms"), (2100.0, "2.10 s"), (0.999, "1.0 ms")]
        {
            assert_eq!(milliseconds(ms), want);
        }
    }
}
