//! What the benches share.
//!
//! Reading order: [`report`] holds figures and claims, [`stats`] what is made of rounds; [`markdown`] and [`plot`] show
//! them; [`cpu`] and [`machine`] read the system; [`peers`] are programs in other languages that are measured beside ours.

pub mod cpu;
pub mod machine;
pub mod markdown;
pub mod peers;
pub mod plot;
pub mod report;
pub mod stats;
