use antiphon_core::Event;

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "acme.thing", base = antiphon_core::BaseEvent)]
enum ThingEvent {
    One,
}

fn main() {}
