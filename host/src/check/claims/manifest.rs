//! What the file and its manifest say, before anything is started.

use std::collections::BTreeSet;

use antiphon_core::event::{BASE_EVENT, PLUGIN_BASE_EVENT, catalogue};
use antiphon_plugin_api::{
    EventDeclaration, PluginManifest,
    abi::{ABI_VERSION, CAPABILITY_V1, MAX_EVENT_TYPES},
};
use serde_json::{Map, Value};

use crate::{
    Kind,
    check::{
        Problem,
        message::{Checked, Message},
        running::Context,
    },
    inspect::inspect,
    plugins::chain,
};

pub(in crate::check) fn file(context: &Context, _: Option<Kind>) -> Checked {
    context.tell.stage("reading the file");
    match inspect(&context.path) {
        Ok(_) => Ok(()),
        Err(error) => Err(context.tell.fail(Problem::new(
            chain(&error),
            "a plugin for this host",
            "build a `cdylib` that uses `export_plugin!`, with the host's antiphon-plugin-api, and copy it whole",
        ))),
    }
}

/// Bytes of a manifest. One with a hundred event types has a tenth of it; a scan reads no more than twice as much.
const MAX_MANIFEST: usize = 4 << 20;

pub(in crate::check) fn library(context: &Context, _: Option<Kind>) -> Checked {
    let manifest = context.manifest()?;
    let size = serde_json::to_vec(&manifest).map_or(0, |bytes| bytes.len());
    if size > MAX_MANIFEST {
        return Err(context.tell.fail(Problem::new(
            format!("the manifest has {size} bytes"),
            format!("at most {MAX_MANIFEST}: hosts read it each time they look for plugins"),
            "shorten the description and the schemas",
        )));
    }
    let PluginManifest { name, version, capabilities, .. } = manifest;
    let capabilities = capabilities.into_iter().map(|capability| capability.kind).collect();
    context.tell.tell(Message::Plugin { name, version, capabilities });
    Ok(())
}

pub(in crate::check) fn agrees(context: &Context, _: Option<Kind>) -> Checked {
    let manifest = context.manifest()?;
    let Ok(section) = inspect(&context.path) else { return file(context, None) };
    let kinds = |kinds: Vec<&str>| kinds.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let of_section = kinds(section.kinds.split_whitespace().collect());
    let of_manifest = kinds(manifest.capabilities.iter().map(|can| can.kind.as_str()).collect());
    let mut all = Ok(());
    for (what, section, manifest) in [
        ("the name", section.name, manifest.name.clone()),
        ("the version", section.version, manifest.version.clone()),
        ("the ABI version", section.abi_version.to_string(), manifest.abi_version.to_string()),
        ("the version of antiphon-plugin-api", section.api_version, manifest.api_version.clone()),
        ("the capabilities", format!("{of_section:?}"), format!("{of_manifest:?}")),
    ] {
        if section != manifest {
            all = Err(context.tell.fail(Problem::new(
                format!("{what}: {section} in the section, {manifest} in the manifest"),
                "the same in both",
                "let `export_plugin!` write both",
            )));
        }
    }
    all.and(identity(context, &manifest))
}

/// What a host and its user call the plugin by.
fn identity(context: &Context, manifest: &PluginManifest) -> Checked {
    let is_name = |name: &str| {
        let is_part = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        name.split('-').all(is_part)
    };
    let mut all = Ok(());
    if manifest.abi_version != ABI_VERSION {
        all = Err(context.tell.fail(Problem::new(
            format!("the manifest says ABI {}", manifest.abi_version),
            format!("ABI {ABI_VERSION}, as its entry has it"),
            "let `export_plugin!` write it",
        )));
    }
    if !is_name(&manifest.name) {
        all = Err(context.tell.fail(Problem::new(
            format!("the plugin is called {:?}", manifest.name),
            "lower-case letters, digits and underscores, in words with hyphens between them",
            "name it as in `tts-example`; settings are given under this name",
        )));
    }
    for (what, text) in [("description", &manifest.description), ("license", &manifest.license)] {
        if text.trim().is_empty() {
            context.tell.warn(Problem::new(
                format!("there is no {what}"),
                "a sentence and a licence, which `antiphon plugins inspect` shows",
                format!("set `{what}` in Cargo.toml"),
            ));
        }
    }
    all
}

