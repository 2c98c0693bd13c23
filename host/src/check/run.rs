//! The host's side: plans the tests, runs each in a child of its own, several at a time, and judges what came of it.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use super::{
    CheckError, CheckOptions, CheckProgress, CheckReport, Problem, TestResult, Verdict,
    catalogue::{self, Needs, Test},
    message::{Job, Message},
};
use crate::{
    Kind,
    child::{self, ChildError, Ending, Limits, Outcome, Task},
    config::similar,
};

/// Checks a plugin file. Blocks.
///
/// # Errors
///
/// [`CheckError`] when nothing could be checked. What is wrong with the plugin is in the report.
#[expect(clippy::disallowed_methods, reason = "other processes take real time")]
pub fn check(
    path: &Path,
    options: &CheckOptions,
    watch: &(dyn Fn(CheckProgress<'_>) + Sync),
) -> Result<CheckReport, CheckError> {
    let begun = Instant::now();
    options.only.iter().try_for_each(|name| known(name))?;
    options.program.check()?;
    let mut report = CheckReport {
        path: path.to_owned(),
        name: None,
        version: None,
        capabilities: Vec::new(),
        tests: Vec::new(),
        seconds: 0.0,
    };
    let run = Run { path, options, watch };
    // Each is the ground that the following stand on.
    let mut missing = None;
    for test in catalogue::grounds() {
        let result = match &missing {
            None => run.one(test, None)?,
            Some(reason) => (run.skipped(test, None, reason), None),
        };
        if let Some(Message::Plugin { name, version, capabilities }) = result.1 {
            (report.name, report.version) = (Some(name), Some(version));
            report.capabilities = capabilities;
        }
        if result.0.verdict == Verdict::Failed {
            missing = Some((test.needs, reason(test)));
        }
        report.tests.push(result.0);
    }
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| report.capabilities.iter().any(|name| name == kind.as_str()))
        .collect();
    let mut planned: Vec<(&Test, Option<Kind>)> = Vec::new();
    planned.extend(catalogue::of_plugin().map(|test| (test, None)));
    for kind in kinds {
        planned.extend(catalogue::of_kind(kind).map(|test| (test, Some(kind))));
    }
    planned.retain(|(test, kind)| run.is_wanted(test, *kind));
    if planned.is_empty() && missing.is_none() && !options.only.is_empty() {
        let grounds = |name: &String| catalogue::grounds().any(|test| test.name == name);
        if let Some(test) = options.only.iter().find(|name| !grounds(name)) {
            return Err(CheckError::NotForThis { test: test.clone() });
        }
    }
    watch(CheckProgress::Planned(report.tests.len() + planned.len()));
    let (able, unable): (Vec<_>, Vec<_>) =
        planned.iter().partition(|(test, _)| missing.as_ref().is_none_or(|(needs, _)| test.needs < *needs));
    let mut results = run.all(able)?;
    if let Some(missing) = &missing {
        results.extend(unable.into_iter().map(|(test, kind)| run.skipped(test, kind, missing)));
    }
    let place = |id: &str| planned.iter().position(|(test, kind)| test.id(*kind) == id);
    results.sort_by_key(|result| place(&result.id));
    report.tests.extend(results);
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Why what stands on a test cannot be run.
fn reason(test: &Test) -> &'static str {
    match test.needs {
        Needs::File => "is no plugin for this host",
        Needs::Library => "cannot be opened",
        Needs::Start => "does not start",
    }
}

fn known(name: &str) -> Result<(), CheckError> {
    let names: Vec<String> = catalogue::names();
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(CheckError::NoSuchTest { name: name.to_owned(), similar: similar(name, &names) })
}

struct Run<'a> {
    path: &'a Path,
    options: &'a CheckOptions,
    watch: &'a (dyn Fn(CheckProgress<'_>) + Sync),
}

