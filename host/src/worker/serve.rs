//! The worker's side: opens the library, and does with the plugin what the host asks for.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use antiphon_core::{AudioChunk, VideoFrame};
use antiphon_plugin_api::abi::{
    AudioV1, Capability, CapabilityObject, EventHeaderV1, HostBox, HostV1, InterestV1, LlmBox, LlmSessionBox,
    Outcome, PluginBox, SinkBox, SinkV1, Status, SttBox, SttSessionBox, TtsBox, TtsSessionBox, TurnBox,
    TurnSessionBox, VisionBox, VisionSessionBox, WakerBox, WakerV1,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RArc, ROption, RSlice, RStr},
    },
};

use super::{
    INTEREST_WORDS, Job,
    frame::{self, Command, Event, Frames, ToHost, ToWorker},
    outbox::Outbox,
    pump::{Outlet, Pump},
    remote::format_of,
    window::{Tally, Window},
};
use crate::{
    loader::Library,
    plugins::{Capabilities, OTHER_MANIFEST, chain},
};

/// Runs a plugin until the host has gone.
pub(crate) fn serve(socket: UnixStream, job: &Job) -> io::Result<()> {
    let outbox = Outbox::start(socket.try_clone()?)?;
    let interest = RArc::new(InterestV1::default());
    store(&interest, job.interest);
    match start(job, &outbox, &interest) {
        Ok(mut plugin) => {
            outbox.send(&ToHost::Started);
            plugin.obey(Frames::new(socket), &interest)
        }
        Err((message, recoverable)) => {
            outbox.send(&ToHost::Refused { message: &message, recoverable });
            // The host has read it, and ends this process.
            while Frames::new(&socket).next()?.is_some() {}
            Ok(())
        }
    }
}

fn store(interest: &InterestV1, words: [u64; INTEREST_WORDS]) {
    for (shared, word) in interest.words.iter().zip(words) {
        shared.store(word, Ordering::Relaxed);
    }
}

fn start(job: &Job, outbox: &Arc<Outbox>, interest: &RArc<InterestV1>) -> Result<Hosted, (String, bool)> {
    let library = Library::open(&job.library).map_err(|error| (chain(&error), false))?;
    if library.manifest() != &job.manifest {
        return Err((OTHER_MANIFEST.into(), false));
    }
    let host =
        Host { outbox: Arc::clone(outbox), interest: interest.clone(), level: AtomicU32::new(job.log_level) };
    let settings = serde_json::to_vec(&job.settings).map_err(|error| (error.to_string(), false))?;
    let plugin = library
        .create(HostBox::from_value(host, TD_Opaque), &settings)
        .map_err(|error| (error.message.into_string(), error.recoverable))?;
    let capabilities =
        Capabilities::of(&plugin, library.manifest()).map_err(|error| (chain(&error), false))?;
    let events = library.manifest().events.len();
    Ok(Hosted { plugin, capabilities, events, outbox: Arc::clone(outbox), sessions: HashMap::new() })
}

/// What the plugin sees of the host.
struct Host {
    outbox: Arc<Outbox>,
    interest: RArc<InterestV1>,
    level: AtomicU32,
}

impl HostV1 for Host {
    fn interest(&self) -> RArc<InterestV1> {
        self.interest.clone()
    }

    fn log_level(&self) -> u32 {
        self.level.load(Ordering::Relaxed)
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>) {
        self.outbox.send_if_room(&ToHost::Log { level, target: target.as_str(), message: message.as_str() });
    }

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}

/// Opens a session of a capability; none when the plugin does not have it.
fn open(capabilities: &Capabilities, kind: &str, session_id: RStr<'_>, sink: SinkBox) -> Option<Object> {
    Some(match kind {
        TurnBox::NAME => Object::Turn(capabilities.turn.as_ref()?.open(session_id, sink)),
        SttBox::NAME => Object::Stt(capabilities.stt.as_ref()?.open(session_id, sink)),
        LlmBox::NAME => Object::Llm(capabilities.llm.as_ref()?.open(session_id, sink)),
        TtsBox::NAME => Object::Tts(capabilities.tts.as_ref()?.open(session_id, sink)),
        VisionBox::NAME => Object::Vision(capabilities.vision.as_ref()?.open(session_id, sink)),
        _ => return None,
    })
}

