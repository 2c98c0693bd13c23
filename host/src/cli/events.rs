//! `antiphon events`: every event type that this host and its plugins know, with its JSON Schema.

use std::{collections::BTreeMap, sync::Arc};

use antiphon_core::event::{EventRegistry, EventType};
use antiphon_host::{Plugin, PluginState, config::similar};
use anyhow::{Result, bail};
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Exit,
    output::{self, Ink, Style, Table, warn},
    setup::{Global, Setup},
};

/// Show the event types of the host and of the plugins, and their JSON Schemas
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  antiphon events list
  antiphon events schema stt.transcript.final";

#[derive(Debug, Subcommand)]
enum Command {
    /// List the event types: name, what each extends, who defines it, and when it is emitted
    ///
    /// A subscription to a type also receives the types that extend it. Media events are too many to be in --events
    /// files: they go to those who subscribe to them by name.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of an event as it is in --events files; of all types, in one object, without TYPE
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema {
        /// Type of the event, such as stt.transcript.final
        #[arg(value_name = "TYPE")]
        event: Option<String>,
        /// Schemas are JSON anyway
        #[arg(long, hide = true)]
        json: bool,
    },
}

const LIST_EXAMPLES: &str = "\
Examples:
  antiphon events list
  antiphon events list --json | jq -r '.[] | select(.defined_by != \"core\").type'";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  antiphon events schema stt.transcript.final
  antiphon events schema > schemas.json";

/// One event type as `list` shows it.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(rename = "type")]
    name: String,
    /// From the nearest to `BaseEvent`.
    extends: Vec<String>,
    media: bool,
    /// `core`, or the plugin.
    defined_by: String,
    /// Plugins that may emit it.
    emitted_by: Vec<String>,
    description: String,
}

pub(super) async fn run(global: &Global, args: Args) -> Result<Exit> {
    let setup = Setup::read(global, &[])?;
    setup.warn_of_missing();
    let (plugins, _) = setup.load().await?;
    setup.check_locked(&plugins)?;
    let is_library = |plugin: &&Plugin| plugin.path.extension().is_some_and(|extension| extension == "so");
    for plugin in plugins.iter().filter(|plugin| plugin.state == PluginState::Failed).filter(is_library) {
        warn(format!(
            "the events of {} are unknown: {}",
            plugin.name,
            plugin.error.as_deref().unwrap_or("it failed")
        ));
    }
    let registry = EventRegistry::with_catalogue();
    let (defined_by, emitted_by) = declare(&registry, &plugins);
    match args.command {
        Command::List { json } => {
            let entry = |event: &Arc<EventType>| Entry {
                name: event.name().to_owned(),
                extends: bases(event),
                media: event.is_media(),
                defined_by: defined_by.get(event.name()).cloned().unwrap_or_else(|| "core".into()),
                emitted_by: emitted_by.get(event.name()).cloned().unwrap_or_default(),
                description: event.description(),
            };
            let entries: Vec<Entry> = registry.list().iter().map(entry).collect();
            if json {
                output::print_json(&entries)?
            } else {
                output::print(&rows(&entries, Style::stdout()))?
            }
        }
        Command::Schema { event: None, .. } => {
            let schema = |event: &Arc<EventType>| (event.name().to_owned(), event.schema());
            output::print_json(&registry.list().iter().map(schema).collect::<Map<String, Value>>())?;
        }
        Command::Schema { event: Some(name), .. } => output::print_json(&find(&registry, &name)?.schema())?,
    }
    Ok(Exit::Done)
}

/// Makes the plugins' own types known. Tells who defines them, and which plugins emit which type.
fn declare(
    registry: &EventRegistry,
    plugins: &[Plugin],
) -> (BTreeMap<String, String>, BTreeMap<String, Vec<String>>) {
    let (mut defined_by, mut emitted_by) = (BTreeMap::new(), BTreeMap::<String, Vec<String>>::new());
    for manifest in plugins.iter().filter_map(|plugin| plugin.manifest.as_ref()) {
        for event in &manifest.events {
            emitted_by.entry(event.name.clone()).or_default().push(manifest.name.clone());
            if let Some(schema) = &event.schema
                && registry.find(&event.name).is_none()
            {
                registry.declare(&event.name, &event.extends, event.media, schema.clone());
                defined_by.insert(event.name.clone(), manifest.name.clone());
            }
        }
    }
    (defined_by, emitted_by)
}

/// What a type extends, from the nearest on; of what it says of itself in its schema.
fn bases(event: &EventType) -> Vec<String> {
    let schema = event.schema();
    let bases = schema["x-extends"].as_array().into_iter().flatten();
    bases.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn rows(entries: &[Entry], style: Style) -> String {
    let mut table = Table::with_header(["TYPE", "EXTENDS", "FROM", "", "WHEN"]);
    for entry in entries {
        let from = if entry.defined_by == "core" { Ink::Dim } else { Ink::Green };
        table.row([
            (Ink::Bold, entry.name.clone()),
            (Ink::Plain, entry.extends.first().cloned().unwrap_or_default()),
            (from, entry.defined_by.clone()),
            (Ink::Yellow, if entry.media { "media".into() } else { String::new() }),
            (Ink::Plain, entry.description.clone()),
        ]);
    }
    table.render(style, "")
}

fn find(registry: &EventRegistry, name: &str) -> Result<Arc<EventType>> {
    if let Some(event) = registry.find(name) {
        return Ok(event);
    }
    let events = registry.list();
    let known: Vec<&str> = events.iter().map(|event| event.name()).collect();
    let hint = similar(name, &known).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
    bail!("there is no event type {name}{hint}; `antiphon events list` shows all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_get_a_suggestion() {
        let registry = EventRegistry::with_catalogue();
        let error = find(&registry, "stt.transcript.fnal").expect_err("misspelt").to_string();
        assert!(error.contains("did you mean stt.transcript.final?"), "{error}");
        assert!(find(&registry, "stt.transcript.final").is_ok());
    }

    #[test]
    fn bases_are_told_from_the_nearest_on() {
        let registry = EventRegistry::with_catalogue();
        let event = find(&registry, "vision.detection.completed").expect("known");
        assert_eq!(bases(&event), ["vision.detection", "PluginBaseEvent", "BaseEvent"]);
    }
}
