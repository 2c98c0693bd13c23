//! The frozen surface between host and plugin. Plugin authors never use it; `antiphon-plugin-api` re-exports it as `abi`.
//!
//! A crate of its own because abi_stable tells types apart by the name and version of their package as well: this one stays at
//! major version 1 for good, while everything around it goes on. `Cargo.toml` says the same beside the number.
//!
//! A library exports one static, [`ENTRY_SYMBOL`], whose type is abi_stable's `LibHeader`; it leads to a [`PluginRoot`],
//! which makes a [`PluginV1`] object, which hands out one object per capability ([`TurnV1`], [`SttV1`], [`LlmV1`],
//! [`TtsV1`], [`VisionV1`]). The host gives a [`HostV1`] per plugin and a [`SinkV1`] per session.
//!
//! Rules that hold for every function here:
//! - It never blocks and never unwinds. Work is queued: a command answers [`Status::ACCEPTED`], [`Status::FULL`]
//!   (register a waker, try once more, then wait for it), or [`Status::CLOSED`].
//! - An accepted command with a token other than 0 is answered by exactly one `finished(token, ..)` on the session's
//!   sink. `close` is always accepted, also a second time.
//! - To drop a session's object is to close it, with nobody to answer.
//! - Nobody frees the other's memory: owned values carry the functions that free them.
//! - Published traits never change; a new version is a new trait under a new version number.
#![expect(
    unsafe_code,
    reason = "shared buffers, erased capability objects and the entry symbol cross the library boundary"
)]
#![allow(non_local_definitions, reason = "abi_stable's macros put impls into constants")]
#![allow(missing_docs, reason = "abi_stable's macros generate undocumented items")]

mod capability;
mod media;
mod status;

use std::sync::atomic::AtomicU64;

pub use self::{
    capability::{Capability, CapabilityObject, LayoutMismatch},
    media::{AudioV1, MediaError, VideoV1},
    status::{Outcome, Status},
};
pub use abi_stable;
use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RArc, RBox, ROption, RResult, RSlice, RStr, RString, RVec},
};

/// Version of the root; it says how to get at everything else.
pub const ABI_VERSION: u32 = 1;

/// Name of the exported static, with its terminating zero.
pub const ENTRY_SYMBOL: &[u8] = b"antiphon_plugin_entry\0";

/// Version of every capability trait in this crate.
pub const CAPABILITY_V1: u32 = 1;

/// Event types that one plugin can declare: the bits of [`InterestV1`].
pub const MAX_EVENT_TYPES: usize = 256;

/// Stands for audio where the index of an event type stands for its events.
pub const OUTPUT_AUDIO: u32 = u32::MAX;