/// A plugin that runs here.
struct Hosted {
    plugin: PluginBox,
    capabilities: Capabilities,
    /// How many event types it declares.
    events: usize,
    outbox: Arc<Outbox>,
    sessions: HashMap<u32, Session>,
}

struct Session {
    orders: Arc<Pump<Orders>>,
    outputs: Arc<Window>,
}

impl Hosted {
    /// Does what the host asks for, until it has gone.
    fn obey(&mut self, mut frames: Frames<UnixStream>, interest: &InterestV1) -> io::Result<()> {
        while let Some(frame) = frames.next()? {
            match rmp_serde::from_slice(frame).map_err(io::Error::other)? {
                ToWorker::Interest(words) => store(interest, words),
                ToWorker::Open { session, kind, session_id } => self.open(session, kind, session_id),
                ToWorker::Command { session, command } => {
                    if let (Some(session), Some(order)) = (self.sessions.get(&session), Order::of(command)) {
                        session.orders.push(order);
                    }
                }
                ToWorker::Cancel { session, token } => self.cancel(session, token),
                ToWorker::Close { session, token } => self.close(session, token),
                ToWorker::Drop { session } => drop(self.sessions.remove(&session)),
                ToWorker::Taken { session, outputs } => {
                    if let Some(session) = self.sessions.get(&session) {
                        session.outputs.taken(outputs);
                    }
                }
                ToWorker::Ping { number } => self.plugin.ping(self.answer(Answer::Pong, number)),
                ToWorker::Stop { number } => self.plugin.stop(self.answer(Answer::Stopped, number)),
            }
        }
        Ok(())
    }

    fn answer(&self, answer: Answer, number: u64) -> WakerBox {
        WakerBox::from_value(Answering { outbox: Arc::clone(&self.outbox), answer, number }, TD_Opaque)
    }

    fn open(&mut self, id: u32, kind: &str, session_id: &str) {
        let outputs = Arc::new(Window::default());
        let sink =
            Sink { id, events: self.events, outbox: Arc::clone(&self.outbox), window: Arc::clone(&outputs) };
        let sink = SinkBox::from_value(sink, TD_Opaque);
        if let Some(object) = open(&self.capabilities, kind, RStr::from_str(session_id), sink) {
            let orders = Orders { id, object, outbox: Arc::clone(&self.outbox), tally: Mutex::default() };
            self.sessions.insert(id, Session { orders: Pump::new(orders), outputs });
        }
    }

    /// Nothing of a cancelled command comes after its end; one that the plugin has not seen yet ends here.
    fn cancel(&self, id: u32, token: u64) {
        let Some(session) = self.sessions.get(&id) else { return };
        let is_it = |order: &Order| order.token() == token;
        let dropped = session.orders.push_front(Order::Cancel { token }, false, is_it);
        session.orders.outlet().give_up(dropped);
    }

    fn close(&self, id: u32, token: u64) {
        let Some(session) = self.sessions.get(&id) else { return };
        let dropped = session.orders.push_front(Order::Close { token }, true, |_| true);
        session.orders.outlet().give_up(dropped);
    }
}

#[derive(Clone, Copy)]
enum Answer {
    Pong,
    Stopped,
}

struct Answering {
    outbox: Arc<Outbox>,
    answer: Answer,
    number: u64,
}

impl WakerV1 for Answering {
    fn wake(&self) {
        let number = self.number;
        self.outbox.send(&match self.answer {
            Answer::Pong => ToHost::Pong { number },
            Answer::Stopped => ToHost::Stopped { number },
        });
    }
}

/// The plugin's object of a session.
enum Object {
    Turn(TurnSessionBox),
    Stt(SttSessionBox),
    Llm(LlmSessionBox),
    Tts(TtsSessionBox),
    Vision(VisionSessionBox),
}

