//! The host's side of a worker: a plugin, its capabilities and their sessions, as they would be in process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_core::{
    AudioChunk, VideoFrame,
    event::{llm::LlmErrorEvent, values::ErrorInfo},
    video::PixelFormat,
};
use antiphon_plugin_api::{
    PluginManifest,
    abi::{
        AudioV1, Capability, CapabilityObject, EventHeaderV1, LlmBox, LlmSessionBox, LlmSessionV1, LlmV1,
        OUTPUT_AUDIO, Outcome, PluginBox, PluginV1, SinkBox, Status, SttBox, SttSessionBox, SttSessionV1,
        SttV1, TtsBox, TtsSessionBox, TtsSessionV1, TtsV1, TurnBox, TurnSessionBox, TurnSessionV1, TurnV1,
        VideoV1, VisionBox, VisionSessionBox, VisionSessionV1, VisionV1, WakerBox,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{ROption, RSlice, RStr},
        },
    },
};

use super::{
    CRASHED,
    frame::{self, Command, ToWorker},
    outbox::Outbox,
    pump::{Outlet, Pump},
    reader::Connection,
    window::{Tally, Window},
};

/// What a worker's session puts out, on its way to the host's sink.
pub(super) enum Output {
    Event { header: EventHeaderV1, payload: Vec<u8> },
    Audio { token: u64, audio: AudioChunk },
    Finished { token: u64, outcome: Outcome },
}

/// A session in a worker.
pub(super) struct Session {
    id: u32,
    outbox: Arc<Outbox>,
    pub(super) commands: Window,
    under_way: Mutex<UnderWay>,
    outputs: Arc<Pump<Outputs>>,
    /// Index of the event by which such a plugin tells of an error.
    error_index: Option<u32>,
}

/// What the host waits for.
#[derive(Default)]
struct UnderWay {
    /// The turn of each token.
    tokens: HashMap<u64, u64>,
    /// The turn of an utterance that has begun.
    utterance: Option<u64>,
    dead: bool,
}

/// The host's sink for a session.
struct Outputs {
    id: u32,
    outbox: Arc<Outbox>,
    sink: SinkBox,
    tally: Mutex<Tally>,
}

impl Outlet for Outputs {
    type Item = Output;

    fn attempt(&self, output: &Output) -> Status {
        match output {
            Output::Event { header, payload } => self.sink.emit(header, RSlice::from_slice(payload)),
            Output::Audio { token, audio } => self.sink.audio(*token, audio.clone().into()),
            Output::Finished { token, outcome } => {
                self.sink.finished(*token, *outcome);
                Status::ACCEPTED
            }
        }
    }

    fn wake_when_ready(&self, output: &Output, waker: WakerBox) {
        let index = match output {
            Output::Event { header, .. } => header.type_index,
            Output::Audio { .. } | Output::Finished { .. } => OUTPUT_AUDIO,
        };
        self.sink.wake_when_ready(index, waker);
    }

    fn settled(&self, output: Output, _: Status) {
        let bytes = match output {
            Output::Event { payload, .. } => payload.len(),
            Output::Audio { audio, .. } => size_of_val(audio.samples()),
            Output::Finished { .. } => return,
        };
        let told = self.tally.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
        if let Some(outputs) = told {
            self.outbox.send(&ToWorker::Taken { session: self.id, outputs });
        }
    }
}

impl Session {
    pub(super) fn new(id: u32, outbox: &Arc<Outbox>, sink: SinkBox, error_index: Option<u32>) -> Arc<Self> {
        let outputs = Outputs { id, outbox: Arc::clone(outbox), sink, tally: Mutex::default() };
        Arc::new(Self {
            id,
            outbox: Arc::clone(outbox),
            commands: Window::default(),
            under_way: Mutex::default(),
            outputs: Pump::new(outputs),
            error_index,
        })
    }

    /// The worker has sent something.
    pub(super) fn put_out(&self, output: Output) {
        if let Output::Finished { token, .. } = output {
            let mut under_way = self.lock();
            if under_way.tokens.remove(&token).is_none() {
                return;
            }
            if under_way.tokens.is_empty() {
                under_way.utterance = None;
            }
        }
        self.outputs.push(output);
    }

    /// The worker is gone: tells of it, and finishes what it was asked for.
    pub(super) fn die(&self, reason: &str) {
        self.commands.close();
        let (tokens, utterance) = {
            let mut under_way = self.lock();
            under_way.dead = true;
            (std::mem::take(&mut under_way.tokens), under_way.utterance.take())
        };
        let turns = if tokens.is_empty() { utterance.into_iter().collect() } else { turns(&tokens) };
        if let Some(type_index) = self.error_index {
            for turn_id in turns {
                let header = EventHeaderV1 {
                    type_index,
                    reserved: 0,
                    emitted_unix_ns: 0,
                    turn_id,
                    causation_id: [0; 16],
                };
                self.outputs.push(Output::Event { header, payload: error(reason) });
            }
        }
        for token in tokens.into_keys() {
            self.outputs.push(Output::Finished { token, outcome: Outcome::FAILED });
        }
    }

