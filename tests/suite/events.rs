//! Events as everybody outside sees them: lines of JSON that fit their schemas, whole and in order, also when the
//! program is stopped in the middle.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use antiphon_test_support::{
    conversation::{Finished, Setup},
    events::EventLog,
    plugins::PluginDir,
    program::{Program, Running, antiphon},
    recordings::{self, Wav, go_forward, samples, silence, write_raw},
};
use jsonschema::Validator;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{fixture, temporary};

/// What each event type promises, from `antiphon events schema`.
struct Schemas(BTreeMap<String, (Value, Validator)>);

impl Schemas {
    /// The schemas of the host and of all our plugins.
    fn of_everything() -> &'static Self {
        static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
        SCHEMAS.get_or_init(|| {
            let schemas = antiphon(["events", "schema"]).plugins(&PluginDir::all()).run().done().json();
            let Value::Object(schemas) = schemas else { panic!("no schemas: {schemas}") };
            Self(schemas.into_iter().map(|(name, schema)| (name, compile(schema))).collect())
        })
    }

    #[track_caller]
    fn check(&self, events: &EventLog) {
        assert!(!events.0.is_empty());
        for event in events.iter() {
            let name = event["type"].as_str().expect("checked when it was read");
            let (_, validator) = self.0.get(name).unwrap_or_else(|| panic!("{name} has no schema"));
            fits(validator, event);
        }
    }

    /// Whether an event type derives from another.
    fn extends(&self, name: &str, base: &str) -> bool {
        let bases = self.0[name].0["x-extends"].as_array().expect("every schema names its bases");
        bases.iter().any(|known| known == base)
    }
}

fn compile(schema: Value) -> (Value, Validator) {
    let validator = jsonschema::options().should_validate_formats(true).build(&schema);
    let validator = validator.unwrap_or_else(|error| panic!("{error}: {schema}"));
    (schema, validator)
}

#[track_caller]
fn fits(validator: &Validator, event: &Value) {
    let problems: Vec<String> =
        validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{}\n{event}", problems.join("\n"));
}

/// Two commands with a pause between them, heard and answered by the program: its events.
fn two_turns() -> &'static EventLog {
    static EVENTS: OnceLock<EventLog> = OnceLock::new();
    EVENTS.get_or_init(|| {
        let directory = temporary();
        let [recording, events] = ["two.raw", "events.jsonl"].map(|name| directory.path().join(name));
        let command = samples(&go_forward());
        write_raw(&recording, command.iter().copied().chain(silence(1500)).chain(command.iter().copied()));
        talk(&recording, &PluginDir::all(), &events).run().done();
        EventLog::read(&events)
    })
}

/// A picture, looked at by the program: its events.
fn a_look() -> EventLog {
    let directory = temporary();
    let events = directory.path().join("events.jsonl");
    let look = antiphon(["look"]).args([fixture("go-forward.png")]).plugins(&PluginDir::of(&["vision-qr"]));
    look.args(["--events".as_ref(), events.as_path()]).run().done();
    EventLog::read(&events)
}

fn talk(recording: &Path, plugins: &PluginDir, events: &Path) -> Program {
    crate::talk(&[recording], plugins).args(["--events".as_ref(), events])
}

#[test]
fn every_line_fits_the_schema_of_its_type() {
    Schemas::of_everything().check(two_turns());
    let look = a_look();
    Schemas::of_everything().check(&look);
    assert!(look.iter().any(|event| event["plugin_name"] == "vision-qr" && event["session_id"].is_string()));
}

