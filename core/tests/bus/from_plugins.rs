//! Events of plugins: encoded, and often of types that the host was not compiled with.

use std::sync::Arc;

use antiphon_core::{
    BaseEvent, Event, EventBus, PluginBaseEvent, SessionBus,
    bus::{PluginEmission, TryEmitError},
    event::{EventPayload, EventType, stt::SttFinalTranscriptEvent, vision::VideoProcessorDetectionEvent},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{plugin, settle, watch};

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

pub(crate) fn emit_bytes(session: &SessionBus, event: &EventType, payload: &impl Serialize) {
    let bytes = rmp_serde::to_vec_named(payload).expect("the payload is a map of plain values");
    session.try_emit_plugin(&emission(event, &bytes, &plugin())).expect("the host knows the type");
}

/// An event of somebody else's, as their plugin is compiled with it.
#[derive(Debug, Serialize)]
pub(crate) struct FaceWire {
    model_id: &'static str,
    detection_count: u32,
    smiles: bool,
}

pub(crate) const FACE: FaceWire = FaceWire { model_id: "smile", detection_count: 1, smiles: true };

pub(crate) fn declare_face(bus: &EventBus) -> Arc<EventType> {
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
    let transcript = SttFinalTranscriptEvent { text: "hello".to_owned(), ..Default::default() };
    let good = rmp_serde::to_vec_named(&transcript).expect("plain values");
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
async fn bytes_that_nobody_wants_are_not_even_looked_at() {
    let bus = EventBus::new();
    let (session, plugin, event) = (bus.open_session(), plugin(), SttFinalTranscriptEvent::event_type());
    let no_event = emission(event, &[0xc1], &plugin);
    let unread = session.try_emit_plugin(&no_event);
    assert!(matches!(unread, Ok(None)), "{unread:?}");
    let wanted_anyway = PluginEmission { always: true, ..no_event };
    assert!(matches!(session.try_emit_plugin(&wanted_anyway), Err(TryEmitError::Codec(_))));
}
