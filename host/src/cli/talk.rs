//! `antiphon talk`: plays recordings to an agent, and writes what it answers and what happened.
//!
//! Everything that can be wrong with inputs and outputs is found before a plugin is opened.

mod conversation;
mod recording;
mod report;
mod timeline;
mod voice;

use std::path::{Path, PathBuf};

use antiphon_core::EventBus;
use antiphon_host::media::{RawFormat, SOURCE_RATE_HZ};
use anyhow::{Result, anyhow, bail};

use self::{
    conversation::Run,
    recording::Recording,
    report::{Holds, Reporter, RunReport, Written},
    timeline::Timeline,
    voice::Voice,
};
use super::{
    Exit,
    output::{self, complain},
    record::{EventsFile, Lines},
    setting::Setting,
    setup::{Global, Setup},
    stop::Stop,
};

/// Play recordings to an agent; it hears, thinks and answers aloud
///
/// Each recording is one conversation: several turns, if there are pauses in it. The recordings are played one after the
/// other, faster than real time unless you say --realtime. On the way a timeline shows what happens: the time since the
/// conversation began, the event, the plugin, what was said and how long each stage took.
///
/// Recordings are WAV files (4 to 192 kHz, 1 or 2 channels, 8 to 32 bits or float) or headerless samples (.raw, .pcm,
/// or a pipe): 16-bit little-endian, 16 kHz, one channel, unless --raw-rate and --raw-channels say otherwise.
///
/// Faster than real time, the agent answers each turn before it hears on, and the latency of speech to text includes
/// catching up with the recording; with --realtime latencies are those that a person would wait.
///
/// A recording that cannot be read does not keep the others from being played. A stage without a plugin does not keep the
/// others from working, and what is missing is said. In both cases the exit code is 1. A recording without speech is
/// fine.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Recordings, or - for standard input
    #[arg(required = true, value_name = "RECORDING")]
    recordings: Vec<PathBuf>,
    /// Write what the agent says to this WAV file (-: standard output)
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write every event to this file, one JSON object per line (-: standard output). Readers see whole lines at any time
    #[arg(short, long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Change a setting of a plugin, or of the conversation: agent.KEY=VALUE. VALUE is TOML, else text; repeat it for more
    #[arg(short, long = "set", value_name = "PLUGIN.KEY=VALUE")]
    set: Vec<Setting>,
    /// Play as time passes. The agent is then interrupted by who speaks while it does
    #[arg(long)]
    realtime: bool,
    /// Print one JSON object at the end instead of the timeline: what was said, each turn's latencies, what failed
    #[arg(long)]
    json: bool,
    /// Sample rate of headerless recordings
    #[arg(long, value_name = "HZ", default_value_t = SOURCE_RATE_HZ)]
    raw_rate: u32,
    /// Channels of headerless recordings: 1 or 2
    #[arg(long, value_name = "N", default_value_t = 1)]
    raw_channels: u16,
}

const EXAMPLES: &str = "\
Examples:
  antiphon talk question.wav
  antiphon talk question.wav --out reply.wav --events events.jsonl
  antiphon talk monday.wav tuesday.wav --json > report.json
  antiphon talk question.wav --set tts-flite.voice=slt --set agent.llm=llm-echo
  arecord -f S16_LE -r 16000 -c 1 | antiphon talk - --realtime
  antiphon talk question.wav --events - | jq -r 'select(.type == \"agent.user_transcript\").text'";

/// Where everything goes that is written.
struct Outputs {
    voice: Option<Voice>,
    events: Option<EventsFile>,
}

