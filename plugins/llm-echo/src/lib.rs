//! The smallest complete plugin: repeats what it heard. The documentation walks through it; copy it to begin your own.
#![forbid(unsafe_code)]

use antiphon_plugin_api::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;

/// What users can set, with defaults: `--set llm-echo.prefix="I heard"`.
#[derive(Debug, Deserialize, JsonSchema)]
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
