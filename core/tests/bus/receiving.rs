//! Who receives what.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use antiphon_core::{
    AudioChunk, BaseEvent, Event, EventBus, EventUnion, PluginBaseEvent, SessionBus,
    bus::{PluginEmission, TryEmitError},
    event::{
        EventPayload, EventType, Stamp,
        session::SessionReadyEvent,
        stt::SttFinalTranscriptEvent,
        tts::{TtsAudioEvent, TtsConnectedEvent},
        values::{AudioFormat, PcmData},
        vision::{DetectionCompletedEvent, VideoProcessorDetectionEvent},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{NoteEvent, log, note, number, of_plugin, plugin, settle, watch};

#[derive(EventUnion)]
enum Either {
    Note(Event<NoteEvent>),
    Ready(Event<SessionReadyEvent>),
}

fn event_type(event: &Event<BaseEvent>) -> String {
    event.event_type().to_owned()
}

fn transcript(text: &str) -> SttFinalTranscriptEvent {
    SttFinalTranscriptEvent { text: text.to_owned(), ..Default::default() }
}

fn detection(detection_count: u32) -> DetectionCompletedEvent {
    DetectionCompletedEvent {
        detection: VideoProcessorDetectionEvent {
            model_id: Some("yolo".to_owned()),
            inference_time_ms: None,
            detection_count,
        },
        objects: Vec::new(),
        image_width: 640,
        image_height: 480,
        raw: None,
    }
}

fn audio() -> TtsAudioEvent {
    TtsAudioEvent {
        synthesis_id: None,
        chunk_index: 0,
        audio: Some(PcmData(AudioChunk::mono(vec![1, 2, 3]))),
        format: AudioFormat::S16,
        text: None,
        final_chunk: false,
        sequence: None,
        words: None,
        whole_utterance: false,
    }
}

/// What a plugin sends: MessagePack with field names.
fn emission<'a>(
    event: &'a EventType,
    payload: &'a [u8],
    plugin: &'a Arc<PluginBaseEvent>,
) -> PluginEmission<'a> {
    PluginEmission {
        event,
        payload,
        plugin,
        turn_id: None,
        causation_id: None,
        emitted_at: None,
        always: false,
    }
}

fn emit_bytes(session: &SessionBus, event: &EventType, payload: &impl Serialize) {
    let bytes = rmp_serde::to_vec_named(payload).expect("the payload is a map of plain values");
    session.try_emit_plugin(&emission(event, &bytes, &plugin())).expect("the host knows the type");
}

