//! Plugins as a host sees them: through the objects of the ABI, within one process.

mod close;
mod layout;
mod llm;
mod manifest;
mod pressure;
mod start;
mod stt;
mod support;
mod tts;
mod turn;
mod vision;
