//! What a plugin may not do. Each check returns what is wrong.

use std::fmt::Write;

use antiphon_core::AudioChunk;
use serde_json::Value;

use super::{
    events::type_of,
    recorder::{EventTypes, Said},
};
use crate::abi::Outcome;

/// Ends the test if anything is wrong.
pub(super) fn report(plugin: &str, said: &Said) {
    if said.faults.is_empty() {
        return;
    }
    let mut text = format!("{plugin} did what it may not:");
    for fault in &said.faults {
        let _ = write!(text, "\n  {fault}");
    }
    let emitted: Vec<&str> = said.events.iter().map(type_of).collect();
    panic!("{text}\nIts events: {}", emitted.join(", "));
}

/// A request has one end, and it comes last. `ends` are its types: completed, cancelled, failed.
pub(super) fn one_end(kind: &str, ends: [&str; 3], outcome: Outcome, said: &mut Said) {
    let own: Vec<&str> = said.events.iter().map(type_of).filter(|name| name.starts_with(kind)).collect();
    let want = match outcome {
        Outcome::COMPLETED => ends[0],
        Outcome::CANCELLED => ends[1],
        _ => ends[2],
    };
    let mut faults = Vec::new();
    match own.iter().position(|name| ends.contains(name)) {
        None => faults.push(format!("the request ended ({outcome:?}) without `{want}`")),
        Some(end) => {
            if own[end] != want {
                faults
                    .push(format!("the request ended ({outcome:?}) with `{}` instead of `{want}`", own[end]));
            }
            for late in &own[end + 1..] {
                faults.push(format!("`{late}` came after `{}`, which ends the request", own[end]));
            }
        }
    }
    said.faults.extend(faults);
}

/// Pieces come in the order of their numbers: it shows when several tasks write one reply.
pub(super) fn numbered(said: &mut Said) {
    let pieces = said.events.iter().filter(|event| type_of(event) == "llm.response.delta");
    let numbers: Vec<u64> = pieces.filter_map(|event| event["sequence_number"].as_u64()).collect();
    if !numbers.is_sorted() {
        said.faults.push(format!("the pieces of the reply are not in order: {numbers:?}"));
    }
}

/// Audio keeps its format and goes to its own request.
pub(super) fn one_format(token: u64, said: &mut Said) {
    let format = |audio: &AudioChunk| (audio.sample_rate_hz(), audio.channels());
    let mut faults = Vec::new();
    if let Some((_, first)) = said.audio.first() {
        if !(1..=2).contains(&first.channels()) {
            faults.push(format!("the audio has {} channels; one or two are allowed", first.channels()));
        }
        if let Some((_, other)) = said.audio.iter().find(|(_, audio)| format(audio) != format(first)) {
            faults.push(format!(
                "the audio changes from (rate, channels) {:?} to {:?} within a request",
                format(first),
                format(other)
            ));
        }
    }
    if said.audio.iter().any(|(owner, _)| *owner != token) {
        faults.push("audio came after its request had ended".to_owned());
    }
    said.faults.extend(faults);
}

/// Words come in the order in which they are said.
pub(super) fn words_in_order(said: &mut Said) {
    let mut until = 0.0;
    let words = said.events.iter().filter(|event| type_of(event) == "tts.words");
    for word in words.flat_map(|event| event["words"].as_array().into_iter().flatten()) {
        let (start, end) =
            (word["start_ms"].as_f64().unwrap_or_default(), word["end_ms"].as_f64().unwrap_or_default());
        if start < until || end < start {
            said.faults.push(format!(
                "the word {word} begins before what comes before it, or ends before it begins"
            ));
            return;
        }
        until = start;
    }
}

/// An utterance that ended has one complete transcript, after all others.
pub(super) fn one_utterance(outcome: Outcome, cancelled: bool, said: &mut Said) {
    const UTTERANCE: &str = "stt.transcript.utterance_final";
    let transcripts: Vec<&str> =
        said.events.iter().map(type_of).filter(|name| name.starts_with("stt.transcript.")).collect();
    let count = transcripts.iter().filter(|name| **name == UTTERANCE).count();
    let fault = match count {
        0 if outcome == Outcome::COMPLETED && !cancelled => {
            format!(
                "`end` returned without `{UTTERANCE}`: it belongs to every utterance, also with empty text"
            )
        }
        0 => return,
        _ if cancelled => format!("a cancelled utterance has `{UTTERANCE}`"),
        1 if transcripts.last() == Some(&UTTERANCE) => return,
        1 => format!("`{}` came after `{UTTERANCE}`", transcripts.last().copied().unwrap_or_default()),
        _ => format!("`{UTTERANCE}` came {count} times for one utterance"),
    };
    said.faults.push(fault);
}

/// A failed recogniser says so.
pub(super) fn failure_is_told(outcome: Outcome, said: &mut Said) {
    if outcome == Outcome::FAILED && !said.events.iter().any(|event| type_of(event) == "stt.error") {
        said.faults.push("the utterance failed without `stt.error`".to_owned());
    }
}

/// What begins ends before it begins again, and everything has ended when no more audio comes.
pub(super) fn begins_and_ends(begin: &str, end: &str, said: &mut Said) {
    let mut open = false;
    let mut faults = Vec::new();
    for name in said.events.iter().map(type_of) {
        if name == begin {
            if open {
                faults.push(format!("`{begin}` came twice without `{end}` in between"));
            }
            open = true;
        } else if name == end {
            if !open {
                faults.push(format!("`{end}` came without `{begin}`"));
            }
            open = false;
        }
    }
    if open {
        faults.push(format!("`flush` returned without `{end}` for the last `{begin}`"));
    }
    said.faults.extend(faults);
}

/// Whoever looked at a picture says so, also when there is nothing in it.
pub(super) fn detection(outcome: Outcome, types: &EventTypes, said: &mut Said) {
    const DETECTION: &str = "vision.detection";
    let is_detection = |event: &Value| types.extends(type_of(event), DETECTION);
    if outcome == Outcome::COMPLETED && !said.events.iter().any(is_detection) {
        let fault = format!("`process` returned without `{DETECTION}` or an event that extends it");
        said.faults
            .push(format!("{fault}: it is due for every picture, also when there is nothing to be seen"));
    }
}
