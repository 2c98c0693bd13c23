//! What users get wrong: each mistake is named, nothing is lost, nothing panics, and what can be done is done.

use std::{fs, path::Path};

use antiphon_test_support::{
    events::EventLog,
    plugins::PluginDir,
    program::{Outcome, Program, antiphon},
    recordings::{self, Wav, go_forward, silence, write_raw, write_wav},
};
use tempfile::TempDir;

use crate::{fixture, talk, temporary};

/// `antiphon` in a directory of the test's own, with all our plugins.
fn run<const N: usize>(directory: &TempDir, arguments: [&str; N]) -> Outcome {
    program(directory, arguments).run()
}

fn program<const N: usize>(directory: &TempDir, arguments: [&str; N]) -> Program {
    antiphon(arguments).plugins(&PluginDir::all()).directory(directory.path())
}

/// The job was refused, in words that hold each of these.
#[track_caller]
fn check_refused<const N: usize>(directory: &TempDir, arguments: [&str; N], words: &[&str]) {
    let outcome = run(directory, arguments).complained(1, words);
    // Before any work: not even a session was opened.
    assert!(!outcome.stdout.contains("session.ready"), "{outcome}");
}

/// A directory with a file in it.
fn directory_with(name: &str, bytes: impl AsRef<[u8]>) -> TempDir {
    let directory = temporary();
    fs::write(directory.path().join(name), bytes).expect("room for a file");
    directory
}

fn silent_wav() -> TempDir {
    let directory = temporary();
    write_wav(&directory.path().join("silent.wav"), silence(2000));
    directory
}

/// A WAV file of no samples whose codec is `tag`.
fn wav_of_codec(tag: u16) -> Vec<u8> {
    let mut wav =
        b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0..\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\x08\0\0\0--------"
            .to_vec();
    wav[20..22].copy_from_slice(&tag.to_le_bytes());
    wav
}

#[test]
fn what_is_no_recording_is_refused_by_name_and_by_what_it_is() {
    let sentence = fs::read(&recordings::librivox()[1].path).expect("a recording");
    let program = fs::read("/proc/self/exe").expect("a program");
    let cases: [(&str, &[u8], &[&str]); 8] = [
        ("empty.wav", b"", &["no bytes at all in empty.wav"]),
        ("empty.raw", b"", &["no bytes at all in empty.raw"]),
        ("notes.wav", b"This is no recording.\n", &["wanted a wav recording", "text in notes.wav"]),
        ("program.wav", &program[..4096], &["ELF", "program.wav"]),
        ("header.wav", &sentence[..20], &["header.wav is a damaged wav file"]),
        ("odd.raw", &sentence[100..4101], &["4001 bytes in odd.raw"]),
        ("telephone.wav", &wav_of_codec(7), &["G.711 mu-law", "telephone.wav", "ffmpeg -i telephone.wav"]),
        ("apple.wav", b"FORM\0\0\0\x2eAIFFCOMM\0\0\0\x12", &["apple.wav", "ffmpeg -i apple.wav"]),
    ];
    for (name, bytes, words) in cases {
        check_refused(&directory_with(name, bytes), ["talk", name], words);
    }
    let directory = temporary();
    check_refused(&directory, ["talk", "missing.wav"], &["no file at missing.wav"]);
    check_refused(&directory, ["talk", "."], &["found a directory at ."]);
    check_refused(&directory, ["talk", "-"], &["no bytes at all in standard input"]);
}

#[test]
fn of_a_recording_that_is_cut_off_the_rest_is_heard_and_the_user_told() {
    let sentence = &recordings::librivox()[1];
    let mut bytes = fs::read(&sentence.path).expect("a recording");
    bytes.truncate(bytes.len() - 20_000);
    let directory = directory_with("cut.wav", bytes);
    let outcome = run(&directory, ["talk", "cut.wav", "--json"]).complained(0, &["cut.wav is cut off"]);
    let report = outcome.json();
    assert_eq!(report["recordings"][0]["turns"], 1);
    assert!(report["recordings"][0]["duration_ms"].as_f64().is_some_and(|ms| ms > 2000.0), "{report}");
}

