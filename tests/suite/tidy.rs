//! The rules of the tree that no compiler checks: who may depend on whom, what every file and crate has.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use antiphon_test_support::built::{plugin_names, workspace};
use serde_json::Value;

/// What each of our crates depends on among our crates: `dev` or not.
struct Crates(BTreeMap<String, Vec<Dependency>>);

struct Dependency {
    name: String,
    is_dev: bool,
}

impl Crates {
    fn read() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(workspace());
        let output = command.output().expect("cargo can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
        let packages = metadata["packages"].as_array().expect("metadata lists packages");
        let text = |value: &Value| value.as_str().expect("a name").to_owned();
        let dependency =
            |value: &Value| Dependency { name: text(&value["name"]), is_dev: value["kind"] == "dev" };
        let of = |package: &Value| -> Vec<Dependency> {
            let all = package["dependencies"].as_array().expect("a package lists its dependencies");
            all.iter().map(dependency).collect()
        };
        Self(packages.iter().map(|package| (text(&package["name"]), of(package))).collect())
    }

    /// Our crates that a crate of ours depends on when it is used.
    fn ours(&self, name: &str) -> Vec<&str> {
        let dependencies = &self.0[name];
        let ours = dependencies
            .iter()
            .filter(|dependency| !dependency.is_dev && self.0.contains_key(&dependency.name));
        ours.map(|dependency| dependency.name.as_str()).collect()
    }
}

#[test]
fn dependencies_point_inwards() {
    let crates = Crates::read();
    assert_eq!(crates.ours("antiphon-derive"), [""; 0]);
    assert_eq!(crates.ours("antiphon-core"), ["antiphon-derive"]);
    assert_eq!(crates.ours("antiphon-plugin-abi"), ["antiphon-core"]);
    assert_eq!(crates.ours("antiphon-plugin-api"), ["antiphon-core", "antiphon-plugin-abi"]);
    // The host too sees the frozen types through plugin-api: one path to them.
    assert_eq!(crates.ours("antiphon-host"), ["antiphon-core", "antiphon-plugin-api"]);
    for plugin in plugin_names() {
        let package = format!("antiphon-{plugin}");
        assert_eq!(crates.ours(&package), ["antiphon-plugin-api"], "{package}");
        // Not in tests either: a plugin never sees the host, nor another plugin.
        let forbidden = |name: &str| {
            name == "antiphon-host" || plugin_names().iter().any(|other| name == format!("antiphon-{other}"))
        };
        let seen = crates.0[&package].iter().find(|dependency| forbidden(&dependency.name));
        assert!(seen.is_none(), "{package} sees {}", seen.map_or("", |dependency| &dependency.name));
    }
}

#[test]
fn core_does_no_input_and_no_output() {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "libloading",
        "println!",
        "tokio::net",
        "tokio::fs",
    ];
    let found =
        |path: &PathBuf| found(path, &code_of(path), |line| forbidden.iter().any(|word| line.contains(word)));
    none(sources("core/src").iter().flat_map(found));
}

#[test]
fn the_host_names_no_plugin() {
    let plugins = plugin_names();
    // Examples for users need a name.
    let is_named =
        |line: &str| plugins.iter().any(|plugin| line.contains(plugin)) && !line.contains("such as ");
    none(sources("host/src").iter().flat_map(|path| found(path, &without_help(&code_of(path)), is_named)));
}

#[test]
fn every_source_file_says_first_what_it_is_for() {
    let says_nothing = |path: &&PathBuf| {
        let text = read(path);
        // An attribute of the whole file may stand before it.
        let first = text.trim_start_matches(|c| c != '/').lines().next().unwrap_or_default();
        !(first.starts_with("//!") && (text.starts_with("//!") || text.starts_with("#![")))
    };
    none(all_sources().iter().filter(says_nothing).map(|path| shown(path)));
}

#[test]
fn no_source_file_has_more_than_one_subject() {
    let lines = |path: &PathBuf| (read(path).lines().count(), shown(path));
    let long = all_sources().iter().map(lines).filter(|(lines, _)| *lines > 800).collect::<Vec<_>>();
    none(
        long.iter()
            .map(|(lines, path)| format!("{path} has {lines} lines: look for the second subject in it")),
    );
}

#[test]
fn tests_neither_sleep_nor_look_at_the_time_nor_are_switched_off() {
    // In pieces, or this file would be the first that is found.
    let forbidden = [["sle", "ep("], ["Instant", "::now"], ["#[ign", "ore"]].map(|word| word.concat());
    let has_any = |line: &str| forbidden.iter().any(|word| line.contains(word));
    let ours = [sources("tests/suite"), sources("tests/support")].concat();
    none(ours.iter().flat_map(|path| found(path, &code_of(path), has_any)));
}

#[test]
fn nothing_is_left_to_do() {
    let forbidden = [["TO", "DO"], ["FIX", "ME"], ["dbg", "!("], ["to", "do!("]].map(|word| word.concat());
    let has_any = |line: &str| forbidden.iter().any(|word| line.contains(word));
    none(all_sources().iter().flat_map(|path| found(path, &read(path), has_any)));
}

