//! What the bus promises, through its public API.

mod support;

mod coalescing;
mod concurrent;
mod ending;
mod failing;
mod figures;
mod from_plugins;
mod json;
mod lifetime;
mod muting;
mod naming;
mod once;
mod ordering;
mod overflow;
mod receiving;
mod reentrant;
mod settling;
mod storms;
mod streams;
mod taps;
mod wait_for;
mod watchdog;
