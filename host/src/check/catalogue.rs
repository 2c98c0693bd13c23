//! The tests: a stable name, what each proves, and what it needs.

use serde::Serialize;

use super::{
    claims::{close, exchange, input, life, manifest, pressure, settings, steady},
    message::Checked,
    running::Context,
};
use crate::Kind;

/// One test.
pub(super) struct Test {
    /// Its stable name; that of a capability comes before it.
    pub(super) name: &'static str,
    /// What it proves.
    pub(super) claim: &'static str,
    /// What to look at when it dies on the way.
    pub(super) advice: &'static str,
    /// Capabilities that it is run for; none: it is about the plugin.
    kinds: &'static [Kind],
    pub(super) needs: Needs,
    /// Measures the process, and is not disturbed by others.
    pub(super) alone: bool,
    pub(super) run: fn(&Context, Option<Kind>) -> Checked,
}

/// What must be fine for a test to make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needs {
    File,
    Library,
    Start,
}

/// A test, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestInfo {
    /// Its stable name. `KIND-` stands for each of `kinds`.
    pub id: String,
    /// What it proves.
    pub claim: &'static str,
    /// Capabilities that it is run for; none: it is about the plugin.
    pub kinds: Vec<Kind>,
}

const ALL: &[Kind] = &Kind::ALL;
const ASKED: &[Kind] = &[Kind::Llm, Kind::Tts];
const CANCELS: &[Kind] = &[Kind::Stt, Kind::Llm, Kind::Tts, Kind::Vision];

const fn plugin(
    name: &'static str,
    needs: Needs,
    run: fn(&Context, Option<Kind>) -> Checked,
    claim: &'static str,
    advice: &'static str,
) -> Test {
    Test { name, claim, advice, kinds: &[], needs, alone: false, run }
}

const fn session(
    name: &'static str,
    kinds: &'static [Kind],
    run: fn(&Context, Option<Kind>) -> Checked,
    claim: &'static str,
    advice: &'static str,
) -> Test {
    Test { name, claim, advice, kinds, needs: Needs::Start, alone: false, run }
}

/// The first three are the ground that all others stand on.
const TESTS: &[Test] = &[
    plugin(
        "file",
        Needs::File,
        manifest::file,
        "the file is a whole shared library for this machine, with the section of a plugin for this host",
        "build a `cdylib` that uses `export_plugin!`",
    ),
    plugin(
        "library-opens",
        Needs::Library,
        manifest::library,
        "the library opens, its entry fits this host, and its manifest can be read",
        "look at what runs when the library is opened: initialisers, and the schema of settings and events",
    ),
    plugin(
        "starts",
        Needs::Start,
        life::starts,
        "the plugin starts with the given settings, and has an object for each capability it declares",
        "look at `Plugin::start`: load models when they are first used, and return errors",
    ),
    plugin(
        "manifest-agrees",
        Needs::Library,
        manifest::agrees,
        "the section of the file and the manifest of the library say the same",
        "let `export_plugin!` write both",
    ),
    plugin(
        "manifest-settings",
        Needs::Library,
        manifest::settings,
        "the schema of the settings is a valid JSON Schema, and its defaults are valid settings",
        "derive `JsonSchema` for the settings, with `#[serde(default)]`",
    ),
    plugin(
        "manifest-events",
        Needs::Library,
        manifest::events,
        "declared events are named, extend a known base, have a schema, and are at most 256",
        "derive `Event` for the plugin's own events, with `base = PluginBaseEvent` or one that extends it",
    ),
    plugin(
        "manifest-capabilities",
        Needs::Start,
        manifest::capabilities,
        "the plugin declares capabilities that this host knows, each once, and has no others",
        "name in `capabilities` what the plugin implements",
    ),
    plugin(
        "start-stop",
        Needs::Start,
        life::start_stop,
        "the plugin starts and stops ten times in one process, also with open sessions, and leaves no threads",
        "look at what `start` leaves behind: statics, threads, files",
    ),
    plugin(
        "two-instances",
        Needs::Start,
        life::two_instances,
        "two instances in one process work side by side, and one outlives the other",
        "keep the state in the plugin's value, not in statics",
    ),
    plugin(
        "settings-unknown",
        Needs::Library,
        settings::unknown,
        "a setting that does not exist is refused by its name",
        "put `#[serde(deny_unknown_fields)]` on the settings",
    ),
    plugin(
        "settings-wrong",
        Needs::Library,
        settings::wrong,
        "a value of the wrong type is refused with the name of its setting",
        "derive `Deserialize` for the settings, with types and not `Value`",
    ),
    plugin(
        "settings-odd",
        Needs::Library,
        settings::odd,
        "settings that are no JSON, no object or huge are answered, not crashed on",
        "return errors from `start`, and bound what settings may ask for",
    ),
    plugin(
        "ping",
        Needs::Start,
        life::ping,
        "the plugin answers a ping, also while it works",
        "do what takes long, and all that blocks, in `spawn_blocking`",
    ),
    plugin(
        "stdout-silent",
        Needs::Start,
        life::stdout_silent,
        "the plugin writes nothing to standard output",
        "log with `tracing`; standard output belongs to the program",
    ),
    session(
        "open-close",
        ALL,
        close::open_close,
        "a session opens and closes without a command",
        "look at `open` and `session_closed`",
    ),
    session(
        "exchange",
        ALL,
        exchange::exchange,
        "an ordinary command is answered as it should be, and finished once",
        "look at the command's own code",
    ),
    session(
        "events",
        ALL,
        exchange::events,
        "all events are declared and valid by their schemas, in what succeeds, fails and is interrupted",
        "emit the types that the manifest declares, whole",
    ),
    session(
        "interest",
        ALL,
        exchange::interest,
        "events that nobody wants are not sent, and those that somebody wants are",
        "ask the interest bits before each event; antiphon-plugin-api does so",
    ),
    session(
        "cancel",
        CANCELS,
        exchange::cancel,
        "a command that is cancelled in the middle ends soon, says nothing afterwards, and the next one works",
        "drop the work of a cancelled command",
    ),
    session(
        "many-sessions",
        ALL,
        exchange::many,
        "64 sessions at once each get their own answer",
        "keep what belongs to a session in the session",
    ),
    session(
        "empty-input",
        ALL,
        input::empty,
        "input with nothing in it is answered, and the session goes on",
        "look for what is taken from the front of an empty list",
    ),
    session(
        "huge-input",
        ALL,
        input::huge,
        "very much input at once is worked on, or can be cancelled, and the session goes on",
        "work in pieces, and bound what is kept",
    ),
    session(
        "odd-input",
        ALL,
        input::odd,
        "unusual input (other rates, channels, scripts, shapes, control characters) is answered, and the session goes on",
        "return errors for what the engine cannot do; look at what is handed to C libraries",
    ),
    session(
        "refuses-garbage",
        ASKED,
        input::garbage,
        "a request that cannot be read is refused at once, and never finished",
        "answer REFUSED when the request does not decode, also when something follows it",
    ),
    session(
        "host-full",
        ALL,
        pressure::full,
        "while the host has no room the plugin waits without spinning, and then loses nothing",
        "on FULL register a waker, try once more, then wait for it",
    ),
    session(
        "host-gone",
        ALL,
        pressure::gone,
        "when the host takes nothing any more, commands still end",
        "take CLOSED as the end of the command",
    ),
    session(
        "close-midway",
        ALL,
        close::midway,
        "a session that is closed in the middle of a command ends soon, finishes the command, and close last",
        "cancel what runs when the session is closed, whatever it waits for",
    ),
    session(
        "close-twice",
        ALL,
        close::twice,
        "every close is finished, and commands after it are answered with CLOSED",
        "remember that the session is closed, and who asked for it",
    ),
    session(
        "drop-session",
        ALL,
        close::dropped,
        "dropping a session's object in the middle of a command ends the session",
        "close the session in `Drop` of its object, and keep no sink",
    ),
    Test {
        alone: true,
        ..session(
            "memory-steady",
            ALL,
            steady::memory,
            "memory does not grow from session to session",
            "look for what is kept for a session and not removed in `session_closed`",
        )
    },
    Test {
        alone: true,
        ..session(
            "threads-steady",
            ALL,
            steady::many_threads,
            "threads do not grow from session to session",
            "end a session's threads when it is closed, or share them",
        )
    },
];

