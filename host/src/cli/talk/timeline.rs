//! The conversation as it happens, one line per event: time, event, plugin, what.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use antiphon_core::{
    BaseEvent, Event, EventBus, SessionId, Subscription,
    event::{
        Overflow, STAMPED_FIELDS,
        agent::{AgentReadyEvent, AgentTranscriptEvent, TurnMetricsEvent, UserTranscriptEvent},
        audio::{AudioCaptureStartEvent, AudioPlaybackEndEvent, AudioPlaybackStartEvent},
        llm::{LlmRequestStartedEvent, LlmResponseDeltaEvent, LlmResponseFinalEvent},
        session::SessionReadyEvent,
        stt::SttFinalTranscriptEvent,
        tts::{TtsChunkQueuedEvent, TtsSynthesisCompleteEvent},
        turn::{TurnEndedEvent, TurnStartedEvent, VadSpeechEndEvent, VadSpeechStartEvent},
        values::{TranscriptMode, TurnDurations},
    },
};
use serde_json::Value;

use super::recording::Recording;
use crate::cli::{
    output::{Ink, Style, clean, milliseconds},
    record::{LineSender, Lines},
};

/// What a timeline shows; with `-v` it shows everything.
const SHOWN: [&str; 26] = [
    "session.ready",
    "agent.ready",
    "agent.warning",
    "agent.error",
    "agent.user_transcript",
    "agent.agent_transcript",
    "audio.capture.start",
    "audio.capture.error",
    "audio.playback.start",
    "audio.playback.end",
    "audio.playback.error",
    "bus.exception",
    "bus.lagged",
    "llm.error",
    "llm.request.start",
    "llm.response.delta",
    "llm.response.final",
    "speech.interrupted",
    "stt.error",
    "stt.transcript.final",
    "tts.chunk_queued",
    "tts.error",
    "tts.synthesis.complete",
    "turn.*",
    "vad.*",
    "session.closed",
];

/// Prints what happens on a bus.
#[derive(Debug)]
pub(super) struct Timeline {
    lines: LineSender,
    style: Style,
    _subscription: Subscription,
}

#[derive(Debug)]
struct Printer {
    lines: LineSender,
    style: Style,
    verbose: bool,
    /// The session that is shown, and when it began.
    origin: Mutex<Option<(SessionId, u64)>>,
}

impl Timeline {
    /// Begins to print.
    pub(super) fn attach(bus: &EventBus, lines: &Lines, to_stdout: bool, verbose: bool) -> Self {
        let style = if to_stdout { Style::stdout() } else { Style::of(&io::stderr()) };
        let lines = lines.sender();
        let printer = Printer { lines: lines.clone(), style, verbose, origin: Mutex::default() };
        let subscription = bus.subscription().name("timeline").overflow(Overflow::Wait);
        let subscription = match verbose {
            true => subscription.patterns(["*"]),
            false => subscription.patterns(SHOWN),
        };
        let subscription = subscription.subscribe_with(Arc::new(printer), Printer::show);
        Self { lines, style, _subscription: subscription }
    }

    /// Says which recording comes now, where there are several.
    pub(super) async fn heading(&self, recording: &Recording) {
        let name = format!("{} ({})", recording.path().display(), recording.described());
        self.lines.send(format!("{}\n", self.style.paint(Ink::Bold, clean(&name)))).await;
    }
}

impl Printer {
    async fn show(self: Arc<Self>, event: Event<BaseEvent>) {
        let summary = summary(&event);
        let Some((ink, what)) = summary.or_else(|| self.verbose.then(|| described(&event))) else { return };
        // As wide as the longest type that is shown.
        let width = if self.verbose { 30 } else { 24 };
        let time = match self.since_start(&event) {
            Some(seconds) => format!("{seconds:9.3} s"),
            None => " ".repeat(11),
        };
        let plugin = event.plugin().map(|plugin| plugin.plugin_name.to_string()).unwrap_or_default();
        let label = if ink == Ink::Red || ink == Ink::Yellow { ink } else { Ink::Cyan };
        let line = format!(
            "{}  {}  {}  {}",
            self.style.paint(Ink::Dim, time),
            self.style.paint(label, format!("{:<width$}", event.event_type())),
            self.style.paint(Ink::Dim, format!("{plugin:<18}")),
            self.style.paint(ink, clean(&what).replace('\n', "\n    ")),
        );
        self.lines.send(format!("{}\n", line.trim_end())).await;
    }

