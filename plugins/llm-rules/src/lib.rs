//! Answers by rules from a TOML file: a language model's place, without a model, a network or a surprise.
//!
//! Not here: memory of what was said before. A reply depends on the text and on the number of the turn, nothing else.
#![forbid(unsafe_code)]

pub mod config;
pub mod rules;

use antiphon_plugin_api::{core::event::values::Role, prelude::*};

use crate::{config::Settings, rules::RuleBook};

struct Rules {
    book: RuleBook,
}

impl Plugin for Rules {
    type Config = Settings;

    async fn start(settings: Settings, _: PluginContext) -> Result<Self, PluginError> {
        let Some(path) = settings.file else { return Ok(Self { book: RuleBook::default() }) };
        let shown = path.display().to_string();
        let text =
            tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await?.map_err(|error| {
                PluginError::new("rules_file", format!("`file` = {shown} cannot be read: {error}")).fatal()
            })?;
        let book = RuleBook::parse(&text).map_err(|error| {
            // What is wrong with a pattern is in the cause.
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            PluginError::new("rules_file", format!("`file` = {shown}: {error}{cause}")).fatal()
        })?;
        Ok(Self { book })
    }
}

impl Llm for Rules {
    async fn respond(&self, request: LlmRequest, reply: LlmReply) -> Result<(), PluginError> {
        reply.model("rules");
        let turns = request.messages.iter().filter(|message| message.role == Role::User).count();
        let answer = self.book.reply(request.prompt(), turns.saturating_sub(1));
        for word in rules::words(&answer.text) {
            reply.text(word).await?;
            // A long reply can be cancelled between any two words.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

export_plugin! { name: "llm-rules", plugin: Rules, capabilities: [llm] }
