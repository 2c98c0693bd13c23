//! The smallest complete plugin: repeats what it heard. The documentation walks through it; copy it to begin your own.
#![forbid(unsafe_code)]

use antiphon_plugin_api::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What users can set, with defaults: `--set llm-echo.prefix="I heard"`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Said before the user's words.
    prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { prefix: "You said:".into() }
    }
}

struct Echo {
    prefix: String,
}

impl Plugin for Echo {
    type Config = Config;

    /// An example: any other language model is the better choice.
    const RANK: u32 = 0;

    async fn start(config: Config, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { prefix: config.prefix })
    }
}

impl Llm for Echo {
    async fn respond(&self, request: LlmRequest, reply: LlmReply) -> Result<(), PluginError> {
        reply.text(self.prefix.as_str()).await?;
        for word in request.prompt().split_whitespace() {
            reply.text(format!(" {word}")).await?;
        }
        reply.text(".").await
    }
}

export_plugin! { name: "llm-echo", plugin: Echo, capabilities: [llm] }

#[cfg(test)]
mod tests {
    use antiphon_plugin_api::testing::{self, Harness, Outcome, json};

    use super::*;

    #[test]
    fn every_word_comes_back_as_a_piece_of_its_own() {
        testing::run(async {
            let mut echo = Harness::<Echo>::start(json!({})).await.expect("starts");
            let reply = echo.respond("is anybody  there").await;
            assert_eq!(reply.text, "You said: is anybody there.");
            assert_eq!(reply.outcome, Outcome::COMPLETED);
            assert_eq!(reply.events.of("llm.response.delta").len(), 5);
        });
    }

    #[test]
    fn the_prefix_can_be_set_and_nothing_else() {
        testing::run(async {
            let mut echo = Harness::<Echo>::start(json!({ "prefix": "I heard" })).await.expect("starts");
            assert_eq!(echo.respond("you").await.text, "I heard you.");
            let error = Harness::<Echo>::start(json!({ "prefx": "" })).await.err().expect("a typo");
            assert!(error.to_string().contains("prefx"), "{error}");
        });
    }

    #[test]
    fn an_interrupted_echo_stops_in_the_middle() {
        testing::run(async {
            let mut echo = Harness::<Echo>::start(json!({})).await.expect("starts");
            let reply = echo.respond("is anybody there").cancel_after(2).await;
            assert_eq!((reply.text.as_str(), reply.outcome), ("You said: is", Outcome::CANCELLED));
        });
    }
}
