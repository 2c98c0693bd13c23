//! What a run came to: collected from the events of the conversations, for people and as JSON.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_core::{
    Event, EventBus, EventUnion, SessionId, Subscription, TurnId,
    event::{
        agent::{
            AgentErrorEvent, AgentTranscriptEvent, AgentWarningEvent, TurnMetricsEvent, UserTranscriptEvent,
        },
        values::{TranscriptMode, TurnDurations},
    },
};
use antiphon_host::{Kind, agent::Summary};
use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::{recording::Reading, shown};
use crate::cli::{
    output::{clean, count},
    stage::stage,
};

/// The events that a report is made of.
#[derive(EventUnion)]
enum Told {
    User(Event<UserTranscriptEvent>),
    Agent(Event<AgentTranscriptEvent>),
    Metrics(Event<TurnMetricsEvent>),
    Error(Event<AgentErrorEvent>),
    Warning(Event<AgentWarningEvent>),
}

/// Listens to all conversations.
#[derive(Debug)]
pub(super) struct Reporter {
    sessions: Arc<Sessions>,
    _subscription: Subscription,
}

type Sessions = Mutex<HashMap<SessionId, Notes>>;

/// What was told of one conversation so far.
#[derive(Debug, Default)]
struct Notes {
    turns: BTreeMap<TurnId, Turn>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// One exchange.
#[derive(Debug, Default, Serialize)]
struct Turn {
    turn_id: u64,
    /// What the user said.
    user: String,
    /// What the agent said, as far as it was heard.
    agent: String,
    interrupted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    durations: Option<TurnDurations>,
}

/// One conversation.
#[derive(Debug, Serialize)]
pub(super) struct Heard {
    recording: String,
    session_id: SessionId,
    duration_ms: f64,
    #[serde(flatten)]
    summary: Summary,
    conversation: Vec<Turn>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// A whole run.
#[derive(Debug, Default)]
pub(super) struct RunReport {
    heard: Vec<Heard>,
    unreadable: Vec<(String, String)>,
    missing: Vec<(Kind, String)>,
    replaced: Vec<String>,
    written: Vec<Written>,
    unwritten: Vec<String>,
}

/// A file, and what is in it.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    pub(super) path: String,
    #[serde(flatten)]
    pub(super) holds: Holds,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Holds {
    /// Milliseconds.
    #[serde(rename = "speech_ms")]
    Speech(f64),
    /// How many.
    Events(u64),
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holds {
            Holds::Speech(ms) => write!(f, "{} ({:.1} s of speech)", self.path, ms / 1000.0),
            Holds::Events(events) => write!(f, "{} ({})", self.path, count(*events, "event")),
        }
    }
}

impl Reporter {
    /// Begins to listen.
    pub(super) fn attach(bus: &EventBus) -> Self {
        let sessions = Arc::<Sessions>::default();
        let subscription = bus.subscription().name("report").subscribe_with(Arc::clone(&sessions), note);
        Self { sessions, _subscription: subscription }
    }

    /// The report of a conversation that is over.
    pub(super) fn take(
        &self,
        session_id: SessionId,
        reading: &Reading,
        summary: Result<Option<Summary>>,
    ) -> Heard {
        let Notes { turns, mut errors, warnings } =
            lock(&self.sessions).remove(&session_id).unwrap_or_default();
        let summary = summary.unwrap_or_else(|error| {
            errors.push(error.to_string());
            None
        });
        // What is known of a conversation that did not come to its end.
        let summary = summary.unwrap_or_else(|| Summary { turns: turns.len() as u64, ..Summary::default() });
        errors.extend(reading.failure().map(ToString::to_string));
        let duration_ms = reading.position().as_secs_f64() * 1000.0;
        let conversation = turns.into_values().collect();
        let recording = shown(reading.path(), "standard input");
        Heard { recording, session_id, duration_ms, summary, conversation, errors, warnings }
    }
}

async fn note(sessions: Arc<Sessions>, told: Told) {
    match told {
        Told::User(event) => edit(&sessions, &event, |turn| turn.user.clone_from(&event.text)),
        Told::Agent(event) if event.mode == TranscriptMode::Final => edit(&sessions, &event, |turn| {
            if !turn.agent.is_empty() && !event.text.is_empty() {
                turn.agent.push(' ');
            }
            turn.agent.push_str(&event.text);
            turn.interrupted |= event.interrupted;
        }),
        Told::Agent(_) => {}
        Told::Metrics(event) => edit(&sessions, &event, |turn| {
            turn.interrupted |= event.interrupted;
            turn.durations = Some(event.durations.clone());
        }),
        Told::Error(event) => {
            let text = event.error_message.clone();
            event
                .session_id()
                .into_iter()
                .for_each(|id| session(&sessions, id, |told| told.errors.push(text.clone())));
        }
        Told::Warning(event) => {
            let text = event.message.clone();
            event
                .session_id()
                .into_iter()
                .for_each(|id| session(&sessions, id, |told| told.warnings.push(text.clone())));
        }
    }
}

fn session(sessions: &Sessions, id: SessionId, change: impl FnOnce(&mut Notes)) {
    change(lock(sessions).entry(id).or_default());
}

fn edit<T>(sessions: &Sessions, event: &Event<T>, change: impl FnOnce(&mut Turn)) {
    let (Some(id), Some(turn_id)) = (event.session_id(), event.turn_id()) else { return };
    session(sessions, id, |told| {
        let turn = told.turns.entry(turn_id).or_default();
        turn.turn_id = turn_id.0;
        change(turn);
    });
}

fn lock(sessions: &Sessions) -> MutexGuard<'_, HashMap<SessionId, Notes>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunReport {
    pub(super) fn heard(&mut self, heard: Heard) {
        self.heard.push(heard);
    }

