//! Language models: pieces, ends, errors, and silence afterwards.

mod script;

use antiphon_plugin_api::abi::{Outcome, Status, abi_stable::std_types::RSlice};
use serde_json::json;
use uuid::Uuid;

pub(crate) use self::script::{Script, Session, open, open_as};
use crate::support::{Output, start};

#[test]
fn pieces_come_in_order_with_their_numbers_and_then_the_whole_text() {
    let session = open(&start::<Script>());
    assert_eq!(session.run(1, "one yield two three"), Outcome::COMPLETED);
    assert_eq!(
        session.record.said(),
        [
            "llm.request.start",
            "llm.response.delta",
            "llm.response.delta",
            "llm.response.delta",
            "llm.response.final",
            "finished 1 COMPLETED"
        ]
    );
    let deltas = session.record.events("llm.response.delta");
    let numbered: Vec<_> = deltas
        .iter()
        .map(|delta| (&delta["sequence_number"], &delta["delta"], &delta["is_first_chunk"]))
        .collect();
    assert_eq!(json!(numbered), json!([[0, "one", true], [1, "two", false], [2, "three", false]]));
    let complete = session.record.wait_for("llm.response.final");
    assert_eq!((&complete["text"], &complete["item_id"]), (&json!("onetwothree"), &json!("r1")));
    let turns = session.record.outputs().into_iter().filter_map(|output| match output {
        Output::Event { turn_id, .. } => Some(turn_id),
        _ => None,
    });
    assert!(turns.into_iter().all(|turn| turn == 9));
}

#[test]
fn an_error_becomes_llm_error_with_its_causes() {
    let session = open(&start::<Script>());
    assert_eq!(session.run(1, "well fail"), Outcome::FAILED);
    let event = session.record.wait_for("llm.error");
    assert_eq!(event["error_message"], "the model did not answer: line is dead");
    assert_eq!(event["error"]["source_chain"], json!(["line is dead"]));
    assert_eq!((&event["error_code"], &event["request_id"]), (&json!("error"), &json!("r1")));
    assert!(session.record.events("llm.response.final").is_empty());
}

#[test]
fn a_panic_becomes_llm_error_and_the_next_request_works() {
    let session = open(&start::<Script>());
    for (token, prompt) in [(1, "panic-at-once"), (2, "panic"), (3, "well yield panic")] {
        assert_eq!(session.run(token, prompt), Outcome::FAILED, "{prompt}");
        let event = session.record.events("llm.error").pop().expect("emitted before the end");
        assert_eq!((&event["error"]["kind"], &event["error_code"]), (&json!("panic"), &json!("panic")));
        assert!(event["error_message"].as_str().is_some_and(|text| text.contains("as told")), "{event}");
        assert_eq!(event["request_id"], format!("r{token}"));
    }
    assert_eq!(session.run(4, "fine"), Outcome::COMPLETED);
}

#[test]
fn a_cancelled_request_ends_with_what_was_said() {
    let session = open(&start::<Script>());
    session.ask(1, "one two wait three");
    session.record.wait_for_count("llm.response.delta", 2);
    session.session.cancel(1);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    assert_eq!(session.record.wait_for("llm.response.aborted")["partial_text"], "onetwo");
    assert_eq!(session.record.said().last().map(String::as_str), Some("finished 1 CANCELLED"));
}

#[test]
fn a_request_that_panics_while_it_is_cancelled_is_cancelled() {
    let session = open(&start::<Script>());
    session.ask(1, "one bomb");
    session.record.wait_for("llm.response.delta");
    session.session.cancel(1);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    assert_eq!(session.record.wait_for("llm.response.aborted")["partial_text"], "one");
    assert_eq!(session.run(2, "fine"), Outcome::COMPLETED);
}

