use antiphon_core::Event;

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
struct NoAttributeEvent {}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(base = antiphon_core::BaseEvent)]
struct NoTypeEvent {}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "acme.thing")]
struct NoBaseEvent {}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(name = "acme.thing", base = antiphon_core::BaseEvent)]
struct WrongKeyEvent {}

fn main() {}
