//! People talk and are answered: recordings of human speech in, spoken replies out.

use std::path::Path;

use antiphon_host::{AgentConfig, core::event::values::InterruptReason};
use antiphon_test_support::{
    conversation::{Finished, Setup},
    events::EventLog,
    plugins::PluginDir,
    program::antiphon,
    recordings::{self, Wav, go_forward, samples, silence, write_raw},
    words::WordErrors,
};
use serde_json::Value;

use crate::{grammar, talk, temporary};

/// What is said in `goforward.raw`, and what the robot of llm-rules answers.
const COMMAND: &str = "go forward ten meters";
const ANSWER: &str = "Going forward ten meters. Tell me when to stop.";

#[test]
fn a_spoken_command_is_heard_and_answered_aloud() {
    let (plugins, directory) = (PluginDir::all(), temporary());
    let (reply, events) = (directory.path().join("reply.wav"), directory.path().join("events.jsonl"));
    let outcome = talk(&[&go_forward()], &plugins)
        .args(["--out".as_ref(), reply.as_path()])
        .args(["--events".as_ref(), events.as_path()])
        .run()
        .done();

    let events = EventLog::read(&events);
    assert_eq!(events.only("agent.user_transcript")["text"], COMMAND);
    assert_eq!(said(&events), [ANSWER]);
    for line in [format!("user: {COMMAND}"), format!("agent: {ANSWER}"), "1 turn, 1 answered".to_owned()] {
        assert!(outcome.stdout.contains(&line), "no {line:?} in {outcome}");
    }

    let reply = Wav::read(&reply);
    assert_eq!((reply.sample_rate_hz, reply.channels), (16_000, 1));
    assert!(reply.audible_seconds() > 1.0, "{} of {} s", reply.audible_seconds(), reply.seconds());
    let played_ms = events.only("agent.agent_turn_ended")["played_ms"].as_f64().expect("a number");
    assert!((reply.seconds() * 1e3 - played_ms).abs() < 1.0, "{} s, {played_ms} ms played", reply.seconds());
}

#[test]
fn the_report_for_machines_says_what_was_said_and_how_long_each_stage_took() {
    let report = talk(&[&go_forward()], &PluginDir::all()).args(["--json"]).run().done().json();
    assert_eq!(report["done"], true);
    let recording = &report["recordings"][0];
    assert_eq!((recording["turns"].as_u64(), recording["answered"].as_u64()), (Some(1), Some(1)));
    let turn = &recording["conversation"][0];
    assert_eq!((turn["user"].as_str(), turn["agent"].as_str()), (Some(COMMAND), Some(ANSWER)));
    for stage in
        ["turn_end_to_stt_final", "stt_final_to_first_token", "first_token_to_first_audio", "voice_to_voice"]
    {
        assert!(turn["durations"][stage].as_f64().is_some_and(|ms| ms >= 0.0), "{stage}: {turn}");
    }
}

#[test]
fn commands_with_a_pause_between_them_are_turns_answered_in_order() {
    let (plugins, directory) = (PluginDir::all(), temporary());
    let [recording, events] = ["two.raw", "events.jsonl"].map(|name| directory.path().join(name));
    let command = samples(&go_forward());
    write_raw(&recording, command.iter().copied().chain(silence(1500)).chain(command.iter().copied()));
    talk(&[&recording], &plugins).args(["--events".as_ref(), events.as_path()]).run().done();

    let events = EventLog::read(&events);
    assert_eq!(events.texts("agent.user_transcript", "text"), [COMMAND; 2]);
    assert_eq!(said(&events), [ANSWER; 2]);
    let order: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "agent.user_transcript" || event["type"] == "agent.agent_turn_ended")
        .map(|event| (event["turn_id"].as_u64(), event["type"].as_str().expect("checked when it was read")))
        .collect();
    let turn = |id| [(Some(id), "agent.user_transcript"), (Some(id), "agent.agent_turn_ended")];
    assert_eq!(order, [turn(1), turn(2)].concat());
    let history = events.of("conversation.history.updated").last().expect("a history");
    assert_eq!(contents(history), [COMMAND, ANSWER, COMMAND, ANSWER]);
}

#[test]
fn any_wav_is_heard_as_well_as_the_original() {
    let directory = temporary();
    let original = samples(&go_forward());
    let stereo = directory.path().join("48k-stereo-float.wav");
    write_stereo_float(&stereo, &original);
    let telephone = directory.path().join("8k-16bit.wav");
    write_halved(&telephone, &original);
    for recording in [stereo, telephone] {
        let report = talk(&[&recording], &PluginDir::all()).args(["--json"]).run().done().json();
        assert_eq!(report["recordings"][0]["conversation"][0]["user"], COMMAND, "{}", recording.display());
    }
}

#[test]
fn a_pipe_is_a_recording_too() {
    let bytes = std::fs::read(go_forward()).expect("a recording");
    let outcome = talk(&[Path::new("-")], &PluginDir::all()).args(["--json"]).input(bytes).run().done();
    assert_eq!(outcome.json()["recordings"][0]["conversation"][0]["user"], COMMAND);
}