#[test]
fn a_recording_without_speech_is_a_valid_run_without_turns() {
    let directory = silent_wav();
    write_raw(&directory.path().join("silent.raw"), silence(100));
    write_wav(&directory.path().join("nothing.wav"), []);
    for name in ["silent.wav", "silent.raw", "nothing.wav"] {
        let arguments = ["talk", name, "--out", "reply.wav", "--events", "events.jsonl"];
        let outcome = run(&directory, arguments).done();
        assert!(outcome.stdout.contains(&format!("no speech was found in {name}")), "{outcome}");
        let events = EventLog::read(&directory.path().join("events.jsonl"));
        assert_eq!((events.count("turn.started"), events.count("session.closed")), (0, 1), "{events}");
        assert_eq!(Wav::read(&directory.path().join("reply.wav")).samples, [] as [i16; 0]);
    }
}

#[test]
fn one_bad_recording_does_not_keep_the_others_from_being_played() {
    let directory = directory_with("notes.wav", "no recording");
    let recordings = [Path::new("notes.wav"), &go_forward(), Path::new("missing.wav")];
    let outcome =
        talk(&recordings, &PluginDir::all()).args(["--json"]).directory(directory.path()).run().complained(
            1,
            &["text in notes.wav", "no file at missing.wav", "2 of 3 recordings could not be played"],
        );
    let report = outcome.json();
    assert_eq!(report["done"], false);
    assert_eq!(report["recordings"][0]["conversation"][0]["user"], "go forward ten meters");
}

#[test]
fn wrong_configuration_is_named_with_file_line_and_suggestion() {
    let cases: [(&str, &[&str]); 8] = [
        ("[agent]\nllmm = 'x'\n", &["a.toml:2:1", "agent.llmm", "did you mean llm?"]),
        ("[agnet]\n", &["a.toml:1:2", "agnet", "did you mean agent?"]),
        ("[agent]\nllm =\n", &["a.toml:2:"]),
        ("[agent]\n\npre_roll_ms = 'long'\n", &["a.toml:3:", "agent.pre_roll_ms", "wanted a whole number"]),
        ("[agent]\npre_roll_ms = 6000\n", &["a.toml:2:", "agent.pre_roll_ms", "5000"]),
        ("[plugin.tts-flite]\nvioce = 'slt'\n", &["a.toml:2", "tts-flite", "vioce", "did you mean voice?"]),
        ("[plugin.tts-flite]\nvoice = 'bob'\n", &["a.toml:2", "tts-flite", "voice", "bob"]),
        ("[plugin.turn-earshot]\nhangover_ms = 7\n", &["a.toml:2", "turn-earshot", "hangover_ms", "100"]),
    ];
    for (text, words) in cases {
        let directory = silent_wav();
        fs::write(directory.path().join("a.toml"), text).expect("room for a file");
        check_refused(&directory, ["talk", "silent.wav", "--config", "a.toml"], words);
    }
    let directory = silent_wav();
    let talk = |config| ["talk", "silent.wav", "--config", config];
    check_refused(&directory, talk("none.toml"), &["no file at none.toml"]);
    check_refused(&directory, talk("."), &["a directory at ."]);
    check_refused(&directory, talk("silent.wav"), &["silent.wav", "no text"]);
    let from_environment =
        program(&directory, ["talk", "silent.wav"]).env("ANTIPHON_CONFIG", "none.toml").run();
    from_environment.complained(1, &["no file at none.toml"]);
}

#[test]
fn settings_for_a_plugin_that_is_not_there_are_a_warning_in_a_file_and_an_error_in_a_command() {
    let directory = silent_wav();
    fs::write(directory.path().join("a.toml"), "\n[plugin.tts-flight]\nvoice = 'slt'\n")
        .expect("room for a file");
    let outcome = run(&directory, ["talk", "silent.wav", "--config", "a.toml"]);
    outcome.complained(0, &["a.toml:2", "tts-flight", "did you mean tts-flite?"]);
    let set = |setting| ["talk", "silent.wav", "--set", setting];
    check_refused(&directory, set("tts-flight.voice=slt"), &["tts-flight", "did you mean tts-flite?"]);
    check_refused(&directory, set("tts-flite.vioce=slt"), &["tts-flite", "vioce", "did you mean voice?"]);
    check_refused(&directory, set("agent.maximum=1"), &["agent.maximum", "max_messages"]);
    run(&directory, set("voice")).complained(2, &["voice", "PLUGIN.KEY=VALUE"]);
}

