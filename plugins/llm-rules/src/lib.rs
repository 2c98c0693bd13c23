//! Answers by rules from a TOML file: a language model's place, without a model, a network or a surprise.
//!
//! Not here: memory of what was said before. A reply depends on the text and on the number of the turn, nothing else.
#![forbid(unsafe_code)]

pub mod config;
pub mod rules;