#[test]
fn a_clone_of_the_reply_is_silent_once_its_request_has_ended() {
    let session = open(&start::<Script>());
    assert_eq!(session.run(1, "keep one"), Outcome::COMPLETED);
    session.ask(2, "keep wait");
    session.record.wait_for_count("llm.request.start", 2);
    session.session.cancel(2);
    assert_eq!(session.record.finished(2), Outcome::CANCELLED);
    assert_eq!(session.run(3, "keep fail"), Outcome::FAILED);
    for token in [11, 12, 13] {
        assert_eq!(session.run(token, "late"), Outcome::COMPLETED);
        let deltas = session.record.events("llm.response.delta");
        assert_eq!(deltas.last().expect("the codes")["delta"], "cancelled cancelled");
    }
}

#[test]
fn a_thread_of_the_plugin_is_silent_once_its_request_has_ended() {
    let session = open(&start::<Script>());
    for token in 1..=50 {
        assert_eq!(session.run(token, "thread yield yield one"), Outcome::COMPLETED);
    }
    session.session.close(51);
    session.record.finished(51);
    let said = session.record.said();
    for token in 1..=50 {
        let end = said.iter().position(|said| *said == format!("finished {token} COMPLETED"));
        let end = end.expect("each has ended");
        assert_eq!(said[end - 1], "llm.response.final");
        let next = &said[end + 1];
        assert!(
            next == "llm.request.start" || next == "finished 51 COMPLETED",
            "{next} after the end of {token}"
        );
    }
    for event in session.record.events("llm.response.final") {
        let pieces = session.record.events("llm.response.delta").into_iter();
        let of_this = pieces.filter(|delta| delta["item_id"] == event["item_id"]).count();
        let text = event["text"].as_str().expect("a text");
        assert_eq!(text.len(), of_this + "one".len() - 1);
    }
}

#[test]
fn an_event_that_is_not_declared_is_an_error() {
    let session = open(&start::<Script>());
    assert_eq!(session.run(1, "undeclared"), Outcome::FAILED);
    let event = session.record.wait_for("llm.error");
    assert_eq!((&event["error_code"], &event["is_recoverable"]), (&json!("undeclared_event"), &json!(false)));
    assert!(event["error_message"].as_str().is_some_and(|text| text.contains("script.undeclared")));
}

#[test]
fn an_own_event_is_readable_for_a_host_that_does_not_know_it() {
    let session = open(&start::<Script>());
    assert_eq!(session.run(1, "own"), Outcome::COMPLETED);
    let event = session.record.wait_for("script.own");
    assert_eq!(event, json!({ "id": Uuid::from_u128(7), "at": "127.0.0.1", "note": null }));
}

#[test]
fn events_that_nobody_wants_do_not_cross() {
    let running = start::<Script>();
    running.unwant("llm.response.delta");
    running.unwant("script.own");
    let session = open(&running);
    assert_eq!(session.run(1, "one own two"), Outcome::COMPLETED);
    assert_eq!(session.record.said(), ["llm.request.start", "llm.response.final", "finished 1 COMPLETED"]);
    assert_eq!(session.record.wait_for("llm.response.final")["text"], "onetwo");
}

#[test]
fn a_request_that_cannot_be_read_is_refused() {
    let session = open(&start::<Script>());
    for bytes in [&[][..], b"\xc1", b"\x93\x01\x02\x03", b"\x80"] {
        assert_eq!(session.session.respond(1, 0, RSlice::from_slice(bytes)), Status::REFUSED, "{bytes:?}");
    }
    assert_eq!(session.run(1, "fine"), Outcome::COMPLETED);
}

#[test]
fn a_token_in_use_is_refused() {
    let session = open(&start::<Script>());
    assert_eq!(session.ask(1, "wait"), Status::ACCEPTED);
    assert_eq!(session.ask(1, "again"), Status::REFUSED);
    session.session.cancel(1);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    assert_eq!(session.record.said().iter().filter(|said| said.starts_with("finished")).count(), 1);
}

#[test]
fn cancelling_what_has_ended_does_nothing() {
    let session = open(&start::<Script>());
    assert_eq!(session.run(1, "fine"), Outcome::COMPLETED);
    session.session.cancel(1);
    session.session.cancel(99);
    assert_eq!(session.run(2, "fine"), Outcome::COMPLETED);
}
