//! `antiphon plugins`: what is installed, what each plugin declares, and why some cannot be used.

mod check;
mod lock;
mod new;
mod retry;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use antiphon_core::EventBus;
use antiphon_host::{Plugin, PluginState, config::similar, plugins::Isolation};
use antiphon_plugin_api::PluginManifest;
use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Exit,
    output::{self, Ink, Style, Table, complain},
    schema,
    setup::{Global, Setup, from_here},
};

/// Show what plugins are installed, what they declare, and why some cannot be used
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  antiphon plugins list
  antiphon plugins inspect tts-flite
  antiphon plugins new --kind llm llm-parrot
  antiphon plugins check ./libmy_plugin.so
  antiphon plugins lock";

#[derive(Debug, Subcommand)]
enum Command {
    /// List the plugins that are found, and whether they work
    ///
    /// Starts each plugin, since only then a missing system library shows. Lists also what cannot be used, with the
    /// reason. The exit code is 0 if anything was found.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Do not start the plugins
        #[arg(long)]
        no_start: bool,
        /// Print JSON: directories, and plugins with their manifests
        #[arg(long)]
        json: bool,
    },
    Check(check::Args),
    /// Show all that one plugin declares: settings, event types, versions. Does not start it
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// A file, or the name of a plugin that `antiphon plugins list` finds
        #[arg(value_name = "PATH|NAME")]
        plugin: String,
        /// Print JSON: the manifest, the file and the state
        #[arg(long)]
        json: bool,
    },
    New(new::Args),
    /// Try a plugin again that is quarantined: forget what came of trying it
    ///
    /// A plugin that crashes, hangs or lies when it is tried is not tried again, until its file changes or this asks for
    /// it. The exit code is 0 if it is accepted now.
    #[command(after_help = retry::EXAMPLES)]
    Retry {
        /// The library of the plugin
        path: PathBuf,
    },
    /// Write a lock: from then on only the plugins that are found now are loaded
    ///
    /// The lock names each plugin with a hash of its content. It is looked for beside the configuration, or in the current
    /// directory; --lock names another one, and --locked demands that it is there and complete.
    #[command(after_help = lock::EXAMPLES)]
    Lock {
        /// Where to write it. Default: where it is looked for
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

const LIST_EXAMPLES: &str = "\
Examples:
  antiphon plugins list
  antiphon --plugins target/debug plugins list --no-start
  antiphon plugins list --json | jq -r '.plugins[] | select(.state == \"failed\") | .error'";

const INSPECT_EXAMPLES: &str = "\
Examples:
  antiphon plugins inspect tts-flite
  antiphon plugins inspect ./libmy_plugin.so
  antiphon plugins inspect tts-flite --json | jq .manifest.settings";

pub(super) async fn run(global: &Global, args: Args) -> Result<Exit> {
    let setup = || Setup::read(global, &[]);
    match args.command {
        Command::List { no_start, json } => list(&setup()?, no_start, json).await,
        Command::Inspect { plugin, json } => inspect(&setup()?, &plugin, json).await,
        Command::New(args) => new::run(&args),
        Command::Check(args) => check::run(global, args).await,
        Command::Retry { path } => retry::run(&setup()?, path).await,
        // Without the lock that it writes.
        Command::Lock { output } => lock::run(&Setup::unlocked(global, &[])?, output).await,
    }
}

async fn list(setup: &Setup, no_start: bool, json: bool) -> Result<Exit> {
    let (host, loaded);
    let (plugins, scanned) = if no_start {
        host = None;
        loaded = setup.load().await?;
        (&loaded.0[..], loaded.1)
    } else {
        host = Some(setup.host().bus(EventBus::new()).start().await);
        loaded = host.as_ref().map(|host| (host.plugins(), host.scanned())).unwrap_or_default();
        (&loaded.0[..], loaded.1)
    };
    let usable = plugins.iter().filter(|plugin| is_usable(plugin)).count();
    if json {
        let listed: Vec<Value> = plugins.iter().map(|plugin| to_json(setup, plugin)).collect();
        let directories = setup.to_json();
        output::print_json(
            &json!({ "directories": directories, "plugins": listed, "usable": usable, "scan": scanned }),
        )?;
    } else if !plugins.is_empty() {
        let mut text = rows(setup, plugins, Style::stdout());
        writeln!(text, "{usable} of {} usable", plugins.len()).expect("text grows");
        output::print(&text)?;
    }
    let complete = setup.check_locked(plugins);
    if let Some(host) = host {
        host.shutdown().await;
    }
    setup.has_libraries()?;
    complete?;
    Ok(Exit::Done)
}

/// Whether nothing is wrong with it, as far as is known.
pub(super) fn is_usable(plugin: &Plugin) -> bool {
    matches!(plugin.state, PluginState::Loaded | PluginState::Ready | PluginState::Degraded)
}

/// A line for each plugin, and the reason below those that cannot be used.
pub(super) fn rows(setup: &Setup, plugins: &[Plugin], style: Style) -> String {
    let mut table = Table::with_header(["NAME", "VERSION", "CAN", "RANK", "STATE", "RUNS", "FILE"]);
    for plugin in plugins {
        let manifest = plugin.manifest.as_ref();
        table.row([
            (Ink::Bold, plugin.name.clone()),
            (Ink::Plain, plugin.version().to_owned()),
            (Ink::Plain, manifest.map(capabilities).unwrap_or_default()),
            (Ink::Plain, manifest.map(|manifest| manifest.rank.to_string()).unwrap_or_default()),
            (ink(plugin.state), state(plugin.state).to_owned()),
            (Ink::Plain, runs(plugin)),
            (Ink::Dim, from_here(&plugin.path)),
        ]);
    }
    let rendered = table.render(style, "");
    let mut lines = rendered.lines();
    let mut text = String::new();
    let header = lines.next().unwrap_or_default();
    writeln!(text, "{header}").expect("text grows");
    for (line, plugin) in lines.zip(plugins) {
        writeln!(text, "{line}").expect("text grows");
        for line in setup.problem(plugin).iter().flat_map(|problem| problem.lines()) {
            writeln!(text, "    {}", style.paint(Ink::Red, output::clean(line))).expect("text grows");
        }
    }
    text
}

fn capabilities(manifest: &PluginManifest) -> String {
    manifest.capabilities.iter().map(|capability| capability.kind.as_str()).collect::<Vec<_>>().join(" ")
}

fn ink(state: PluginState) -> Ink {
    match state {
        PluginState::Declared | PluginState::Loaded | PluginState::Starting | PluginState::Ready => {
            Ink::Green
        }
        PluginState::Degraded | PluginState::Stopped => Ink::Yellow,
        PluginState::Failed | PluginState::Quarantined => Ink::Red,
    }
}

fn state(state: PluginState) -> &'static str {
    match state {
        PluginState::Declared => "declared",
        PluginState::Loaded => "loaded",
        PluginState::Starting => "starting",
        PluginState::Ready => "ready",
        PluginState::Degraded => "degraded",
        PluginState::Failed => "failed",
        PluginState::Quarantined => "quarantined",
        PluginState::Stopped => "stopped",
    }
}

