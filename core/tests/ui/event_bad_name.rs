use antiphon_core::Event;

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "Acme.Thing", base = antiphon_core::BaseEvent)]
struct UpperCaseEvent {}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "thing", base = antiphon_core::BaseEvent)]
struct NoDotEvent {}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "acme..thing", base = antiphon_core::BaseEvent)]
struct EmptyWordEvent {}

fn main() {}
