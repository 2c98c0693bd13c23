//! The event model, the event catalogue, the bus, and the audio and video types of Antiphon.
//!
//! Reading order: [`event`] says what an event is and lists the catalogue, [`bus`] delivers events to async
//! handlers, [`audio`] and [`video`] hold media, [`clock`] is the one place that knows the time.
//!
//! Not here: files, sockets, dynamic libraries. This crate does no I/O.
#![forbid(unsafe_code)]

extern crate self as antiphon_core;

pub mod audio;
pub mod bus;
pub mod clock;
pub mod event;
pub mod id;
pub mod video;

pub use audio::AudioChunk;
pub use bus::{EventBus, SessionBus, Subscription};
pub use clock::{Clock, SystemClock};
pub use event::{BaseEvent, Envelope, Event, EventUnion, PluginBaseEvent};
pub use id::{SessionId, SpeechId, TurnId};
pub use video::VideoFrame;
