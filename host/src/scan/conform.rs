//! What a manifest must be, whatever the plugin does: the rules that its section and its manifest are held to.

use antiphon_plugin_api::{PluginManifest, SectionManifest, abi::MAX_EVENT_TYPES};

/// Characters of a plugin's name, and of an event's.
const MAX_NAME: usize = 128;

/// What is wrong with a manifest, if anything is. Compiles the settings' schema, so it belongs into a child process.
pub(super) fn problem(section: &SectionManifest, manifest: &PluginManifest) -> Option<String> {
    disagreement(section, manifest).or_else(|| {
        let error = jsonschema::validator_for(&manifest.settings).err()?;
        Some(format!("the schema of its settings is none: {error}"))
    })
}

/// What section and manifest do not agree on, or what makes no sense in them. Cheap.
fn disagreement(section: &SectionManifest, manifest: &PluginManifest) -> Option<String> {
    let pairs = [
        ("name", &section.name, &manifest.name),
        ("version", &section.version, &manifest.version),
        ("api_version", &section.api_version, &manifest.api_version),
    ];
    for (what, in_section, in_manifest) in pairs {
        if in_section != in_manifest {
            return Some(format!("its section says {what} {in_section:?}, its manifest {in_manifest:?}"));
        }
    }
    if section.abi_version != manifest.abi_version {
        let (section, manifest) = (section.abi_version, manifest.abi_version);
        return Some(format!("its section says ABI {section}, its manifest {manifest}"));
    }
    if !is_sane(&manifest.name, |c| matches!(c, '-' | '_' | '.')) {
        return Some(format!("{:?} is no name for a plugin", manifest.name));
    }
    if manifest.capabilities.is_empty() {
        return Some("it declares no capability".into());
    }
    // A capability can be there in several versions, and a manifest may say more than its section.
    if let Some(kind) = section.kinds.split_whitespace().find(|kind| !manifest.has(kind)) {
        return Some(format!("its section says that it can {kind}, its manifest does not"));
    }
    events(manifest)
}

fn events(manifest: &PluginManifest) -> Option<String> {
    let count = manifest.events.len();
    if count > MAX_EVENT_TYPES {
        return Some(format!("it declares {count} event types; at most {MAX_EVENT_TYPES} are possible"));
    }
    let mut names: Vec<&str> = manifest.events.iter().map(|event| event.name.as_str()).collect();
    let is_dotted = |name: &&str| name.split('.').all(|part| is_sane(part, |c| matches!(c, '-' | '_')));
    if let Some(name) = names.iter().find(|name| !is_dotted(name)) {
        return Some(format!("{name:?} is no name for an event type"));
    }
    for event in &manifest.events {
        if let Some(base) =
            event.extends.iter().find(|base| !is_dotted(&base.as_str()) || **base == event.name)
        {
            return Some(format!("its event type {} extends {base:?}", event.name));
        }
    }
    names.sort_unstable();
    let twin = names.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(format!("it declares the event type {} twice", twin[0]))
}

fn is_sane(name: &str, is_allowed: impl Fn(char) -> bool) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || is_allowed(c);
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(is_fine)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn section() -> SectionManifest {
        SectionManifest {
            name: "llm-x".into(),
            version: "1.0.0".into(),
            abi_version: 1,
            api_version: "0.1.0".into(),
            kinds: "llm tts".into(),
        }
    }

    fn event(name: &str) -> Value {
        json!({ "type": name, "extends": ["PluginBaseEvent"] })
    }

    /// A good manifest with one key replaced.
    #[track_caller]
    fn check(key: &str, value: Value, want: Option<&str>) {
        let mut manifest = json!({
            "name": "llm-x", "version": "1.0.0", "abi_version": 1, "api_version": "0.1.0",
            "capabilities": [{"kind": "tts", "version": 1}, {"kind": "llm", "version": 1}],
            "settings": {"type": "object"}, "events": [event("llm.error"), event("llm-x.own_thing")],
        });
        manifest[key] = value;
        let manifest = serde_json::from_value(manifest).expect("a manifest");
        let problem = problem(&section(), &manifest);
        match (want, &problem) {
            (None, None) => {}
            (Some(want), Some(problem)) => assert!(problem.contains(want), "{problem}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn manifests_are_held_to_their_section_and_to_sense() {
        check("rank", json!(7), None);
        check("name", json!("llm-y"), Some(r#"its section says name "llm-x", its manifest "llm-y""#));
        check("version", json!("1.0.1"), Some("its manifest \"1.0.1\""));
        check("abi_version", json!(2), Some("its section says ABI 1, its manifest 2"));
        check("capabilities", json!([]), Some("no capability"));
        check(
            "capabilities",
            json!([{"kind": "tts", "version": 1}]),
            Some("it can llm, its manifest does not"),
        );
        let more = json!([{"kind": "llm", "version": 1}, {"kind": "llm", "version": 2}, {"kind": "tts", "version": 1}]);
        check("capabilities", more, None);
        check("settings", json!({"type": "no such type"}), Some("the schema of its settings is none"));
        check("settings", json!(3), Some("the schema of its settings is none"));
        check("events", json!([event("a*")]), Some(r#""a*" is no name for an event type"#));
        check("events", json!([event("a..b")]), Some(r#""a..b" is no name"#));
        check("events", json!([event("")]), Some("is no name"));
        check("events", json!([event("a.b"), event("c"), event("a.b")]), Some("event type a.b twice"));
        check("events", json!([{"type": "a.b", "extends": ["", "BaseEvent"]}]), Some("a.b extends \"\""));
        check("events", json!([{"type": "a.b", "extends": ["a.b"]}]), Some("a.b extends \"a.b\""));
        let many: Vec<Value> = (0..257).map(|number| event(&format!("x.e{number}"))).collect();
        check("events", json!(many), Some("257 event types; at most 256"));
        check("events", json!(many[..256]), None);
    }
}
