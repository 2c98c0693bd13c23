//! {{name}}: a synthesiser for Antiphon that says each word as a tone; longer words are longer and higher.
//!
//! Small but whole: a setting, audio piece by piece, word times, cancellation, tests. Put your engine where `tone` is.
#![forbid(unsafe_code)]

use std::f64::consts::TAU;

use antiphon_plugin_api::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Any rate will do, the host converts; it stays the same throughout a request.
const SAMPLE_RATE_HZ: u32 = 16_000;

/// Seconds of tone for each letter of a word.
const LETTER_SECONDS: f64 = 0.06;

/// Seconds of silence after a word.
const PAUSE_SECONDS: f64 = 0.05;

/// Letters that count: a word has an end, whatever a model writes.
const MOST_LETTERS: usize = 20;

/// What users can set: `--set {{name}}.pitch_hz=330`. Doc comments, defaults and ranges become the schema that
/// `antiphon plugins inspect` shows; the host refuses what does not fit before `start` is called.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Pitch of a word of no letters, in hertz; each letter adds 20.
    #[schemars(range(min = 50, max = 2000))]
    pitch_hz: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { pitch_hz: 220 }
    }
}

/// Made once, shared by all sessions: what changes in it needs a lock that is never held across an `.await`.
struct Tones {
    pitch_hz: u32,
}

impl Plugin for Tones {
    type Config = Config;

    /// Has 30 seconds. Look here for what you need (a voice, a library) and say in the error what is missing and what
    /// brings it; load what is large when it is first used.
    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self {
            pitch_hz: config.pitch_hz,
        })
    }
}

impl Tts for Tones {
    /// Called for each sentence or so. Requests run side by side, all on the one worker thread of this plugin: wait by
    /// `.await`, and give what computes for more than some hundred microseconds to `tokio::task::spawn_blocking`.
    ///
    /// When the user interrupts, this future is dropped at the `.await` where it waits, and nothing after it runs. So
    /// hold nothing across one that a drop would leave half done; what must be undone belongs into a `Drop`.
    async fn synthesize(&self, request: TtsRequest, output: TtsOutput) -> Result<(), PluginError> {
        let mut start_ms = 0.0;
        for word in request.text.split_whitespace() {
            // `AudioChunk` owns its samples, and the host reads them where they are: nothing is copied.
            let audio = AudioChunk::new(tone(word, self.pitch_hz), SAMPLE_RATE_HZ, 1)?;
            let end_ms = start_ms + audio.duration().as_secs_f64() * 1e3;
            let word = word.to_owned();
            // Before their audio: who interrupts then finds in the history what was heard, to the word.
            output
                .words(vec![WordTiming {
                    word,
                    start_ms,
                    end_ms,
                }])
                .await?;
            // Waits while the host has enough, so you need no queue. Fails when nobody listens: `?` ends the work.
            output.audio(audio).await?;
            start_ms = end_ms;
        }
        // Exactly one end follows, made for you: `tts.synthesis.complete` for `Ok`, `tts.error` for `Err` or a panic.
        Ok(())
    }
}

/// A word's tone, with soft ends, and the pause after it.
fn tone(word: &str, pitch_hz: u32) -> Vec<i16> {
    let rate = f64::from(SAMPLE_RATE_HZ);
    let letters = word.chars().take(MOST_LETTERS).count() as f64;
    let pitch_hz = f64::from(pitch_hz) + 20.0 * letters;
    let length = (letters * LETTER_SECONDS * rate) as usize;
    let fade = 0.01 * rate;
    let sample = |index: usize| {
        let loudness = (index.min(length - index) as f64 / fade).min(1.0);
        let wave = (TAU * pitch_hz * index as f64 / rate).sin();
        (wave * loudness * 0.25 * f64::from(i16::MAX)) as i16
    };
    let pause = (PAUSE_SECONDS * rate) as usize;
    (0..length)
        .map(sample)
        .chain(std::iter::repeat_n(0, pause))
        .collect()
}

export_plugin! { name: "{{name}}", plugin: Tones, capabilities: [tts] }

#[cfg(test)]
mod tests {
    use antiphon_plugin_api::testing::{self, Harness, Outcome, json};

    use super::*;

    #[test]
    fn each_word_has_its_tone_and_its_time() {
        testing::run(async {
            let mut plugin = Harness::<Tones>::start(json!({})).await.expect("starts");
            let speech = plugin.synthesize("go forward").await;
            assert_eq!(
                (speech.sample_rate_hz, speech.channels),
                (SAMPLE_RATE_HZ, 1)
            );
            let words: Vec<&str> = speech.words.iter().map(|word| word.word.as_str()).collect();
            assert_eq!(words, ["go", "forward"]);
            let end_ms = speech.audio.len() as f64 / f64::from(SAMPLE_RATE_HZ) * 1e3;
            assert!((speech.words[1].end_ms - end_ms).abs() < 0.001);
            assert!(speech.audio.iter().any(|sample| *sample > 5000));
        });
    }

    #[test]
    fn an_interrupted_sentence_stops_after_the_word_that_was_made() {
        testing::run(async {
            let mut plugin = Harness::<Tones>::start(json!({})).await.expect("starts");
            let cut = plugin.synthesize("one two three").cancel_after(1).await;
            assert_eq!(cut.outcome, Outcome::CANCELLED);
            assert_eq!(cut.audio, tone("one", 220));
        });
    }

    #[test]
    fn the_pitch_can_be_set() {
        testing::run(async {
            let settings = json!({ "pitch_hz": 440 });
            let mut plugin = Harness::<Tones>::start(settings).await.expect("starts");
            assert_eq!(plugin.synthesize("a").await.audio, tone("a", 440));
        });
    }
}
