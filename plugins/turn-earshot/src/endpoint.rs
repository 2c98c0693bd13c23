//! From one probability of voice per frame to speech segments and turns: a pure state machine that counts frames.
//!
//! Two layers share the input. A *segment* is a run of frames that sound like voice; it opens at `threshold` and
//! closes `hysteresis` below it, so it follows words and short pauses, and noise can open one. A *turn* starts with a
//! segment that is long enough and reached `turn_threshold`; it joins segments until the hangover has passed without
//! a sure one.
//!
//! Not here: audio (`detector.rs`), clocks. Positions count from the first sample of the input.

use std::time::Duration;

use crate::config::Settings;

/// Samples that one probability stands for. Source: `earshot::Detector::predict_i16` takes exactly 256.
pub const FRAME_SAMPLES: usize = 256;

/// Rate that the network was trained for, in samples per second.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// One frame in milliseconds; exact.
const FRAME_MS: u64 = FRAME_SAMPLES as u64 * 1000 / SAMPLE_RATE_HZ as u64;

/// How much later than the voice the probability rises. The network's window spans three frames and its bell leaves
/// the newest one almost unheard; in `goforward.raw` the level jumps at 496 ms and the probability at 512 ms.
const RISE_FRAMES: u64 = 1;

/// Longest way back from crossing `threshold` to where the probability began to rise; 10 frames of a soft start
/// (`cards/004.wav`, the "f" of "five") are in use, the rest would be room noise.
const MAX_RISE_FRAMES: u64 = 10;

/// Longest way back from the first sure frame to the start of a turn, 496 ms. Bounds the start where noise held a
/// segment open before anybody spoke.
const MAX_LEAD_FRAMES: u64 = 31;

/// Something that was decided about the input, with the position that it is about.
///
/// Signals come in the order of decision. A `SpeechStart` is followed by a `SpeechEnd` before the next one, likewise
/// `TurnStarted` and `TurnEnded`; a turn starts within a segment and ends after its last segment has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Signal {
    /// A segment opened.
    SpeechStart {
        /// Where the voice set in: up to 176 ms before the frame that decided it.
        at: Duration,
        /// The probability that crossed the threshold, in `0.0..=1.0`.
        probability: f32,
    },
    /// The open segment closed.
    SpeechEnd {
        /// Where the voice stopped.
        at: Duration,
        /// From the start of the segment to its end.
        duration: Duration,
    },
    /// Somebody has been talking for `min_speech_ms`.
    TurnStarted {
        /// Where speech began, so before the delay that `min_speech_ms` costs. A recogniser that is fed from here
        /// hears the first sound.
        at: Duration,
        /// Mean probability of voice since the segment opened, in `0.0..=1.0`.
        confidence: f32,
    },
    /// Nobody has been talking for `hangover_ms`, or the input ended.
    TurnEnded {
        /// Where the last speech of the turn ended. The decision came `trailing_silence` later.
        at: Duration,
        /// Silence from `at` to the decision: `hangover_ms` in whole frames, or less at the end of the input.
        trailing_silence: Duration,
        /// From the start of the turn to `at`, inner pauses included.
        duration: Duration,
        /// Mean of `1 - probability` over the trailing silence: how sure it is that nobody spoke. 1 at the end of
        /// the input, where nothing can follow.
        confidence: f32,
    },
}

/// What the newest decided frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No voice, no turn.
    Silence,
    /// A segment is open that is too short or too unsure for a turn so far.
    Speech,
    /// A turn is open and somebody speaks.
    Talking,
    /// A turn is open and the hangover runs.
    Pausing,
}

/// Turns probabilities into [`Signal`]s. Never allocates.
#[derive(Debug, Clone)]
pub struct Endpointer {
    limits: Limits,
    /// Frames decided so far; the newest one is `decided - 1`.
    decided: u64,
    probability: f32,
    /// First frame of the run that is at or above the exit threshold, when the newest frame belongs to one.
    rise: Option<u64>,
    /// End of the last segment: no segment reaches back beyond it.
    floor: u64,
    segment: Option<Segment>,
    turn: Option<Turn>,
}

