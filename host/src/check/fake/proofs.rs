//! For each test a plugin that it fails, and one that it does not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use antiphon_plugin_api::PluginManifest;
use serde_json::{Map, json};

use super::{Fake, Fault};
use crate::check::{
    catalogue,
    message::Message,
    running::{Context, Patience, Tell},
};

/// What the test of an id tells of a plugin.
fn told(id: &str, fake: Fake) -> Vec<Message> {
    let told: Arc<Mutex<Vec<Message>>> = Arc::default();
    let collected = Arc::clone(&told);
    let (test, kind) = catalogue::find(id).expect("in the catalogue");
    let context = Context {
        path: "fake".into(),
        source: Some(Arc::new(fake)),
        settings: Map::new(),
        text: None,
        tell: Tell::new(move |message| {
            collected.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        }),
        patience: Patience::of(Duration::from_secs(4)),
    };
    let _ = (test.run)(&context, kind);
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.iter().filter(|message| !matches!(message, Message::Stage(_))).cloned().collect()
}

/// The test fails, and says so with these words.
#[track_caller]
fn fails(id: &str, fault: Fault, words: &str) {
    let told = told(id, Fake::with(fault));
    let says =
        |message: &Message| matches!(message, Message::Failed(problem) if problem.seen.contains(words));
    assert!(told.iter().any(says), "{id} of {fault:?}: {told:?}");
}

#[track_caller]
fn warns(id: &str, fault: Fault, words: &str) {
    let told = told(id, Fake::with(fault));
    let says =
        |message: &Message| matches!(message, Message::Warned(problem) if problem.seen.contains(words));
    let fails = told.iter().any(|message| matches!(message, Message::Failed(_)));
    assert!(!fails && told.iter().any(says), "{id} of {fault:?}: {told:?}");
}

#[track_caller]
fn manifest_fails(id: &str, words: &str, change: impl FnOnce(&mut PluginManifest)) {
    let mut fake = Fake::with(Fault::None);
    change(&mut fake.manifest);
    let told = told(id, fake);
    let says =
        |message: &Message| matches!(message, Message::Failed(problem) if problem.seen.contains(words));
    assert!(told.iter().any(says), "{id}: {told:?}");
}

/// What a test measures of this process is as the other tests are, and what it looks for in a file is not in a fake.
const OF_THE_PROCESS: [&str; 7] = [
    "file",
    "manifest-agrees",
    "start-stop",
    "stdout-silent",
    "library-opens",
    "llm-memory-steady",
    "llm-threads-steady",
];

#[test]
fn a_plugin_without_a_fault_passes_every_test() {
    let plugin = catalogue::grounds().chain(catalogue::of_plugin()).map(|test| test.id(None));
    let model = catalogue::of_kind(crate::Kind::Llm).map(|test| test.id(Some(crate::Kind::Llm)));
    for id in plugin.chain(model).filter(|id| !OF_THE_PROCESS.contains(&id.as_str())) {
        let told = told(&id, Fake::with(Fault::None));
        assert!(told.is_empty(), "{id}: {told:?}");
    }
}

#[test]
fn starts_and_stops_that_go_wrong_are_found() {
    fails("starts", Fault::NoObject, "no object for the capability llm");
    fails("manifest-capabilities", Fault::ExtraObject, "although it is not in the manifest");
    fails("start-stop", Fault::StartsOnce, "start 2 of 10 failed: the port is taken");
    fails("start-stop", Fault::NeverStops, "`stop` was not answered");
    fails("two-instances", Fault::OneAtATime, "the port is taken");
    fails("ping", Fault::DeafPing, "a ping after the start was not answered");
}

#[test]
fn settings_that_are_not_looked_at_are_found() {
    warns("settings-unknown", Fault::AcceptsSettings, "was accepted");
    warns("settings-unknown", Fault::Mumbles, "does not name the setting");
    fails("settings-wrong", Fault::AcceptsSettings, "is accepted");
    fails("settings-wrong", Fault::Mumbles, "refused without its name");
    fails("settings-odd", Fault::AcceptsSettings, "settings that are half an object are accepted");
}