pub(in crate::check) fn settings(context: &Context, _: Option<Kind>) -> Checked {
    let schema = context.manifest()?.settings;
    context.tell.stage("reading the schema of the settings");
    let advice =
        "derive `JsonSchema` for the settings, with `#[serde(default)]` and a `Default` within their ranges";
    let fail = |seen: String, expected: &str| Err(context.tell.fail(Problem::new(seen, expected, advice)));
    if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
        return fail(
            format!("the schema of the settings is none: {error} at `{}`", error.instance_path()),
            "a JSON Schema of draft 2020-12",
        );
    }
    let validator = match jsonschema::draft202012::new(&schema) {
        Ok(validator) => validator,
        Err(error) => {
            return fail(format!("the schema of the settings cannot be used: {error}"), "one that can");
        }
    };
    let defaults = super::settings::defaults(&schema);
    for (name, value) in &defaults {
        let one = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        let error = validator.iter_errors(&one).find(|error| !error.instance_path().to_string().is_empty());
        if let Some(error) = error {
            return fail(
                format!("the default of {name} is not valid: {error}"),
                "defaults that are valid settings",
            );
        }
    }
    if let Some(error) = validator.iter_errors(&Value::Object(Map::new())).next() {
        context.tell.warn(Problem::new(
            format!("settings are needed: {error}"),
            "a plugin that works, or says what is missing, without settings",
            "give each setting a default",
        ));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if property.get("description").is_none() && property.get("$ref").is_none() {
            context.tell.warn(Problem::new(
                format!("the setting {name} has no description"),
                "a sentence for each setting, which `antiphon plugins inspect` shows",
                "write a doc comment on the field",
            ));
            break;
        }
    }
    Ok(())
}

pub(in crate::check) fn events(context: &Context, _: Option<Kind>) -> Checked {
    let manifest = context.manifest()?;
    context.tell.stage("reading the declarations of events");
    let mut all = Ok(());
    if manifest.events.len() > MAX_EVENT_TYPES {
        all = Err(context.tell.fail(Problem::new(
            format!("{} event types are declared", manifest.events.len()),
            format!("at most {MAX_EVENT_TYPES}: each has a bit of interest"),
            "put related events into one type with a field that tells them apart",
        )));
    }
    let mut seen = BTreeSet::new();
    for event in &manifest.events {
        for problem in event_problems(event, &manifest) {
            all = Err(context.tell.fail(problem));
        }
        if !seen.insert(&event.name) {
            all = Err(context.tell.fail(Problem::new(
                format!("{} is declared twice", event.name),
                "each event type once",
                "declare it once: its position is its index",
            )));
        }
    }
    all
}