/// Settings in the units of the machine.
#[derive(Debug, Clone, Copy)]
struct Limits {
    enter: f32,
    exit: f32,
    sure: f32,
    min_speech: u64,
    hangover: u64,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    start: u64,
    /// First frame at or above the threshold: `min_speech` counts from here, not from the softer start.
    crossed: u64,
    /// First frame that was sure enough for a turn.
    first_sure: Option<u64>,
    sum: f32,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    start: u64,
    /// End of its last speech.
    end: u64,
    /// Sum of `1 - probability` since `end`.
    silence: f32,
}

impl Endpointer {
    /// Starts at position zero, in silence.
    pub fn new(settings: &Settings) -> Self {
        let enter = settings.threshold as f32;
        Self::with(Limits {
            enter,
            exit: (settings.threshold - settings.hysteresis.max(0.0)) as f32,
            sure: enter.max(settings.turn_threshold as f32),
            min_speech: frames(settings.min_speech_ms),
            hangover: frames(settings.hangover_ms).max(1),
        })
    }

    fn with(limits: Limits) -> Self {
        Self { limits, decided: 0, probability: 0.0, rise: None, floor: 0, segment: None, turn: None }
    }

    /// Decides the next frame from its probability of voice.
    pub fn push(&mut self, probability: f32, sink: &mut impl FnMut(Signal)) {
        let now = self.decided;
        self.decided += 1;
        self.probability = probability;
        self.rise = (probability >= self.limits.exit).then(|| self.rise.unwrap_or(now));

        match &mut self.segment {
            Some(_) if self.rise.is_none() => self.close_segment(now, sink),
            Some(segment) => segment.sum += probability,
            None if probability >= self.limits.enter => self.open_segment(now, sink),
            None => {}
        }
        self.follow_turn(now, sink);
    }

    /// Ends what is open where the input ends, and starts over at position zero.
    pub fn finish(&mut self, sink: &mut impl FnMut(Signal)) {
        self.close_segment(self.decided, sink);
        if let Some(turn) = self.turn.take() {
            sink(turn.ended(self.decided, 1.0));
        }
        *self = Self::with(self.limits);
    }

    /// Frames decided so far. What came before this position will not be judged again; no signal about it follows,
    /// except starts and ends that lie back as their `at` says.
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// The newest probability, 0 before the first frame.
    pub fn probability(&self) -> f32 {
        self.probability
    }

    /// What the newest frame belongs to.
    pub fn state(&self) -> State {
        match (&self.segment, &self.turn) {
            (None, None) => State::Silence,
            (Some(_), None) => State::Speech,
            (Some(_), Some(_)) => State::Talking,
            (None, Some(_)) => State::Pausing,
        }
    }

    fn open_segment(&mut self, now: u64, sink: &mut impl FnMut(Signal)) {
        let rise = self.rise.unwrap_or(now).max(now.saturating_sub(MAX_RISE_FRAMES));
        let start = rise.saturating_sub(RISE_FRAMES).max(self.floor);
        self.segment = Some(Segment { start, crossed: now, first_sure: None, sum: self.probability });
        sink(Signal::SpeechStart { at: position(start), probability: self.probability });
    }

    /// Closes the segment if one is open.
    fn close_segment(&mut self, end: u64, sink: &mut impl FnMut(Signal)) {
        let Some(segment) = self.segment.take() else { return };
        self.floor = end;
        if let Some(turn) = &mut self.turn
            && segment.first_sure.is_some()
        {
            turn.speech_until(end);
        }
        sink(Signal::SpeechEnd { at: position(end), duration: position(end - segment.start) });
    }

    /// Starts, prolongs or ends the turn, after the segment of frame `now` is known.
    fn follow_turn(&mut self, now: u64, sink: &mut impl FnMut(Signal)) {
        let sure = self.probability >= self.limits.sure;
        if let (Some(segment), true) = (&mut self.segment, sure) {
            segment.first_sure.get_or_insert(now);
        }
        match (&mut self.turn, &self.segment) {
            (None, Some(segment)) => {
                let spoken = self.decided - segment.crossed;
                if let Some(first_sure) = segment.first_sure
                    && spoken >= self.limits.min_speech
                {
                    let start = segment.start.max(first_sure.saturating_sub(MAX_LEAD_FRAMES));
                    self.turn = Some(Turn { start, end: self.decided, silence: 0.0 });
                    sink(Signal::TurnStarted {
                        at: position(start),
                        confidence: segment.sum / spoken.max(1) as f32,
                    });
                }
            }
            (Some(turn), Some(_)) if sure => turn.speech_until(self.decided),
            (Some(turn), _) => {
                turn.silence += 1.0 - self.probability;
                if self.decided - turn.end >= self.limits.hangover {
                    self.end_turn(sink);
                }
            }
            (None, None) => {}
        }
    }