#[test]
fn every_plugin_has_a_readme_of_about_a_screen() {
    let problem = |plugin: &String| {
        let path = workspace().join("plugins").join(plugin).join("README.md");
        let Ok(text) = fs::read_to_string(&path) else { return Some(format!("{} is missing", shown(&path))) };
        let lines = text.lines().count();
        let is_fine = text.contains(plugin) && (5..=120).contains(&lines);
        (!is_fine).then(|| format!("{} has {lines} lines, or does not name the plugin", shown(&path)))
    };
    none(plugin_names().iter().filter_map(problem));
}

#[test]
fn every_crate_takes_versions_and_lints_from_the_workspace() {
    let inherits = |value: Option<&toml::Value>| {
        value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    };
    let mut problems = Vec::new();
    for path in files(workspace(), |path| path.ends_with("Cargo.toml")) {
        let manifest: toml::Table =
            read(&path).parse().unwrap_or_else(|error| panic!("{}: {error}", shown(&path)));
        if manifest.contains_key("workspace") {
            continue;
        }
        let mut check = |value, what: &str| {
            if !inherits(value) {
                problems.push(format!("{}: {what} is not the workspace's", shown(&path)));
            }
        };
        check(manifest.get("lints"), "lints");
        let is_frozen = manifest["package"]["name"].as_str() == Some("antiphon-plugin-abi");
        for field in ["version", "edition", "rust-version", "license"] {
            if field == "version" && is_frozen {
                // abi_stable takes the types of another major version for other types: plugins would be refused.
                let version = manifest["package"][field].as_str().unwrap_or_default();
                assert!(version.starts_with("1."), "{}: {version} refuses every plugin", shown(&path));
                continue;
            }
            check(manifest["package"].get(field), field);
        }
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, dependency) in
                manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten()
            {
                check(Some(dependency), &format!("{table}.{name}"));
            }
        }
    }
    none(problems);
}

#[test]
fn every_page_of_the_book_is_in_its_summary_and_every_entry_is_a_page() {
    let docs = workspace().join("docs");
    let pages = files(&docs, |path| path.extension().is_some_and(|extension| extension == "md"));
    for summary in pages.iter().filter(|path| path.ends_with("SUMMARY.md")) {
        let (folder, text) = (summary.parent().expect("a file is in a folder"), read(summary));
        let links: Vec<PathBuf> = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
            .filter(|link| !link.is_empty() && !link.contains("://"))
            .map(|link| folder.join(link))
            .collect();
        for link in &links {
            assert!(link.is_file(), "{} names {}, which is not there", shown(summary), shown(link));
        }
        for page in pages.iter().filter(|page| page.starts_with(folder) && *page != summary) {
            assert!(links.contains(page), "{} is not in {}", shown(page), shown(summary));
        }
    }
}

#[test]
fn no_file_names_a_place_on_one_machine() {
    // In pieces, or this file would be the first that is found.
    let places =
        [["/ho", "me/"], ["/ro", "ot/"], ["/wo", "rk/"], ["/Us", "ers/"]].map(|place| place.concat());
    let is_text = |path: &Path| {
        let kinds = ["rs", "toml", "md", "sh", "yml", "yaml", "json", "gram"];
        path.extension().is_some_and(|extension| kinds.iter().any(|kind| extension == *kind))
            || path.ends_with(".ci/run")
    };
    let has_any = |line: &str| places.iter().any(|place| line.contains(place.as_str()));
    none(files(workspace(), is_text).iter().flat_map(|path| found(path, &read(path), has_any)));
}

/// There are no such problems.
#[track_caller]
fn none(problems: impl IntoIterator<Item = String>) {
    let problems: Vec<String> = problems.into_iter().collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Lines of a text that `is_bad`, with their place.
fn found(path: &Path, text: &str, is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let bad = text.lines().enumerate().filter(|(_, line)| is_bad(line));
    bad.map(|(number, line)| format!("{}:{}: {}", shown(path), number + 1, line.trim())).collect()
}

/// Rust files below a folder of the workspace.
fn sources(folder: &str) -> Vec<PathBuf> {
    let found = files(&workspace().join(folder), is_source);
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// All Rust files but those that must not compile or are generated.
fn all_sources() -> Vec<PathBuf> {
    files(workspace(), |path| is_source(path) && !path.components().any(|part| part.as_os_str() == "ui"))
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// Files below a folder, sorted, without what git and cargo keep there.
fn files(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", shown(&folder))) {
            let path = entry.expect("a readable folder").path();
            let is_kept =
                path.file_name().is_some_and(|name| name != ".git" && name != "target" && name != "book");
            if path.is_dir() && is_kept {
                folders.push(path);
            } else if path.is_file() && is_wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A file's code up to its unit tests, without comments; lines keep their numbers.
fn code_of(path: &Path) -> String {
    let text = read(path);
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let line = |line: &str| match line.trim_start().starts_with("//") {
        true => String::new(),
        false => line.to_owned(),
    };
    code.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Code without texts of many lines, which is what `--help` shows; lines keep their numbers.
fn without_help(code: &str) -> String {
    let mut is_help = false;
    let mut line = |line: &str| {
        let was_help = is_help;
        is_help = line.ends_with("= \"\\") || (is_help && !line.trim_end().ends_with("\";"));
        if was_help { String::new() } else { line.to_owned() }
    };
    code.lines().map(&mut line).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", shown(path)))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}
