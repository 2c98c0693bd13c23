//! What the bus promises, through its public API.

mod support;

mod failing;
mod lifetime;
mod ordering;
mod overflow;
mod receiving;
mod reentrant;
