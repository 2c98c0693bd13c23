//! Tells when somebody starts and stops talking: voice activity and end of turn from 16 kHz speech.
//!
//! Not here: what was said (`stt-*`), and whether the sentence is complete in meaning. A turn ends by silence alone.
#![forbid(unsafe_code)]

pub mod config;
pub mod detector;
pub mod endpoint;