impl Run<'_> {
    fn is_wanted(&self, test: &Test, kind: Option<Kind>) -> bool {
        let only = &self.options.only;
        only.is_empty() || only.iter().any(|name| *name == test.id(kind) || name == test.name)
    }

    /// Runs tests, several at a time, and then those that are run alone.
    fn all(&self, tests: Vec<(&Test, Option<Kind>)>) -> Result<Vec<TestResult>, CheckError> {
        let (alone, together): (Vec<_>, Vec<_>) = tests.into_iter().partition(|(test, _)| test.alone);
        let workers = thread::available_parallelism().map_or(1, usize::from).min(MAX_AT_A_TIME);
        let mut results = self.at_a_time(workers, together.into())?;
        results.extend(self.at_a_time(1, alone.into())?);
        Ok(results)
    }

    fn at_a_time(
        &self,
        workers: usize,
        tests: VecDeque<(&Test, Option<Kind>)>,
    ) -> Result<Vec<TestResult>, CheckError> {
        let (tests, results) = (Mutex::new(tests), Mutex::new(Vec::new()));
        let work = || -> Result<(), CheckError> {
            loop {
                let next = tests.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((test, kind)) = next else { return Ok(()) };
                let (result, _) = self.one(test, kind)?;
                results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("testing does not panic"))
        })?;
        Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn skipped(&self, test: &Test, kind: Option<Kind>, (_, reason): &(Needs, &'static str)) -> TestResult {
        let result = TestResult {
            verdict: Verdict::Skipped,
            skipped: Some((*reason).to_owned()),
            ..blank(test, kind)
        };
        (self.watch)(CheckProgress::Ended(&result));
        result
    }

    /// Runs one test in a child.
    #[expect(clippy::disallowed_methods, reason = "other processes take real time")]
    fn one(&self, test: &Test, kind: Option<Kind>) -> Result<(TestResult, Option<Message>), CheckError> {
        let id = test.id(kind);
        (self.watch)(CheckProgress::Begun(&id));
        let begun = Instant::now();
        let job = Job {
            path: self.path.to_owned(),
            test: id,
            settings: self.options.settings.clone(),
            text: self.options.text.clone(),
            timeout: self.options.timeout,
        };
        let CheckOptions { program, environment, timeout, .. } = self.options;
        let outcome = child::run(program, Limits::default(), Task::Check(job), environment, *timeout)
            .map_err(ChildError::into)
            .map_err(|error: CheckError| error)?;
        let (mut result, plugin) = judge(test, kind, outcome);
        result.seconds = begun.elapsed().as_secs_f64();
        (self.watch)(CheckProgress::Ended(&result));
        Ok((result, plugin))
    }
}

/// Children at a time, however many processors there are: each runs a plugin with threads of its own.
const MAX_AT_A_TIME: usize = 8;

fn blank(test: &Test, kind: Option<Kind>) -> TestResult {
    TestResult {
        id: test.id(kind),
        group: kind.map_or("plugin", Kind::as_str).to_owned(),
        claim: test.claim,
        verdict: Verdict::Passed,
        skipped: None,
        problems: Vec::new(),
        warnings: Vec::new(),
        stage: None,
        output: String::new(),
        seconds: 0.0,
    }
}