/// How many tests are the ground.
const GROUNDS: usize = 3;

impl Test {
    /// Its stable name, for a capability.
    pub(super) fn id(&self, kind: Option<Kind>) -> String {
        kind.map_or_else(|| self.name.to_owned(), |kind| format!("{kind}-{}", self.name))
    }
}

/// What all others stand on, in their order.
pub(super) fn grounds() -> impl Iterator<Item = &'static Test> {
    TESTS[..GROUNDS].iter()
}

/// The other tests of a plugin as a whole.
pub(super) fn of_plugin() -> impl Iterator<Item = &'static Test> {
    TESTS[GROUNDS..].iter().filter(|test| test.kinds.is_empty())
}

/// The tests of a capability.
pub(super) fn of_kind(kind: Kind) -> impl Iterator<Item = &'static Test> {
    TESTS.iter().filter(move |test| test.kinds.contains(&kind))
}

/// A test by its id.
pub(super) fn find(id: &str) -> Option<(&'static Test, Option<Kind>)> {
    let ids = |test: &'static Test| {
        let kinds = test.kinds.iter().map(move |kind| (test, Some(*kind)));
        kinds.chain(test.kinds.is_empty().then_some((test, None)))
    };
    TESTS.iter().flat_map(ids).find(|(test, kind)| test.id(*kind) == id)
}

/// All that a test can be called: its id, and for those of capabilities also the name that all of them share.
pub(super) fn names() -> Vec<String> {
    let ids = |test: &Test| test.kinds.iter().map(|kind| test.id(Some(*kind))).collect::<Vec<_>>();
    TESTS.iter().flat_map(|test| [vec![test.name.to_owned()], ids(test)].concat()).collect()
}

/// All tests, in the order in which they are told.
#[must_use]
pub fn tests() -> Vec<TestInfo> {
    let info = |test: &Test| TestInfo {
        id: if test.kinds.is_empty() { test.name.to_owned() } else { format!("KIND-{}", test.name) },
        claim: test.claim,
        kinds: test.kinds.to_vec(),
    };
    TESTS.iter().map(info).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_id_is_found_and_stands_once() {
        let ids: Vec<String> = Kind::ALL
            .into_iter()
            .flat_map(|kind| of_kind(kind).map(move |test| test.id(Some(kind))))
            .chain(grounds().chain(of_plugin()).map(|test| test.id(None)))
            .collect();
        assert!(ids.iter().all(|id| find(id).is_some()));
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        assert!(find("exchange").is_none() && find("turn-cancel").is_none());
    }

    #[test]
    fn the_page_of_the_book_tells_of_every_test() {
        let page = include_str!("../../../docs/src/checking-a-plugin.md");
        for test in tests() {
            let name = test.id.trim_start_matches("KIND-");
            assert!(page.contains(&format!("| `{name}` |")), "{} is not on the page", test.id);
        }
    }
}
