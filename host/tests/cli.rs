//! The command as people run it: help, bad input, configuration, exit codes. No plugins are needed here; what speaks and
//! hears is in the system tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A directory of its own for each test, and the command run in it.
struct Place(TempDir);

/// How a command ended.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().expect("a directory"));
        fs::create_dir(place.path("empty")).expect("writable");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("writable");
    }

    /// A WAV file of silence.
    fn write_silence(&self, name: &str, seconds: u32) {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 16_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(self.path(name), spec).expect("writable");
        (0..16_000 * seconds).for_each(|_| writer.write_sample(0_i16).expect("writable"));
        writer.finalize().expect("writable");
    }

    /// The command with nothing from outside: no plugins, no configuration.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
        command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null());
        command.env("ANTIPHON_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/plugin-cache"));
        for name in ["ANTIPHON_CONFIG", "ANTIPHON_PLUGIN_PATH", "RUST_LOG", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().expect("the command starts"))
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// It failed with this code, said so on standard error in these words, and did not panic.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        let Self { stdout, stderr, .. } = self;
        assert_eq!(self.code, Some(code), "stdout: {stdout}\nstderr: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("\x1b["), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in: {stderr}");
        }
    }

    /// It did its job and complained of nothing.
    #[track_caller]
    fn succeeds(&self) -> &str {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert_eq!(self.stderr, "");
        assert!(!self.stdout.contains("\x1b["), "no colours without a terminal");
        &self.stdout
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

#[test]
fn help_is_success_and_has_examples() {
    let place = Place::new();
    for command in [
        &["--help"][..],
        &["talk", "--help"],
        &["look", "-h"],
        &["plugins", "--help"],
        &["plugins", "list", "--help"],
        &["plugins", "inspect", "--help"],
        &["events", "schema", "--help"],
        &["config", "check", "--help"],
        &["doctor", "--help"],
    ] {
        let ran = place.run(command);
        assert!(ran.succeeds().contains("Examples:\n  antiphon "), "{command:?}: {}", ran.stdout);
    }
    assert!(place.run(&["--version"]).succeeds().starts_with("antiphon "));
}

#[test]
fn wrong_arguments_are_code_2() {
    let place = Place::new();
    place.run(&["tlak"]).fails(2, &["tlak", "talk"]);
    place.run(&["talk"]).fails(2, &["RECORDING"]);
    place
        .run(&["talk", "a.wav", "--set", "voice"])
        .fails(2, &["wanted PLUGIN.KEY=VALUE", "tts-flite.voice=slt"]);
    place.run(&[]).fails(2, &["Usage: antiphon"]);
}

#[test]
fn recordings_that_cannot_be_read_are_named_and_nothing_is_written() {
    let place = Place::new();
    place.write("empty.wav", "");
    place.write("text.wav", "just some words, and more of them");
    place.write("song.mp3", b"ID3\x04\0\0\0\0\0\0 and so on");
    place.write_silence("whole.wav", 1);
    let whole = fs::read(place.path("whole.wav")).expect("just written");
    place.write("cut.wav", &whole[..30]);
    for (name, words) in [
        ("none.wav", "found no file at none.wav"),
        ("empty", "found a directory at empty"),
        ("empty.wav", "found no bytes at all in empty.wav"),
        ("text.wav", "found text in text.wav"),
        ("song.mp3", "ffmpeg -i song.mp3"),
        ("cut.wav", "cut.wav is a damaged wav file"),
    ] {
        let ran = place.run(&["talk", name, "--out", "reply.wav", "--events", "events.jsonl"]);
        ran.fails(1, &[words, "error: 1 of 1 recording could not be played"]);
        assert!(!place.path("reply.wav").exists() && !place.path("events.jsonl").exists(), "{name}");
    }
}

#[test]
fn outputs_that_cannot_be_written_are_found_first() {
    let place = Place::new();
    place.write_silence("a.wav", 1);
    place.write("empty/words.so", "no library");
    for (option, path, words) in [
        ("--out", "none/reply.wav", "there is no directory none; make it with mkdir -p"),
        ("--events", "none/e.jsonl", "there is no directory none; make it with mkdir -p"),
        ("--out", "empty", "found a directory at empty"),
        ("--events", "empty", "found a directory at empty"),
    ] {
        place.run(&["talk", "a.wav", "--plugins", "empty", option, path]).fails(1, &[words]);
    }
    place
        .run(&["talk", "a.wav", "--events", "-", "--json"])
        .fails(1, &["standard output takes one thing only"]);
    place.run(&["talk", "a.wav", "--events", "x", "--out", "x"]).fails(1, &["name the same file"]);
}

#[test]
fn recordings_are_never_overwritten() {
    let place = Place::new();
    place.write_silence("a.wav", 1);
    let before = fs::read(place.path("a.wav")).expect("just written");
    fs::hard_link(place.path("a.wav"), place.path("b.wav")).expect("writable");
    for (option, path) in
        [("--out", "a.wav"), ("--out", "./a.wav"), ("--out", "b.wav"), ("--events", "a.wav")]
    {
        place.run(&["talk", "a.wav", option, path]).fails(1, &[option, "would overwrite a recording"]);
    }
    assert_eq!(fs::read(place.path("a.wav")).expect("still there"), before);
}

#[test]
fn without_plugins_it_is_said_where_they_were_looked_for() {
    let place = Place::new();
    place.write_silence("a.wav", 1);
    place.write("a.png", png());
    for command in [&["talk", "a.wav"][..], &["look", "a.png"], &["plugins", "list"]] {
        let arguments = [command, &["--plugins", "empty"]].concat();
        place.run(&arguments).fails(
            1,
            &["no plugins were found", "empty (--plugins)", "beside the program", "cargo xtask dist"],
        );
    }
    let ran = place.run(&["doctor", "--plugins", "empty"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("no plugins were found"), "{}", ran.stdout);
}

#[test]
fn events_are_recorded_also_when_nothing_can_be_done() {
    let place = Place::new();
    place.write_silence("a.wav", 1);
    place.write("broken.so", "no library");
    fs::rename(place.path("broken.so"), place.path("empty/broken.so")).expect("writable");
    let ran = place.run(&["talk", "a.wav", "--plugins", "empty", "--out", "r.wav", "--events", "e.jsonl"]);
    ran.fails(1, &["no plugin for turn detection", "no plugin for text to speech", "antiphon doctor"]);
    let events = fs::read_to_string(place.path("e.jsonl")).expect("written");
    let types: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("whole lines of JSON")["type"].to_string())
        .collect();
    assert_eq!(types.first().map(String::as_str), Some("\"plugin.lifecycle\""));
    for wanted in ["session.ready", "audio.capture.start", "audio.capture.stop", "session.closed"] {
        assert!(types.contains(&format!("\"{wanted}\"")), "no {wanted} in {types:?}");
    }
    assert_eq!(hound::WavReader::open(place.path("r.wav")).expect("a WAV file").len(), 0);
}

#[test]
fn files_that_are_no_plugins_are_listed_with_the_reason() {
    let place = Place::new();
    place.write("empty/words.so", "no library");
    place.write("empty/nothing.so", "");
    place.write("empty/windows.so", b"MZ\x90\0\x03\0\0\0");
    let ran = place.run(&["plugins", "list", "--plugins", "empty", "--plugins", "none"]);
    let text = ran.succeeds();
    for words in [
        "is a text file, not a shared library",
        "is empty",
        "is a Windows program",
        "the plugin directory cannot be read",
        "0 of 4 usable",
    ] {
        assert!(text.contains(words), "no {words:?} in: {text}");
    }
    let ran = place.run(&["plugins", "list", "--json", "--no-start", "--plugins", "empty"]);
    ran.succeeds();
    assert_eq!(ran.json()["usable"], 0);
    assert_eq!(ran.json()["plugins"][0]["state"], "failed");
    place.run(&["plugins", "inspect", "empty/words.so"]).fails(1, &["empty/words.so is a text file"]);
    place.run(&["plugins", "inspect", "none.so"]).fails(1, &["none.so cannot be read", "No such file"]);
    place.run(&["plugins", "inspect", "wrods", "--plugins", "empty"]).fails(1, &["did you mean words?"]);
}

#[test]
fn plugin_directories_come_from_the_environment_and_the_configuration_too() {
    let place = Place::new();
    for directory in ["first", "second"] {
        fs::create_dir(place.path(directory)).expect("writable");
    }
    place.write("a.toml", "[plugins]\ndirs = ['second']\n");
    let output = place
        .command(&["doctor", "--json", "--config", "a.toml", "--plugins", "empty"])
        .env("ANTIPHON_PLUGIN_PATH", "first::none")
        .output();
    let report = Ran::of(output.expect("the command starts")).json();
    let from = |index: usize| report["directories"][index]["from"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [from(0), from(1), from(2), from(3), from(4)],
        [
            "--plugins",
            "ANTIPHON_PLUGIN_PATH",
            "ANTIPHON_PLUGIN_PATH",
            "configuration file",
            "beside the program"
        ]
    );
    assert_eq!(report["directories"][2]["exists"], false);
    assert_eq!(report["ready"], false);
}

#[test]
fn broken_configurations_are_named_with_their_line() {
    let place = Place::new();
    place.write("good.toml", "[agent]\nllm = 'llm-echo'\n");
    place.write("misspelt.toml", "[agent]\n\nturn_timeout = 5\n");
    place.write("broken.toml", "[agent\n");
    assert_eq!(place.run(&["config", "check", "good.toml"]).succeeds(), "good.toml is fine\n");
    let misspelt = ["misspelt.toml:3:1: agent.turn_timeout: no such key", "did you mean turn_timeout_ms?"];
    place.run(&["config", "check", "misspelt.toml"]).fails(1, &misspelt);
    place.run(&["plugins", "list", "--config", "misspelt.toml"]).fails(1, &misspelt);
    place.run(&["config", "check", "broken.toml"]).fails(1, &["broken.toml:1:"]);
    place.run(&["doctor", "--config", "none.toml"]).fails(1, &["found no file at none.toml"]);
    let output = place.command(&["doctor"]).env("ANTIPHON_CONFIG", "empty").output();
    Ran::of(output.expect("the command starts")).fails(1, &["found a directory at empty"]);
    place.write_silence("a.wav", 1);
    place
        .run(&["talk", "a.wav", "--set", "agent.pre_roll=1"])
        .fails(1, &["--set", "agent.pre_roll: no such key", "did you mean pre_roll_ms?"]);
    place.write("empty/words.so", "no library");
    place
        .run(&["talk", "a.wav", "--set", "tts-x.voice=slt", "--plugins", "empty"])
        .fails(1, &["--set tts-x: no plugin of this name was found"]);
}

#[test]
fn schemas_are_json() {
    let place = Place::new();
    assert!(place.run(&["config", "schema"]).json()["properties"]["agent"].is_object());
    let schema = place.run(&["events", "schema", "stt.transcript.final"]).json();
    assert_eq!(schema["properties"]["type"]["const"], "stt.transcript.final");
    let all = place.run(&["events", "schema"]).json();
    let list = place.run(&["events", "list", "--json"]).json();
    assert_eq!(all.as_object().map(|all| all.len()), list.as_array().map(Vec::len));
    assert!(place.run(&["events", "list"]).succeeds().contains("tts.audio"));
    place
        .run(&["events", "schema", "stt.transcript.finl"])
        .fails(1, &["there is no event type stt.transcript.finl", "did you mean stt.transcript.final?"]);
}

#[test]
fn pictures_that_cannot_be_read_are_named() {
    let place = Place::new();
    place.write("empty.png", "");
    place.write("text.png", "just some words");
    place.write("a.gif", b"GIF89a\x01\0\x01\0\0\0\0");
    for (name, words) in [
        ("none.png", "found no file at none.png"),
        ("empty", "found a directory at empty"),
        ("empty.png", "found no bytes at all in empty.png"),
        ("text.png", "found text in text.png"),
        ("a.gif", "wanted a PNG, JPEG or WebP picture, found GIF"),
    ] {
        place.run(&["look", name, "--events", "e.jsonl"]).fails(1, &[words]);
        assert!(!place.path("e.jsonl").exists(), "{name}");
    }
    place.write("a.png", png());
    place.write("empty/words.so", "no library");
    place.run(&["look", "a.png", "--plugins", "empty"]).fails(1, &["no plugin for vision"]);
    let before = fs::read(place.path("a.png")).expect("just written");
    place.run(&["look", "a.png", "--events", "a.png"]).fails(1, &["would overwrite a picture"]);
    assert_eq!(fs::read(place.path("a.png")).expect("still there"), before);
}

#[test]
fn readers_that_go_away_are_no_error() {
    let place = Place::new();
    let mut child = place
        .command(&["events", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_full_disk_is_an_error() {
    let place = Place::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let output = place.command(&["events", "list"]).stdout(full).output().expect("the command starts");
    Ran::of(output).fails(1, &["cannot write to standard output", "No space left"]);
}

#[test]
fn paths_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"gr\xfcn.wav");
    let output =
        place.command(&["talk", "--json"]).arg(Path::new(name)).output().expect("the command starts");
    let ran = Ran::of(output);
    ran.fails(1, &["found no file at"]);
    assert_eq!(ran.json()["done"], false);
}

/// The smallest picture.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(1, 1).write_to(&mut bytes, image::ImageFormat::Png).expect("a picture");
    bytes.into_inner()
}