/// What a child's reports and its end say of the plugin.
fn judge(test: &Test, kind: Option<Kind>, outcome: Outcome) -> (TestResult, Option<Message>) {
    let mut result = blank(test, kind);
    let (mut plugin, mut is_done, mut log) = (None, false, String::new());
    for report in outcome.reports {
        match serde_json::from_value(report) {
            Ok(Message::Stage(stage)) => result.stage = Some(stage),
            Ok(Message::Failed(problem)) => result.problems.push(problem),
            Ok(Message::Warned(problem)) => result.warnings.push(problem),
            Ok(Message::Skipped(reason)) => result.skipped = Some(reason),
            Ok(Message::Log(line)) => log = format!("{log}{line}\n"),
            Ok(message @ Message::Plugin { .. }) => plugin = Some(message),
            Ok(Message::Done) => is_done = true,
            Err(error) => result.problems.push(Problem::new(
                format!("a report that cannot be read: {error}"),
                "reports of the test alone",
                "do not touch descriptors that the plugin did not open",
            )),
        }
    }
    // A child that found something may well not end properly afterwards: it is the same thing.
    if outcome.ending != Ending::Done && result.problems.is_empty() {
        let stage = match (&result.stage, is_done) {
            (_, true) => "at the end of the process".to_owned(),
            (Some(stage), false) => format!("while {stage}"),
            (None, false) => "before the plugin was opened".to_owned(),
        };
        result.problems.push(Problem::new(
            format!("the plugin's process {}, {stage}", outcome.ending),
            "a process that lives on, and calls that return",
            advice(outcome.ending, test),
        ));
    } else if outcome.ending == Ending::Done && !is_done {
        result.problems.push(Problem::new(
            "the process ended before the test did",
            "a plugin that does not end its process",
            "do not call `exit`; return an error",
        ));
    }
    if outcome.output.contains("panicked at") && result.problems.is_empty() {
        result.warnings.push(Problem::new(
            "a thread panicked; the output has the place",
            "errors in place of panics: a panic means a bug",
            "return an error from where it panicked",
        ));
    }
    result.verdict = match (&result.problems[..], &result.warnings[..], &result.skipped) {
        ([_, ..], _, _) => Verdict::Failed,
        ([], _, Some(_)) => Verdict::Skipped,
        ([], [_, ..], None) => Verdict::Warning,
        ([], [], None) => Verdict::Passed,
    };
    if matches!(result.verdict, Verdict::Failed | Verdict::Warning) {
        result.output = format!("{log}{}", outcome.output);
    } else {
        result.stage = None;
    }
    (result, plugin)
}

fn advice(ending: Ending, test: &Test) -> String {
    match ending {
        Ending::TimedOut(_) => format!(
            "let the plugin's functions only queue, and see where it waits; a slow plugin gets more time with --timeout: {}",
            test.advice
        ),
        Ending::Signalled(_) => format!(
            "run this test alone under a debugger, or with a sanitizer, and look at `unsafe` code and C libraries: {}",
            test.advice
        ),
        _ => test.advice.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn judged(reports: Vec<serde_json::Value>, ending: Ending, output: &str) -> TestResult {
        let (test, kind) = catalogue::find("llm-exchange").expect("in the catalogue");
        judge(test, kind, Outcome { reports, ending, output: output.to_owned() }).0
    }

    #[test]
    fn a_crash_is_told_with_what_the_plugin_was_doing() {
        let result = judged(vec![json!({ "stage": "closing" })], Ending::Signalled(11), "");
        assert_eq!(result.verdict, Verdict::Failed);
        let seen = &result.problems[0].seen;
        assert_eq!(seen, "the plugin's process crashed with SIGSEGV (invalid memory access), while closing");
    }

    #[test]
    fn a_crash_after_the_test_counts_too() {
        let result = judged(vec![json!("done")], Ending::Signalled(6), "");
        assert!(result.problems[0].seen.ends_with("at the end of the process"), "{result:?}");
    }

    #[test]
    fn a_hang_is_told_with_what_the_plugin_was_doing() {
        let hang = Ending::TimedOut(Duration::from_secs(2));
        let result = judged(vec![json!({ "stage": "stopping" })], hang, "");
        assert!(result.problems[0].seen.contains("within 2 s, while stopping"), "{result:?}");
    }

    #[test]
    fn a_process_that_ends_itself_has_not_passed() {
        assert_eq!(judged(vec![], Ending::Done, "").verdict, Verdict::Failed);
        assert_eq!(judged(vec![json!("done")], Ending::Done, "").verdict, Verdict::Passed);
    }

    #[test]
    fn a_panic_in_some_thread_is_a_warning() {
        let result = judged(vec![json!("done")], Ending::Done, "thread 'x' panicked at src/lib.rs:1:1:");
        assert_eq!(result.verdict, Verdict::Warning);
        assert!(result.output.contains("src/lib.rs"));
    }

    #[test]
    fn a_report_that_is_none_fails_the_test() {
        let result = judged(vec![json!({ "odd": 1 }), json!("done")], Ending::Done, "");
        assert_eq!(result.verdict, Verdict::Failed);
    }
}