/// What a library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef)))]
#[sabi(missing_field(panic))]
pub struct PluginRoot {
    /// [`ABI_VERSION`] of the plugin.
    pub abi_version: u32,
    /// The whole manifest as JSON.
    pub manifest: extern "C" fn() -> RVec<u8>,
    /// Starts an instance with its settings as JSON. May take its time: call it from a thread that may block.
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(HostBox, RSlice<'_, u8>) -> RResult<PluginBox, AbiError>,
}

impl RootModule for PluginRootRef {
    declare_root_module_statics! { PluginRootRef }
    const BASE_NAME: &'static str = "antiphon_plugin";
    const NAME: &'static str = "antiphon plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

pub type HostBox = HostV1_TO<'static, RBox<()>>;
pub type PluginBox = PluginV1_TO<'static, RBox<()>>;
pub type SinkBox = SinkV1_TO<'static, RBox<()>>;
pub type WakerBox = WakerV1_TO<'static, RBox<()>>;
pub type TurnBox = TurnV1_TO<'static, RBox<()>>;
pub type TurnSessionBox = TurnSessionV1_TO<'static, RBox<()>>;
pub type SttBox = SttV1_TO<'static, RBox<()>>;
pub type SttSessionBox = SttSessionV1_TO<'static, RBox<()>>;
pub type LlmBox = LlmV1_TO<'static, RBox<()>>;
pub type LlmSessionBox = LlmSessionV1_TO<'static, RBox<()>>;
pub type TtsBox = TtsV1_TO<'static, RBox<()>>;
pub type TtsSessionBox = TtsSessionV1_TO<'static, RBox<()>>;
pub type VisionBox = VisionV1_TO<'static, RBox<()>>;
pub type VisionSessionBox = VisionSessionV1_TO<'static, RBox<()>>;

/// An error that crosses.
#[repr(C)]
#[derive(Debug, Clone, StableAbi)]
pub struct AbiError {
    pub code: RString,
    pub message: RString,
    pub recoverable: bool,
}

/// What goes with an event's payload.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct EventHeaderV1 {
    /// Position of the event's type in the plugin's manifest.
    pub type_index: u32,
    pub reserved: u32,
    /// When it happened, in nanoseconds since 1970; 0 when not known.
    pub emitted_unix_ns: u64,
    /// The turn that it belongs to; 0 when not known.
    pub turn_id: u64,
    /// The event that caused it; zeros when not known.
    pub causation_id: [u8; 16],
}

/// Which of a plugin's event types anybody wants: one bit for each, in the order of its manifest.
#[repr(C)]
#[derive(Debug, Default, StableAbi)]
pub struct InterestV1 {
    pub words: [AtomicU64; MAX_EVENT_TYPES / 64],
}

/// What `SinkV1` and sessions call when they have room again.
#[sabi_trait]
pub trait WakerV1: Send + Sync {
    #[sabi(last_prefix_field)]
    fn wake(&self);
}

/// The host, as a plugin sees it. Callable from any thread.
#[sabi_trait]
pub trait HostV1: Send + Sync {
    /// Which events of this plugin are wanted.
    fn interest(&self) -> RArc<InterestV1>;
    /// Most verbose level of which the host wants log records: 0 none, 1 error .. 5 trace.
    fn log_level(&self) -> u32;
    /// Takes a log record.
    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>);
    /// What else the host has for plugins, by name and version; none when it has no such service. The door by which
    /// hosts learn to do more, as this trait never changes.
    #[sabi(last_prefix_field)]
    fn query(&self, service: RStr<'_>, version: u32) -> ROption<CapabilityObject>;
}

/// Where a session's plugin puts what it produces. Callable from any thread.
#[sabi_trait]
pub trait SinkV1: Send + Sync {
    /// Takes an event; the payload is MessagePack with field names.
    fn emit(&self, header: &EventHeaderV1, payload: RSlice<'_, u8>) -> Status;
    /// Takes synthesised audio for the command of this token.
    fn audio(&self, token: u64, audio: AudioV1) -> Status;
    /// A command has ended.
    fn finished(&self, token: u64, outcome: Outcome);
    /// Calls the waker once, as soon as there may be room for an output: the events of a type by its index, or
    /// [`OUTPUT_AUDIO`].
    #[sabi(last_prefix_field)]
    fn wake_when_ready(&self, output: u32, waker: WakerBox);
}

/// A running plugin.
#[sabi_trait]
pub trait PluginV1: Send + Sync {
    /// The object of a capability in a version; none when the plugin has no such capability.
    fn query(&self, capability: RStr<'_>, version: u32) -> ROption<CapabilityObject>;
    /// Calls the waker from where the plugin's own work is done: a plugin that does not answer hangs.
    fn ping(&self, done: WakerBox);
    /// Ends the plugin; calls the waker when it is done.
    #[sabi(last_prefix_field)]
    fn stop(&self, done: WakerBox);
}

/// Turn detection.
#[sabi_trait]
pub trait TurnV1: Send + Sync {
    #[sabi(last_prefix_field)]
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> TurnSessionBox;
}

/// Turn detection for one session.
#[sabi_trait]
pub trait TurnSessionV1: Send + Sync {
    /// Takes audio: one channel, 16 kHz. The token is finished when all events of this audio are emitted.
    fn push_audio(&self, token: u64, audio: AudioV1) -> Status;
    /// No more audio will come: ends a turn that is still open.
    fn flush(&self, token: u64) -> Status;
    /// Ends the session: what it does is cancelled, and what it has to say is dropped where the host has no room. The
    /// token is finished last.
    fn close(&self, token: u64);
    #[sabi(last_prefix_field)]
    fn wake_when_ready(&self, waker: WakerBox);
}

/// Speech to text.
#[sabi_trait]
pub trait SttV1: Send + Sync {
    #[sabi(last_prefix_field)]
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> SttSessionBox;
}

/// Speech to text for one session.
#[sabi_trait]
pub trait SttSessionV1: Send + Sync {
    /// An utterance begins.
    fn begin(&self, turn_id: u64) -> Status;
    /// Takes audio of the utterance: one channel, 16 kHz.
    fn push_audio(&self, audio: AudioV1) -> Status;
    /// The utterance is over. The token is finished after its last event.
    fn end(&self, token: u64) -> Status;
    /// The utterance is of no interest any more.
    fn cancel(&self, token: u64) -> Status;
    /// Ends the session: what it does is cancelled, and what it has to say is dropped where the host has no room. The
    /// token is finished last.
    fn close(&self, token: u64);
    #[sabi(last_prefix_field)]
    fn wake_when_ready(&self, waker: WakerBox);
}

/// Language models.
#[sabi_trait]
pub trait LlmV1: Send + Sync {
    #[sabi(last_prefix_field)]
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> LlmSessionBox;
}

/// Language model for one session.
#[sabi_trait]
pub trait LlmSessionV1: Send + Sync {
    /// Asks for a reply; the request is an `LlmRequest` as MessagePack with field names.
    fn respond(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status;
    /// Stops the command of this token. No output of it comes after its `finished`.
    fn cancel(&self, token: u64);
    /// Ends the session: what it does is cancelled, and what it has to say is dropped where the host has no room. The
    /// token is finished last.
    fn close(&self, token: u64);
    #[sabi(last_prefix_field)]
    fn wake_when_ready(&self, waker: WakerBox);
}

/// Text to speech.
#[sabi_trait]
pub trait TtsV1: Send + Sync {
    #[sabi(last_prefix_field)]
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> TtsSessionBox;
}

/// Text to speech for one session.
#[sabi_trait]
pub trait TtsSessionV1: Send + Sync {
    /// Asks for speech; the request is a `TtsRequest` as MessagePack with field names.
    fn synthesize(&self, token: u64, turn_id: u64, request: RSlice<'_, u8>) -> Status;
    /// Stops the command of this token. No output of it comes after its `finished`.
    fn cancel(&self, token: u64);
    /// Ends the session: what it does is cancelled, and what it has to say is dropped where the host has no room. The
    /// token is finished last.
    fn close(&self, token: u64);
    #[sabi(last_prefix_field)]
    fn wake_when_ready(&self, waker: WakerBox);
}

/// Vision.
#[sabi_trait]
pub trait VisionV1: Send + Sync {
    #[sabi(last_prefix_field)]
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> VisionSessionBox;
}

/// Vision for one session.
#[sabi_trait]
pub trait VisionSessionV1: Send + Sync {
    /// Looks at a picture; `sequence` numbers the pictures of the session.
    fn process(&self, token: u64, sequence: u64, frame: VideoV1) -> Status;
    /// Stops the command of this token. No output of it comes after its `finished`.
    fn cancel(&self, token: u64);
    /// Ends the session: what it does is cancelled, and what it has to say is dropped where the host has no room. The
    /// token is finished last.
    fn close(&self, token: u64);
    #[sabi(last_prefix_field)]
    fn wake_when_ready(&self, waker: WakerBox);
}

/// What a library's entry symbol leads to.
pub trait Entry {
    fn root() -> PluginRootRef;
}

/// The value of the entry symbol of a library.
pub const fn lib_header<E: Entry>() -> LibHeader {
    extern "C" fn constructor<E: Entry>() -> RootModuleResult {
        __call_root_module_loader(E::root)
    }
    // SAFETY: `constructor` returns an erased `PluginRootRef`, which is the type named here.
    unsafe { LibHeader::from_constructor::<PluginRootRef>(constructor::<E>, CheckTypeLayout::Yes) }
}