/// A command, until the plugin has room for it.
enum Order {
    Audio { token: u64, audio: AudioChunk },
    Flush { token: u64 },
    Begin { turn_id: u64 },
    End { token: u64 },
    CancelUtterance { token: u64 },
    Request { token: u64, turn_id: u64, request: Vec<u8> },
    Picture { token: u64, sequence: u64, picture: VideoFrame },
    Cancel { token: u64 },
    Close { token: u64 },
}

impl Order {
    fn of(command: Command<'_>) -> Option<Self> {
        Some(match command {
            Command::Audio { token, rate, channels, samples } => Self::Audio {
                token,
                audio: AudioChunk::new(frame::samples_of(samples), rate, channels).ok()?,
            },
            Command::Flush { token } => Self::Flush { token },
            Command::Begin { turn_id } => Self::Begin { turn_id },
            Command::End { token } => Self::End { token },
            Command::CancelUtterance { token } => Self::CancelUtterance { token },
            Command::Request { token, turn_id, request } => {
                Self::Request { token, turn_id, request: request.to_vec() }
            }
            Command::Picture { token, sequence, width, height, format, pixels } => {
                let picture = VideoFrame::new(pixels.to_vec(), width, height, format_of(format)?).ok()?;
                Self::Picture { token, sequence, picture }
            }
        })
    }

    fn token(&self) -> u64 {
        match *self {
            Self::Audio { token, .. }
            | Self::Flush { token }
            | Self::End { token }
            | Self::CancelUtterance { token }
            | Self::Request { token, .. }
            | Self::Picture { token, .. } => token,
            Self::Begin { .. } | Self::Cancel { .. } | Self::Close { .. } => 0,
        }
    }

    /// Bytes that the host's window counts; none for what it does not count.
    fn counted(&self) -> Option<usize> {
        match self {
            Self::Audio { audio, .. } => Some(size_of_val(audio.samples())),
            Self::Request { request, .. } => Some(request.len()),
            Self::Picture { picture, .. } => Some(picture.pixels().len()),
            Self::Flush { .. } | Self::Begin { .. } | Self::End { .. } | Self::CancelUtterance { .. } => {
                Some(0)
            }
            Self::Cancel { .. } | Self::Close { .. } => None,
        }
    }
}

/// A session's way into the plugin.
struct Orders {
    id: u32,
    object: Object,
    outbox: Arc<Outbox>,
    tally: Mutex<Tally>,
}

impl Orders {
    /// Ends what the plugin has not seen.
    fn give_up(&self, orders: Vec<Order>) {
        for order in orders {
            self.ended(&order, Outcome::CANCELLED);
            self.taken(&order);
        }
    }

    fn ended(&self, order: &Order, outcome: Outcome) {
        if order.token() != 0 {
            self.outbox.send(&finished(self.id, order.token(), outcome));
        }
    }

    fn taken(&self, order: &Order) {
        let Some(bytes) = order.counted() else { return };
        let told = self.tally.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
        if let Some(commands) = told {
            self.outbox.send(&ToHost::Taken { session: self.id, commands });
        }
    }
}

fn finished(session: u32, token: u64, outcome: Outcome) -> ToHost<'static> {
    let outcome = match outcome {
        Outcome::COMPLETED => 0,
        Outcome::CANCELLED => 2,
        _ => 1,
    };
    ToHost::Finished { session, token, outcome }
}

impl Outlet for Orders {
    type Item = Order;

