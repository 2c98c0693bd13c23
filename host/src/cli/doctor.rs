//! `antiphon doctor`: what is installed, what is missing, and what mends it.

use std::{fmt::Write as _, path::PathBuf};

use antiphon_core::EventBus;
use antiphon_host::{
    Host, Kind, NoProvider, Plugin, PluginState,
    inspect::{InspectError, inspect},
    plugins::PluginInstance,
    scan::Lock,
};
use antiphon_plugin_api::abi::{ABI_VERSION, API_VERSION};
use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Exit,
    output::{self, Ink, Style, Table, clean, count},
    plugins,
    setup::{Global, Setup, from_here},
    stage::stage,
};

/// Tell what is installed, what is missing, and what to do about it
///
/// Starts every plugin and says why some do not run; plugins know which package brings what they need. The exit code is 0
/// if a conversation is possible: if turn detection, speech to text, language model and text to speech have a plugin.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  antiphon doctor
  antiphon --plugins target/debug doctor
  antiphon doctor --json | jq '.stages[] | select(.plugin == null)'";

/// The stages that a conversation cannot do without.
const CONVERSATION: [Kind; 4] = [Kind::Turn, Kind::Stt, Kind::Llm, Kind::Tts];

pub(super) async fn run(global: &Global, args: Args) -> Result<Exit> {
    let setup = Setup::read(global, &[])?;
    let safety = Safety::of(&setup).await?;
    let host = setup.host().bus(EventBus::new()).start().await;
    let stages: Vec<_> = Kind::ALL.map(|kind| (kind, provider(&setup, &host, kind))).into_iter().collect();
    let is_ready =
        |(kind, plugin): &(Kind, Result<String, NoProvider>)| plugin.is_ok() || !CONVERSATION.contains(kind);
    let ready = stages.iter().all(is_ready);
    if args.json {
        output::print_json(&to_json(&setup, &host, &safety, &stages, ready))?;
    } else {
        output::print(&to_text(&setup, &host, &safety, &stages, ready, Style::stdout()))?;
    }
    let complete = setup.check_locked(&host.plugins());
    host.shutdown().await;
    complete?;
    Ok(Exit::done_if(ready))
}

/// What plugins are tried with before they are opened.
struct Safety {
    /// Why no child process can be started.
    child: Option<String>,
    cache: Result<PathBuf, String>,
}

impl Safety {
    async fn of(setup: &Setup) -> Result<Self> {
        let host = setup.host();
        let look = move || {
            let scanner = host.scanner();
            let checked = scanner.program().map_err(anyhow::Error::from);
            let checked = checked.and_then(|program| Ok(program.check()?));
            let cache = scanner.cache().map(|cache| cache.root().to_owned());
            Self {
                child: checked.err().map(|error| format!("{error:#}")),
                cache: cache.map_err(ToString::to_string),
            }
        };
        tokio::task::spawn_blocking(look).await.context("looking for what tries plugins failed")
    }

    fn rows(&self, setup: &Setup) -> Table {
        let mut table = Table::default();
        let mut row = |what: &str, ink: Ink, told: String| {
            table.row([(Ink::Plain, what.to_owned()), (ink, told)]);
        };
        match &self.child {
            None => row("child processes", Ink::Green, "can be started".into()),
            Some(error) => row("child processes", Ink::Red, error.clone()),
        }
        match &self.cache {
            Ok(path) => row("cache", Ink::Green, path.display().to_string()),
            Err(error) => row("cache", Ink::Red, error.clone()),
        }
        let lock = |lock: &Lock| {
            format!("{} ({})", from_here(lock.path()), count(lock.plugins().len() as u64, "plugin"))
        };
        row("lock", Ink::Plain, setup.lock.as_ref().map_or("none: every plugin is loaded".into(), lock));
        table
    }
}

type Stage = (Kind, Result<String, NoProvider>);

/// The plugin that a conversation would use.
fn provider(setup: &Setup, host: &Host, kind: Kind) -> Result<String, NoProvider> {
    let agent = &setup.config.agent;
    let wanted = match kind {
        Kind::Turn => &agent.turn,
        Kind::Stt => &agent.stt,
        Kind::Llm => &agent.llm,
        Kind::Tts => &agent.tts,
        Kind::Vision => &None,
    };
    let name = |plugin: std::sync::Arc<PluginInstance>| plugin.manifest().name.clone();
    host.provider(kind, wanted.as_deref()).map(name)
}

