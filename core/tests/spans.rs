//! Calls of handlers as spans of `tracing`, in a binary of its own: who subscribes to spans does so for all its threads.

use std::{cell::RefCell, fmt, sync::Once, time::Duration};

use antiphon_core::{BaseEvent, Event, EventBus, bus::UnknownType, event::Stamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{
    Id, Subscriber,
    field::{Field, Visit},
    span::Attributes,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.note", base = BaseEvent)]
struct NoteEvent {}

#[derive(Debug, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "test.answer", base = BaseEvent)]
struct AnswerEvent {}

/// Fields of a span, by name.
type Fields = Vec<(String, String)>;

thread_local! {
    /// The spans of handlers that were made on this thread, which in these tests runs all of them.
    static SPANS: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
}

struct Notes;

struct Reader(Fields);

impl Visit for Reader {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name().to_owned(), value.to_owned()));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if span.metadata().target() == "antiphon::handler" {
            let mut reader = Reader(Vec::new());
            span.record(&mut reader);
            SPANS.with_borrow_mut(|spans| spans.push(reader.0));
        }
    }
}

/// A bus whose calls are noted.
fn traced_bus() -> EventBus {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Notes);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else does so");
    });
    EventBus::new()
}

/// The spans since the last call, when all handlers are done.
async fn spans(bus: &EventBus) -> Vec<Fields> {
    assert!(bus.drain(Duration::from_secs(60)).await, "{:?}", bus.subscriptions());
    SPANS.take()
}

/// As `spans`, of each only the type of its event.
async fn types(bus: &EventBus) -> Vec<String> {
    spans(bus).await.into_iter().map(|fields| fields[0].1.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_call_is_a_span_with_the_type_and_the_id_of_its_event() {
    let bus = traced_bus();
    let _guard = bus.subscription().name("quick").subscribe(async |_: Event<NoteEvent>| ());
    bus.emit(NoteEvent {});
    let emitted = bus.emit_with(NoteEvent {}, Stamp::default()).envelope.expect("it is wanted");
    let spans = spans(&bus).await;
    assert_eq!(spans.len(), 2);
    let id = emitted.base().event_id.to_string();
    let want = [("event_type", "test.note"), ("event_id", &id), ("seq", "2"), ("handler", "quick")];
    assert_eq!(spans[1], want.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_in_its_span_also_after_it_has_waited() {
    let bus = traced_bus();
    let (sender, mut inside) = tokio::sync::mpsc::unbounded_channel();
    let _guard = bus.subscribe(move |_: Event<NoteEvent>| {
        let sender = sender.clone();
        let name = || tracing::Span::current().metadata().map(|metadata| metadata.name());
        async move {
            let before = name();
            tokio::task::yield_now().await;
            let _ = sender.send([before, name()]);
        }
    });
    bus.emit(NoteEvent {});
    assert_eq!(types(&bus).await, ["test.note"]);
    assert_eq!(inside.try_recv(), Ok([Some("handle"); 2]));
}

#[tokio::test(start_paused = true)]
async fn a_silenced_type_has_no_spans_and_is_delivered_all_the_same() {
    let bus = traced_bus();
    let notes = bus.subscribe(async |_: Event<NoteEvent>| ());
    let answers = bus.subscribe(async |_: Event<AnswerEvent>| ());
    bus.silence("test.note");
    bus.emit(NoteEvent {});
    bus.emit(AnswerEvent {});
    assert_eq!(types(&bus).await, ["test.answer"]);
    bus.silence("test.*");
    bus.emit(AnswerEvent {});
    assert!(types(&bus).await.is_empty());
    bus.unsilence("test.*");
    bus.unsilence("test.note");
    bus.emit(NoteEvent {});
    assert_eq!(types(&bus).await, ["test.note"]);
    assert_eq!((notes.stats().delivered, answers.stats().delivered), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_not_known_here_can_be_silenced_too() {
    let bus = traced_bus();
    let guard = bus.subscription().patterns(["acme.*"]).subscribe(async |_: Event<BaseEvent>| ());
    let emit = || bus.emit_json(json!({ "type": "acme.news" }), UnknownType::PassThrough);
    assert!(emit().is_ok_and(|emitted| emitted.envelope.is_some()));
    assert_eq!(types(&bus).await, ["acme.news"]);
    bus.silence("acme.*");
    assert!(emit().is_ok_and(|emitted| emitted.envelope.is_some()));
    assert!(types(&bus).await.is_empty());
    assert_eq!(guard.stats().delivered, 2);
}