/// Where its code runs, or would; how often it was started again there. Nothing for what cannot run.
fn runs(plugin: &Plugin) -> String {
    if !is_usable(plugin) {
        return String::new();
    }
    let place = match (plugin.isolation, plugin.process_id) {
        (Isolation::None, _) => "host".to_owned(),
        (Isolation::Process, None) => "process".to_owned(),
        (Isolation::Process, Some(process_id)) => format!("process {process_id}"),
    };
    match plugin.restarts {
        0 => place,
        restarts => format!("{place}, restarts: {restarts}"),
    }
}

fn to_json(setup: &Setup, plugin: &Plugin) -> Value {
    json!({
        "name": plugin.name,
        "version": plugin.version(),
        // A path need not be text.
        "path": plugin.path.display().to_string(),
        "state": plugin.state,
        "error": setup.problem(plugin),
        "isolation": plugin.isolation,
        "process_id": plugin.process_id,
        "restarts": plugin.restarts,
        "generation": plugin.generation,
        "sha256": plugin.sha256,
        "manifest": plugin.manifest,
    })
}

async fn inspect(setup: &Setup, wanted: &str, json: bool) -> Result<Exit> {
    let path = Path::new(wanted);
    let plugin = if wanted.contains('/') || wanted.ends_with(".so") || path.exists() {
        let (host, path) = (setup.host(), path.to_owned());
        tokio::task::spawn_blocking(move || host.load_file(&path))
            .await
            .context("loading the plugin failed")?
    } else {
        setup.has_libraries()?;
        let (plugins, _) = setup.load().await?;
        named(wanted, plugins)?
    };
    if json {
        output::print_json(&to_json(setup, &plugin))?;
    } else if let Some(manifest) = &plugin.manifest {
        output::print(&described(&plugin, manifest, Style::stdout()))?;
    }
    if let Some(problem) = setup.problem(&plugin) {
        complain(&anyhow!("{} {problem}", from_here(&plugin.path)));
    }
    Ok(Exit::done_if(!matches!(plugin.state, PluginState::Failed | PluginState::Quarantined)))
}