#[test]
fn manifests_that_are_wrong_are_found() {
    manifest_fails("manifest-settings", "the schema of the settings is none", |manifest| {
        manifest.settings = json!({ "type": 5 });
    });
    manifest_fails("manifest-settings", "the default of speed is not valid", |manifest| {
        manifest.settings["properties"]["speed"]["default"] = json!(3.0);
    });
    manifest_fails("manifest-events", "\"Fake.Noise\"", |manifest| {
        manifest.events[2].name = "Fake.Noise".into()
    });
    manifest_fails("manifest-events", "extends [\"BaseEvent\"]", |manifest| {
        manifest.events[2].extends = vec!["BaseEvent".into()];
    });
    manifest_fails("manifest-events", "extends no.such, which", |manifest| {
        manifest.events[2].extends.insert(0, "no.such".into());
    });
    manifest_fails("manifest-events", "has no schema", |manifest| manifest.events[2].schema = None);
    manifest_fails("manifest-events", "the schema of fake.noise is none", |manifest| {
        manifest.events[2].schema = Some(json!({ "type": "thing" }));
    });
    manifest_fails("manifest-events", "declared twice", |manifest| {
        manifest.events.push(manifest.events[2].clone());
    });
    manifest_fails("manifest-events", "259 event types", |manifest| {
        let one = manifest.events[2].clone();
        manifest.events.extend((0..256).map(|_| one.clone()));
    });
    manifest_fails("library-opens", "the manifest has", |manifest| {
        manifest.description = "x".repeat(5 << 20)
    });
    manifest_fails("manifest-capabilities", "declared in version 2", |manifest| {
        manifest.capabilities[0].version = 2;
    });
    manifest_fails("manifest-capabilities", "declared are []", |manifest| manifest.capabilities.clear());
}

#[test]
fn answers_that_are_none_are_found() {
    fails("llm-exchange", Fault::NeverFinishes, "was not finished in time");
    fails("llm-exchange", Fault::FinishesTwice, "was finished twice");
    fails("llm-exchange", Fault::SaysNothing, "no llm.response.delta came");
    fails("llm-exchange", Fault::Disorders, "came as [1, 0, 2]");
    fails("llm-exchange", Fault::AfterEnd, "after its finished");
    fails("llm-many-sessions", Fault::OtherSession, "which was never sent in this session");
}

#[test]
fn events_that_are_wrong_are_found() {
    fails("llm-events", Fault::Undeclared, "an event with index 99");
    fails("llm-events", Fault::Malformed, "a payload that the host cannot read");
    fails("llm-events", Fault::Misfit, "does not fit its schema");
    warns("llm-interest", Fault::IgnoresInterest, "although nobody wants it");
    fails("llm-interest", Fault::AsksOnce, "no event came once all were wanted");
}

#[test]
fn commands_that_cannot_be_stopped_are_found() {
    warns("llm-cancel", Fault::IgnoresCancel, "ended as COMPLETED");
    fails("llm-cancel", Fault::AfterEnd, "after its finished");
}

#[test]
fn input_that_breaks_a_session_is_found() {
    for id in ["llm-empty-input", "llm-odd-input", "llm-huge-input"] {
        fails(id, Fault::Sulks, "an ordinary command ended as FAILED");
    }
    fails("llm-refuses-garbage", Fault::AcceptsGarbage, "was answered with ACCEPTED");
}

#[test]
fn plugins_that_do_not_wait_for_room_are_found() {
    fails("llm-host-full", Fault::DropsOnFull, "finished while its outputs found no room");
    fails("llm-host-full", Fault::Spins, "attempts while there was no room");
    fails("llm-host-gone", Fault::StuckWhenGone, "was not finished in time");
}

#[test]
fn sessions_that_do_not_end_are_found() {
    fails("llm-open-close", Fault::NeverCloses, "`close` was not finished");
    fails("llm-open-close", Fault::AfterClose, "fake.noise after `close` was finished");
    fails("llm-close-midway", Fault::ClosesLater, "`close` was not finished");
    fails("llm-close-midway", Fault::ForgetsAtClose, "`close` was finished without it");
    fails("llm-close-twice", Fault::ClosesOnce, "`close` was not finished");
    fails("llm-close-twice", Fault::AcceptsAfterClose, "after the end of `close` was answered with ACCEPTED");
    fails("llm-drop-session", Fault::KeepsOnAfterDrop, "whose object was dropped was not finished");
}

#[test]
fn what_grows_is_found() {
    fails("llm-memory-steady", Fault::Leaks, "memory grows by");
    fails("llm-threads-steady", Fault::LeaksThreads, "threads before and");
}