    /// A recording could not be played.
    pub(super) fn unreadable(&mut self, path: &Path, error: &anyhow::Error) {
        self.unreadable.push((shown(path, "standard input"), format!("{error:#}")));
    }

    /// A stage has no plugin; `false` when that is known already.
    pub(super) fn misses(&mut self, kind: Kind, reason: &str) -> bool {
        let is_new = self.missing.iter().all(|(known, _)| *known != kind);
        if is_new {
            self.missing.push((kind, reason.to_owned()));
        }
        is_new
    }

    /// A plugin that the user has settings for was replaced by another.
    pub(super) fn replaced(&mut self, told: String) {
        self.replaced.push(told);
    }

    /// What was written, or could not be.
    pub(super) fn add(&mut self, files: Vec<Result<Written>>) {
        for file in files {
            match file {
                Ok(told) => self.written.push(told),
                Err(error) => self.unwritten.push(format!("{error:#}")),
            }
        }
    }

    /// Whether everything was done that was asked for.
    pub(super) fn is_done(&self) -> bool {
        let is_fine = |heard: &Heard| heard.errors.is_empty() && heard.summary.failed == 0;
        self.unreadable.is_empty()
            && self.missing.is_empty()
            && self.replaced.is_empty()
            && self.unwritten.is_empty()
            && self.heard.iter().all(is_fine)
    }

    /// What was not done, in sentences for the end; what was told when it happened is only counted.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.unwritten.clone();
        if !self.unreadable.is_empty() {
            let all = self.unreadable.len() + self.heard.len();
            problems.push(format!(
                "{} of {} could not be played",
                self.unreadable.len(),
                count(all as u64, "recording")
            ));
        }
        if !self.missing.is_empty() {
            let stages: Vec<&str> = self.missing.iter().map(|(kind, _)| stage(*kind)).collect();
            problems.push(format!("no plugin for {}; `antiphon doctor` says what to do", stages.join(", ")));
        }
        problems.extend(self.replaced.iter().cloned());
        for heard in &self.heard {
            let shown = &heard.recording;
            match heard.errors.first() {
                Some(first) if heard.errors.len() == 1 => problems.push(format!("{shown}: {first}")),
                Some(first) => {
                    problems.push(format!("{shown}: {first} (and {} more)", heard.errors.len() - 1));
                }
                None if heard.summary.failed > 0 => {
                    problems.push(format!("{shown}: {} failed", count(heard.summary.failed, "turn")));
                }
                None => {}
            }
        }
        problems
    }

    /// The end of the timeline.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |told: String| writeln!(text, "{}", clean(&told)).expect("text grows");
        let is_deaf = self.missing.iter().any(|(kind, _)| *kind == Kind::Turn);
        for heard in self.heard.iter().filter(|heard| heard.summary.turns == 0 && heard.errors.is_empty()) {
            if !is_deaf {
                line(format!("no speech was found in {}", heard.recording));
            }
        }
        if !self.heard.is_empty() {
            let sum = |of: fn(&Heard) -> u64| self.heard.iter().map(of).sum::<u64>();
            let seconds = |of: fn(&Heard) -> f64| self.heard.iter().map(of).sum::<f64>() / 1000.0;
            let failed = match sum(|heard| heard.summary.failed) {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            };
            line(format!(
                "{}, {:.1} s: {}, {} answered{failed}, {:.1} s spoken",
                count(self.heard.len() as u64, "recording"),
                seconds(|heard| heard.duration_ms),
                count(sum(|heard| heard.summary.turns), "turn"),
                sum(|heard| heard.summary.answered),
                seconds(|heard| heard.summary.spoken_ms),
            ));
        }
        if !self.written.is_empty() {
            let files: Vec<String> = self.written.iter().map(ToString::to_string).collect();
            line(format!("wrote {}", files.join(", ")));
        }
        text
    }

    /// The report for machines.
    pub(super) fn to_json(&self, done: bool) -> Value {
        let unreadable =
            self.unreadable.iter().map(|(path, error)| json!({ "recording": path, "errors": [error] }));
        let heard = self.heard.iter().map(|heard| json!(heard));
        let missing = self.missing.iter().map(|(kind, reason)| json!({ "stage": kind, "reason": reason }));
        json!({
            "done": done,
            "recordings": heard.chain(unreadable).collect::<Vec<_>>(),
            "missing": missing.collect::<Vec<_>>(),
            "written": self.written,
            "problems": self.problems(),
        })
    }
}