/// The plugin of a name: the one that can be used, where there are several.
fn named(wanted: &str, plugins: Vec<Plugin>) -> Result<Plugin> {
    let mut names: Vec<String> = plugins.iter().map(|plugin| plugin.name.clone()).collect();
    let mut candidates: Vec<Plugin> = plugins.into_iter().filter(|plugin| plugin.name == wanted).collect();
    candidates.sort_by_key(|plugin| plugin.manifest.is_none());
    if let Some(plugin) = candidates.into_iter().next() {
        return Ok(plugin);
    }
    names.dedup();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let hint = similar(wanted, &known).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
    bail!("no plugin is named {wanted}, there are {}{hint}", known.join(", "))
}

fn described(plugin: &Plugin, manifest: &PluginManifest, style: Style) -> String {
    let mut text = String::new();
    let title = style.paint(Ink::Bold, format!("{} {}", manifest.name, manifest.version));
    writeln!(text, "{title}  {}", output::clean(&manifest.description)).expect("text grows");
    let mut facts = Table::default();
    let mut fact = |name: &str, value: String| facts.row([(Ink::Dim, name.to_owned()), (Ink::Plain, value)]);
    let can = |capability: &antiphon_plugin_api::CapabilityDeclaration| {
        format!("{} (version {})", capability.kind, capability.version)
    };
    fact("can", manifest.capabilities.iter().map(can).collect::<Vec<_>>().join(", "));
    fact("rank", manifest.rank.to_string());
    fact("licence", manifest.license.clone());
    fact("built for", format!("ABI {}, antiphon-plugin-api {}", manifest.abi_version, manifest.api_version));
    fact("file", from_here(&plugin.path));
    fact("state", state(plugin.state).to_owned());
    fact("runs in", runs(plugin));
    fact("content", plugin.sha256.as_ref().map_or_else(String::new, |hash| format!("sha256 {hash}")));
    text.push_str(&facts.render(style, "  "));
    match schema::table(&manifest.settings) {
        Some(settings) => {
            writeln!(text, "\nSettings (--set {}.NAME=VALUE)", manifest.name).expect("text grows");
            text.push_str(&settings.render(style, "  "));
        }
        None => text.push_str("\nNo settings\n"),
    }
    text.push_str("\nEvents (* its own)\n");
    let mut events = Table::default();
    for event in &manifest.events {
        let own = if event.schema.is_some() { "*" } else { "" };
        let media = if event.media { " (media)" } else { "" };
        events.row([
            (Ink::Green, own.to_owned()),
            (Ink::Plain, event.name.clone()),
            (Ink::Dim, format!("extends {}{media}", event.extends.first().map_or("", String::as_str))),
        ]);
    }
    text.push_str(&events.render(style, "  "));
    text
}