    /// Seconds since the first event of its session; events of the host have no place on this scale.
    fn since_start(&self, event: &Event<BaseEvent>) -> Option<f64> {
        let id = event.session_id()?;
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        let start = match *origin {
            Some((known, start)) if known == id => start,
            _ => origin.insert((id, event.mono_ns())).1,
        };
        Some(event.mono_ns().saturating_sub(start) as f64 / 1e9)
    }
}

/// What an event says, in words; `None` for those that say nothing new.
fn summary(event: &Event<BaseEvent>) -> Option<(Ink, String)> {
    let plain = |text: String| Some((Ink::Plain, text));
    let optional = |value: Option<String>, separator: &str| {
        value.map(|value| format!("{separator}{value}")).unwrap_or_default()
    };
    if let Some(event) = event.cast::<AgentReadyEvent>() {
        let plugin =
            |part: &antiphon_core::event::values::PluginRef| format!("{} {}", part.name, part.version);
        return plain(event.components.iter().map(plugin).collect::<Vec<_>>().join(", "));
    }
    if event.cast::<SessionReadyEvent>().is_some() {
        return plain(optional(event.session_id().map(|id| id.to_string()), "session "));
    }
    if event.cast::<AudioPlaybackStartEvent>().is_some() {
        return plain(String::new());
    }
    if let Some(event) = event.cast::<AudioCaptureStartEvent>() {
        return plain(event.device_id.clone().unwrap_or_default());
    }
    if let Some(event) = event.cast::<VadSpeechStartEvent>() {
        return plain(format!("probability {:.2}", event.probability));
    }
    if let Some(event) = event.cast::<TurnStartedEvent>() {
        return plain(format!("confidence {:.2}", event.confidence));
    }
    if let Some(event) = event.cast::<VadSpeechEndEvent>() {
        return plain(format!("{} of speech", milliseconds(event.duration_ms)));
    }
    if let Some(event) = event.cast::<TurnEndedEvent>() {
        let speech = event.duration_ms.map(|ms| format!("{} of speech", milliseconds(ms)));
        let silence = event.trailing_silence_ms.map(|ms| format!("{} of silence", milliseconds(ms)));
        return plain(speech.into_iter().chain(silence).collect::<Vec<_>>().join(", then "));
    }
    if let Some(event) = event.cast::<SttFinalTranscriptEvent>() {
        let confidence = optional(event.confidence.map(|sure| format!("confidence {sure:.2}")), "  ");
        let took = optional(event.processing_time_ms.map(milliseconds), "  ");
        return plain(format!("\"{}\"{confidence}{took}", event.text));
    }
    if let Some(event) = event.cast::<UserTranscriptEvent>() {
        return Some((Ink::Bold, format!("user: {}", event.text)));
    }
    if let Some(event) = event.cast::<LlmRequestStartedEvent>() {
        return plain(event.model.clone().unwrap_or_default());
    }
    if let Some(event) = event.cast::<LlmResponseDeltaEvent>() {
        let took = optional(event.time_to_first_token_ms.map(milliseconds), " after ");
        return event.is_first_chunk.then(|| (Ink::Plain, format!("first piece{took}")));
    }
    if let Some(event) = event.cast::<LlmResponseFinalEvent>() {
        let took = optional(event.latency_ms.map(milliseconds), "  ");
        return plain(format!("\"{}\"{took}", event.text));
    }
    if let Some(event) = event.cast::<TtsChunkQueuedEvent>() {
        return plain(format!("\"{}\"", event.text));
    }
    if let Some(event) = event.cast::<TtsSynthesisCompleteEvent>() {
        let made = optional(event.audio_duration_ms.map(milliseconds), "");
        let took = optional(event.total_time_ms.map(milliseconds), " of speech in ");
        let factor = optional(event.real_time_factor.map(|factor| format!("{factor:.3} of real time")), ", ");
        let first = milliseconds(event.synthesis_time_ms);
        return plain(format!("{made}{took}{factor}, first after {first}"));
    }
    if let Some(event) = event.cast::<AudioPlaybackEndEvent>() {
        return plain(event.played_ms.map(|ms| format!("{} played", milliseconds(ms))).unwrap_or_default());
    }
    if let Some(event) = event.cast::<AgentTranscriptEvent>() {
        let cut = if event.interrupted { " (interrupted)" } else { "" };
        let text = format!("agent: {}{cut}", event.text);
        return (event.mode == TranscriptMode::Final).then_some((Ink::Bold, text));
    }
    if let Some(metrics) = event.cast::<TurnMetricsEvent>() {
        let turn = optional(event.turn_id().map(|turn| turn.to_string()), "turn ");
        return Some((Ink::Green, format!("{turn}: {}", latencies(&metrics.durations))));
    }
    Some(described(event))
}

