//! Who receives what.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    from_plugins::{FACE, declare_face, emit_bytes},
    support::{NoteEvent, log, note, number, of_plugin, settle, watch},
};
use antiphon_core::{
    AudioChunk, BaseEvent, Event, EventBus, EventUnion, PluginBaseEvent,
    event::{
        EventPayload, Stamp,
        session::SessionReadyEvent,
        stt::SttFinalTranscriptEvent,
        tts::{TtsAudioEvent, TtsConnectedEvent},
        values::{AudioFormat, PcmData},
        vision::{DetectionCompletedEvent, VideoProcessorDetectionEvent},
    },
};

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
    let session = bus.open_session();
    assert!(session.emit_with(note(1), Stamp::default()).envelope.is_none());
    assert!(!bus.is_wanted(NoteEvent::event_type()));
    let (_guard, mut seen) = watch(session.subscription(), |event: &Event<NoteEvent>| event.seq());
    assert!(bus.is_wanted(NoteEvent::event_type()));
    session.emit(note(2));
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1], "what was not built has no place in the order");
}

#[tokio::test(start_paused = true)]
async fn threads_outside_of_the_runtime_may_subscribe_and_emit() {
    let bus = EventBus::new();
    let outside = {
        let bus = bus.clone();
        move || {
            let (guard, seen) = watch(bus.subscription(), number);
            bus.emit(note(1));
            drop(watch(bus.subscription(), number));
            (guard, seen)
        }
    };
    let (_guard, mut seen) = std::thread::spawn(outside).join().expect("it does not panic");
    settle(&bus).await;
    assert_eq!(seen.so_far(), [1]);
}
