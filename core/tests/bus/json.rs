//! Events that come as JSON.

use antiphon_core::{
    BaseEvent, Event, EventBus,
    bus::{EmitJsonError, UnknownType},
    event::{EventPayload, bus::ExceptionEvent, stt::SttFinalTranscriptEvent},
};
use serde_json::{Value, json};

use crate::{
    from_plugins::declare_face,
    support::{NoteEvent, log, note, number, settle, watch},
};

/// What comes of a value that is to be refused.
#[track_caller]
fn check_refused(bus: &EventBus, event: Value, want: &str) {
    let error = bus.emit_json(event, UnknownType::Refuse).expect_err("it is no such event");
    assert_eq!(error.to_string(), want);
}

#[tokio::test(start_paused = true)]
async fn what_one_bus_gives_another_takes() {
    let (from, to) = (EventBus::new(), EventBus::new());
    let (_given, mut given) = watch(from.subscription(), |event: &Event<BaseEvent>| event.to_json());
    let (_taken, mut taken) = watch(to.subscription(), |event: &Event<NoteEvent>| NoteEvent::clone(event));
    let (_json, mut json) = watch(to.subscription(), |event: &Event<BaseEvent>| event.to_json());
    from.open_session().emit(note(7));
    let given = given.next().await;
    let emitted = to.open_session().emit_json(given.clone(), UnknownType::Refuse).expect("it is an event");
    assert!(emitted.envelope.is_some());
    assert_eq!(taken.next().await, note(7));
    let json = json.next().await;
    assert_eq!(json["number"], given["number"]);
    assert_eq!(json["type"], given["type"]);
}