    fn attempt(&self, order: &Order) -> Status {
        match (&self.object, order) {
            (Object::Turn(turn), Order::Audio { token, audio }) => {
                turn.push_audio(*token, audio.clone().into())
            }
            (Object::Turn(turn), Order::Flush { token }) => turn.flush(*token),
            (Object::Turn(turn), Order::Close { token }) => done(|| turn.close(*token)),
            (Object::Stt(stt), Order::Begin { turn_id }) => stt.begin(*turn_id),
            (Object::Stt(stt), Order::Audio { audio, .. }) => stt.push_audio(audio.clone().into()),
            (Object::Stt(stt), Order::End { token }) => stt.end(*token),
            (Object::Stt(stt), Order::CancelUtterance { token }) => stt.cancel(*token),
            (Object::Stt(stt), Order::Close { token }) => done(|| stt.close(*token)),
            (Object::Llm(llm), Order::Request { token, turn_id, request }) => {
                llm.respond(*token, *turn_id, RSlice::from_slice(request))
            }
            (Object::Llm(llm), Order::Cancel { token }) => done(|| llm.cancel(*token)),
            (Object::Llm(llm), Order::Close { token }) => done(|| llm.close(*token)),
            (Object::Tts(tts), Order::Request { token, turn_id, request }) => {
                tts.synthesize(*token, *turn_id, RSlice::from_slice(request))
            }
            (Object::Tts(tts), Order::Cancel { token }) => done(|| tts.cancel(*token)),
            (Object::Tts(tts), Order::Close { token }) => done(|| tts.close(*token)),
            (Object::Vision(vision), Order::Picture { token, sequence, picture }) => {
                vision.process(*token, *sequence, picture.clone().into())
            }
            (Object::Vision(vision), Order::Cancel { token }) => done(|| vision.cancel(*token)),
            (Object::Vision(vision), Order::Close { token }) => done(|| vision.close(*token)),
            // The host does not ask a capability for what its trait does not have.
            _ => Status::REFUSED,
        }
    }

    fn wake_when_ready(&self, _: &Order, waker: WakerBox) {
        match &self.object {
            Object::Turn(turn) => turn.wake_when_ready(waker),
            Object::Stt(stt) => stt.wake_when_ready(waker),
            Object::Llm(llm) => llm.wake_when_ready(waker),
            Object::Tts(tts) => tts.wake_when_ready(waker),
            Object::Vision(vision) => vision.wake_when_ready(waker),
        }
    }

    fn settled(&self, order: Order, status: Status) {
        match status {
            Status::ACCEPTED => {}
            // The session was closed while there was no room.
            Status::FULL => self.ended(&order, Outcome::CANCELLED),
            _ => self.ended(&order, Outcome::FAILED),
        }
        self.taken(&order);
    }
}

/// For commands that are always accepted.
fn done(command: impl FnOnce()) -> Status {
    command();
    Status::ACCEPTED
}

/// Where the plugin puts what it produces.
struct Sink {
    id: u32,
    events: usize,
    outbox: Arc<Outbox>,
    window: Arc<Window>,
}

impl SinkV1 for Sink {
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status {
        if header.type_index as usize >= self.events {
            return Status::REFUSED;
        }
        let payload = payload.as_slice();
        let status = self.window.enter(payload.len());
        if status == Status::ACCEPTED {
            let event = Event {
                type_index: header.type_index,
                emitted_unix_ns: header.emitted_unix_ns,
                turn_id: header.turn_id,
                causation_id: header.causation_id,
                payload,
            };
            self.outbox.send(&ToHost::Event { session: self.id, event });
        }
        status
    }

    fn audio(&self, token: u64, audio: AudioV1) -> Status {
        let Ok(audio) = AudioChunk::try_from(audio) else { return Status::REFUSED };
        let samples = frame::bytes_of(audio.samples());
        let status = self.window.enter(samples.len());
        if status == Status::ACCEPTED {
            let (rate, channels) = (audio.sample_rate_hz(), audio.channels());
            self.outbox.send(&ToHost::Audio { session: self.id, token, rate, channels, samples });
        }
        status
    }

    fn finished(&self, token: u64, outcome: Outcome) {
        self.outbox.send(&finished(self.id, token, outcome));
    }

    /// All outputs share one window, because they keep their order.
    fn wake_when_ready(&self, _: u32, waker: WakerBox) {
        self.window.wake_when_ready(waker);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.outbox.send(&ToHost::Gone { session: self.id });
    }
}