pub(super) async fn run(global: &Global, args: Args) -> Result<Exit> {
    let setup = Setup::read(global, &args.set)?;
    let to_stdout =
        [&args.out, &args.events].into_iter().flatten().filter(|path| path.as_os_str() == "-").count();
    if to_stdout + usize::from(args.json) > 1 {
        bail!(
            "standard output takes one thing only: the events (--events -), the voice (--out -) or the report (--json)"
        );
    }
    let mut report = RunReport::default();
    let recordings = open(&args, &mut report);
    if recordings.is_empty() {
        return finish(&args, &report, None);
    }
    spare(&args, &recordings)?;
    setup.has_libraries()?;
    setup.warn_of_missing();
    let mut outputs = create_outputs(&args)?;

    let stop = Stop::install()?;
    let bus = EventBus::new();
    if let Some(events) = &mut outputs.events {
        events.record(&bus);
    }
    let reporter = Reporter::attach(&bus);
    let lines = match (args.json, to_stdout) {
        (true, _) => None,
        (false, 0) => Some(Lines::to_stdout()?),
        (false, _) => Some(Lines::to_stderr()?),
    };
    let timeline =
        lines.as_ref().map(|lines| Timeline::attach(&bus, lines, to_stdout == 0, global.verbose > 0));

    let starting = setup.host().bus(bus.clone()).start();
    let host = tokio::select! {
        biased;
        () = stop.asked() => None,
        host = starting => Some(host),
    };
    let outcome = match &host {
        None => Ok(()),
        Some(host) => {
            let (outputs, lines, timeline) = (&outputs, lines.as_ref(), timeline.as_ref());
            let run = Run {
                args: &args,
                setup: &setup,
                host,
                stop: &stop,
                reporter: &reporter,
                outputs,
                lines,
                timeline,
            };
            run.all(recordings, &mut report).await
        }
    };
    if let Some(host) = host {
        host.shutdown().await;
    }
    // A host leaves slow handlers behind. These are our own, and whoever reads the events slowly gets them all.
    bus.shutdown().await;
    if let Some(lines) = lines {
        // What was printed in vain is no failure of the job.
        let _ = lines.finish().await;
    }
    report.add(close(outputs).await);
    outcome?;
    finish(&args, &report, stop.exit())
}

/// Opens the recordings; those that cannot be read are in the report.
fn open(args: &Args, report: &mut RunReport) -> Vec<Recording> {
    let raw = RawFormat { sample_rate_hz: args.raw_rate, channels: args.raw_channels };
    let mut recordings: Vec<Recording> = Vec::new();
    for path in &args.recordings {
        let opened = match path.as_os_str() == "-" && recordings.iter().any(Recording::is_stdin) {
            true => Err(anyhow!("standard input can be read only once")),
            false => Recording::open(path, raw).map_err(Into::into),
        };
        match opened {
            Ok(recording) => recordings.push(recording),
            Err(error) => {
                complain(&error);
                report.unreadable(path, &error);
            }
        }
    }
    recordings
}

/// Makes sure that nothing is written over what is to be read.
fn spare(args: &Args, recordings: &[Recording]) -> Result<()> {
    for (option, path) in [("--out", &args.out), ("--events", &args.events)] {
        let Some(path) = path else { continue };
        if recordings.iter().any(|recording| recording.is_reading(path)) {
            bail!(
                "{option} {} would overwrite a recording that is to be played; name another file",
                path.display()
            );
        }
    }
    if args.out.is_some() && args.out == args.events {
        bail!("--out and --events name the same file; name two");
    }
    Ok(())
}

/// Creates what will be written.
fn create_outputs(args: &Args) -> Result<Outputs> {
    // The events first: where a file cannot be created, the other one should not have been emptied. Most often it is
    // the directory, which is the same.
    let events = args.events.as_deref().map(EventsFile::create).transpose()?;
    let voice = args.out.as_deref().map(Voice::create).transpose()?;
    Ok(Outputs { voice, events })
}

/// Completes the files and tells what is in them.
async fn close(outputs: Outputs) -> Vec<Result<Written>> {
    let Outputs { voice, events } = outputs;
    let mut written = Vec::new();
    if let Some(voice) = voice {
        let path = shown(voice.path(), "standard output");
        let length = voice.finish().map_err(Into::into);
        written
            .push(length.map(|length| Written { path, holds: Holds::Speech(length.as_secs_f64() * 1000.0) }));
    }
    if let Some(events) = events {
        let path = shown(events.path(), "standard output");
        written.push(events.finish().await.map(|count| Written { path, holds: Holds::Events(count) }));
    }
    written
}

/// Tells what it came to.
fn finish(args: &Args, report: &RunReport, stopped: Option<Exit>) -> Result<Exit> {
    let exit = stopped.unwrap_or(Exit::done_if(report.is_done()));
    if args.json {
        output::print_json(&report.to_json(exit == Exit::Done))?;
    } else {
        let text = report.to_text();
        let is_taken = [&args.out, &args.events].into_iter().flatten().any(|path| path.as_os_str() == "-");
        if is_taken { output::print_beside(&text) } else { output::print(&text)? }
    }
    for problem in report.problems() {
        complain(&anyhow!("{problem}"));
    }
    Ok(exit)
}

/// A path in sentences and reports, where `-` has a name.
fn shown(path: &Path, stream: &str) -> String {
    if path.as_os_str() == "-" { stream.to_owned() } else { path.display().to_string() }
}
