//! {{name}}: a language model for Antiphon that says the user's words backwards, one word at a time.
//!
//! Small but whole: a setting, a streamed answer, cancellation, an error, tests. Put your model where `backwards` is.
#![forbid(unsafe_code)]

use antiphon_plugin_api::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What users can set: `--set {{name}}.max_words=3`. Doc comments, defaults and ranges become the schema that
/// `antiphon plugins inspect` shows; the host refuses what does not fit before `start` is called.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Words of one reply; what the user says beyond them is passed over.
    #[schemars(range(min = 1, max = 1000))]
    max_words: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_words: 50 }
    }
}

/// Made once, shared by all sessions: what changes in it needs a lock that is never held across an `.await`.
struct Backwards {
    max_words: usize,
}

impl Plugin for Backwards {
    type Config = Config;

    /// Has 30 seconds. Look here for what you need (a model, a key) and say in the error what is missing and what
    /// brings it; load what is large when it is first used.
    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self {
            max_words: config.max_words,
        })
    }
}

impl Llm for Backwards {
    /// Requests run side by side, all on the one worker thread of this plugin: wait by `.await`, and give what computes
    /// for more than some hundred microseconds to `tokio::task::spawn_blocking`.
    ///
    /// When the user interrupts, this future is dropped at the `.await` where it waits, and nothing after it runs. So
    /// hold nothing across one that a drop would leave half done; what must be undone belongs into a `Drop`.
    async fn respond(&self, request: LlmRequest, reply: LlmReply) -> Result<(), PluginError> {
        // The whole conversation is in `request.messages`.
        let mut words = request.prompt().split_whitespace().peekable();
        if words.peek().is_none() {
            let text = "there is nothing to say backwards: ask with at least one word";
            return Err(PluginError::new("no_words", text));
        }
        for (position, word) in words.take(self.max_words).enumerate() {
            let space = if position == 0 { "" } else { " " };
            // Spoken while the next piece is made. Waits while the host has no room, so you need no queue. Fails when
            // nobody listens any more: `?` ends the work.
            reply.text(format!("{space}{}", backwards(word))).await?;
        }
        // Exactly one end follows, made for you: `llm.response.final` for `Ok`, `llm.error` for `Err` or a panic.
        Ok(())
    }
}

fn backwards(word: &str) -> String {
    word.chars().rev().collect()
}

export_plugin! { name: "{{name}}", plugin: Backwards, capabilities: [llm] }

#[cfg(test)]
mod tests {
    use antiphon_plugin_api::testing::{self, Harness, Outcome, json};

    use super::*;

    #[test]
    fn each_word_comes_back_as_a_piece_of_its_own() {
        testing::run(async {
            let mut plugin = Harness::<Backwards>::start(json!({}))
                .await
                .expect("starts");
            let reply = plugin.respond("go forward").await;
            assert_eq!(
                (reply.text.as_str(), reply.outcome),
                ("og drawrof", Outcome::COMPLETED)
            );
            assert_eq!(reply.events.of("llm.response.delta").len(), 2);
        });
    }

    #[test]
    fn an_interrupted_reply_stops_in_the_middle_and_the_next_is_whole() {
        testing::run(async {
            let mut plugin = Harness::<Backwards>::start(json!({}))
                .await
                .expect("starts");
            let cut = plugin.respond("one two three").cancel_after(2).await;
            assert_eq!(
                (cut.text.as_str(), cut.outcome),
                ("eno owt", Outcome::CANCELLED)
            );
            assert_eq!(plugin.respond("one two three").await.text, "eno owt eerht");
        });
    }

    #[test]
    fn nothing_to_answer_is_an_error_and_says_what_to_do() {
        testing::run(async {
            let mut plugin = Harness::<Backwards>::start(json!({}))
                .await
                .expect("starts");
            let reply = plugin.respond("").await;
            assert_eq!(reply.outcome, Outcome::FAILED);
            assert!(
                reply
                    .events
                    .error()
                    .is_some_and(|text| text.contains("at least one word"))
            );
        });
    }

    #[test]
    fn settings_count_and_unknown_ones_are_refused() {
        testing::run(async {
            let settings = json!({ "max_words": 1 });
            let mut plugin = Harness::<Backwards>::start(settings).await.expect("starts");
            assert_eq!(plugin.respond("one two three").await.text, "eno");
            let error = Harness::<Backwards>::start(json!({ "max_wrods": 1 }))
                .await
                .err();
            assert!(error.is_some_and(|error| error.to_string().contains("max_wrods")));
        });
    }
}
