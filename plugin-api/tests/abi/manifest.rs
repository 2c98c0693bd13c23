//! What a plugin says of itself before it runs.

use antiphon_core::{
    PluginBaseEvent,
    event::{Envelope, EventInfo, EventPayload, EventType, EventView, Overflow, Payload},
};
use antiphon_plugin_api::{
    abi::{
        ABI_VERSION, API_VERSION, CAPABILITY_V1,
        abi_stable::std_types::{RSlice, RStr},
    },
    export::root,
    prelude::{
        Event, EventDeclarations, Llm, LlmReply, LlmRequest, NoConfig, Plugin, PluginContext, PluginError,
        Tts, TtsOutput, TtsRequest,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::support::{exported, manifest, start};

/// Speaks, answers, and has an event of its own.
struct Both;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "both.mood", base = PluginBaseEvent)]
struct MoodEvent {
    /// How it is.
    mood: String,
}

impl Plugin for Both {
    type Config = NoConfig;
    const RANK: u32 = 7;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn declare(events: &mut EventDeclarations) {
        events.declare::<MoodEvent>().declare::<MoodEvent>();
    }
}

impl Llm for Both {
    async fn respond(&self, _: LlmRequest, _: LlmReply) -> Result<(), PluginError> {
        Ok(())
    }
}

impl Tts for Both {
    async fn synthesize(&self, _: TtsRequest, _: TtsOutput) -> Result<(), PluginError> {
        Ok(())
    }
}

exported! { Both, "both", [tts, llm] }

#[test]
fn events_stand_in_the_manifest_as_they_were_declared() {
    let names: Vec<_> = manifest::<Both>().events.into_iter().map(|event| event.name).collect();
    assert_eq!(
        names,
        [
            "tts.connected",
            "tts.disconnected",
            "tts.error",
            "tts.metadata",
            "tts.synthesis.start",
            "tts.words",
            "tts.synthesis.complete",
            "llm.request.start",
            "llm.response.delta",
            "llm.response.final",
            "llm.response.aborted",
            "llm.error",
            "both.mood"
        ]
    );
}

#[test]
fn only_own_events_have_their_schema_in_the_manifest() {
    for event in manifest::<Both>().events {
        assert_eq!(event.schema.is_some(), event.name == "both.mood");
        assert_eq!(event.extends, ["PluginBaseEvent", "BaseEvent"]);
        if let Some(schema) = event.schema {
            assert_eq!(schema["properties"]["mood"]["description"], "How it is.");
        }
    }
}

#[test]
fn the_manifest_says_what_the_plugin_is() {
    let manifest = manifest::<Both>();
    let told = (manifest.name.as_str(), manifest.version.as_str(), manifest.license.as_str(), manifest.rank);
    assert_eq!(told, ("both", "1.2.3", "MIT", 7));
    assert_eq!((manifest.abi_version, manifest.api_version.as_str()), (ABI_VERSION, API_VERSION));
    assert!(manifest.has("tts") && manifest.has("llm") && !manifest.has("stt"));
    assert_eq!(manifest.settings["additionalProperties"], false);
}

#[test]
fn unknown_capabilities_and_versions_are_not_there() {
    let plugin = start::<Both>().plugin;
    let has = |kind, version| plugin.query(RStr::from_str(kind), version).is_some();
    assert!(has("llm", CAPABILITY_V1));
    assert!(!has("stt", CAPABILITY_V1) && !has("llm", CAPABILITY_V1 + 1) && !has("", 0));
}

/// Declares more event types than there may be.
struct Verbose;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Numbered<const N: usize> {}

impl<const N: usize> EventView for Numbered<N> {
    const NAME: &'static str = "verbose.numbered";
    const MEDIA: bool = false;

    fn view(_: &Envelope) -> Option<&Self> {
        None
    }

    fn info() -> Option<&'static EventInfo> {
        Some(Self::INFO)
    }

    fn extend_lineage(lineage: &mut Vec<&'static str>) {
        lineage.push(Self::NAME);
        PluginBaseEvent::extend_lineage(lineage);
    }
}

impl<const N: usize> EventPayload for Numbered<N> {
    const INFO: &'static EventInfo = &EventInfo::of::<Self, PluginBaseEvent>("Numbered", Overflow::Wait);

    fn event_type() -> &'static EventType {
        unreachable!("never emitted")
    }

    fn base_payload(&self) -> Option<&dyn Payload> {
        None
    }
}

macro_rules! declare_sixteens {
    ($events:ident: $($row:literal)+) => { $(declare_sixteens!($events, $row: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);)+ };
    ($events:ident, $row:literal: $($column:literal)+) => { $($events.declare::<Numbered<{ $row * 16 + $column }>>();)+ };
}

impl Plugin for Verbose {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn declare(events: &mut EventDeclarations) {
        declare_sixteens!(events: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }
}

impl Llm for Verbose {
    async fn respond(&self, _: LlmRequest, _: LlmReply) -> Result<(), PluginError> {
        Ok(())
    }
}

exported! { Verbose, "llm-verbose", [llm] }

#[test]
fn a_manifest_with_too_many_events_is_empty_and_the_host_lives() {
    assert!(root::<Verbose>().manifest()().is_empty());
    let host = crate::support::host();
    let error =
        root::<Verbose>().create()(host, RSlice::from_slice(b"{}")).into_result().err().expect("too many");
    assert_eq!(error.code, "panic");
}
