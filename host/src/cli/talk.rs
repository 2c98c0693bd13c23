//! `antiphon talk`: plays recordings to an agent, and writes what it answers and what happened.
//!
//! Everything that can be wrong with inputs and outputs is found before a plugin is opened.

mod recording;
mod report;
mod timeline;
mod voice;

use std::{path::PathBuf, time::Duration};

use antiphon_core::{
    AudioChunk, Event, EventBus,
    event::{
        agent::AgentReadyEvent,
        audio::{AudioCaptureErrorEvent, AudioCaptureStartEvent, AudioCaptureStopEvent},
        values::{AudioEncoding, AudioFormatSpec, ErrorInfo, InterruptReason},
    },
};
use antiphon_host::{
    Agent, Host, Kind, NoProvider, Pace,
    agent::Summary,
    media::{MediaError, RawFormat, SOURCE_RATE_HZ},
};
use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::{
    recording::{Piece, Reading, Recording},
    report::{Heard, Reporter, RunReport},
    timeline::Timeline,
    voice::Voice,
};
use super::{
    Exit,
    output::{self, complain, warn},
    record::{EventsFile, Lines},
    setup::{Global, Setting, Setup},
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

/// How long the agent may take to end when it is stopped.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// How long an agent may take to say that it is ready, and handlers to see the last events of a session.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

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
    setup.has_libraries()?;
    setup.warn_of_missing();
    let mut outputs = create_outputs(&args, &recordings)?;

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

/// Creates what will be written, unless that would destroy what is to be read.
fn create_outputs(args: &Args, recordings: &[Recording]) -> Result<Outputs> {
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
    // The events first: where a file cannot be created, the other one should not have been emptied. Most often it is
    // the directory, which is the same.
    let events = args.events.as_deref().map(EventsFile::create).transpose()?;
    let voice = args.out.as_deref().map(Voice::create).transpose()?;
    Ok(Outputs { voice, events })
}

/// Completes the files and tells what is in them.
async fn close(outputs: Outputs) -> Vec<Result<String>> {
    let Outputs { voice, events } = outputs;
    let mut written = Vec::new();
    if let Some(voice) = voice {
        let path = voice.path().to_owned();
        let told = |length: Duration| format!("{} ({:.1} s of speech)", path.display(), length.as_secs_f64());
        written.push(voice.finish().map(told).map_err(Into::into));
    }
    if let Some(events) = events {
        let path = events.path().to_owned();
        written.push(
            events
                .finish()
                .await
                .map(|count| format!("{} ({})", path.display(), output::count(count, "event"))),
        );
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

/// What all conversations of a run share.
struct Run<'a> {
    args: &'a Args,
    setup: &'a Setup,
    host: &'a Host,
    stop: &'a Stop,
    reporter: &'a Reporter,
    outputs: &'a Outputs,
    lines: Option<&'a Lines>,
    timeline: Option<&'a Timeline>,
}

impl Run<'_> {
    async fn all(&self, recordings: Vec<Recording>, report: &mut RunReport) -> Result<()> {
        self.setup.check_settings(self.host.plugins())?;
        let is_one = self.args.recordings.len() == 1;
        for recording in recordings {
            if self.stop.exit().is_some() || self.is_in_vain() {
                break;
            }
            if let (Some(timeline), false) = (self.timeline, is_one) {
                timeline.heading(&recording).await;
            }
            let path = recording.path().to_owned();
            match self.one(recording, report).await {
                Ok(heard) => report.heard(heard),
                Err(error) => {
                    complain(&error);
                    report.unreadable(&path, &error);
                }
            }
        }
        Ok(())
    }

    /// Whether all that is produced goes to a reader who has gone away.
    fn is_in_vain(&self) -> bool {
        let Outputs { voice, events } = self.outputs;
        let is_unread = match events {
            Some(events) => events.is_pipe_broken(),
            None => self.lines.is_some_and(Lines::is_broken),
        };
        voice.is_none() && is_unread
    }

    /// One conversation.
    async fn one(&self, recording: Recording, report: &mut RunReport) -> Result<Heard> {
        let mut reading = recording.read()?;
        let mut ready = self.host.bus().stream::<Event<AgentReadyEvent>>();
        let pace = if self.args.realtime { Pace::RealTime } else { Pace::Fast };
        let builder = self.host.agent().config(self.setup.config.agent.clone()).pace(pace);
        let builder = match &self.outputs.voice {
            Some(voice) => builder.output(voice.clone()),
            None => builder,
        };
        let agent = builder.start().await.context("the agent cannot start")?;
        self.tell_missing(&agent, report);
        // The session's first events are the agent's own.
        let _ = timeout(SETTLE_DEADLINE, ready.recv()).await;
        drop(ready);

        let session_id = agent.session_id();
        self.feed(&agent, &mut reading).await;
        let summary = self.end(agent).await;
        let settled = self.host.bus().drain(SETTLE_DEADLINE).await;
        if !settled {
            tracing::warn!("the events of this conversation are still being handled");
        }
        Ok(self.reporter.take(session_id, &reading, summary))
    }

    /// Says, once, which stages have no plugin.
    fn tell_missing(&self, agent: &Agent, report: &mut RunReport) {
        for missing in agent.missing() {
            if report.misses(missing) {
                warn(format!("going on without a stage: {}", explain(missing)));
            }
        }
    }

    /// Plays the recording to the agent, until its end or until the user stops it.
    async fn feed(&self, agent: &Agent, reading: &mut Reading) {
        let session = agent.session();
        let format = AudioFormatSpec {
            encoding: AudioEncoding::Linear16,
            sample_rate: SOURCE_RATE_HZ,
            channels: 1,
            bit_depth: Some(16),
        };
        let device_id = Some(reading.path().display().to_string());
        session.emit_wait(AudioCaptureStartEvent { device_id, stream: None, format: Some(format) }).await;
        let mut ticks = interval(antiphon_core::audio::CHUNK_DURATION);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            let piece = tokio::select! {
                biased;
                () = self.stop.asked() => break,
                piece = reading.next() => piece,
            };
            let samples = match piece {
                Some(Piece::Samples(samples)) => samples,
                Some(Piece::Failed(error)) => {
                    session.emit_wait(capture_error(&error)).await;
                    reading.fail(error);
                    break;
                }
                None => break,
            };
            if self.is_in_vain() {
                break;
            }
            let hand_over = async {
                if self.args.realtime {
                    ticks.tick().await;
                }
                agent.push_audio(AudioChunk::mono(samples)).await
            };
            tokio::select! {
                biased;
                () = self.stop.asked() => break,
                // It has ended by itself: `end` finds out why.
                given = hand_over => if given.is_err() { break },
            }
        }
        reading.end();
        session.emit_wait(AudioCaptureStopEvent {}).await;
    }

    /// Lets the agent answer to the end; when the user stops it, as far as it comes by a deadline.
    async fn end(&self, agent: Agent) -> Result<Summary> {
        if self.stop.exit().is_some() {
            // An agent that has ended need not be interrupted.
            let _ = timeout(STOP_DEADLINE, agent.interrupt(InterruptReason::Shutdown)).await;
        }
        let finishing = agent.finish();
        let overdue = async {
            self.stop.asked().await;
            tokio::time::sleep(STOP_DEADLINE).await;
        };
        tokio::select! {
            summary = finishing => summary.context("the agent ended by itself"),
            () = overdue => bail!("the agent did not end within {} s", STOP_DEADLINE.as_secs()),
        }
    }
}

/// What a stage is, in words.
pub(super) fn stage(kind: Kind) -> &'static str {
    match kind {
        Kind::Turn => "turn detection",
        Kind::Stt => "speech to text",
        Kind::Llm => "language model",
        Kind::Tts => "text to speech",
        Kind::Vision => "vision",
    }
}

/// Why a stage has no plugin.
pub(super) fn explain(missing: &NoProvider) -> String {
    let wanted = missing.wanted.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
    let reasons: Vec<String> =
        missing.reasons.iter().map(|(plugin, reason)| format!("\n  {plugin}: {reason}")).collect();
    format!("no plugin{wanted} for {} ({}){}", stage(missing.kind), missing.kind, reasons.concat())
}

fn capture_error(error: &MediaError) -> AudioCaptureErrorEvent {
    AudioCaptureErrorEvent {
        error: Some(ErrorInfo::from_error(error, false)),
        error_code: Some("read_failed".into()),
        context: Some("reading the recording".into()),
        is_recoverable: false,
        error_message: error.to_string(),
    }
}
