//! A language model over the bare ABI that keeps the contract, but for one fault: every test can fail.

mod proofs;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use antiphon_core::event::values::Role;
use antiphon_plugin_api::{
    LlmRequest, PluginManifest,
    abi::{
        AbiError, CapabilityObject, EventHeaderV1, HostBox, InterestV1, LlmBox, LlmSessionBox, LlmSessionV1,
        LlmV1, Outcome, PluginBox, PluginV1, SinkBox, Status, WakerBox,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, ROption, RSlice, RStr},
        },
    },
};
use serde_json::{Value, json};

use super::running::{Bell, Source};

/// The one thing that it does not do right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Settings of any kind will do.
    AcceptsSettings,
    /// Its errors name no setting.
    Mumbles,
    NoObject,
    ExtraObject,
    StartsOnce,
    OneAtATime,
    DeafPing,
    NeverStops,
    NeverCloses,
    ClosesOnce,
    AcceptsAfterClose,
    ForgetsAtClose,
    ClosesLater,
    KeepsOnAfterDrop,
    NeverFinishes,
    FinishesTwice,
    SaysNothing,
    Undeclared,
    Malformed,
    Misfit,
    AfterEnd,
    AfterClose,
    OtherSession,
    IgnoresInterest,
    AsksOnce,
    IgnoresCancel,
    /// After what is empty, odd or huge it does not work any more.
    Sulks,
    AcceptsGarbage,
    DropsOnFull,
    Spins,
    Disorders,
    StuckWhenGone,
    Leaks,
    LeaksThreads,
}

/// A plugin with a fault.
pub(super) struct Fake {
    fault: Fault,
    pub(super) manifest: PluginManifest,
    instances: Arc<AtomicUsize>,
    starts: AtomicUsize,
}

/// Positions of its events in the manifest.
const DELTA: u32 = 0;
const FINAL: u32 = 1;
const NOISE: u32 = 2;

impl Fake {
    pub(super) fn with(fault: Fault) -> Self {
        let core = |name: &str| json!({ "type": name, "extends": ["PluginBaseEvent", "BaseEvent"] });
        let mut noise = core("fake.noise");
        noise["schema"] = json!({ "type": "object", "properties": { "level": { "type": "integer" } } });
        let manifest = json!({
            "name": "llm-fake", "version": "1.0.0", "description": "for tests", "license": "MIT",
            "abi_version": 1, "api_version": "0.1.0",
            "capabilities": [{ "kind": "llm", "version": 1 }],
            "settings": {
                "type": "object",
                "properties": { "speed": { "type": "number", "default": 1.0, "maximum": 2.0, "description": "How fast." } },
            },
            "events": [core("llm.response.delta"), core("llm.response.final"), noise],
        });
        let manifest = serde_json::from_value(manifest).expect("a manifest");
        Self { fault, manifest, instances: Arc::default(), starts: AtomicUsize::new(0) }
    }

    fn refusal(&self, settings: &[u8]) -> Option<String> {
        if self.fault == Fault::AcceptsSettings {
            return None;
        }
        let wrong = match serde_json::from_slice::<Value>(settings) {
            Err(error) => Some(error.to_string()),
            Ok(Value::Object(settings)) => settings
                .iter()
                .find(|(name, value)| *name != "speed" || !value.is_number())
                .map(|(name, value)| format!("{name} cannot be {value}")),
            Ok(other) => Some(format!("{other} is no object")),
        };
        wrong.map(|text| if self.fault == Fault::Mumbles { "no".to_owned() } else { text })
    }
}

impl Source for Fake {
    fn manifest(&self) -> &PluginManifest {
        &self.manifest
    }

    fn create(&self, host: HostBox, settings: &[u8]) -> Result<PluginBox, AbiError> {
        let error =
            |message: String| AbiError { code: "fake".into(), message: message.into(), recoverable: false };
        if let Some(text) = self.refusal(settings) {
            return Err(error(text));
        }
        let is_first = self.starts.fetch_add(1, Ordering::Relaxed) == 0;
        let is_alone = self.instances.fetch_add(1, Ordering::Relaxed) == 0;
        let fault = self.fault;
        if (fault == Fault::StartsOnce && !is_first) || (fault == Fault::OneAtATime && !is_alone) {
            return Err(error("the port is taken".into()));
        }
        let interest = host.interest();
        let wanted_at_first = interest.words[0].load(Ordering::Relaxed);
        let plugin = FakePlugin { fault, wanted_at_first, interest, instances: Arc::clone(&self.instances) };
        Ok(PluginBox::from_value(plugin, TD_Opaque))
    }
}