#[test]
fn what_a_setting_names_must_be_there_and_make_sense() {
    let directory = silent_wav();
    let file =
        |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("room for a file");
    file("broken.gram", "#JSGF V1.0;\ngrammar g;\npublic <g> = go (forward;\n");
    file("broken.toml", "fallback = 'x'\n\n[[rule]]\nname = 'a'\npattern = '('\nreply = 'b'\n");
    let cases: [(&str, &[&str]); 5] = [
        ("stt-pocketsphinx.grammar=none.gram", &["stt-pocketsphinx", "none.gram"]),
        ("stt-pocketsphinx.grammar=broken.gram", &["stt-pocketsphinx", "grammar"]),
        ("stt-pocketsphinx.model=none", &["stt-pocketsphinx", "none"]),
        ("llm-rules.file=none.toml", &["llm-rules", "none.toml"]),
        ("llm-rules.file=broken.toml", &["llm-rules", "broken.toml", "5"]),
    ];
    for (setting, words) in cases {
        let outcome = run(&directory, ["talk", "silent.wav", "--set", setting]);
        outcome.complained(1, words);
    }
}

#[test]
fn output_that_cannot_be_written_is_found_before_the_work() {
    let directory = silent_wav();
    fs::create_dir(directory.path().join("folder")).expect("room for a folder");
    let out = |path| ["talk", "silent.wav", "--out", path];
    check_refused(&directory, out("none/reply.wav"), &["none/reply.wav", "no directory none"]);
    check_refused(&directory, out("folder"), &["found a directory at folder"]);
    check_refused(&directory, out("silent.wav"), &["--out silent.wav would overwrite a recording"]);
    let events = |path| ["talk", "silent.wav", "--events", path];
    check_refused(&directory, events("none/e.jsonl"), &["none/e.jsonl", "no directory none"]);
    check_refused(&directory, events("folder"), &["found a directory at folder"]);
    check_refused(&directory, events("silent.wav"), &["--events silent.wav would overwrite a recording"]);
    check_refused(&directory, ["talk", "silent.wav", "--out", "x", "--events", "x"], &["the same file"]);
    check_refused(&directory, ["talk", "silent.wav", "--out", "-", "--events", "-"], &["standard output"]);
    assert!(Wav::read(&directory.path().join("silent.wav")).seconds() > 1.9, "the recording was overwritten");
}

#[test]
fn a_job_that_is_refused_leaves_older_results_alone() {
    let directory = directory_with("reply.wav", "an older reply");
    let arguments = ["talk", "missing.wav", "--out", "reply.wav"];
    check_refused(&directory, arguments, &["no file at missing.wav"]);
    assert_eq!(
        fs::read_to_string(directory.path().join("reply.wav")).expect("still there"),
        "an older reply"
    );
}

#[test]
fn a_full_disk_is_told_and_not_taken_for_success() {
    for option in ["--out", "--events"] {
        let talk = talk(&[&go_forward()], &PluginDir::all()).args([option, "/dev/full"]);
        talk.run().complained(1, &["/dev/full"]);
    }
}

#[test]
fn what_is_no_picture_is_refused_and_the_others_are_looked_at() {
    let picture = fs::read(fixture("go-forward.png")).expect("a picture");
    let directory = directory_with("notes.png", "no picture\n");
    let file =
        |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).expect("room for a file");
    file("empty.png", b"");
    file("cut.png", &picture[..picture.len() / 2]);
    file("code.png", &picture);
    for (name, word) in
        [("notes.png", "text"), ("empty.png", "empty"), ("cut.png", "cut.png"), ("none.png", "no file")]
    {
        run(&directory, ["look", name]).complained(1, &[name, word]);
    }
    let outcome = run(&directory, ["look", "notes.png", "code.png"]).complained(1, &["notes.png"]);
    assert!(outcome.stdout.contains("go forward ten meters"), "{outcome}");
}

#[test]
fn names_that_do_not_exist_are_told() {
    let directory = temporary();
    run(&directory, ["events", "schema", "stt.transcript.fianl"]).complained(1, &["stt.transcript.fianl"]);
    run(&directory, ["plugins", "inspect", "none.so"]).complained(1, &["none.so"]);
    run(&directory, ["tlak"]).complained(2, &["tlak", "talk"]);
    run(&directory, ["talk"]).complained(2, &["RECORDING"]);
    run(&directory, ["talk", "x.raw", "--raw-rate", "fast"]).complained(2, &["fast", "--raw-rate"]);
    write_raw(&directory.path().join("x.raw"), silence(100));
    check_refused(&directory, ["talk", "x.raw", "--raw-rate", "1"], &["1 Hz", "x.raw"]);
    check_refused(&directory, ["talk", "x.raw", "--raw-channels", "7"], &["7", "x.raw"]);
}
