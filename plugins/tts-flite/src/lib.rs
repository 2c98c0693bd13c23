//! Text to speech with the flite engine: four English voices, no network, first audio within milliseconds.
//!
//! Not here: flite itself. Its shared libraries are opened when a voice is first wanted, so this plugin
//! builds, and loads, on a machine without them.

pub mod engine;
mod sys;
mod text;
mod voice;