    /// Ends the turn for want of sure frames; a segment that noise keeps open ends with it, so that the next turn has
    /// to begin with a segment of its own.
    fn end_turn(&mut self, sink: &mut impl FnMut(Signal)) {
        let Some(turn) = self.turn.take() else { return };
        let silent = self.decided - turn.end;
        self.close_segment(self.decided, sink);
        self.rise = None;
        sink(turn.ended(self.decided, turn.silence / silent as f32));
    }
}

impl Turn {
    fn speech_until(&mut self, end: u64) {
        self.end = end;
        self.silence = 0.0;
    }

    fn ended(&self, decided: u64, confidence: f32) -> Signal {
        Signal::TurnEnded {
            at: position(self.end),
            trailing_silence: position(decided - self.end),
            duration: position(self.end - self.start),
            confidence,
        }
    }
}

/// Where a frame begins.
fn position(frame: u64) -> Duration {
    Duration::from_millis(frame * FRAME_MS)
}

/// Frames that cover a time.
fn frames(ms: u32) -> u64 {
    u64::from(ms).div_ceil(FRAME_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Silence, voice that is sure, and voice that is not sure enough for a turn.
    const QUIET: f32 = 0.2;
    const VOICE: f32 = 0.9;
    const FAINT: f32 = 0.6;

    /// Runs `(probability, frames)` pairs through a machine and returns its signals as short text:
    /// `frame decided: name details`, with every time in frames.
    fn run(settings: &Settings, script: &[(f32, u64)]) -> Vec<String> {
        let mut machine = Endpointer::new(settings);
        let mut log = Vec::new();
        for &(probability, count) in script {
            for _ in 0..count {
                let decided = machine.decided() + 1;
                machine.push(probability, &mut |signal| log.push(format!("{decided}: {}", brief(signal))));
            }
        }
        machine.finish(&mut |signal| log.push(format!("end: {}", brief(signal))));
        log
    }

    fn brief(signal: Signal) -> String {
        let frames = |time: Duration| {
            let ms = time.as_millis() as u64;
            assert_eq!(ms % FRAME_MS, 0, "{time:?} is not on the frame grid");
            ms / FRAME_MS
        };
        match signal {
            Signal::SpeechStart { at, probability } => format!("speech {} p{probability:.2}", frames(at)),
            Signal::SpeechEnd { at, duration } => format!("speech-end {} ({})", frames(at), frames(duration)),
            Signal::TurnStarted { at, confidence } => format!("turn {} c{confidence:.2}", frames(at)),
            Signal::TurnEnded { at, trailing_silence, duration, confidence } => format!(
                "turn-end {} +{} ({}) c{confidence:.2}",
                frames(at),
                frames(trailing_silence),
                frames(duration)
            ),
        }
    }

    #[track_caller]
    fn check(script: &[(f32, u64)], want: &[&str]) {
        assert_eq!(run(&Settings::default(), script), want);
    }

    #[test]
    fn turn_starts_after_min_speech_and_ends_after_the_hangover_to_the_frame() {
        // 200 ms are 13 frames, 800 ms are 50. The start lies one frame before the rise.
        check(
            &[(QUIET, 10), (VOICE, 30), (QUIET, 60)],
            &[
                "11: speech 9 p0.90",
                "23: turn 9 c0.90",
                "41: speech-end 40 (31)",
                "90: turn-end 40 +50 (31) c0.80",
            ],
        );
    }

    #[test]
    fn one_frame_less_than_min_speech_is_no_turn() {
        check(&[(QUIET, 10), (VOICE, 12), (QUIET, 60)], &["11: speech 9 p0.90", "23: speech-end 22 (13)"]);
        check(
            &[(QUIET, 10), (VOICE, 13), (QUIET, 1)],
            &[
                "11: speech 9 p0.90",
                "23: turn 9 c0.90",
                "24: speech-end 23 (14)",
                "end: turn-end 23 +1 (14) c1.00",
            ],
        );
    }

    #[test]
    fn gap_shorter_than_the_hangover_joins_segments_into_one_turn() {
        check(
            &[(VOICE, 20), (QUIET, 49), (VOICE, 3), (QUIET, 50)],
            &[
                "1: speech 0 p0.90",
                "13: turn 0 c0.90",
                "21: speech-end 20 (20)",
                "70: speech 68 p0.90",
                "73: speech-end 72 (4)",
                "122: turn-end 72 +50 (72) c0.80",
            ],
        );
    }

    #[test]
    fn gap_as_long_as_the_hangover_separates_turns() {
        check(
            &[(VOICE, 20), (QUIET, 50), (VOICE, 20)],
            &[
                "1: speech 0 p0.90",
                "13: turn 0 c0.90",
                "21: speech-end 20 (20)",
                "70: turn-end 20 +50 (20) c0.80",
                "71: speech 69 p0.90",
                "83: turn 69 c0.90",
                "end: speech-end 90 (21)",
                "end: turn-end 90 +0 (21) c1.00",
            ],
        );
    }

    #[test]
    fn dip_within_the_hysteresis_keeps_the_segment_open() {
        check(
            &[(VOICE, 5), (0.36, 5), (VOICE, 5)],
            &[
                "1: speech 0 p0.90",
                "13: turn 0 c0.69",
                "end: speech-end 15 (15)",
                "end: turn-end 15 +0 (15) c1.00",
            ],
        );
        check(
            &[(VOICE, 5), (0.34, 5), (VOICE, 5)],
            &["1: speech 0 p0.90", "6: speech-end 5 (5)", "11: speech 9 p0.90", "end: speech-end 15 (6)"],
        );
    }

    #[test]
    fn voice_that_never_gets_sure_is_a_segment_but_no_turn() {
        check(&[(QUIET, 5), (FAINT, 200), (QUIET, 5)], &["6: speech 4 p0.60", "206: speech-end 205 (201)"]);
    }

    #[test]
    fn one_sure_frame_makes_a_long_segment_a_turn_but_not_a_short_one() {
        check(
            &[(FAINT, 20), (VOICE, 1), (QUIET, 1)],
            &[
                "1: speech 0 p0.60",
                "21: turn 0 c0.61",
                "22: speech-end 21 (21)",
                "end: turn-end 21 +1 (21) c1.00",
            ],
        );
        check(&[(FAINT, 2), (VOICE, 1), (QUIET, 60)], &["1: speech 0 p0.60", "4: speech-end 3 (3)"]);
    }

    #[test]
    fn soft_start_is_part_of_the_speech_up_to_ten_frames() {
        check(
            &[(QUIET, 20), (0.4, 5), (VOICE, 2), (QUIET, 1)],
            &["26: speech 19 p0.90", "28: speech-end 27 (8)"],
        );
        check(
            &[(QUIET, 20), (0.4, 40), (VOICE, 2), (QUIET, 1)],
            &["61: speech 49 p0.90", "63: speech-end 62 (13)"],
        );
    }

    #[test]
    fn segment_never_reaches_back_into_the_one_before() {
        check(
            &[(VOICE, 3), (QUIET, 1), (0.4, 2), (VOICE, 1), (QUIET, 1)],
            &["1: speech 0 p0.90", "4: speech-end 3 (3)", "7: speech 3 p0.90", "8: speech-end 7 (4)"],
        );
    }

    #[test]
    fn noise_that_holds_the_segment_open_does_not_hold_the_turn() {
        // After 20 sure frames the probability stays above the exit threshold for good.
        check(
            &[(VOICE, 20), (FAINT, 60)],
            &[
                "1: speech 0 p0.90",
                "13: turn 0 c0.90",
                "70: speech-end 70 (70)",
                "70: turn-end 20 +50 (20) c0.40",
                "71: speech 70 p0.60",
                "end: speech-end 80 (10)",
            ],
        );
    }

    #[test]
    fn turn_out_of_long_noise_begins_near_its_first_sure_frame() {
        check(
            &[(FAINT, 500), (VOICE, 20), (QUIET, 50)],
            &[
                "1: speech 0 p0.60",
                "501: turn 469 c0.60",
                "521: speech-end 520 (520)",
                "570: turn-end 520 +50 (51) c0.80",
            ],
        );
    }

    #[test]
    fn finish_starts_over_at_zero() {
        let mut machine = Endpointer::new(&Settings::default());
        for _ in 0..2 {
            let mut signals = Vec::new();
            for _ in 0..13 {
                machine.push(VOICE, &mut |signal| signals.push(brief(signal)));
            }
            assert_eq!(machine.state(), State::Talking);
            machine.finish(&mut |signal| signals.push(brief(signal)));
            assert_eq!(
                signals,
                ["speech 0 p0.90", "turn 0 c0.90", "speech-end 13 (13)", "turn-end 13 +0 (13) c1.00"]
            );
            assert_eq!((machine.decided(), machine.state()), (0, State::Silence));
        }
    }

    #[test]
    fn state_follows_the_newest_frame() {
        let mut machine = Endpointer::new(&Settings::default());
        let mut expect = |probability: f32, count: u64, want: State| {
            for _ in 0..count {
                machine.push(probability, &mut |_| {});
            }
            assert_eq!(machine.state(), want, "after frame {}", machine.decided());
        };
        expect(QUIET, 3, State::Silence);
        expect(VOICE, 12, State::Speech);
        expect(VOICE, 1, State::Talking);
        expect(QUIET, 1, State::Pausing);
        expect(VOICE, 1, State::Talking);
        expect(QUIET, 49, State::Pausing);
        expect(QUIET, 1, State::Silence);
    }

    #[test]
    fn times_are_rounded_up_to_frames_and_zero_is_one_frame_of_hangover() {
        let settings = Settings { min_speech_ms: 1, hangover_ms: 17, ..Settings::default() };
        let want = ["1: speech 0 p0.90", "1: turn 0 c0.90", "2: speech-end 1 (1)"];
        assert_eq!(run(&settings, &[(VOICE, 1), (QUIET, 5)])[..3], want);
        assert_eq!(run(&settings, &[(VOICE, 1), (QUIET, 5)])[3], "3: turn-end 1 +2 (1) c0.80");

        let settings = Settings { min_speech_ms: 0, hangover_ms: 0, ..Settings::default() };
        assert_eq!(run(&settings, &[(VOICE, 1), (QUIET, 5)])[3], "2: turn-end 1 +1 (1) c0.80");
    }

    #[test]
    fn any_probabilities_and_settings_give_nested_signals_on_rising_positions() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as f64 / (1u64 << 53) as f64
        };
        for round in 0..300 {
            let settings = Settings {
                threshold: random() * 1.2 - 0.1,
                hysteresis: random() * 0.5,
                turn_threshold: random() * 1.2 - 0.1,
                min_speech_ms: (random() * 600.0) as u32,
                hangover_ms: (random() * 1000.0) as u32,
            };
            let mut machine = Endpointer::new(&settings);
            let (mut speech, mut turn) = (None, None);
            let mut last = Duration::ZERO;
            let mut level = 0.5;
            let mut follow = |signal: Signal| match signal {
                Signal::SpeechStart { at, probability } => {
                    assert!((0.0..=1.0).contains(&probability));
                    assert!(speech.replace(at).is_none() && at >= last, "{signal:?}");
                    last = at;
                }
                Signal::SpeechEnd { at, duration } => {
                    assert_eq!(speech.take().map(|start| start + duration), Some(at), "{signal:?}");
                    assert!(at >= last);
                    last = at;
                }
                Signal::TurnStarted { at, confidence } => {
                    assert!((0.0..=1.0).contains(&confidence), "{signal:?}");
                    assert!(turn.replace(at).is_none() && speech.is_some_and(|start| at >= start));
                }
                Signal::TurnEnded { at, duration, confidence, .. } => {
                    assert!((0.0..=1.0).contains(&confidence), "{signal:?}");
                    assert!(speech.is_none() && at <= last, "{signal:?}");
                    assert_eq!(turn.take().map(|start| start + duration), Some(at), "{signal:?}");
                }
            };
            for _ in 0..2000 {
                level = (level + (random() - 0.5) * 0.3).clamp(0.0, 1.0);
                machine.push(level as f32, &mut follow);
            }
            machine.finish(&mut follow);
            assert!(speech.is_none() && turn.is_none(), "round {round}");
        }
    }
}