fn to_text(
    setup: &Setup,
    host: &Host,
    safety: &Safety,
    stages: &[Stage],
    ready: bool,
    style: Style,
) -> String {
    let mut text = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let mut line = |told: &str| writeln!(text, "{told}").expect("text grows");
    line(&format!("antiphon {version} (plugin ABI {ABI_VERSION}, antiphon-plugin-api {API_VERSION})"));

    line("\nPlugin directories");
    for place in &setup.searched {
        let (ink, found) = match place.exists {
            true => (Ink::Green, plugins_in(host, &place.directory)),
            false => (Ink::Yellow, "there is no such directory".to_owned()),
        };
        line(&format!("  {} ({}): {}", place.directory.display(), place.origin, style.paint(ink, found)));
    }
    if setup.has_libraries().is_err() {
        line("\nWhat to do");
        for told in setup.nothing_found().lines() {
            line(&format!("  {told}"));
        }
        return text;
    }

    line("\nPlugin safety");
    line(safety.rows(setup).render(style, "  ").trim_end());

    line("\nPlugins");
    for row in plugins::rows(setup, &host.plugins(), style).lines() {
        line(&format!("  {row}"));
    }

    line("\nStages");
    let mut table = Table::default();
    for (kind, plugin) in stages {
        let (ink, told) = match plugin {
            Ok(name) => (Ink::Green, name.clone()),
            Err(_) if CONVERSATION.contains(kind) => (Ink::Red, "no plugin".to_owned()),
            Err(_) => (Ink::Yellow, "no plugin (not needed for a conversation)".to_owned()),
        };
        table.row([(Ink::Plain, stage(*kind).to_owned()), (Ink::Dim, kind.to_string()), (ink, told)]);
    }
    line(table.render(style, "  ").trim_end());

    let cures = cures(setup, host, stages);
    if !cures.is_empty() {
        line("\nWhat to do");
        for cure in cures {
            line(&format!("  {}", clean(&cure).replace('\n', "\n    ")));
        }
    }
    line(match ready {
        true => "\nReady for a conversation: antiphon talk RECORDING.wav",
        false => "\nNot ready for a conversation",
    });
    text
}

fn plugins_in(host: &Host, directory: &std::path::Path) -> String {
    let found = host.plugins().into_iter().filter(|plugin| plugin.path.parent() == Some(directory));
    count(found.count() as u64, "library").replace("librarys", "libraries")
}

/// What mends each stage, and each plugin, that does not work.
fn cures(setup: &Setup, host: &Host, stages: &[Stage]) -> Vec<String> {
    // A library that was never meant to be a plugin needs no cure.
    let is_foreign = |plugin: &&Plugin| {
        matches!(inspect(&plugin.path), Err(InspectError::NoPlugin | InspectError::NotElf { .. }))
    };
    let plugins = host.plugins();
    let broken = plugins
        .iter()
        .filter(|plugin| matches!(plugin.state, PluginState::Failed | PluginState::Quarantined));
    let broken = broken.filter(|plugin| !is_foreign(plugin));
    let mut cures: Vec<String> =
        broken.filter_map(|plugin| Some(format!("{}: {}", plugin.name, setup.problem(plugin)?))).collect();
    for (kind, plugin) in stages {
        let Err(NoProvider { wanted, reasons, .. }) = plugin else { continue };
        // What is broken is in the list already.
        let disabled = reasons.iter().find(|(name, _)| {
            plugins.iter().any(|plugin| plugin.name == *name && plugin.state == PluginState::Stopped)
        });
        match (wanted, disabled) {
            (_, Some((name, _))) => {
                cures.push(format!("{name} is switched off: take it out of plugins.disabled"))
            }
            (Some(name), None) if reasons.is_empty() => cures.push(format!(
                "the configuration wants {name} for {}, which was not found: correct agent.{kind}",
                stage(*kind)
            )),
            (None, None) if reasons.is_empty() => cures.push(format!(
                "{}: put a plugin for it ({kind}-*) into one of the directories above",
                stage(*kind)
            )),
            _ => {}
        }
    }
    let packages = packages(&cures).join(" ");
    if !packages.is_empty() {
        cures.push(format!("all at once: sudo apt-get install {packages}"));
    }
    cures
}

/// The Debian packages that the plugins ask for, as `apt-get install NAME` in backquotes.
fn packages(cures: &[String]) -> Vec<&str> {
    let mut packages: Vec<&str> = cures
        .iter()
        .flat_map(|cure| cure.split('`').skip(1).step_by(2))
        .filter_map(|quoted| quoted.trim_start_matches("sudo ").strip_prefix("apt"))
        .filter_map(|command| command.trim_start_matches("-get").strip_prefix(" install "))
        .flat_map(str::split_whitespace)
        .filter(|word| !word.starts_with('-'))
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn to_json(setup: &Setup, host: &Host, safety: &Safety, stages: &[Stage], ready: bool) -> Value {
    let plugins: Vec<Value> = host
        .plugins()
        .iter()
        .map(|plugin| {
            json!({
                "name": plugin.name,
                "version": plugin.version(),
                "path": plugin.path.display().to_string(),
                "state": plugin.state,
                "problem": setup.problem(plugin),
            })
        })
        .collect();
    let stages_of = |(kind, plugin): &Stage| {
        let reason = plugin.as_ref().err().map(ToString::to_string);
        json!({ "stage": kind, "needed": CONVERSATION.contains(kind), "plugin": plugin.as_ref().ok(), "reason": reason })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "abi_version": ABI_VERSION,
        "api_version": API_VERSION,
        "ready": ready,
        "directories": setup.to_json(),
        "child_processes": { "can_be_started": safety.child.is_none(), "problem": safety.child },
        "cache": {
            "path": safety.cache.as_ref().ok().map(|path| path.display().to_string()),
            "problem": safety.cache.as_ref().err(),
        },
        "lock": setup.lock.as_ref().map(|lock| lock.path().display().to_string()),
        "plugins": plugins,
        "stages": stages.iter().map(stages_of).collect::<Vec<_>>(),
        "cures": cures(setup, host, stages),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_collected_from_what_plugins_say() {
        let cures = [
            "tts-x: cannot open `libx.so`; install it with `apt-get install libx1`".to_owned(),
            "stt-y: needs `sudo apt install -y liby2 liby-data`, or `apt-get install libx1`".to_owned(),
            "other: `apt` has nothing".to_owned(),
        ];
        assert_eq!(packages(&cures), ["libx1", "liby-data", "liby2"]);
    }
}
