//! `antiphon plugins check`: holds a plugin file to the contract, and tells its author what to do.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use antiphon_host::{
    check::{self, CheckOptions, CheckProgress, CheckReport, Problem, TestInfo, TestResult, Verdict},
    child::ChildProgram,
    inspect,
};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::cli::{
    Exit,
    output::{self, BARS, Ink, Style, Table, clean, count, milliseconds},
    setting::Setting,
    setup::{Global, Setup, from_here},
};

/// Test whether a plugin file keeps the contract; each test in a process of its own
///
/// Runs the plugin outside of this program, with every test in a child process: a plugin that crashes or hangs fails that
/// test, and the others go on. Tells of each problem what was seen, what was expected and what to do. A plugin that needs
/// settings, a model or a key to start is given them as elsewhere: --set, --config, --env. The exit code is 0 if no test
/// failed; warnings do not count.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The plugin's file (.so)
    #[arg(value_name = "PATH", required_unless_present = "list")]
    path: Option<PathBuf>,
    /// Change a setting of the plugin. VALUE is TOML, else text; repeat it for more
    #[arg(short, long = "set", value_name = "PLUGIN.KEY=VALUE")]
    set: Vec<Setting>,
    /// Variable of the environment that the plugin may see, such as one with a key; repeat it for more
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// What language models are asked and voices say, in place of a greeting
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Run this test (and what it needs), or this one for all capabilities; repeat it for more
    #[arg(long = "test", value_name = "ID")]
    only: Vec<String>,
    /// Seconds for each test
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,
    /// List the tests with what each proves, and run none
    #[arg(long)]
    list: bool,
    /// Print JSON: every test with its outcome
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  antiphon plugins check ./libmy_plugin.so
  antiphon plugins check ./libmy_plugin.so --test llm-exchange --test cancel
  antiphon plugins check ./libmy_plugin.so --set my-plugin.voice=anna --env MY_PLUGIN_KEY
  antiphon plugins check ./libmy_plugin.so --json | jq '.tests[] | select(.verdict == \"failed\").problems'
  antiphon plugins check --list";

pub(super) async fn run(global: &Global, args: Args) -> Result<Exit> {
    if args.list {
        return list(args.json);
    }
    let path = args.path.context("wanted the file of a plugin")?;
    let mut options = CheckOptions::new(ChildProgram::find()?);
    options.settings = settings(global, &args.set, &path)?;
    options.text = args.text;
    options.environment = args.env;
    options.timeout = Duration::from_secs(args.timeout.into());
    options.only = args.only;
    let file = path.clone();
    let bar = BARS.add(ProgressBar::new_spinner().with_style(style()));
    let progress = Progress { bar: bar.clone(), running: Mutex::default() };
    let checking = move || check::check(&file, &options, &|step| progress.step(step));
    let report = tokio::task::spawn_blocking(checking).await.context("checking the plugin failed")?;
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        output::print_json(&to_json(&report))?;
    } else {
        output::print(&to_text(&report, Style::stdout()))?;
    }
    Ok(Exit::done_if(report.has_passed()))
}

/// What the plugin is started with: of the configuration, and of the command line. Runs none of its code.
fn settings(global: &Global, set: &[Setting], path: &std::path::Path) -> Result<Map<String, Value>> {
    let setup = Setup::read(global, set)?;
    // A file that is no plugin fails a test, which says more.
    let Ok(section) = inspect::inspect(path) else { return Ok(Map::new()) };
    if let Some(other) = set.iter().find(|setting| setting.section != section.name) {
        bail!("--set {}: the plugin of this file is named {}", other.section, section.name);
    }
    Ok(setup.config.plugin.get(&section.name).cloned().unwrap_or_default())
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} {msg}");
    style.expect("the template is correct")
}

/// Shows how far it is, where there is a terminal.
struct Progress {
    bar: ProgressBar,
    running: Mutex<Vec<String>>,
}

impl Progress {
    fn step(&self, step: CheckProgress<'_>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            CheckProgress::Planned(tests) => self.bar.set_length(tests as u64),
            CheckProgress::Begun(id) => running.push(id.to_owned()),
            CheckProgress::Ended(result) => {
                running.retain(|id| *id != result.id);
                self.bar.inc(1);
            }
        }
        self.bar.set_message(running.join(", "));
    }
}

fn list(json: bool) -> Result<Exit> {
    let tests = check::tests();
    if json {
        output::print_json(&tests)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::with_header(["TEST", "FOR", "PROVES THAT"]);
    for TestInfo { id, claim, kinds } in tests {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let about = if kinds.is_empty() { "the plugin".to_owned() } else { kinds.join(" ") };
        table.row([(Ink::Bold, id), (Ink::Dim, about), (Ink::Plain, claim.to_owned())]);
    }
    output::print(&table.render(Style::stdout(), ""))?;
    Ok(Exit::Done)
}

fn to_json(report: &CheckReport) -> Value {
    let mut json = serde_json::to_value(report).expect("its path has crossed to the children as JSON");
    let counts = [Verdict::Passed, Verdict::Failed, Verdict::Warning, Verdict::Skipped];
    let counts = counts.map(|verdict| (word(verdict).to_owned(), json!(report.count(verdict))));
    json["summary"] = Value::Object(Map::from_iter(counts));
    json["passed"] = json!(report.has_passed());
    json
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Warning => "warnings",
        Verdict::Skipped => "skipped",
    }
}