#[test]
fn sentences_of_a_novel_are_played_to_the_end_and_mostly_understood() {
    let (plugins, directory) = (PluginDir::all(), temporary());
    let (readings, events) = (recordings::librivox(), directory.path().join("events.jsonl"));
    assert_eq!(readings.len(), 5);
    let paths = readings.iter().map(|reading| &reading.path);
    let talk = antiphon(["talk"]).args(paths).plugins(&plugins).args(["--events".as_ref(), events.as_path()]);
    let outcome = talk.run().done();
    assert!(outcome.stdout.contains("5 recordings"), "{outcome}");

    let sessions = EventLog::read(&events).sessions();
    assert_eq!(sessions.len(), readings.len());
    let mut errors = Vec::new();
    for (reading, session) in readings.iter().zip(&sessions) {
        let understood = session.texts("agent.user_transcript", "text").join(" ");
        let counted = WordErrors::between(&reading.text, &understood);
        println!("{}/{} {understood:?} for {:?}", counted.errors, counted.words, reading.text);
        errors.push(counted);
        // Every turn was answered, and every session came to its end.
        let count = |event_type| session.count(event_type);
        assert!(count("turn.started") >= 1, "{session}");
        assert_eq!(count("turn.started"), count("turn.metrics"), "{session}");
        assert_eq!((count("session.closed"), count("agent.error")), (1, 0), "{session}");
    }
    let total: WordErrors = errors.into_iter().sum();
    assert!(total.rate() <= 0.40, "{total:?}: {:.0} % word errors", total.rate() * 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_text_is_answered_like_speech() {
    let mut talk = Setup::with(PluginDir::of(&["llm-rules", "tts-flite"])).start().await;
    let turn = talk.ask(COMMAND).await;
    let transcript = turn.only("agent.user_transcript");
    assert_eq!((transcript["text"].as_str(), transcript["modality"].as_str()), (Some(COMMAND), Some("text")));
    assert_eq!(said(&turn), [ANSWER]);
    let Finished { summary, events, .. } = talk.finish().await;
    assert_eq!((summary.turns, summary.answered, summary.failed), (1, 1, 0));
    assert_eq!(events.only("session.closed")["reason"], "sdk_request");
}

/// Speech of some seconds; its first sentence is short.
const SPEECH: &str = "Listen. This is a long announcement that goes on and on. Nobody has the patience to hear all of it. \
                      It says nothing of interest to anybody. Still it goes on.";

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_speech_stops_and_only_what_was_heard_is_remembered() {
    let setup = Setup::with(PluginDir::of(&["llm-rules", "tts-flite"])).in_real_time();
    let mut talk = setup.start().await;
    talk.agent.say(SPEECH).await.expect("the agent speaks");
    // The first sentence has been heard when the second begins.
    talk.until_one(
        |event| event["type"] == "agent.agent_transcript" && event["content_index"] == 1,
        "the second sentence",
    )
    .await;
    talk.agent.interrupt(InterruptReason::Manual).await.expect("the agent speaks");
    talk.until("agent.agent_turn_ended").await;
    let finished = talk.finish().await;

    let events = &finished.events;
    let cut = events.only("speech.interrupted");
    assert_eq!((cut["reason"].as_str(), events.count("speech.complete")), (Some("manual"), 0));
    let heard = cut["spoken_text"].as_str().expect("something was heard");
    assert!(
        SPEECH.starts_with(heard) && heard.starts_with("Listen.") && heard.len() < SPEECH.len(),
        "{heard}"
    );
    let ended = events.only("agent.agent_turn_ended");
    assert_eq!((ended["interrupted"].as_bool(), ended["spoken_text"].as_str()), (Some(true), Some(heard)));
    assert_eq!(ended["generated_text"], SPEECH);
    assert_eq!(said(events), [heard]);
    let history = events.of("conversation.history.updated").last().expect("a history");
    assert_eq!(contents(history), [heard]);
    assert_eq!(history["messages"][0]["interrupted"], true);

    // After the interruption at most the piece that was on its way left the agent.
    let played_ms = ended["played_ms"].as_f64().expect("a number");
    assert!(
        (0.0..=20.0).contains(&(finished.spoken_ms() - played_ms)),
        "{} {played_ms}",
        finished.spoken_ms()
    );
    assert_eq!((events.count("audio.playback.start"), events.count("audio.playback.end")), (1, 1));
    let cancelled = events.of("tts.synthesis.complete").filter(|event| event["cancelled"] == true).count();
    let begun = events.count("tts.synthesis.start");
    assert_eq!(begun, events.count("tts.synthesis.complete"), "{cancelled} cancelled:\n{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_while_the_agent_speaks_interrupts_it_and_is_answered() {
    let setup = Setup::with(PluginDir::all()).in_real_time().set("stt-pocketsphinx", "grammar", grammar());
    let mut talk = setup.start().await;
    talk.agent.say(SPEECH).await.expect("the agent speaks");
    talk.until("audio.playback.start").await;
    talk.play(&go_forward()).await;
    talk.agent.end_audio().await.expect("the agent listens");
    let cut = talk.until("speech.interrupted").await;
    assert_eq!(cut["reason"], "user_speaking");
    let first = talk.until("agent.agent_turn_ended").await;
    talk.until("audio.playback.start").await;
    let Finished { events, summary, .. } = talk.finish().await;
    assert_eq!(events.only("agent.user_transcript")["text"], COMMAND);
    assert_eq!(events.count("speech.interrupted"), 1);
    let heard = first["spoken_text"].as_str().unwrap_or_default();
    assert!(SPEECH.starts_with(heard) && heard.len() < SPEECH.len(), "{heard}");
    assert_eq!(said(&events).last(), Some(&ANSWER));
    assert_eq!((summary.turns, summary.answered), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_text_interrupts_too() {
    let mut talk = Setup::with(PluginDir::of(&["llm-rules", "tts-flite"])).in_real_time().start().await;
    talk.agent.say(SPEECH).await.expect("the agent speaks");
    talk.until("audio.playback.start").await;
    talk.agent.send_text("stop").await.expect("the agent takes text");
    assert_eq!(talk.until("speech.interrupted").await["reason"], "new_input");
    talk.until("audio.playback.start").await;
    let Finished { events, .. } = talk.finish().await;
    assert_eq!(said(&events).last(), Some(&"Stopping. I stay where I am."));
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_side_by_side_do_not_hear_each_other() {
    let setup = Setup::with(PluginDir::all()).set("stt-pocketsphinx", "grammar", grammar());
    let talk = setup.start().await;
    let other = talk.host.agent().start().await.expect("a second agent");
    let silent = talk.host.agent().start().await.expect("a third agent");
    let other_id = other.session_id().to_string();
    let recording = go_forward();
    let speak = async {
        talk.play(&recording).await;
        talk.agent.end_audio().await.expect("the agent listens");
    };
    let type_text = async { other.send_text("stop").await.expect("the agent takes text") };
    tokio::join!(speak, type_text);
    silent.finish().await.expect("the third agent ends");
    other.finish().await.expect("the second agent ends");
    let Finished { events, .. } = talk.finish().await;

    let sessions = events.sessions();
    assert_eq!(sessions.len(), 3);
    for session in &sessions {
        let id = session.0[0]["session_id"].as_str();
        let heard = session.texts("agent.user_transcript", "text");
        let positions: Vec<_> = session.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert_eq!(positions, (1..=session.0.len() as u64).collect::<Vec<_>>());
        match heard.as_slice() {
            [COMMAND] => assert_eq!(said(session), [ANSWER]),
            ["stop"] => assert_eq!((id, said(session).len()), (Some(other_id.as_str()), 1)),
            [] => assert_eq!(session.count("turn.started"), 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(events.count("agent.user_transcript"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_plugin_answers() {
    let config = AgentConfig { llm: Some("llm-echo".into()), ..AgentConfig::default() };
    let plugins = PluginDir::of(&["llm-rules", "llm-echo"]);
    let mut talk = Setup::with(plugins).set("llm-echo", "prefix", "I heard").config(config).start().await;
    assert_eq!(said(&talk.ask(COMMAND).await), ["I heard go forward ten meters."]);
    talk.finish().await;
}

/// What the agent said, reply by reply, as far as it was heard.
fn said(events: &EventLog) -> Vec<&str> {
    events
        .of("agent.agent_transcript")
        .filter(|event| event["mode"] == "final")
        .filter_map(|event| event["text"].as_str())
        .collect()
}

/// The messages of a history.
fn contents(history: &Value) -> Vec<&str> {
    let messages = history["messages"].as_array().expect("a history has messages");
    messages.iter().filter_map(|message| message["content"].as_str()).collect()
}

/// Three times the rate, two channels, floating point.
fn write_stereo_float(path: &Path, samples: &[i16]) {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 48_000,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("room for a recording");
    for pair in samples.windows(2) {
        for third in 0..3_u8 {
            let between =
                f32::from(pair[0]) + (f32::from(pair[1]) - f32::from(pair[0])) * f32::from(third) / 3.0;
            for _ in 0..2 {
                writer.write_sample(between / 32_768.0).expect("room for a recording");
            }
        }
    }
    writer.finalize().expect("room for a recording");
}

/// Half the rate: what a telephone leaves of speech.
fn write_halved(path: &Path, samples: &[i16]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("room for a recording");
    for pair in samples.as_chunks::<2>().0 {
        let mean = (i32::from(pair[0]) + i32::from(pair[1])) / 2;
        writer.write_sample(mean).expect("room for a recording");
    }
    writer.finalize().expect("room for a recording");
}