fn event_problems(event: &EventDeclaration, manifest: &PluginManifest) -> Vec<Problem> {
    let name = &event.name;
    let mut problems = Vec::new();
    let is_word = |word: &str| {
        let mut letters = word.chars();
        letters.next().is_some_and(|first| first.is_ascii_lowercase())
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if !name.contains('.') || !name.split('.').all(is_word) {
        problems.push(Problem::new(
            format!("an event type is called {name:?}"),
            "lower-case words (letters, digits, underscores) with dots between them",
            "name it after the plugin and what happened, as in `example.word_found`",
        ));
    }
    if event.extends.last().map(String::as_str) != Some(BASE_EVENT)
        || !event.extends.iter().any(|base| base == PLUGIN_BASE_EVENT)
    {
        problems.push(Problem::new(
            format!("{name} extends {:?}", event.extends),
            format!("bases from the nearest to {PLUGIN_BASE_EVENT} and {BASE_EVENT}"),
            "say `base = PluginBaseEvent`, or a base that extends it, in `#[event(..)]`",
        ));
    }
    let catalogue = catalogue();
    let core = catalogue.iter().find(|info| info.name == name);
    let is_known = |base: &String| {
        base == BASE_EVENT
            || base == PLUGIN_BASE_EVENT
            || catalogue.iter().any(|info| info.name == base)
            || manifest.events.iter().any(|event| event.name == *base)
    };
    if let Some(unknown) = event.extends.iter().find(|base| !is_known(base)) {
        problems.push(Problem::new(
            format!("{name} extends {unknown}, which neither the core nor the plugin declares"),
            "bases that hosts know",
            "declare the base as well in `Plugin::declare`",
        ));
    }
    match (core, &event.schema) {
        (Some(info), _) => {
            let lineage: Vec<&str> = info.lineage().into_iter().skip(1).collect();
            if lineage != event.extends {
                problems.push(Problem::new(
                    format!("{name} extends {:?}", event.extends),
                    format!("{lineage:?}, as in the core's catalogue"),
                    "do not redefine events of the core; use its types",
                ));
            }
        }
        (None, None) => problems.push(Problem::new(
            format!("{name} is not of the core's catalogue, and has no schema"),
            "a JSON Schema for each event of the plugin's own",
            "derive `Event` and `JsonSchema` for it; or update this host, if it is an event of a newer core",
        )),
        (None, Some(schema)) => {
            if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
                problems.push(Problem::new(
                    format!("the schema of {name} is none: {error}"),
                    "a JSON Schema of draft 2020-12",
                    "derive `JsonSchema` for it",
                ));
            }
        }
    }
    problems
}

pub(in crate::check) fn capabilities(context: &Context, _: Option<Kind>) -> Checked {
    let running = context.start()?;
    let declared = &running.manifest.capabilities;
    let mut all = Ok(());
    let mut fail = |seen: String, expected: &str, advice: &str| {
        all = Err(context.tell.fail(Problem::new(seen, expected, advice)));
    };
    let known = |kind: &str| Kind::ALL.into_iter().any(|known| known.as_str() == kind);
    if !declared.iter().any(|can| known(&can.kind)) {
        fail(
            format!("declared are {:?}", declared.iter().map(|can| can.kind.as_str()).collect::<Vec<_>>()),
            "at least one of turn, stt, llm, tts, vision",
            "name in `capabilities` what the plugin implements",
        );
    }
    for (index, can) in declared.iter().enumerate() {
        if declared[..index].iter().any(|other| other.kind == can.kind) {
            fail(format!("{} is declared twice", can.kind), "each capability once", "name it once");
        }
        if !known(&can.kind) {
            context.tell.warn(Problem::new(
                format!("this host does not know the capability {}", can.kind),
                "turn, stt, llm, tts or vision",
                "nobody can use it here; this check does not look at it",
            ));
        } else if can.version != CAPABILITY_V1 {
            fail(
                format!("{} is declared in version {}", can.kind, can.version),
                "version 1, which this host speaks",
                "build with this host's antiphon-plugin-api",
            );
        }
    }
    for (kind, version, what) in Kind::ALL
        .into_iter()
        .filter(|kind| !running.manifest.has(kind.as_str()))
        .map(|kind| (kind.as_str(), CAPABILITY_V1, "it is not in the manifest"))
        .chain([("no_such_capability", CAPABILITY_V1, "nobody knows it")])
        .chain(declared.iter().map(|can| (can.kind.as_str(), 999, "nobody speaks it")))
    {
        if running.has(kind, version) {
            fail(
                format!("an object for the capability {kind} of version {version}, although {what}"),
                "objects for declared capabilities and versions alone",
                "answer `query` with none for all others",
            );
        }
    }
    all.and_then(|()| running.stop())
}