#[tokio::test(start_paused = true)]
async fn a_handler_of_one_type_receives_that_type_alone() {
    let bus = EventBus::new();
    let (_guard, mut seen) = watch(bus.subscription(), number);
    bus.emit(note(1));
    bus.emit(SessionReadyEvent {});
    bus.emit(note(2));
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_union_receives_each_of_its_types_as_its_variant() {
    let bus = EventBus::new();
    let (_guard, mut seen) = watch(bus.subscription(), |event: &Either| match event {
        Either::Note(event) => (event.number, event.seq()),
        Either::Ready(event) => (0, event.seq()),
    });
    let session = bus.open_session();
    session.emit(note(7));
    session.emit(SessionReadyEvent {});
    let _ = session.emit_with(transcript("not in the union"), of_plugin());
    settle(&bus).await;
    assert_eq!(seen.so_far(), [(7, 1), (0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_root_base_receives_everything_below_it() {
    let bus = EventBus::new();
    let (_all, mut all) = watch(bus.subscription(), event_type);
    let (_plugins, mut plugins) = watch(bus.subscription(), |event: &Event<PluginBaseEvent>| {
        (event.plugin_name.to_string(), event.event_type().to_owned())
    });
    let session = bus.open_session();
    session.emit(note(1));
    let _ = session.emit_with(transcript("hello"), of_plugin());
    settle(&bus).await;
    assert_eq!(all.so_far(), ["test.note", "stt.transcript.final"]);
    assert_eq!(plugins.so_far(), [("stt-acme".to_owned(), "stt.transcript.final".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_extends_another_reaches_the_handlers_of_its_base() {
    let bus = EventBus::new();
    let (_guard, mut seen) = watch(bus.subscription(), |event: &Event<VideoProcessorDetectionEvent>| {
        let derived = event.cast::<DetectionCompletedEvent>().map(|event| event.image_width);
        (event.detection_count, event.model_id.clone(), derived)
    });
    let _ = bus.open_session().emit_with(detection(3), of_plugin());
    settle(&bus).await;
    assert_eq!(seen.so_far(), [(3, Some("yolo".to_owned()), Some(640))]);
}

/// An event of somebody else's, as their plugin is compiled with it.
#[derive(Debug, Serialize)]
struct FaceWire {
    model_id: &'static str,
    detection_count: u32,
    smiles: bool,
}

const FACE: FaceWire = FaceWire { model_id: "smile", detection_count: 1, smiles: true };

fn declare_face(bus: &EventBus) -> Arc<EventType> {
    let bases = ["vision.detection".to_owned(), "PluginBaseEvent".to_owned(), "BaseEvent".to_owned()];
    let schema = json!({ "type": "object", "properties": { "smiles": { "type": "boolean" } } });
    bus.registry().declare("acme.face", &bases, false, schema)
}

/// The same, as a host would be compiled with it.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "acme.face", base = VideoProcessorDetectionEvent)]
struct FaceEvent {
    #[event(base)]
    #[serde(flatten)]
    detection: VideoProcessorDetectionEvent,
    smiles: bool,
}

#[tokio::test(start_paused = true)]
async fn an_event_known_from_a_manifest_alone_reaches_the_handlers_of_all_its_bases() {
    let bus = EventBus::new();
    let face = declare_face(&bus);
    let (_base, mut base) = watch(bus.subscription(), |event: &Event<VideoProcessorDetectionEvent>| {
        (event.event_type().to_owned(), event.detection_count)
    });
    let (_plugins, mut plugins) =
        watch(bus.subscription(), |event: &Event<PluginBaseEvent>| event.plugin_version.to_string());
    let (_all, mut all) = watch(bus.subscription(), |event: &Event<BaseEvent>| event.to_json());
    let session = bus.open_session();
    emit_bytes(&session, &face, &FACE);
    settle(&bus).await;

    assert_eq!(base.so_far(), [("acme.face".to_owned(), 1)]);
    assert_eq!(plugins.so_far(), ["1.2.3"]);
    let [json] = &all.so_far()[..] else { panic!("one event was emitted") };
    assert_eq!(json["type"], "acme.face");
    assert_eq!(json["smiles"], true);
    assert_eq!(json["plugin_name"], "stt-acme");
    assert_eq!(json["session_id"], session.id().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_struct_that_is_subscribed_after_the_declaration_is_delivered_as_itself() {
    let bus = EventBus::new();
    let declared = declare_face(&bus);
    let (_guard, mut seen) =
        watch(bus.subscription(), |event: &Event<FaceEvent>| (event.smiles, event.detection.detection_count));
    emit_bytes(&bus.open_session(), &declared, &FACE);
    settle(&bus).await;
    assert_eq!(seen.so_far(), [(true, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_struct_taken_by_pattern_is_delivered_as_itself() {
    let bus = EventBus::new();
    let declared = declare_face(&bus);
    let (_guard, mut seen) =
        watch(bus.subscription().patterns(["acme.*"]), |event: &Event<FaceEvent>| event.smiles);
    emit_bytes(&bus.open_session(), &declared, &FACE);
    settle(&bus).await;
    assert_eq!(seen.so_far(), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_base_that_is_subscribed_after_the_declaration_receives_the_derived_event() {
    let bus = EventBus::new();
    let bases = ["acme.face", "vision.detection", "PluginBaseEvent", "BaseEvent"].map(str::to_owned);
    let declared = bus.registry().declare("acme.face.known", &bases, false, json!({ "type": "object" }));
    let (_guard, mut seen) =
        watch(bus.subscription(), |event: &Event<FaceEvent>| (event.event_type().to_owned(), event.smiles));
    emit_bytes(&bus.open_session(), &declared, &FACE);
    settle(&bus).await;
    assert_eq!(seen.so_far(), [("acme.face.known".to_owned(), true)]);
}

#[tokio::test(start_paused = true)]
async fn a_payload_cannot_stamp_its_own_base_fields() {
    let bus = EventBus::new();
    let event = bus.registry().declare("acme.forged", &[], false, json!({ "type": "object" }));
    let (_guard, mut seen) = watch(bus.subscription(), |event: &Event<BaseEvent>| event.to_json());
    let forged = json!({
        "type": "stt.transcript.final", "plugin_name": "stt-trusted", "plugin_instance": "1", "seq": 99, "turn_id": 5,
        "participant": { "user_id": "somebody", "id": "else" }, "own": true,
    });
    emit_bytes(&bus.open_session(), &event, &forged);
    settle(&bus).await;
    let [json] = &seen.so_far()[..] else { panic!("one event was emitted") };
    let read = |field: &str| json.get(field).cloned().unwrap_or_default();
    assert_eq!(
        ["type", "plugin_name", "seq", "own"].map(read),
        [json!("acme.forged"), json!("stt-acme"), json!(1), json!(true)]
    );
    assert_eq!(
        ["plugin_instance", "turn_id", "participant"].map(read),
        [Value::Null, Value::Null, Value::Null]
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_such_event_are_refused_and_take_no_place_in_the_order() {
    let bus = EventBus::new();
    let (_guard, mut seen) = watch(bus.subscription(), |event: &Event<SttFinalTranscriptEvent>| event.seq());
    let (session, event, plugin) = (bus.open_session(), SttFinalTranscriptEvent::event_type(), plugin());
    let good = rmp_serde::to_vec_named(&transcript("hello")).expect("plain values");
    let trailing = [&good[..], &[0]].concat();
    let broken = (0..good.len()).map(|cut| &good[..cut]).chain([&trailing[..], &[0xc1; 9][..], &[0xc0][..]]);
    for bytes in broken {
        let refused = session.try_emit_plugin(&emission(event, bytes, &plugin));
        assert!(matches!(refused, Err(TryEmitError::Codec(_))), "{bytes:?} became {refused:?}");
    }
    session.try_emit_plugin(&emission(event, &good, &plugin)).expect("the bytes are whole");
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1]);
}

#[tokio::test(start_paused = true)]
async fn patterns_name_a_type_a_family_a_base_or_everything() {
    #[track_caller]
    fn check(
        bus: &EventBus,
        pattern: &'static str,
    ) -> (antiphon_core::Subscription, crate::support::Log<String>) {
        watch(bus.subscription().patterns([pattern]), event_type)
    }
    let bus = EventBus::new();
    let face = declare_face(&bus);
    let (_exact, mut exact) = check(&bus, "acme.face");
    let (_family, mut family) = check(&bus, "tts.*");
    let (_base, mut base) = check(&bus, "vision.detection");
    let (_all, mut all) = check(&bus, "*");
    let (_none, mut none) = check(&bus, "tt");
    let session = bus.open_session();
    emit_bytes(&session, &face, &FACE);
    let _ = session.emit_with(TtsConnectedEvent {}, of_plugin());
    let _ = session.emit_with(detection(0), of_plugin());
    settle(&bus).await;
    assert_eq!(exact.so_far(), ["acme.face"]);
    assert_eq!(family.so_far(), ["tts.connected"]);
    assert_eq!(base.so_far(), ["acme.face", "vision.detection.completed"]);
    assert_eq!(all.so_far(), ["acme.face", "tts.connected", "vision.detection.completed"]);
    assert_eq!(none.so_far(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn media_events_are_for_those_who_name_them() {
    let bus = EventBus::new();
    let (_base, mut base) = watch(bus.subscription(), event_type);
    let (_plugins, mut plugins) =
        watch(bus.subscription(), |event: &Event<PluginBaseEvent>| event.event_type().to_owned());
    let (_all, mut all) = watch(bus.subscription().patterns(["*"]), event_type);
    let session = bus.open_session();
    assert!(session.emit_with(audio(), of_plugin()).envelope.is_none(), "nobody has named it yet");

    let (_type, mut typed) =
        watch(bus.subscription(), |event: &Event<TtsAudioEvent>| event.event_type().to_owned());
    let (_exact, mut exact) = watch(bus.subscription().patterns(["tts.audio"]), event_type);
    let (_family, mut family) = watch(bus.subscription().patterns(["tts.*"]), event_type);
    let _ = session.emit_with(audio(), of_plugin());
    settle(&bus).await;
    for log in [&mut typed, &mut exact, &mut family] {
        assert_eq!(log.so_far(), ["tts.audio"]);
    }
    for log in [&mut base, &mut plugins, &mut all] {
        assert_eq!(log.so_far(), [""; 0]);
    }
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

async fn on_note(event: Event<NoteEvent>) {
    HANDLED.fetch_add(event.number, Ordering::Relaxed);
}

#[derive(Debug, thiserror::Error)]
#[error("odd")]
struct Odd;

async fn on_note_fallibly(event: Event<NoteEvent>) -> Result<(), Odd> {
    on_note(event).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_form_of_handler_is_called() {
    let bus = EventBus::new();
    let state = Arc::new(Mutex::new(Vec::new()));
    let (sender, mut sent) = log();
    let guards = [
        bus.subscribe(on_note),
        bus.subscribe(on_note_fallibly),
        bus.subscribe(async |event: Event<NoteEvent>| on_note(event).await),
        bus.subscribe(async |event: Event<NoteEvent>| -> Result<(), Odd> { on_note_fallibly(event).await }),
        bus.subscribe(move |event: Event<NoteEvent>| {
            let sender = sender.clone();
            async move { sender.send(event.number).map_err(Box::new) }
        }),
        bus.subscribe_with(
            Arc::clone(&state),
            async |state: Arc<Mutex<Vec<u64>>>, event: Event<NoteEvent>| {
                state.lock().expect("nobody panics with it").push(event.number);
            },
        ),
    ];
    bus.emit(note(5));
    settle(&bus).await;
    assert_eq!(HANDLED.load(Ordering::Relaxed), 20);
    assert_eq!(sent.so_far(), [5]);
    assert_eq!(*state.lock().expect("nobody panics with it"), [5]);
    assert_eq!(guards.map(|guard| (guard.stats().delivered, guard.stats().failures)), [(1, 0); 6]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_not_called_for_events_of_another_type_that_its_pattern_matches() {
    let bus = EventBus::new();
    let (guard, mut seen) = watch(bus.subscription().patterns(["test.*"]), number);
    bus.emit(note(1));
    bus.emit(crate::support::AnswerEvent { number: 2 });
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1]);
    assert_eq!(guard.stats().delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_wants_is_not_built() {
    let bus = EventBus::new();
    let (session, plugin) = (bus.open_session(), plugin());
    let event = SttFinalTranscriptEvent::event_type();
    assert!(session.emit_with(note(1), Stamp::default()).envelope.is_none());
    // Not even looked at: these bytes are no event.
    let unread = session.try_emit_plugin(&emission(event, &[0xc1], &plugin));
    assert!(matches!(unread, Ok(None)), "{unread:?}");
    let wanted_anyway = PluginEmission { always: true, ..emission(event, &[0xc1], &plugin) };
    assert!(matches!(session.try_emit_plugin(&wanted_anyway), Err(TryEmitError::Codec(_))));

    assert!(!bus.is_wanted(NoteEvent::event_type()));
    let (_guard, mut seen) = watch(session.subscription(), |event: &Event<NoteEvent>| event.seq());
    assert!(bus.is_wanted(NoteEvent::event_type()));
    session.emit(note(2));
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1], "what was not built has no place in the order");
}
