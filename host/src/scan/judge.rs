//! What the end of a scan's child, and what it told until then, say about the plugin.

use super::{
    serve::{Stage, Told},
    verdict::Judgement,
};
use crate::child::{Ending, Outcome};

/// What comes of a scan.
#[derive(Debug, PartialEq)]
pub(super) enum Judged {
    /// The same would come of it next time.
    Lasting(Judgement),
    /// It cannot be used now: a system library can be missing, which may be there tomorrow.
    ForNow(String),
}

pub(super) fn judge(outcome: Outcome) -> Judged {
    let Outcome { reports, ending, output } = outcome;
    let quarantined =
        |reason: String| Judged::Lasting(Judgement::Quarantined { reason, output: output.clone() });
    let (mut stage, mut declared, mut note) = (None, None, None);
    for report in reports {
        match serde_json::from_value(report) {
            Ok(Told::Entering(next)) => stage = Some(next),
            Ok(Told::Declares(manifest)) => declared = Some(manifest),
            Ok(Told::DoesNotStart(message)) => note = Some(message),
            Ok(Told::Unusable(reason)) => return Judged::ForNow(reason),
            Ok(Told::Lies(problem)) => return quarantined(problem),
            Err(_) => return quarantined("wrote into what belongs to the host".into()),
        }
    }
    let Some(stage) = stage else {
        return Judged::ForNow(format!(
            "was not tried, and is not loaded untried: the child process {ending} before it began"
        ));
    };
    match (ending, stage, declared) {
        (Ending::Done, Stage::Exit, Some(manifest)) => {
            Judged::Lasting(Judgement::Accepted { manifest, note })
        }
        (Ending::Done, ..) => quarantined(format!("{} while {}", Ending::Exited(0), stage.as_str())),
        _ => quarantined(format!("{ending} while {}", stage.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use antiphon_plugin_api::PluginManifest;
    use serde_json::{Value, json};

    use super::*;

    fn outcome(reports: Vec<Value>, ending: Ending) -> Judged {
        judge(Outcome { reports, ending, output: "the last words".into() })
    }

    #[track_caller]
    fn check(reports: Vec<Value>, ending: Ending, want: &str) {
        let judged = outcome(reports, ending);
        let Judged::Lasting(Judgement::Quarantined { reason, output }) = judged else { panic!("{judged:?}") };
        assert_eq!((reason.as_str(), output.as_str()), (want, "the last words"));
    }

    fn entering(stage: Stage) -> Value {
        json!({ "entering": stage })
    }

    #[test]
    fn how_it_ended_is_told_with_what_went_on() {
        let open = || entering(Stage::Open);
        check(
            vec![open()],
            Ending::Signalled(11),
            "crashed with SIGSEGV (invalid memory access) while its library was opened",
        );
        check(
            vec![open(), entering(Stage::Create)],
            Ending::TimedOut(Duration::from_secs(30)),
            "did not come to an end within 30 s while it started",
        );
        check(vec![open()], Ending::Done, "ended the process with exit code 0 while its library was opened");
        check(vec![open(), json!({ "lies": "it lies" })], Ending::Done, "it lies");
        check(vec![open(), json!("nonsense")], Ending::Done, "wrote into what belongs to the host");
        // Not without a manifest, whatever it says.
        check(
            vec![entering(Stage::Exit)],
            Ending::Done,
            "ended the process with exit code 0 while the process ended",
        );
    }

    #[test]
    fn what_may_be_otherwise_tomorrow_is_not_remembered() {
        let unusable = vec![entering(Stage::Open), json!({ "unusable": "libx.so is missing" })];
        assert_eq!(outcome(unusable, Ending::Done), Judged::ForNow("libx.so is missing".into()));
        let judged = outcome(Vec::new(), Ending::Signalled(9));
        assert!(
            matches!(&judged, Judged::ForNow(reason) if reason.contains("before it began")),
            "{judged:?}"
        );
    }

    #[test]
    fn a_plugin_that_wants_settings_is_accepted() {
        let manifest: Box<PluginManifest> = serde_json::from_value(json!({
            "name": "x", "version": "1", "abi_version": 1, "api_version": "1", "capabilities": [], "settings": {},
            "events": [],
        }))
        .expect("a manifest");
        let told = [Told::Declares(manifest.clone()), Told::DoesNotStart("needs a key".into())];
        let told = told.into_iter().chain([Told::Entering(Stage::Exit)]);
        let reports = told.map(|told| serde_json::to_value(told).expect("plain data")).collect();
        let want = Judgement::Accepted { manifest, note: Some("needs a key".into()) };
        assert_eq!(outcome(reports, Ending::Done), Judged::Lasting(want));
    }
}