fn mark(verdict: Verdict) -> (Ink, &'static str) {
    match verdict {
        Verdict::Passed => (Ink::Green, "pass"),
        Verdict::Warning => (Ink::Yellow, "warn"),
        Verdict::Failed => (Ink::Red, "FAIL"),
        Verdict::Skipped => (Ink::Dim, "skip"),
    }
}

fn to_text(report: &CheckReport, style: Style) -> String {
    let mut text = String::new();
    let name = match (&report.name, &report.version) {
        (Some(name), Some(version)) => format!("{} {}", clean(name), clean(version)),
        _ => "no plugin".to_owned(),
    };
    let line = |text: &mut String, line: String| writeln!(text, "{line}").expect("text grows");
    line(&mut text, format!("{}  {}", style.paint(Ink::Bold, name), clean(&from_here(&report.path))));
    let mut groups: Vec<&str> = Vec::new();
    for test in &report.tests {
        if !groups.contains(&test.group.as_str()) {
            groups.push(&test.group);
        }
    }
    for group in groups {
        line(&mut text, format!("\n{}", style.paint(Ink::Bold, clean(group))));
        let tests: Vec<&TestResult> = report.tests.iter().filter(|test| test.group == group).collect();
        let mut table = Table::default();
        for test in &tests {
            let (ink, mark) = mark(test.verdict);
            let remark = test.skipped.clone().unwrap_or_else(|| test.claim.to_owned());
            table.row([
                (ink, mark.to_owned()),
                (Ink::Plain, test.id.clone()),
                (Ink::Dim, milliseconds(test.seconds * 1e3)),
                (Ink::Dim, remark),
            ]);
        }
        for (row, test) in table.render(style, "  ").lines().zip(tests) {
            line(&mut text, row.to_owned());
            text.push_str(&problems(test, style));
        }
    }
    line(&mut text, format!("\n{}", summary(report, style)));
    text
}

fn problems(test: &TestResult, style: Style) -> String {
    let mut text = String::new();
    let failures = test.problems.iter().map(|problem| (Ink::Red, problem));
    for (ink, Problem { seen, expected, advice }) in
        failures.chain(test.warnings.iter().map(|problem| (Ink::Yellow, problem)))
    {
        for (label, what, ink) in
            [("seen", seen, ink), ("expected", expected, Ink::Plain), ("to do", advice, Ink::Plain)]
        {
            let what = clean(what).replace('\n', "\n                  ");
            writeln!(text, "        {label:<9} {}", style.paint(ink, what)).expect("text grows");
        }
    }
    if let Some(stage) = test.stage.as_ref().filter(|_| !test.problems.is_empty()) {
        writeln!(text, "        {:<9} {}", "while", clean(stage)).expect("text grows");
    }
    let output: Vec<&str> = test.output.lines().rev().take(SHOWN_LINES).collect();
    if !output.is_empty() {
        writeln!(text, "        its output and log end with").expect("text grows");
    }
    for line in output.into_iter().rev() {
        writeln!(text, "          {}", style.paint(Ink::Dim, clean(line))).expect("text grows");
    }
    text
}

/// Lines of a child's output that are shown; JSON has more.
const SHOWN_LINES: usize = 6;

/// `31 passed, 1 failed, 2 warnings in 3.1 s`.
fn summary(report: &CheckReport, style: Style) -> String {
    let mut parts = vec![format!("{} passed", report.count(Verdict::Passed))];
    let mut part = |verdict: Verdict, ink: Ink, text: String| {
        if report.count(verdict) > 0 {
            parts.push(style.paint(ink, text));
        }
    };
    let number = |verdict: Verdict| report.count(verdict) as u64;
    part(Verdict::Failed, Ink::Red, format!("{} failed", number(Verdict::Failed)));
    part(Verdict::Warning, Ink::Yellow, count(number(Verdict::Warning), "warning"));
    part(Verdict::Skipped, Ink::Dim, format!("{} skipped", number(Verdict::Skipped)));
    format!("{} in {}", parts.join(", "), milliseconds(report.seconds * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(id: &str, verdict: Verdict) -> TestResult {
        let problem = Problem { seen: "a\x1b[2Jb".into(), expected: "c".into(), advice: "d".into() };
        TestResult {
            id: id.into(),
            group: "plugin".into(),
            claim: "it works",
            verdict,
            skipped: None,
            problems: if verdict == Verdict::Failed { vec![problem] } else { Vec::new() },
            warnings: Vec::new(),
            stage: None,
            output: String::new(),
            seconds: 0.25,
        }
    }

    #[test]
    fn the_report_tells_of_each_test_and_of_each_problem_what_to_do() {
        let report = CheckReport {
            path: "x.so".into(),
            name: Some("x".into()),
            version: Some("1".into()),
            capabilities: Vec::new(),
            tests: vec![result("file", Verdict::Passed), result("starts", Verdict::Failed)],
            seconds: 0.5,
        };
        let text = to_text(&report, Style::none());
        assert_eq!(
            text,
            "x 1  x.so\n\nplugin\n  pass  file    250 ms  it works\n  FAIL  starts  250 ms  it works\n        \
             seen      a\\u{1b}[2Jb\n        expected  c\n        to do     d\n\n1 passed, 1 failed in 500 ms\n"
        );
        assert_eq!(to_json(&report)["summary"]["failed"], 1);
    }
}
