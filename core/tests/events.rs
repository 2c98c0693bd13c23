//! The event catalogue: names, schemas and encodings.

use std::collections::BTreeSet;

use antiphon_core::{
    AudioChunk, BaseEvent, EventBus, PluginBaseEvent, SpeechId, TurnId,
    event::{
        CATALOGUE_NAMES, EventInfo, EventPayload, EventType, Overflow, Participant, Stamp,
        agent::{AgentReadyEvent, AgentStateChangedEvent, HistoryUpdatedEvent, SpeechInterruptedEvent},
        agent::{TurnMetricsEvent, UserTranscriptEvent},
        audio::{AudioCaptureStartEvent, AudioReceivedEvent},
        bus::{ExceptionEvent, SubscriberLaggedEvent},
        catalogue,
        llm::{LlmErrorEvent, LlmResponseAbortedEvent, LlmResponseDeltaEvent, LlmResponseFinalEvent},
        plugin::{PluginLifecycleEvent, ProviderFallbackEvent, ProviderRecoveryEvent},
        session::{SessionClosedEvent, SessionReadyEvent},
        stt::{SttConnectedEvent, SttFinalTranscriptEvent, SttInterimTranscriptEvent},
        tts::{TtsAudioEvent, TtsMetadataEvent, TtsSynthesisCompleteEvent, TtsSynthesisStartEvent},
        turn::TurnEndedEvent,
        values::{
            AgentState, AudioEncoding, AudioFormat, AudioFormatSpec, CloseReason, ComponentKind,
            DetectedObject, Dimensions, ErrorInfo, FallbackReason, FrameTriggerReason, HandlerInfo,
            InterruptReason, InterruptScope, Message, Modality, PcmData, PluginRef, PluginState, Role,
            StreamRef, TokenUsage, TranscriptMode, TurnDurations, TurnTimestamps, WordTiming,
        },
        vision::{DetectionCompletedEvent, FrameReceivedEvent, VideoProcessorDetectionEvent},
    },
};
use schemars::{JsonSchema, schema_for};
use serde_json::{Value, json};
use uuid::Uuid;

fn fields<T: JsonSchema>() -> BTreeSet<String> {
    field_names(schema_for!(T).as_value())
}

fn field_names(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

#[track_caller]
fn validator(event: &EventType) -> jsonschema::Validator {
    let schema = event.schema();
    assert!(jsonschema::draft202012::meta::is_valid(&schema), "{} has a schema that is none", event.name());
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap_or_else(|error| panic!("the schema of {} does not compile: {error}", event.name()))
}

#[test]
fn names_are_unique_on_the_wire_and_in_rust() {
    let all = catalogue();
    let unique = |name: fn(&EventInfo) -> &'static str| {
        all.iter().map(|info| name(info)).collect::<BTreeSet<_>>().len()
    };
    assert_eq!((unique(|info| info.name), unique(|info| info.rust_name)), (all.len(), all.len()));
    let names: Vec<_> = all.iter().map(|info| info.name).collect();
    assert_eq!(CATALOGUE_NAMES[..], names[..]);
}

#[test]
fn every_lineage_ends_at_a_root_and_only_media_may_be_lost_by_default() {
    for info in catalogue() {
        let lineage = info.lineage();
        assert_eq!(lineage.first(), Some(&info.name));
        assert_eq!(lineage.get(1), Some(&info.base), "{}", info.name);
        assert_eq!(lineage.last(), Some(&"BaseEvent"), "{}", info.name);
        let expected = if info.media { Overflow::DropOldest } else { Overflow::Wait };
        assert_eq!(info.overflow, expected, "{}", info.name);
    }
}

#[test]
fn every_schema_compiles_and_describes_every_field() {
    for info in catalogue() {
        let event = EventType::typed(info);
        validator(&event);
        assert!(!event.description().is_empty(), "{} has no description", info.name);
        let schema = event.schema();
        for (name, field) in schema["properties"].as_object().expect("events have fields") {
            let described = field.get("description").is_some() || name == "type";
            assert!(described, "{} does not describe {name}", info.name);
        }
        assert_eq!(schema["properties"]["type"]["const"], info.name);
    }
}

