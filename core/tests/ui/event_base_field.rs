use antiphon_core::{
    BaseEvent, Event,
    event::{session::SessionReadyEvent, vision::VideoProcessorDetectionEvent},
};

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "acme.face", base = VideoProcessorDetectionEvent)]
struct NoFieldEvent {
    smiles: bool,
}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "acme.face", base = VideoProcessorDetectionEvent)]
struct NotFlatEvent {
    #[event(base)]
    detection: VideoProcessorDetectionEvent,
}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "acme.face", base = VideoProcessorDetectionEvent)]
struct OtherTypeEvent {
    #[event(base)]
    #[serde(flatten)]
    detection: SessionReadyEvent,
}

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema, Event)]
#[event(type = "acme.face", base = antiphon_core::BaseEvent)]
struct RootFieldEvent {
    #[event(base)]
    #[serde(flatten)]
    base: BaseEvent,
}

fn main() {}
