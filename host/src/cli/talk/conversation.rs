//! One conversation after the other: plays a recording to an agent, and waits for what it answers.

use std::time::Duration;

use antiphon_core::{
    AudioChunk, Event,
    event::{
        agent::AgentReadyEvent,
        audio::{AudioCaptureErrorEvent, AudioCaptureStartEvent, AudioCaptureStopEvent},
        values::{AudioEncoding, AudioFormatSpec, ErrorInfo, InterruptReason},
    },
};
use antiphon_host::{
    Agent, Host, Kind, Pace, Plugin, PluginState,
    agent::Summary,
    media::{MediaError, SOURCE_RATE_HZ},
};
use anyhow::{Context, Result};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    Args, Outputs,
    recording::{Piece, Reading, Recording},
    report::{Heard, Reporter, RunReport},
    timeline::Timeline,
};
use crate::cli::{
    output::{complain, warn},
    record::Lines,
    setup::Setup,
    stage::explain,
    stop::Stop,
};

/// How long the agent may take to end when it is stopped.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// How long an agent may take to say that it is ready, and handlers to see the last events of a session.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

/// What all conversations of a run share.
pub(super) struct Run<'a> {
    pub(super) args: &'a Args,
    pub(super) setup: &'a Setup,
    pub(super) host: &'a Host,
    pub(super) stop: &'a Stop,
    pub(super) reporter: &'a Reporter,
    pub(super) outputs: &'a Outputs,
    pub(super) lines: Option<&'a Lines>,
    pub(super) timeline: Option<&'a Timeline>,
}

impl Run<'_> {
    /// Plays the recordings, one after the other.
    ///
    /// # Errors
    ///
    /// Settings do not fit. What goes wrong with a recording is in the report.
    pub(super) async fn all(&self, recordings: Vec<Recording>, report: &mut RunReport) -> Result<()> {
        self.setup.check_settings(&self.host.plugins())?;
        self.tell_replaced(report);
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
            let reason = explain(missing, &self.host.plugins());
            if report.misses(missing.kind, &reason) {
                warn(format!("going on without a stage: {reason}"));
            }
        }
    }

    /// Says which plugins the user has settings for that do not run, and that others take the place of.
    fn tell_replaced(&self, report: &mut RunReport) {
        let is_wanted =
            |plugin: &&Plugin| plugin.state == PluginState::Failed && self.setup.settings(plugin).is_some();
        let agent = &self.setup.config.agent;
        let stages = [
            (Kind::Turn, &agent.turn),
            (Kind::Stt, &agent.stt),
            (Kind::Llm, &agent.llm),
            (Kind::Tts, &agent.tts),
        ];
        for plugin in self.host.plugins().iter().filter(is_wanted) {
            for (kind, named) in &stages {
                let is_able = plugin.manifest.as_ref().is_some_and(|manifest| manifest.has(kind.as_str()));
                if let (true, None, Ok(other)) = (is_able, named, self.host.provider(*kind, None)) {
                    let other = &other.manifest().name;
                    let reason = self.setup.problem(plugin).unwrap_or_default();
                    warn(format!("{other} takes the place of {}: {reason}", plugin.name));
                    report.replaced(format!("{} could not be used, {other} took its place", plugin.name));
                }
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

    /// Lets the agent answer to the end. When the user stops it, as far as it comes by a deadline: `None` if that was too
    /// soon.
    async fn end(&self, agent: Agent) -> Result<Option<Summary>> {
        if self.stop.exit().is_some() {
            // An agent that has ended need not be interrupted.
            let _ = timeout(STOP_DEADLINE, agent.interrupt(InterruptReason::Shutdown)).await;
        }
        let finishing = agent.finish();
        let overdue = async {
            self.stop.asked().await;
            let interrupted = agent.interrupt(InterruptReason::Shutdown);
            let _ = timeout(STOP_DEADLINE, interrupted).await;
            tokio::time::sleep(STOP_DEADLINE).await;
        };
        tokio::select! {
            summary = finishing => summary.map(Some).context("the agent ended by itself"),
            () = overdue => Ok(None),
        }
    }
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
