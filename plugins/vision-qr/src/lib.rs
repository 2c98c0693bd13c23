//! Finds and reads QR codes in pictures and video frames.
//!
//! Not here: other bar codes, decoding of picture files (the host's), and tracking from frame to frame.
#![forbid(unsafe_code)]

pub mod config;
pub mod detect;
mod locate;
pub mod luma;
