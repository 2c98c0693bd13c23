//! {{name}}: a turn detector for Antiphon that goes by loudness: who is loud speaks, who is quiet for long is done.
//!
//! Small but whole: a setting, sessions, a state machine, tests. Put your model where `is_loud` is.
#![forbid(unsafe_code)]

use std::time::Duration;

use antiphon_plugin_api::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Root mean square of samples that count as voice, of 32768: about -36 dB.
const LOUD: f64 = 500.0;

/// Voice that makes a turn; less is a click.
const LEAST_SPEECH: Duration = Duration::from_millis(100);

/// What users can set: `--set {{name}}.silence_ms=500`. Doc comments, defaults and ranges become the schema that
/// `antiphon plugins inspect` shows; the host refuses what does not fit before `start` is called.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Milliseconds of silence that end a turn; fewer answer sooner, more let people think.
    #[schemars(range(min = 100, max = 10_000))]
    silence_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { silence_ms: 700 }
    }
}

/// Made once, shared by all sessions: what changes in it needs a lock that is never held across an `.await`.
struct ByLoudness {
    silence: Duration,
}

impl Plugin for ByLoudness {
    type Config = Config;

    /// Has 30 seconds. Look here for what you need (a model, a library) and say in the error what is missing and what
    /// brings it; load what is large when it is first used.
    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        let silence = Duration::from_millis(config.silence_ms);
        Ok(Self { silence })
    }
}

impl TurnDetector for ByLoudness {
    type Session = Session;

    /// Called for each conversation. Keep `output`: it is how the session speaks.
    async fn open(&self, output: TurnOutput) -> Result<Session, PluginError> {
        let speech = Speech::default();
        Ok(Session {
            silence: self.silence,
            output,
            speech,
        })
    }
}

/// One conversation, dropped when that is over, also in the middle of a turn.
struct Session {
    silence: Duration,
    output: TurnOutput,
    speech: Speech,
}

/// How the user has spoken. Time is counted in audio, never read from a clock: recordings come faster than they last.
#[derive(Debug, Clone, Copy, Default)]
struct Speech {
    /// The user has a turn.
    is_turn: bool,
    /// From the first loud audio to the last.
    length: Duration,
    /// Since the last loud audio.
    silence: Duration,
}

impl TurnSession for Session {
    /// Called for each 20 ms: one channel, 16 kHz, without gaps. The host waits for every call, for 5 seconds at most:
    /// when it returns, everything that this audio gives rise to was said. All sessions share the one worker thread of
    /// this plugin: give what computes for more than some hundred microseconds to `tokio::task::spawn_blocking`.
    async fn audio(&mut self, audio: AudioChunk) -> Result<(), PluginError> {
        let Speech {
            is_turn,
            length,
            silence,
        } = self.speech;
        if is_loud(audio.samples()) {
            self.speech.length = length + silence + audio.duration();
            self.speech.silence = Duration::ZERO;
            if !is_turn && self.speech.length >= LEAST_SPEECH {
                self.speech.is_turn = true;
                self.output.speech_started(1.0).await?;
                self.output.turn_started(1.0).await?;
            }
        } else if is_turn {
            self.speech.silence = silence + audio.duration();
            if self.speech.silence >= self.silence {
                self.end().await?;
            }
        } else {
            self.speech = Speech::default();
        }
        Ok(())
    }

    /// No more audio will come: what began must end.
    async fn flush(&mut self) -> Result<(), PluginError> {
        if self.speech.is_turn {
            self.end().await?;
        }
        Ok(())
    }
}

impl Session {
    async fn end(&mut self) -> Result<(), PluginError> {
        let Speech {
            length, silence, ..
        } = std::mem::take(&mut self.speech);
        self.output.speech_ended(length).await?;
        self.output.turn_ended(1.0, length, silence).await
    }
}

fn is_loud(samples: &[i16]) -> bool {
    let energy: f64 = samples
        .iter()
        .map(|sample| f64::from(*sample).powi(2))
        .sum();
    (energy / samples.len().max(1) as f64).sqrt() >= LOUD
}

export_plugin! { name: "{{name}}", plugin: ByLoudness, capabilities: [turn] }

#[cfg(test)]
mod tests {
    use antiphon_plugin_api::testing::{self, Harness, json};

    use super::*;

    fn level(amplitude: i16, millis: usize) -> AudioChunk {
        AudioChunk::mono(vec![amplitude; 16 * millis])
    }

    #[test]
    fn a_turn_ends_after_silence_and_says_how_long_both_were() {
        testing::run(async {
            let mut plugin = Harness::<ByLoudness>::start(json!({}))
                .await
                .expect("starts");
            let audio = [
                level(0, 200),
                level(3000, 500),
                level(0, 300),
                level(3000, 200),
            ];
            let heard = plugin
                .detect(audio.into_iter().chain([level(0, 1000)]))
                .await;
            let types = [
                "vad.speech_start",
                "turn.started",
                "vad.speech_end",
                "turn.ended",
            ];
            assert_eq!(heard.events.types(), types);
            let ended = &heard.events.of("turn.ended")[0];
            assert_eq!(ended["duration_ms"], 1000.0);
            assert_eq!(ended["trailing_silence_ms"], 700.0);
        });
    }

    #[test]
    fn a_click_is_no_turn_and_the_end_of_the_audio_ends_one() {
        testing::run(async {
            let mut plugin = Harness::<ByLoudness>::start(json!({}))
                .await
                .expect("starts");
            let heard = plugin.detect([level(3000, 40), level(0, 1000)]).await;
            assert!(heard.events.is_empty());
            let heard = plugin.detect([level(3000, 400)]).await;
            assert_eq!(heard.events.types().last(), Some(&"turn.ended"));
        });
    }

    #[test]
    fn the_silence_can_be_set() {
        testing::run(async {
            let settings = json!({ "silence_ms": 200 });
            let mut plugin = Harness::<ByLoudness>::start(settings)
                .await
                .expect("starts");
            let audio = [
                level(3000, 500),
                level(0, 300),
                level(3000, 500),
                level(0, 300),
            ];
            assert_eq!(plugin.detect(audio).await.events.of("turn.ended").len(), 2);
        });
    }
}