    fn send(&self, bytes: usize, command: Command<'_>) -> Status {
        let status = self.commands.enter(bytes);
        if status == Status::ACCEPTED {
            self.outbox.send(&ToWorker::Command { session: self.id, command });
        }
        status
    }

    /// Sends a command that will be finished.
    fn ask(&self, token: u64, turn_id: u64, bytes: usize, command: Command<'_>) -> Status {
        // Known before it is sent: the answer may be quick.
        self.lock().tokens.insert(token, turn_id);
        let status = self.send(bytes, command);
        if status != Status::ACCEPTED {
            self.lock().tokens.remove(&token);
        }
        status
    }

    fn cancel(&self, token: u64) {
        self.outbox.send(&ToWorker::Cancel { session: self.id, token });
    }

    fn close(&self, token: u64) {
        let is_dead = {
            let mut under_way = self.lock();
            if !under_way.dead && token != 0 {
                under_way.tokens.insert(token, 0);
            }
            under_way.dead
        };
        if !is_dead {
            self.outbox.send(&ToWorker::Close { session: self.id, token });
        } else if token != 0 {
            self.outputs.push(Output::Finished { token, outcome: Outcome::COMPLETED });
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turns of some tokens, each once; commands without one count as one.
fn turns(tokens: &HashMap<u64, u64>) -> Vec<u64> {
    let mut turns: Vec<u64> = tokens.values().copied().collect();
    turns.sort_unstable();
    turns.dedup();
    turns
}

/// What `llm.error`, `stt.error` and `tts.error` have in common, in the form of the first.
fn error(reason: &str) -> Vec<u8> {
    let message = format!("the plugin's process {reason}");
    let event = LlmErrorEvent {
        error: Some(ErrorInfo {
            kind: "crash".into(),
            code: Some(CRASHED.into()),
            message: message.clone(),
            recoverable: true,
            context: None,
            source_chain: Vec::new(),
        }),
        error_code: Some(CRASHED.into()),
        context: None,
        is_recoverable: true,
        error_message: message,
        request_id: None,
    };
    rmp_serde::to_vec_named(&event).expect("errors are plain data")
}

/// The plugin of a worker.
pub(super) fn plugin(connection: &Arc<Connection>) -> PluginBox {
    PluginBox::from_value(Plugin(Arc::clone(connection)), TD_Opaque)
}

struct Plugin(Arc<Connection>);

impl PluginV1 for Plugin {
    fn query(&self, capability: RStr<'_>, version: u32) -> ROption<CapabilityObject> {
        let declared = |manifest: &PluginManifest| {
            manifest
                .capabilities
                .iter()
                .any(|known| known.kind == capability.as_str() && known.version == version)
        };
        if !declared(self.0.manifest()) {
            return ROption::RNone;
        }
        let remote = Remote(Arc::clone(&self.0));
        ROption::RSome(match capability.as_str() {
            TurnBox::NAME => CapabilityObject::new(TurnBox::from_value(remote, TD_Opaque)),
            SttBox::NAME => CapabilityObject::new(SttBox::from_value(remote, TD_Opaque)),
            LlmBox::NAME => CapabilityObject::new(LlmBox::from_value(remote, TD_Opaque)),
            TtsBox::NAME => CapabilityObject::new(TtsBox::from_value(remote, TD_Opaque)),
            VisionBox::NAME => CapabilityObject::new(VisionBox::from_value(remote, TD_Opaque)),
            _ => return ROption::RNone,
        })
    }

    fn ping(&self, done: WakerBox) {
        self.0.ping(done);
    }

    fn stop(&self, done: WakerBox) {
        self.0.stop(done);
    }
}

/// Any capability of a worker.
struct Remote(Arc<Connection>);

/// What the agent holds of a session. The worker's side ends with it.
struct Held {
    session: Arc<Session>,
    /// A worker lives at least as long as its sessions.
    _connection: Arc<Connection>,
}

impl Remote {
    fn open(&self, kind: &'static str, session_id: RStr<'_>, sink: SinkBox) -> Held {
        let session = self.0.open(kind, session_id.as_str(), sink);
        Held { session, _connection: Arc::clone(&self.0) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.session.outbox.send(&ToWorker::Drop { session: self.session.id });
    }
}

impl TurnV1 for Remote {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> TurnSessionBox {
        TurnSessionBox::from_value(self.open(TurnBox::NAME, session_id, sink), TD_Opaque)
    }
}

impl SttV1 for Remote {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> SttSessionBox {
        SttSessionBox::from_value(self.open(SttBox::NAME, session_id, sink), TD_Opaque)
    }
}

impl LlmV1 for Remote {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> LlmSessionBox {
        LlmSessionBox::from_value(self.open(LlmBox::NAME, session_id, sink), TD_Opaque)
    }
}

impl TtsV1 for Remote {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> TtsSessionBox {
        TtsSessionBox::from_value(self.open(TtsBox::NAME, session_id, sink), TD_Opaque)
    }
}

impl VisionV1 for Remote {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> VisionSessionBox {
        VisionSessionBox::from_value(self.open(VisionBox::NAME, session_id, sink), TD_Opaque)
    }
}

impl Held {
    fn audio(&self, token: u64, audio: AudioV1) -> Status {
        let Ok(audio) = AudioChunk::try_from(audio) else { return Status::REFUSED };
        let samples = frame::bytes_of(audio.samples());
        let (rate, channels) = (audio.sample_rate_hz(), audio.channels());
        let command = Command::Audio { token, rate, channels, samples };
        if token == 0 {
            self.session.send(samples.len(), command)
        } else {
            self.session.ask(token, 0, samples.len(), command)
        }
    }

    fn request(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status {
        let request = request.as_slice();
        self.session.ask(token, turn_id, request.len(), Command::Request { token, turn_id, request })
    }
}

impl TurnSessionV1 for Held {
    fn push_audio(&self, token: u64, audio: AudioV1) -> Status {
        self.audio(token, audio)
    }

    fn flush(&self, token: u64) -> Status {
        self.session.ask(token, 0, 0, Command::Flush { token })
    }

    fn close(&self, token: u64) {
        self.session.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.session.commands.wake_when_ready(waker);
    }
}

impl SttSessionV1 for Held {
    fn begin(&self, turn_id: u64) -> Status {
        let status = self.session.send(0, Command::Begin { turn_id });
        if status == Status::ACCEPTED {
            self.session.lock().utterance = Some(turn_id);
        }
        status
    }

    fn push_audio(&self, audio: AudioV1) -> Status {
        self.audio(0, audio)
    }

    fn end(&self, token: u64) -> Status {
        let turn_id = self.session.lock().utterance.unwrap_or_default();
        self.session.ask(token, turn_id, 0, Command::End { token })
    }

    fn cancel(&self, token: u64) -> Status {
        self.session.ask(token, 0, 0, Command::CancelUtterance { token })
    }

    fn close(&self, token: u64) {
        self.session.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.session.commands.wake_when_ready(waker);
    }
}

impl LlmSessionV1 for Held {
    fn respond(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status {
        self.request(token, turn_id, request)
    }

    fn cancel(&self, token: u64) {
        self.session.cancel(token);
    }

    fn close(&self, token: u64) {
        self.session.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.session.commands.wake_when_ready(waker);
    }
}

impl TtsSessionV1 for Held {
    fn synthesize(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status {
        self.request(token, turn_id, request)
    }

    fn cancel(&self, token: u64) {
        self.session.cancel(token);
    }

    fn close(&self, token: u64) {
        self.session.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.session.commands.wake_when_ready(waker);
    }
}

impl VisionSessionV1 for Held {
    fn process(&self, token: u64, sequence: u64, frame: VideoV1) -> Status {
        let Ok(picture) = VideoFrame::try_from(frame) else { return Status::REFUSED };
        let pixels = picture.pixels();
        let (width, height) = (picture.width(), picture.height());
        let Some(format) = format_number(picture.format()) else { return Status::REFUSED };
        let command = Command::Picture { token, sequence, width, height, format, pixels };
        self.session.ask(token, 0, pixels.len(), command)
    }

    fn cancel(&self, token: u64) {
        self.session.cancel(token);
    }

    fn close(&self, token: u64) {
        self.session.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.session.commands.wake_when_ready(waker);
    }
}

/// Formats of pictures, as between both ends of the socket.
const FORMATS: [PixelFormat; 3] = [PixelFormat::Gray8, PixelFormat::Rgb8, PixelFormat::Rgba8];

fn format_number(format: PixelFormat) -> Option<u32> {
    FORMATS.iter().position(|known| *known == format).and_then(|index| u32::try_from(index).ok())
}

/// The format of a number.
pub(super) fn format_of(number: u32) -> Option<PixelFormat> {
    FORMATS.get(number as usize).copied()
}
