//! {{name}}: a recogniser for Antiphon that understands no words: it says how long and how loud an utterance was.
//!
//! Small but whole: a setting, sessions, transcripts, tests. Put your recogniser where `Loudness` is.
#![forbid(unsafe_code)]

use antiphon_plugin_api::{core::audio::SESSION_SAMPLE_RATE_HZ, prelude::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What users can set: `--set {{name}}.quiet_db=-50`. Doc comments, defaults and ranges become the schema that
/// `antiphon plugins inspect` shows; the host refuses what does not fit before `start` is called.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Level in decibels, 0 being the loudest, below which an utterance counts as nothing said.
    #[schemars(range(min = -96.0, max = 0.0))]
    quiet_db: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { quiet_db: -60.0 }
    }
}

/// Made once, shared by all sessions: what changes in it needs a lock that is never held across an `.await`.
struct Listener {
    quiet_db: f64,
}

impl Plugin for Listener {
    type Config = Config;

    /// Has 30 seconds. Look here for what you need (a model, a key) and say in the error what is missing and what
    /// brings it; load what is large when it is first used.
    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self {
            quiet_db: config.quiet_db,
        })
    }
}

impl Stt for Listener {
    type Session = Session;

    /// Called for each conversation. Keep `output`: it is how the session speaks.
    async fn open(&self, output: SttOutput) -> Result<Session, PluginError> {
        let heard = Loudness::default();
        Ok(Session {
            quiet_db: self.quiet_db,
            output,
            heard,
        })
    }
}

/// One conversation. Calls come one after the other: `begin`, `audio` .., then `end` or `cancel`, then `begin` again.
/// The session is dropped when the conversation is over, also in the middle of an utterance.
struct Session {
    quiet_db: f64,
    output: SttOutput,
    heard: Loudness,
}

impl SttSession for Session {
    /// Whatever an earlier utterance left is not this one's.
    async fn begin(&mut self) -> Result<(), PluginError> {
        self.heard = Loudness::default();
        Ok(())
    }

    /// Called for each 20 ms: one channel, 16 kHz, without gaps. All sessions share the one worker thread of this
    /// plugin: give what computes for more than some hundred microseconds to `tokio::task::spawn_blocking`. Up to 256
    /// calls wait for you, then the host does. `AudioChunk` is shared, not copied: keep a clone if you need it longer.
    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        self.heard.add(audio.samples());
        if self.output.wants_interim() {
            let transcript = self.transcript();
            self.output.interim(transcript).await?;
        }
        Ok(())
    }

    /// The agent waits for this: first the committed text, then the whole utterance, also where nothing was understood
    /// (with empty text). After `utterance`, nothing of it may follow.
    async fn end(&mut self) -> Result<(), PluginError> {
        let transcript = self.transcript();
        self.output.transcript(transcript.clone()).await?;
        self.output.utterance(transcript).await
    }
}

impl Session {
    fn transcript(&self) -> Transcript {
        let (seconds, level_db) = (self.heard.seconds(), self.heard.level_db());
        let text = if level_db < self.quiet_db {
            String::new()
        } else {
            format!("I heard {seconds:.1} seconds at {level_db:.0} decibels")
        };
        Transcript {
            text,
            audio_duration_ms: Some(seconds * 1e3),
            ..Transcript::default()
        }
    }
}

/// How long and how loud something was.
#[derive(Debug, Default)]
struct Loudness {
    samples: u64,
    energy: f64,
}

impl Loudness {
    fn add(&mut self, samples: &[i16]) {
        let full_scale = -f64::from(i16::MIN);
        let energy = |sample: &i16| (f64::from(*sample) / full_scale).powi(2);
        self.energy += samples.iter().map(energy).sum::<f64>();
        self.samples += samples.len() as u64;
    }

    fn seconds(&self) -> f64 {
        self.samples as f64 / f64::from(SESSION_SAMPLE_RATE_HZ)
    }

    /// 0 for a square wave as loud as can be; digital silence is infinitely far below.
    fn level_db(&self) -> f64 {
        10.0 * (self.energy / self.samples.max(1) as f64).log10()
    }
}

export_plugin! { name: "{{name}}", plugin: Listener, capabilities: [stt] }

#[cfg(test)]
mod tests {
    use antiphon_plugin_api::testing::{self, Harness, Outcome, json};

    use super::*;

    /// A square wave of half the greatest amplitude: 6 dB below the loudest.
    fn one_second() -> AudioChunk {
        let sample = |index: u32| if index % 80 < 40 { 16_384 } else { -16_384 };
        let samples: Vec<i16> = (0..SESSION_SAMPLE_RATE_HZ).map(sample).collect();
        AudioChunk::mono(samples)
    }

    #[test]
    fn an_utterance_is_as_long_and_as_loud_as_it_was() {
        testing::run(async {
            let mut plugin = Harness::<Listener>::start(json!({})).await.expect("starts");
            let heard = plugin.listen([one_second()]).await;
            assert_eq!(heard.text, "I heard 1.0 seconds at -6 decibels");
            assert_eq!(heard.outcome, Outcome::COMPLETED);
        });
    }

    #[test]
    fn a_cancelled_utterance_says_nothing_and_leaves_nothing_to_the_next() {
        testing::run(async {
            let mut plugin = Harness::<Listener>::start(json!({})).await.expect("starts");
            let cut = plugin.listen([one_second()]).cancel_after(25).await;
            assert_eq!(cut.text, "");
            let heard = plugin.listen([one_second()]).await;
            assert_eq!(heard.text, "I heard 1.0 seconds at -6 decibels");
        });
    }

    #[test]
    fn what_is_below_the_level_that_can_be_set_is_nothing_said() {
        testing::run(async {
            let settings = json!({ "quiet_db": -3.0 });
            let mut plugin = Harness::<Listener>::start(settings).await.expect("starts");
            let heard = plugin.listen([one_second()]).await;
            assert_eq!(
                (heard.text.as_str(), heard.outcome),
                ("", Outcome::COMPLETED)
            );
        });
    }
}
