//! `cargo xtask demo`: the shortest way from a fresh checkout to hearing Antiphon answer.

use std::{
    fs, io,
    path::{self, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    dist::{self, Profile},
    setup::{self, Ask, Outcome, Purpose},
    shell::{complain, run as run_command, say, step},
    workspace::Workspace,
};

/// Set up, build, and hear Antiphon answer a recording
///
/// Installs the system libraries that are missing (see `cargo xtask setup`), builds everything (see `cargo xtask dist`),
/// and plays a recording of a person who says "go forward ten meters" to an agent. Prints the conversation as it goes and
/// writes target/demo/reply.wav, the spoken answer, and target/demo/events.jsonl, every event on the bus.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to play instead: a WAV file, or raw 16 kHz mono 16-bit samples
    recording: Option<PathBuf>,
    /// Understand any English instead of the commands in tests/xtask/demo/commands.gram (slower, and hears wrongly more often)
    #[arg(long)]
    any_words: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                      the whole thing; the first build takes some minutes
  aplay target/demo/reply.wav           hear the answer
  cargo xtask demo turn-left.wav        your own voice, commands like 'turn left ninety degrees'
  cargo xtask demo --any-words hi.wav   your own words";

/// A human voice, from the Debian package `pocketsphinx-testdata`.
const RECORDING: &str = "/usr/share/pocketsphinx/test/data/goforward.raw";

/// What the speech recognition listens for, relative to the root of the workspace.
const GRAMMAR: &str = "tests/xtask/demo/commands.gram";

pub(crate) fn run(args: Args) -> Result<()> {
    let workspace = Workspace::load()?;
    // Before the long work: a typing mistake should not cost a build.
    let own = args.recording.as_deref().map(existing).transpose()?;

    match setup::ensure(Purpose::Demo, Ask::Password)? {
        Outcome::Ready => {}
        Outcome::NotDebian(missing) | Outcome::Failed(missing) => {
            complain(format_args!("warning: going on without {}", setup::names(&missing)));
        }
    }
    let recording = match own {
        Some(recording) => recording,
        None if Path::new(RECORDING).exists() => RECORDING.into(),
        None => bail!(
            "there is no recording to play: {RECORDING} comes with the Debian package pocketsphinx-testdata; \
             to use one of your own: cargo xtask demo RECORDING.wav"
        ),
    };

    let antiphon = dist::build(&workspace, Profile::Release)?;
    let folder = workspace.target.join("demo");
    let (reply, events) = (folder.join("reply.wav"), folder.join("events.jsonl"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // What is there afterwards is from this run.
    for file in [&reply, &events] {
        remove(file)?;
    }

    step(format_args!("talk: {}", recording.display()), || {
        let mut talk = Command::new(&antiphon);
        talk.arg("talk").arg(&recording);
        if !args.any_words {
            talk.args(["--set", &format!("stt-pocketsphinx.grammar={GRAMMAR}")]);
        }
        // As it would be in a room, so that the latencies are those of a conversation.
        talk.arg("--realtime");
        talk.arg("--out").arg(workspace.relative(&reply)).arg("--events").arg(workspace.relative(&events));
        talk.current_dir(&workspace.root);
        // The demo shows the plugins of this checkout, whatever the user has set up for every day.
        talk.env_remove("ANTIPHON_PLUGIN_PATH");
        run_command(&mut talk)
    })?;

    if !reply.exists() {
        bail!("antiphon wrote no {}", workspace.relative(&reply).display());
    }
    let show = |file: &Path| workspace.relative(file).display().to_string();
    say("==> done");
    say(format_args!("    the answer:  {}   (listen: aplay {0})", show(&reply)));
    say(format_args!("    the events:  {}", show(&events)));
    say(format_args!("    your turn:   {} talk --help", show(&antiphon)));
    Ok(())
}

/// The path in a form that still holds in another working directory.
fn existing(recording: &Path) -> Result<PathBuf> {
    if !recording.is_file() {
        bail!("there is no recording {}", recording.display());
    }
    path::absolute(recording).with_context(|| format!("cannot find out where {} is", recording.display()))
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
