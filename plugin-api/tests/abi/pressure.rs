//! Too much in either direction: plugins wait for the host, and the host for plugins.

use antiphon_plugin_api::abi::{OUTPUT_AUDIO, Outcome, Status};

use crate::{
    llm, stt,
    support::{Bell, start},
    tts,
};

#[test]
fn audio_waits_for_room_and_goes_on_when_there_is_some() {
    let session = tts::open(&start::<tts::Script>());
    // Up, start, words, metadata, but no audio.
    session.record.wait_for("tts.connected");
    session.record.set_room(Some(3));
    session.say(1, "one two");
    assert_eq!(session.record.waits_for_room(), OUTPUT_AUDIO);
    // A false alarm changes nothing.
    session.record.set_room(Some(0));
    assert_eq!(session.record.waits_for_room(), OUTPUT_AUDIO);
    assert_eq!(session.record.outputs().len(), 4);
    session.record.set_room(None);
    assert_eq!(session.record.finished(1), Outcome::COMPLETED);
    assert_eq!(session.record.wait_for("tts.synthesis.complete")["total_audio_bytes"], 320);
}

#[test]
fn speech_is_cancelled_while_it_waits_for_room_and_counts_what_was_taken() {
    let session = tts::open(&start::<tts::Script>());
    session.record.wait_for("tts.connected");
    session.record.set_room(Some(5));
    session.say(1, "one two three");
    assert_eq!(session.record.waits_for_room(), OUTPUT_AUDIO);
    session.session.cancel(1);
    session.record.set_room(None);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    let complete = session.record.wait_for("tts.synthesis.complete");
    assert_eq!((complete["cancelled"].clone(), complete["chunk_count"].clone()), (true.into(), 1.into()));
    assert_eq!(session.record.said().iter().filter(|said| *said == "audio of 1").count(), 1);
}

#[test]
fn a_reply_is_cancelled_while_it_waits_for_room_and_keeps_what_was_taken() {
    let session = llm::open(&start::<llm::Script>());
    session.record.set_room(Some(2));
    session.ask(1, "one two three");
    session.record.waits_for_room();
    session.session.cancel(1);
    session.record.set_room(None);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    assert_eq!(session.record.events("llm.response.delta").len(), 1);
    assert_eq!(session.record.wait_for("llm.response.aborted")["partial_text"], "one");
}

#[test]
fn a_session_without_room_closes_all_the_same() {
    let session = llm::open(&start::<llm::Script>());
    session.record.set_room(Some(1));
    session.ask(1, "one");
    session.ask(2, "wait");
    session.record.waits_for_room();
    session.session.close(3);
    assert_eq!(session.record.finished(3), Outcome::COMPLETED);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
    assert_eq!(session.record.finished(2), Outcome::CANCELLED);
}

#[test]
fn a_recogniser_whose_error_finds_no_room_closes_all_the_same() {
    let session = stt::open(&start::<stt::Script>());
    session.record.wait_for("stt.connected");
    session.record.set_room(Some(0));
    session.audio(stt::FAIL);
    session.session.end(1);
    session.record.waits_for_room();
    session.session.close(2);
    assert_eq!(session.record.finished(2), Outcome::COMPLETED);
    assert_eq!(session.record.finished(1), Outcome::CANCELLED);
}

#[test]
fn a_host_that_is_gone_cancels_the_request() {
    let session = llm::open(&start::<llm::Script>());
    session.record.close();
    assert_eq!(session.run(1, "one two"), Outcome::FAILED);
    assert_eq!(session.record.said(), ["finished 1 FAILED"]);
}

#[test]
fn requests_beyond_the_limit_find_room_when_one_has_ended() {
    let session = llm::open(&start::<llm::Script>());
    for token in 1..=64 {
        assert_eq!(session.ask(token, "wait"), Status::ACCEPTED);
    }
    assert_eq!(session.ask(65, "fine"), Status::FULL);
    let bell = Bell::default();
    session.session.wake_when_ready(bell.waker());
    assert_eq!(session.ask(65, "fine"), Status::FULL);
    assert_eq!(session.ask(64, "fine"), Status::REFUSED, "a token in use finds room never");
    session.session.cancel(7);
    bell.wait();
    assert_eq!(session.ask(65, "fine"), Status::ACCEPTED);
    assert_eq!(session.record.finished(65), Outcome::COMPLETED);
}

#[test]
fn who_waits_for_room_in_a_closing_session_is_woken_and_refused() {
    let session = llm::open(&start::<llm::Script>());
    for token in 1..=64 {
        session.ask(token, "wait");
    }
    let bell = Bell::default();
    session.session.wake_when_ready(bell.waker());
    session.session.close(65);
    bell.wait();
    assert_eq!(session.ask(66, "fine"), Status::CLOSED);
}

#[test]
fn commands_beyond_the_limit_find_room_when_one_was_taken() {
    let session = stt::open(&start::<stt::Script>());
    session.audio(stt::HOLD);
    session.record.wait_for("stt.listening");
    for _ in 0..256 {
        assert_eq!(session.audio(0), Status::ACCEPTED);
    }
    assert_eq!(session.session.end(1), Status::FULL);
    let bell = Bell::default();
    session.session.wake_when_ready(bell.waker());
    assert_eq!(session.session.end(1), Status::FULL);
    session.release();
    bell.wait();
    assert_eq!(session.session.end(1), Status::ACCEPTED);
    assert_eq!(session.record.finished(1), Outcome::COMPLETED);
}