#[test]
fn no_payload_has_a_field_that_the_bus_stamps() {
    let stamped = &fields::<BaseEvent>() | &fields::<PluginBaseEvent>();
    for info in catalogue() {
        let collisions: Vec<_> = (&field_names(&info.payload_schema()) & &stamped).into_iter().collect();
        assert_eq!(collisions, [""; 0], "{}", info.name);
    }
}

fn error_info() -> ErrorInfo {
    ErrorInfo {
        kind: "error".to_owned(),
        code: Some("E42".to_owned()),
        message: "no line".to_owned(),
        recoverable: true,
        context: Some(json!({ "status": 503, "body": [null, 1.5, "x"] })),
        source_chain: vec!["refused".to_owned()],
    }
}

fn handler_info() -> HandlerInfo {
    HandlerInfo {
        subscription_id: u64::MAX,
        name: "on_note".to_owned(),
        location: "src/main.rs:1:2".to_owned(),
        plugin: None,
    }
}

fn detection() -> VideoProcessorDetectionEvent {
    VideoProcessorDetectionEvent {
        model_id: Some("yolo".to_owned()),
        inference_time_ms: Some(12.5),
        detection_count: 1,
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Emits an event as the host would for a plugin, and follows it into JSON and through MessagePack.
#[track_caller]
fn check<T: EventPayload + PartialEq>(event: T) {
    let info = T::INFO;
    let bus = EventBus::new();
    // Held, so that the event is wanted.
    let _stream = bus.subscription().patterns([info.name]).stream::<antiphon_core::Event<BaseEvent>>();
    let payload = serde_json::to_value(&event).expect("events have a JSON form");
    let bytes = rmp_serde::to_vec_named(&event).expect("events have a MessagePack form");
    let of_plugin = info.lineage().contains(&"PluginBaseEvent").then(|| {
        PluginBaseEvent {
            plugin_name: "acme".into(),
            plugin_version: "1.2.3".into(),
            plugin_instance: Some("2".into()),
        }
        .into()
    });
    let stamp = Stamp {
        turn_id: Some(TurnId(3)),
        causation_id: Some(id(9)),
        participant: Some(Box::new(Participant { user_id: "ada".to_owned(), id: "1".to_owned() })),
        user_metadata: Some(Box::new(json!({ "any": ["thing"] }))),
        plugin: of_plugin,
    };
    for stamp in [Stamp { plugin: stamp.plugin.clone(), ..Stamp::default() }, stamp] {
        let reread = T::INFO.read_json(payload.clone()).expect("it has just been written");
        assert_eq!(reread.to_json(), payload);
        let reread: T = serde_json::from_value(payload.clone()).expect("it has just been written");
        assert_eq!(reread, event);
        let flat = bus.open_session().emit_with(reread, stamp).envelope.expect("it is wanted").to_json();
        let errors: Vec<_> =
            validator(T::event_type()).iter_errors(&flat).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{flat:#}");
        for (field, value) in payload.as_object().expect("a payload is an object") {
            assert_eq!(flat.get(field), Some(value), "{}", info.name);
        }
        // What others read is what was emitted: the flat object is a payload, too.
        assert_eq!(info.read_json(flat).expect("base fields are passed over").to_json(), payload);
    }
    let decoded = T::event_type().decode(&bytes).expect("it has just been written");
    assert_eq!(decoded.to_json(), payload);
    for cut in 0..bytes.len() {
        assert!(T::event_type().decode(&bytes[..cut]).is_err(), "{} cut after {cut} bytes", info.name);
    }
    // A host that was not compiled with the type reads the same, where the bytes tell it all.
    let declared = antiphon_core::event::EventRegistry::with_catalogue();
    let bases: Vec<String> = info.lineage()[1..].iter().map(|&base| base.to_owned()).collect();
    let declared = declared.declare("acme.same", &bases, info.media, info.payload_schema());
    let mut readable = Vec::new();
    let mut encoder = rmp_serde::Serializer::new(&mut readable).with_struct_map().with_human_readable();
    serde::Serialize::serialize(&event, &mut encoder).expect("events have a MessagePack form");
    assert_eq!(declared.decode(&readable).expect("any map is an event").to_json(), payload, "{}", info.name);
    assert_eq!(T::event_type().decode(&readable).expect("ids may be text").to_json(), payload);
}

// In a runtime, because a bus has one.
#[tokio::test]
async fn events_of_the_agent_keep_their_content() {
    check(AgentReadyEvent {
        components: vec![PluginRef {
            name: "stt-acme".to_owned(),
            version: "1.0.0".to_owned(),
            kind: ComponentKind::Stt,
        }],
    });
    check(AgentStateChangedEvent {
        state: AgentState::Listening,
        previous_state: AgentState::Ready,
        cause: Some("vad.speech_start".to_owned()),
    });
    check(UserTranscriptEvent {
        text: "grüß \"dich\"\n\u{1F44B}".to_owned(),
        modality: Modality::Voice,
        has_image: false,
        language: Some("de-AT".to_owned()),
        confidence: Some(0.75),
        message_id: None,
    });
    for reason in [InterruptReason::UserSpeaking, InterruptReason::Other("fire alarm".to_owned())] {
        check(SpeechInterruptedEvent {
            speech_id: SpeechId(id(5)),
            reason,
            scope: InterruptScope::SpeechOnly,
            spoken_text: None,
            played_ms: Some(1_234.5),
            discarded_bytes: Some(u64::MAX),
        });
    }
    check(HistoryUpdatedEvent {
        messages: vec![Message {
            id: "m1".to_owned(),
            role: Role::Assistant,
            content: String::new(),
            interrupted: true,
        }],
        last_message_id: Some("m1".to_owned()),
    });
    check(TurnMetricsEvent {
        transcript: "hello".to_owned(),
        modality: Modality::Text,
        eager_used: false,
        interrupted: false,
        timestamps: TurnTimestamps { llm_start: Some(-1), turn_end: i64::MAX, ..Default::default() },
        durations: TurnDurations { voice_to_voice: Some(0.1), turn_total: 1.0, ..Default::default() },
        tool_time_ms: None,
    });
}

#[tokio::test]
async fn events_of_the_host_keep_their_content() {
    check(SessionReadyEvent {});
    check(SessionClosedEvent { reason: CloseReason::CallTerminated });
    check(SessionClosedEvent { reason: CloseReason::Other("power cut".to_owned()) });
    check(ExceptionEvent {
        exc: error_info(),
        handler: handler_info(),
        source_type: "stt.transcript.final".to_owned(),
        source_event_id: id(77),
    });
    check(SubscriberLaggedEvent { handler: handler_info(), dropped: 3, event_type: None });
    check(ProviderFallbackEvent {
        role: ComponentKind::Llm,
        from: "llm-a".into(),
        to: "llm-b".into(),
        reason: FallbackReason::StreamError,
        error: error_info(),
    });
    check(ProviderRecoveryEvent {
        provider: "llm-a".into(),
        attempt: 1,
        max_attempts: 5,
        recovering: false,
        recovered: true,
        error: Some(error_info()),
    });
    check(PluginLifecycleEvent { phase: PluginState::Failed, error: Some(error_info()) });
    check(AudioCaptureStartEvent {
        device_id: None,
        stream: Some(StreamRef { id: "s".to_owned() }),
        format: Some(AudioFormatSpec {
            encoding: AudioEncoding::Mulaw,
            sample_rate: 8_000,
            channels: 1,
            bit_depth: Some(8),
        }),
    });
    check(FrameReceivedEvent {
        sequence: 0,
        frame_timestamp: 1_700_000_000_000,
        trigger_reason: FrameTriggerReason::SceneChange,
        size: 1,
        dimensions: Dimensions { width: 640, height: 480 },
    });
}

#[tokio::test]
async fn events_of_plugins_keep_their_content() {
    let words = vec![WordTiming { word: "hello".to_owned(), start_ms: 0.0, end_ms: 250.5 }];
    check(SttConnectedEvent {});
    check(SttInterimTranscriptEvent {
        text: "hel".to_owned(),
        mode: TranscriptMode::Delta,
        ..Default::default()
    });
    check(SttFinalTranscriptEvent {
        text: "hello".to_owned(),
        words: Some(words.clone()),
        ..Default::default()
    });
    check(LlmResponseDeltaEvent {
        delta: " there".to_owned(),
        sequence_number: Some(7),
        ..Default::default()
    });
    check(LlmResponseFinalEvent {
        text: "hello there".to_owned(),
        usage: Some(TokenUsage { input: Some(3), output: None, total: Some(9) }),
        ..Default::default()
    });
    check(LlmResponseAbortedEvent { reason: Some(InterruptReason::Manual), partial_text: None });
    check(LlmErrorEvent {
        error: Some(error_info()),
        error_message: "no line".to_owned(),
        ..Default::default()
    });
    check(TurnEndedEvent { confidence: 0.5, eager: true, trailing_silence_ms: None, duration_ms: Some(1.0) });
    check(TtsSynthesisStartEvent {
        text: None,
        synthesis_id: id(1),
        model_name: None,
        voice_id: Some("anna".to_owned()),
        estimated_duration_ms: None,
        speech_id: SpeechId(id(2)),
    });
    check(TtsMetadataEvent {
        sample_rate: 22_050,
        encoding: AudioEncoding::Linear16,
        channels: 1,
        bit_depth: Some(16),
        mime_type: None,
    });
    check(TtsSynthesisCompleteEvent {
        synthesis_id: Some(id(1)),
        text: Some("hello".to_owned()),
        total_audio_bytes: 640,
        synthesis_time_ms: 3.25,
        total_time_ms: None,
        audio_duration_ms: Some(20.0),
        chunk_count: 1,
        real_time_factor: Some(0.1),
        cancelled: false,
    });
}

#[tokio::test]
async fn events_with_samples_keep_them() {
    let stereo = AudioChunk::new(vec![i16::MIN, -1, 0, i16::MAX], 48_000, 2).expect("two frames of two");
    check(TtsAudioEvent {
        synthesis_id: Some(id(1)),
        chunk_index: 4,
        audio: Some(PcmData(stereo)),
        format: AudioFormat::S16,
        text: Some("hello".to_owned()),
        final_chunk: false,
        sequence: None,
        words: None,
        whole_utterance: false,
    });
    check(AudioReceivedEvent {
        pcm_data: Some(PcmData(AudioChunk::mono(vec![0; 320]))),
        size_bytes: Some(160),
        format: Some("audio/PCMU".to_owned()),
    });
}

#[tokio::test]
async fn events_that_extend_others_are_one_flat_object() {
    check(detection());
    let completed = DetectionCompletedEvent {
        detection: detection(),
        objects: vec![DetectedObject {
            label: "cat".to_owned(),
            confidence: Some(0.9),
            x1: -4,
            y1: 0,
            x2: 10,
            y2: 20,
        }],
        image_width: 640,
        image_height: 480,
        raw: Some(json!({ "vendor": { "score": 1 } })),
    };
    let json = serde_json::to_value(&completed).expect("events have a JSON form");
    assert_eq!((&json["detection_count"], &json["image_width"]), (&json!(1), &json!(640)));
    check(completed);
}

#[test]
fn a_flat_object_that_lacks_a_field_or_lies_about_its_type_is_invalid() {
    let validator = validator(TurnEndedEvent::event_type());
    let valid = json!({
        "type": "turn.ended", "event_id": id(1), "timestamp": "2025-01-01T00:00:00Z", "seq": 1, "mono_ns": 0,
        "plugin_name": "acme", "plugin_version": "1.0.0", "confidence": 1.0, "eager": false,
    });
    assert!(validator.is_valid(&valid));
    for field in
        ["type", "event_id", "timestamp", "seq", "mono_ns", "plugin_name", "plugin_version", "confidence"]
    {
        let mut broken = valid.clone();
        broken.as_object_mut().expect("it is one").remove(field);
        assert!(!validator.is_valid(&broken), "without {field}");
        broken[field] = json!({ "no": "such value" });
        assert!(!validator.is_valid(&broken), "with a wrong {field}");
    }
}
