//! `antiphon plugins new`: a crate for a plugin of one's own, and what to type next.

use std::{fmt::Write as _, path::PathBuf};

use antiphon_host::{
    plugins::Kind,
    scaffold::{self, PluginApi},
};
use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use crate::cli::{
    Exit,
    output::{self, Ink, Style},
    setup::from_here,
};

/// Begin a plugin of your own: a crate that builds, works, and tests itself
///
/// It does something small that can be heard or seen, has one setting, and its comments say what a plugin must and may
/// not do. Change it into what you want. Nothing is built, and nothing that is there already is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What the plugin does: turn detection, speech to text, language model, text to speech, vision
    #[arg(long, value_parser = kind())]
    kind: Kind,
    /// Name of the plugin and of its crate, such as llm-parrot
    name: String,
    /// Directory to make; default: NAME, in the current directory
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Where the crate takes antiphon-plugin-api from: a directory (of the crate, or a checkout of antiphon), or a
    /// version of the registry. Default: the checkout that this program was built from, or its version where that is gone
    #[arg(long, value_name = "PATH|VERSION")]
    plugin_api: Option<String>,
    /// Print JSON: name, kind, directory, files, and the library that cargo will build
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  antiphon plugins new --kind llm llm-parrot
  antiphon plugins new --kind tts tts-tones --path ~/plugins/tones
  antiphon plugins new --kind vision vision-light --plugin-api ~/src/antiphon
  antiphon plugins new --kind stt stt-level --json | jq -r .library";

fn kind() -> impl TypedValueParser<Value = Kind> {
    let of_name = |name: String| Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str))
        .map(move |name| of_name(name).expect("one of the possible values"))
}

pub(super) fn run(args: &Args) -> Result<Exit> {
    let Args { kind, name, path, plugin_api, json } = args;
    let from = match plugin_api {
        Some(text) => PluginApi::read(text)?,
        None => PluginApi::of_this_program(),
    };
    let files = scaffold::render(*kind, name, &from)?;
    let directory = path.clone().unwrap_or_else(|| name.into());
    scaffold::write(&directory, &files)?;
    let directory = directory.canonicalize().context("the new directory is gone already")?;
    let library = format!("target/debug/{}", scaffold::library(name));
    if *json {
        output::print_json(&json!({
            "name": name,
            "kind": kind,
            "directory": directory.display().to_string(),
            "files": files.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>(),
            "library": directory.join(&library).display().to_string(),
            "plugin_api": from.to_json(),
        }))?;
        return Ok(Exit::Done);
    }
    let style = Style::stdout();
    let mut text = String::new();
    let title = style.paint(Ink::Bold, format!("{name}, a plugin of the kind {kind}"));
    writeln!(text, "Made {title}, in {}", from_here(&directory)).expect("text grows");
    for (path, _) in &files {
        writeln!(text, "  {}", style.paint(Ink::Dim, path.display())).expect("text grows");
    }
    writeln!(text, "It takes antiphon-plugin-api from {from}").expect("text grows");
    if plugin_api.is_none() && matches!(from, PluginApi::Version(_)) {
        let hint =
            "the checkout that this program was built from is not here; --plugin-api PATH names another";
        writeln!(text, "  {}", style.paint(Ink::Dim, hint)).expect("text grows");
    }
    writeln!(text, "\nNext:").expect("text grows");
    let there = quoted(&from_here(&directory));
    let next = [
        format!("cd {there}"),
        "cargo test".to_owned(),
        format!("cargo build && antiphon plugins check {library}"),
    ];
    for command in next {
        writeln!(text, "  {}", style.paint(Ink::Cyan, command)).expect("text grows");
    }
    output::print(&text)?;
    Ok(Exit::Done)
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+,@".contains(character);
    if path.chars().all(is_plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_every_path_for_one_word() {
        for (path, want) in [("llm-a", "llm-a"), ("my plugins/a", "'my plugins/a'"), ("it's", "'it'\\''s'")] {
            assert_eq!(quoted(path), want);
        }
    }
}