/// The stages of a turn and how long each took, from the end of what the user said.
fn latencies(durations: &TurnDurations) -> String {
    let stages = [
        ("stt", durations.turn_end_to_stt_final),
        ("llm", durations.stt_final_to_first_token),
        ("tts", durations.first_token_to_first_audio),
        ("playback", durations.first_audio_to_playback),
        ("voice to voice", durations.voice_to_voice),
    ];
    let known =
        stages.iter().filter_map(|(stage, took)| took.map(|ms| format!("{stage} {}", milliseconds(ms))));
    known.collect::<Vec<_>>().join(" | ")
}

/// Everything that an event says beyond its base fields.
fn described(event: &Event<BaseEvent>) -> (Ink, String) {
    let fields = event.to_json();
    let of = |key: &str| fields.get(key).and_then(Value::as_str);
    let ink = match event.event_type() {
        name if name.ends_with(".error") || name == "bus.exception" => Ink::Red,
        "plugin.lifecycle"
            if of("phase").is_some_and(|phase| phase == "failed" || phase == "quarantined") =>
        {
            Ink::Red
        }
        "agent.warning" | "bus.lagged" | "speech.interrupted" => Ink::Yellow,
        _ => Ink::Plain,
    };
    if let Some(message) = of("error_message").or(of("message")) {
        let code = of("error_code").or(of("code")).map(|code| format!(" ({code})"));
        let context = of("context").map(|context| format!(", while {context}"));
        let causes =
            fields["error"]["source_chain"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let causes: String =
            causes.filter(|cause| !message.contains(cause)).map(|cause| format!(": {cause}")).collect();
        return (
            ink,
            format!("{message}{causes}{}{}", code.unwrap_or_default(), context.unwrap_or_default()),
        );
    }
    let own =
        fields.as_object().into_iter().flatten().filter(|(key, _)| !STAMPED_FIELDS.contains(&key.as_str()));
    let pair = |(key, value): (&String, &Value)| match value {
        Value::String(text) if !text.contains(' ') => format!("{key}={text}"),
        _ => format!("{key}={value}"),
    };
    let shown = own.filter(|(_, value)| !value.is_null()).map(pair);
    (ink, shown.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use antiphon_core::{
        TurnId,
        event::{Envelope, EventPayload, Stamp, agent::AgentErrorEvent, values::Modality},
    };

    use super::*;

    async fn told<T: EventPayload>(payload: T) -> Option<(Ink, String)> {
        let bus = EventBus::new();
        let mut stream = bus.subscription().patterns(["*"]).stream::<Event<BaseEvent>>();
        let envelope: Option<Arc<Envelope>> = bus.emit_with(payload, Stamp::turn(Some(TurnId(1)))).envelope;
        assert!(envelope.is_some());
        summary(&stream.recv().await.expect("an event"))
    }

    #[tokio::test]
    async fn a_turn_is_one_line_of_latencies() {
        let durations = TurnDurations {
            turn_end_to_stt_final: Some(35.2),
            stt_final_to_first_token: Some(0.31),
            voice_to_voice: Some(38.4),
            ..TurnDurations::default()
        };
        let metrics = TurnMetricsEvent {
            transcript: "go".into(),
            modality: Modality::Voice,
            eager_used: false,
            interrupted: false,
            timestamps: Default::default(),
            durations,
            tool_time_ms: None,
        };
        let (_, text) = told(metrics).await.expect("shown");
        assert_eq!(text, "turn 1: stt 35 ms | llm 0.31 ms | voice to voice 38 ms");
    }

    #[tokio::test]
    async fn only_the_first_piece_of_a_reply_is_shown() {
        assert!(told(LlmResponseDeltaEvent::default()).await.is_none());
        let first = LlmResponseDeltaEvent {
            is_first_chunk: true,
            time_to_first_token_ms: Some(0.3),
            ..Default::default()
        };
        assert_eq!(told(first).await, Some((Ink::Plain, "first piece after 0.30 ms".into())));
    }

    #[tokio::test]
    async fn errors_are_told_in_full() {
        let error = AgentErrorEvent {
            error: None,
            error_code: Some("timeout".into()),
            context: Some("recognising".into()),
            is_recoverable: true,
            error_message: "no answer within 30 s".into(),
            component: None,
            fatal: false,
        };
        let want = (Ink::Red, "no answer within 30 s (timeout), while recognising".to_owned());
        assert_eq!(told(error).await, Some(want));
        assert_eq!(told(SessionReadyEvent {}).await, Some((Ink::Plain, String::new())));
    }
}