#[test]
fn each_type_has_the_same_schema_alone_and_among_all() {
    let plugins = PluginDir::all();
    for name in ["stt.transcript.final", "vision_qr.codes"] {
        let alone = antiphon(["events", "schema", name]).plugins(&plugins).run().done().json();
        assert_eq!(alone, Schemas::of_everything().0[name].0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_failures_fit_their_schemas_too() {
    let setup = Setup::with(PluginDir::empty().with_misbehave()).set("misbehave", "start", "well");
    let mut talk = setup.start().await;
    for text in ["panic", "fail", "undeclared x", "declared x", "say fail now. Well again."] {
        talk.ask(text).await;
    }
    let registry = talk.host.bus().registry().clone();
    let Finished { events, .. } = talk.finish().await;
    let mut validators = BTreeMap::new();
    for event in events.iter() {
        let name = event["type"].as_str().expect("events have types");
        let (_, validator) = validators
            .entry(name)
            .or_insert_with(|| compile(registry.find(name).expect("a known type").schema()));
        fits(validator, event);
    }
    for name in ["llm.error", "tts.error", "agent.error", "misbehave.declared"] {
        assert!(validators.contains_key(name), "{name}");
    }
}

#[test]
fn ids_are_unique_and_positions_have_no_gaps() {
    for events in [two_turns(), &a_look()] {
        let mut ids = HashSet::new();
        let mut last: BTreeMap<Option<&str>, u64> = BTreeMap::new();
        for event in events.iter() {
            let id = event["event_id"].as_str().expect("an id");
            assert!(ids.insert(id), "twice: {id}");
            // The host's own events have no session, and count on their own.
            let scope = last.entry(event["session_id"].as_str()).or_default();
            *scope += 1;
            assert_eq!(event["seq"], *scope, "{event}");
        }
        assert_eq!(last.len(), 2, "the host and one session");
    }
}

#[test]
fn time_does_not_go_back_within_a_session() {
    for session in two_turns().sessions() {
        let times: Vec<_> = session.iter().map(|event| event["mono_ns"].as_u64()).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}

#[test]
fn events_of_plugins_name_plugin_and_version_and_no_others_do() {
    let schemas = Schemas::of_everything();
    for event in two_turns().iter().chain(a_look().iter()) {
        let name = event["type"].as_str().expect("checked when it was read");
        let is_plugins = schemas.extends(name, "PluginBaseEvent");
        for field in ["plugin_name", "plugin_version"] {
            let text = event[field].as_str();
            assert_eq!(text.is_some_and(|text| !text.is_empty()), is_plugins, "{field}: {event}");
        }
    }
    // Each kind of work was done by the plugin for it.
    let by = |event_type: &str| two_turns().of(event_type).next().map(|event| event["plugin_name"].clone());
    for (event_type, plugin) in [
        ("turn.started", "turn-earshot"),
        ("stt.transcript.final", "stt-pocketsphinx"),
        ("llm.response.final", "llm-rules"),
        ("tts.synthesis.complete", "tts-flite"),
    ] {
        assert_eq!(by(event_type), Some(plugin.into()), "{event_type}");
    }
}

#[test]
fn a_plugins_own_event_says_what_it_extends() {
    let look = a_look();
    let codes = look.only("vision_qr.codes");
    assert!(Schemas::of_everything().extends("vision_qr.codes", "vision.detection"));
    // Fields of the base beside fields of its own.
    assert_eq!(codes["detection_count"], 1);
    assert!(codes.to_string().contains("go forward ten meters"), "{codes}");
}

#[test]
fn what_happens_in_a_turn_is_told_in_the_order_of_the_pipeline() {
    let order = [
        "turn.started",
        "turn.ended",
        "stt.transcript.final",
        "stt.transcript.utterance_final",
        "agent.user_transcript",
        "llm.request.start",
        "llm.response.delta",
        "speech.start",
        "tts.synthesis.start",
        "audio.playback.start",
        "audio.playback.end",
        "agent.agent_turn_ended",
    ];
    let events = two_turns();
    let starts: Vec<usize> = positions(events, "turn.started");
    assert_eq!(starts.len(), 2);
    let turns = [&events.0[starts[0]..starts[1]], &events.0[starts[1]..]];
    for turn in turns.map(|turn| EventLog(turn.to_vec())) {
        turn.assert_order(&order);
        turn.assert_order(&["agent.user_turn_started", "agent.user_turn_ended", "agent.user_transcript"]);
        turn.assert_order(&["audio.playback.start", "agent.agent_turn_started", "audio.playback.end"]);
        // Each of these tells of something that happens once in a reply.
        for event_type in [
            "agent.user_transcript",
            "llm.request.start",
            "llm.response.final",
            "speech.start",
            "speech.complete",
            "audio.playback.start",
            "audio.playback.end",
            "agent.agent_turn_started",
            "agent.agent_turn_ended",
            "turn.metrics",
        ] {
            assert_eq!(turn.count(event_type), 1, "{event_type} in:\n{turn}");
        }
        let deltas: String = turn.texts("llm.response.delta", "delta").concat();
        assert_eq!(turn.only("llm.response.final")["text"], deltas);
    }
    ends_in_order(events);
}

/// The conversation's last word, then the plugins': each stops once.
#[track_caller]
fn ends_in_order(events: &EventLog) {
    let last = |event_type: &str| positions(events, event_type).last().copied();
    let closed = last("session.closed").unwrap_or_else(|| panic!("no end: {events}"));
    for event in events.iter().skip(closed + 1) {
        assert_eq!(
            (event["type"].as_str(), event["phase"].as_str()),
            (Some("plugin.lifecycle"), Some("stopped"))
        );
    }
}

fn positions(events: &EventLog, event_type: &str) -> Vec<usize> {
    let of_type = events.iter().enumerate().filter(|(_, event)| event["type"] == event_type);
    of_type.map(|(position, _)| position).collect()
}

/// A program in the middle of its answer, with a minute of recording still to come.
struct Speaking {
    running: Running,
    events: PathBuf,
    reply: PathBuf,
    _files: (TempDir, PluginDir),
}

fn speaking() -> Speaking {
    let (directory, plugins) = (temporary(), PluginDir::all());
    let path = |name| directory.path().join(name);
    let (recording, events, reply) = (path("long.raw"), path("events.jsonl"), path("reply.wav"));
    write_raw(&recording, samples(&go_forward()).into_iter().chain(silence(60_000)));
    let talk = talk(&recording, &plugins, &events).args(["--realtime"]);
    let mut running = talk.args(["--out".as_ref(), reply.as_path()]).start();
    running.until_line(|line| line.contains("audio.playback.start"));
    Speaking { running, events, reply, _files: (directory, plugins) }
}

#[test]
fn a_program_that_is_killed_leaves_whole_lines_and_a_whole_recording() {
    let Speaking { running, events, reply, _files } = speaking();
    running.signal(Signal::KILL);
    running.end().killed_by(Signal::KILL);
    let events = EventLog::read(&events);
    Schemas::of_everything().check(&events);
    assert_eq!(events.count("session.closed"), 0, "it was not in the middle");
    assert_eq!(Wav::read(&reply).sample_rate_hz, recordings::SAMPLE_RATE_HZ);
}

#[test]
fn ctrl_c_ends_the_conversation_in_order() {
    let Speaking { running, events, reply, _files } = speaking();
    running.signal(Signal::INT);
    let outcome = running.end().complained(130, &["stopping"]);
    assert!(outcome.stdout.contains("session.closed"), "{outcome}");

    let events = EventLog::read(&events);
    Schemas::of_everything().check(&events);
    assert_eq!(events.only("speech.interrupted")["reason"], "shutdown");
    ends_in_order(&events);
    let reply = Wav::read(&reply);
    let played_ms = events.only("agent.agent_turn_ended")["played_ms"].as_f64().expect("a number");
    let late_ms = reply.seconds() * 1e3 - played_ms;
    assert!((0.0..=20.0).contains(&late_ms), "{} s, {played_ms} ms played", reply.seconds());
}

#[test]
fn events_go_to_standard_output_alone_where_they_are_asked_for() {
    let outcome = talk(&go_forward(), &PluginDir::all(), Path::new("-")).run().done();
    let events = EventLog::parse(&outcome.stdout);
    Schemas::of_everything().check(&events);
    ends_in_order(&events);
}