#[tokio::test(start_paused = true)]
async fn the_story_of_an_event_is_taken_over_and_its_identity_is_stamped_anew() {
    let bus = EventBus::new();
    let session = bus.open_session();
    let (_guard, mut seen) = watch(bus.subscription(), |event: &Event<BaseEvent>| event.to_json());
    let cause = "01890a5d-ac96-774b-bcce-b302099a8057";
    let forged = json!({
        "type": "stt.transcript.final",
        "text": "hello",
        "is_batch": false,
        "turn_id": 4,
        "causation_id": cause,
        "participant": { "id": "p1", "user_id": "alice" },
        "user_metadata": { "room": "blue" },
        "event_id": cause,
        "seq": 77,
        "session_id": cause,
        "timestamp": "2001-01-01T00:00:00Z",
        "mono_ns": 1,
        "plugin_name": "stt-forged",
        "plugin_version": "6.6.6",
    });
    let emitted = session.emit_json(forged.clone(), UnknownType::Refuse).expect("it is an event");
    let base = emitted.envelope.as_ref().expect("it is wanted").base();
    assert_eq!((base.seq, base.session_id), (1, Some(session.id())));
    let json = seen.next().await;
    for kept in ["type", "text", "turn_id", "causation_id", "user_metadata"] {
        assert_eq!(json[kept], forged[kept], "{kept}");
    }
    assert_eq!(json["participant"]["user_id"], "alice");
    for stamped in ["event_id", "seq", "session_id", "timestamp"] {
        assert_ne!(json[stamped], forged[stamped], "{stamped}");
    }
    assert_eq!((json.get("plugin_name"), json.get("plugin_version")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn in_a_handler_json_carries_the_cause_unless_it_names_one() {
    let bus = EventBus::new();
    let (_answers, mut answers) =
        watch(bus.subscription().patterns(["test.answer"]), |event: &Event<BaseEvent>| event.causation_id());
    let emitting = bus.clone();
    let _guard = bus.subscribe(move |_: Event<NoteEvent>| {
        let answer = json!({ "type": "test.answer", "number": 1 });
        let outcome = emitting.emit_json(answer, UnknownType::PassThrough).map(|_| ());
        async move { outcome }
    });
    let (_notes, mut notes) = watch(bus.subscription(), |event: &Event<NoteEvent>| event.event_id());
    bus.emit(note(1));
    settle(&bus).await;
    assert_eq!(answers.so_far(), [notes.so_far().pop()]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_refused_with_its_beginning() {
    let bus = EventBus::new();
    let no_event = "an event is a JSON object with a text field `type`, not ";
    check_refused(&bus, json!({ "number": 1 }), &format!("{no_event}{{\"number\":1}}"));
    check_refused(&bus, json!({ "type": 7 }), &format!("{no_event}{{\"type\":7}}"));
    check_refused(&bus, json!(["test.note"]), &format!("{no_event}[\"test.note\"]"));
    check_refused(&bus, json!("test.note"), &format!("{no_event}\"test.note\""));
    check_refused(&bus, json!(null), &format!("{no_event}null"));
    let long = json!("x".repeat(1000));
    let error = bus.emit_json(long, UnknownType::PassThrough).expect_err("text is no event");
    assert!(matches!(error, EmitJsonError::NoEvent { found } if found.chars().count() == 80));
}

#[tokio::test(start_paused = true)]
async fn a_field_of_the_base_that_does_not_fit_is_named() {
    let bus = EventBus::new();
    let _guard = bus.subscribe(async |_: Event<NoteEvent>| ());
    let event = json!({ "type": "test.note", "number": 1, "causation_id": "not an id" });
    let error = bus.emit_json(event, UnknownType::Refuse).expect_err("the id is none");
    assert!(matches!(&error, EmitJsonError::Base { field: "causation_id", .. }), "{error}");
    assert!(error.to_string().starts_with("field `causation_id` of `test.note` does not fit: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_type_is_refused_passed_over_or_passed_through() {
    let bus = EventBus::new();
    let (_guard, mut seen) =
        watch(bus.subscription().patterns(["acme.*"]), |event: &Event<BaseEvent>| event.to_json());
    let (_all, mut all) = watch(bus.subscription(), |event: &Event<BaseEvent>| event.event_type().to_owned());
    let event = || json!({ "type": "acme.news", "headline": "rain", "seq": 99 });
    check_refused(&bus, event(), "no event type `acme.news` is known here");
    let emitted = bus.emit_json(event(), UnknownType::Warn).expect("it is passed over");
    assert!(emitted.envelope.is_none());
    settle(&bus).await;
    assert!(seen.so_far().is_empty());

    let emitted = bus.emit_json(event(), UnknownType::PassThrough).expect("it is passed through");
    assert!(emitted.envelope.is_some());
    settle(&bus).await;
    let [json] = &seen.so_far()[..] else { panic!("one event was emitted") };
    assert_eq!(
        (&json["type"], &json["headline"], &json["seq"]),
        (&json!("acme.news"), &json!("rain"), &json!(1))
    );
    assert_eq!(all.so_far(), ["acme.news"]);
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_does_not_fit_its_struct_is_refused() {
    let bus = EventBus::new();
    let (guard, mut seen) = watch(bus.subscription(), number);
    let error = bus
        .emit_json(json!({ "type": "test.note", "number": "seven" }), UnknownType::Refuse)
        .expect_err("a text is no number");
    assert!(matches!(error, EmitJsonError::Payload(_)));
    assert!(error.to_string().starts_with("test.note has a payload that does not fit its type: "), "{error}");
    bus.emit_json(json!({ "type": "test.note" }), UnknownType::PassThrough)
        .expect_err("the number is missing");
    bus.emit(note(1));
    settle(&bus).await;
    assert_eq!((seen.so_far(), guard.stats().failures), (vec![1], 0));
}

#[tokio::test(start_paused = true)]
async fn a_declared_type_is_held_to_its_schema() {
    let bus = EventBus::new();
    declare_face(&bus);
    let (_guard, mut seen) =
        watch(bus.subscription().patterns(["acme.face"]), |event: &Event<BaseEvent>| event.seq());
    let face = |smiles: Value| json!({ "type": "acme.face", "detection_count": 1, "smiles": smiles });
    let error =
        bus.emit_json(face(json!("wide")), UnknownType::Refuse).expect_err("a text is no truth value");
    let text = error.to_string();
    assert!(text.starts_with("acme.face has a payload that does not fit its type: "), "{text}");
    assert!(text.ends_with(" at `/smiles`"), "{text}");
    let _ = bus.emit_json(face(json!(true)), UnknownType::Refuse).expect("it fits");
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1], "what was refused took no number");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_checked_all_the_same() {
    let bus = EventBus::new();
    let bad = json!({ "type": "stt.transcript.final", "text": 7 });
    bus.emit_json(bad, UnknownType::Refuse).expect_err("a number is no text");
    let good = json!({ "type": "stt.transcript.final", "text": "hello", "is_batch": false });
    let emitted = bus.emit_json(good, UnknownType::Refuse).expect("it fits");
    assert!(emitted.envelope.is_none());
    assert!(!bus.is_wanted(SttFinalTranscriptEvent::event_type()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_emits_bad_json_fails_with_the_reason() {
    let bus = EventBus::new();
    let (sender, mut told) = log();
    bus.subscribe(move |event: Event<ExceptionEvent>| {
        let _ = sender.send(event.exc.message.clone());
        std::future::ready(())
    })
    .detach();
    let emitting = bus.clone();
    let _guard = bus.subscribe(move |_: Event<NoteEvent>| {
        let outcome = emitting.emit_json(json!({ "type": "acme.none" }), UnknownType::Refuse).map(|_| ());
        async move { outcome }
    });
    bus.emit(note(1));
    assert_eq!(told.next().await, "no event type `acme.none` is known here");
}