struct FakePlugin {
    fault: Fault,
    wanted_at_first: u64,
    interest: RArc<InterestV1>,
    instances: Arc<AtomicUsize>,
}

impl Drop for FakePlugin {
    fn drop(&mut self) {
        self.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PluginV1 for FakePlugin {
    fn query(&self, capability: RStr<'_>, version: u32) -> ROption<CapabilityObject> {
        let is_known = capability.as_str() == "llm" && version == 1;
        let is_given = match self.fault {
            Fault::NoObject => false,
            Fault::ExtraObject => true,
            _ => is_known,
        };
        let model = FakeModel {
            fault: self.fault,
            wanted_at_first: self.wanted_at_first,
            interest: self.interest.clone(),
        };
        let object = || CapabilityObject::new(LlmBox::from_value(model, TD_Opaque));
        is_given.then(object).into()
    }

    fn ping(&self, done: WakerBox) {
        if self.fault != Fault::DeafPing {
            done.wake();
        }
    }

    fn stop(&self, done: WakerBox) {
        if self.fault != Fault::NeverStops {
            done.wake();
        }
    }
}

struct FakeModel {
    fault: Fault,
    wanted_at_first: u64,
    interest: RArc<InterestV1>,
}

impl LlmV1 for FakeModel {
    fn open(&self, id: RStr<'_>, sink: SinkBox) -> LlmSessionBox {
        let inner = Inner {
            fault: self.fault,
            id: id.to_string(),
            wanted_at_first: self.wanted_at_first,
            interest: self.interest.clone(),
            sink,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        LlmSessionBox::from_value(FakeSession(Arc::new(inner)), TD_Opaque)
    }
}

struct FakeSession(Arc<Inner>);

#[derive(Default)]
struct State {
    /// Whether each command is cancelled.
    running: BTreeMap<u64, bool>,
    closers: Vec<u64>,
    is_closed: bool,
    is_over: bool,
    sulks: bool,
}

struct Inner {
    fault: Fault,
    id: String,
    interest: RArc<InterestV1>,
    wanted_at_first: u64,
    sink: SinkBox,
    state: Mutex<State>,
    changed: Condvar,
}

impl LlmSessionV1 for FakeSession {
    fn respond(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status {
        let inner = &self.0;
        let Ok(request) = rmp_serde::from_slice::<LlmRequest>(request.as_slice()) else {
            if inner.fault == Fault::AcceptsGarbage {
                inner.sink.finished(token, Outcome::FAILED);
                return Status::ACCEPTED;
            }
            return Status::REFUSED;
        };
        {
            let mut state = inner.lock();
            if state.is_closed && inner.fault == Fault::AcceptsAfterClose {
                return Status::ACCEPTED;
            }
            if state.is_closed {
                return Status::CLOSED;
            }
            state.running.insert(token, false);
        }
        let inner = Arc::clone(inner);
        thread::spawn(move || inner.work(token, turn_id, &request));
        Status::ACCEPTED
    }

    fn cancel(&self, token: u64) {
        if self.0.fault != Fault::IgnoresCancel
            && let Some(cancelled) = self.0.lock().running.get_mut(&token)
        {
            *cancelled = true;
        }
    }

    fn close(&self, token: u64) {
        self.0.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        waker.wake();
    }
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        if self.0.fault != Fault::KeepsOnAfterDrop {
            self.0.close(0);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, token: u64) {
        let mut state = self.lock();
        let was_closed = std::mem::replace(&mut state.is_closed, true);
        let is_deaf = self.fault == Fault::NeverCloses || (self.fault == Fault::ClosesOnce && was_closed);
        if self.fault != Fault::ClosesLater {
            state.running.values_mut().for_each(|cancelled| *cancelled = true);
        }
        if self.fault == Fault::ForgetsAtClose {
            state.running.clear();
        }
        if is_deaf {
            return;
        }
        if !state.running.is_empty() {
            state.closers.push(token);
            return;
        }
        state.is_over = true;
        drop(state);
        self.closed(token);
    }

    fn closed(&self, token: u64) {
        if token == 0 {
            return;
        }
        self.sink.finished(token, Outcome::COMPLETED);
        if self.fault == Fault::AfterClose {
            self.offer(NOISE, 0, &json!({ "level": 1 }));
        }
    }

    fn is_cancelled(&self, token: u64) -> bool {
        self.lock().running.get(&token).copied().unwrap_or(true)
    }

    fn work(&self, token: u64, turn_id: u64, request: &LlmRequest) {
        let text: String = request
            .messages
            .iter()
            .filter(|said| said.role == Role::User)
            .map(|said| said.content.as_str())
            .collect();
        let is_plain = !text.trim().is_empty() && text.is_ascii() && text.len() < 1_000;
        let sulks = {
            let mut state = self.lock();
            state.sulks |= self.fault == Fault::Sulks && !is_plain;
            state.sulks
        };
        match self.fault {
            Fault::NeverFinishes => return,
            Fault::Leaks => std::mem::forget(vec![1_u8; 256 << 10]),
            Fault::LeaksThreads => drop(thread::spawn(|| {
                loop {
                    thread::park();
                }
            })),
            Fault::Undeclared => drop(self.offer(99, turn_id, &json!({}))),
            Fault::Malformed => drop(self.offer(DELTA, turn_id, &json!(7))),
            Fault::Misfit => drop(self.offer(NOISE, turn_id, &json!({ "level": "high" }))),
            _ => {}
        }
        let is_done = !sulks && self.answer(token, turn_id, &request.request_id);
        let outcome = match (is_done, self.is_cancelled(token)) {
            (_, true) => Outcome::CANCELLED,
            (true, false) => Outcome::COMPLETED,
            (false, false) => Outcome::FAILED,
        };
        if self.lock().running.contains_key(&token) {
            self.sink.finished(token, outcome);
        }
        if self.fault == Fault::FinishesTwice {
            self.sink.finished(token, outcome);
        }
        if self.fault == Fault::AfterEnd {
            self.offer(
                DELTA,
                turn_id,
                &json!({ "delta": "more", "item_id": request.request_id, "is_first_chunk": false }),
            );
        }
        let mut state = self.lock();
        state.running.remove(&token);
        if state.is_closed && state.running.is_empty() && !std::mem::replace(&mut state.is_over, true) {
            let closers = std::mem::take(&mut state.closers);
            drop(state);
            closers.into_iter().for_each(|token| self.closed(token));
        }
        self.changed.notify_all();
    }

    /// Whether all of it was taken.
    fn answer(&self, token: u64, turn_id: u64, request_id: &str) -> bool {
        let pieces: &[&str] = if self.fault == Fault::SaysNothing { &[] } else { &["It ", "is ", "so."] };
        // Another session's id is as good as any that is not ours.
        let item_id = match self.fault {
            Fault::OtherSession => format!("check-0{}", self.id),
            _ => request_id.to_owned(),
        };
        let order: &[usize] = if self.fault == Fault::Disorders { &[1, 0, 2] } else { &[0, 1, 2] };
        for place in order.iter().take(pieces.len()) {
            let delta = json!({ "delta": pieces[*place], "item_id": item_id, "sequence_number": place, "is_first_chunk": *place == 0 });
            if !self.say(token, DELTA, turn_id, &delta) {
                return false;
            }
        }
        self.say(
            token,
            FINAL,
            turn_id,
            &json!({ "text": pieces.concat(), "item_id": item_id, "discarded": false }),
        )
    }

    fn say(&self, token: u64, index: u32, turn_id: u64, payload: &Value) -> bool {
        let wanted = match self.fault {
            Fault::IgnoresInterest => u64::MAX,
            Fault::AsksOnce => self.wanted_at_first,
            _ => self.interest.words[0].load(Ordering::Relaxed),
        };
        if wanted & (1 << index) == 0 {
            return true;
        }
        loop {
            if self.is_cancelled(token) {
                return false;
            }
            let bell = Bell::default();
            match self.offer(index, turn_id, payload) {
                Status::ACCEPTED => return true,
                Status::FULL if self.fault == Fault::DropsOnFull => return true,
                Status::FULL if self.fault == Fault::Spins => continue,
                Status::FULL => self.sink.wake_when_ready(index, bell.waker()),
                _ => {
                    while self.fault == Fault::StuckWhenGone && !self.is_cancelled(token) {
                        thread::park_timeout(Duration::from_millis(5));
                    }
                    return false;
                }
            }
            match self.offer(index, turn_id, payload) {
                Status::ACCEPTED => return true,
                _ => while !bell.wait(Duration::from_millis(5)) && !self.is_cancelled(token) {},
            }
        }
    }

    fn offer(&self, type_index: u32, turn_id: u64, payload: &Value) -> Status {
        let bytes = rmp_serde::to_vec_named(payload).expect("JSON fits into MessagePack");
        let header =
            EventHeaderV1 { type_index, reserved: 0, emitted_unix_ns: 0, turn_id, causation_id: [0; 16] };
        self.sink.emit(&header, RSlice::from_slice(&bytes))
    }
}
