//! What cargo knows about this workspace: where it is, where it builds, which of its packages are plugins.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell::{render, say};

/// The answer to `cargo metadata --no-deps`, as far as it is of use here.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// Honours `CARGO_TARGET_DIR` and cargo's configuration files.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Target {
    fn is_plugin(&self) -> bool {
        self.kind.iter().any(|kind| kind == "cdylib")
    }
}

/// One line of `cargo build --message-format=json`; all other kinds of message have no `filenames`.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

/// What a build made, by the paths that cargo itself reported: right for every profile, target triple and target directory.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Built {
    pub(crate) executables: Vec<PathBuf>,
    pub(crate) plugins: Vec<PathBuf>,
}

impl Workspace {
    /// Asks cargo. Works from any directory, offline too.
    pub(crate) fn load() -> Result<Workspace> {
        // Set by `cargo run`, so that a moved or shared target directory does not confuse two checkouts.
        let here = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let mut command = cargo(&here);
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("`{}` failed ({})", render(&command), output.status);
        }
        Workspace::parse(&output.stdout)
    }

    fn parse(metadata: &[u8]) -> Result<Workspace> {
        serde_json::from_slice(metadata)
            .context("cargo metadata gave an answer that this xtask does not understand")
    }

    pub(crate) fn dist(&self) -> PathBuf {
        self.target.join("dist")
    }

    /// A cargo command that runs in the root of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// Any other command that runs there.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.current_dir(&self.root);
        command
    }

    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// Packages under `plugins/` that make a shared library, sorted by name.
    pub(crate) fn plugins(&self) -> Vec<&Package> {
        let folder = self.root.join("plugins");
        let mut plugins: Vec<_> = self
            .packages
            .iter()
            .filter(|package| package.manifest_path.starts_with(&folder))
            .filter(|package| package.targets.iter().any(Target::is_plugin))
            .collect();
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        plugins
    }

    /// A path below the root without the root, as it is written in the documentation; others unchanged.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// Builds the packages that `select` names and says what came out. Compiler output goes to the terminal as usual.
    pub(crate) fn build(&self, profile: &str, select: &[&Package]) -> Result<Built> {
        self.build_by(self.cargo(), profile, select)
    }

    /// As `build`, with flags for the compiler, as cargo takes them in `CARGO_ENCODED_RUSTFLAGS`.
    pub(crate) fn build_with(&self, profile: &str, select: &[&Package], flags: &str) -> Result<Built> {
        let mut cargo = self.cargo();
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
        self.build_by(cargo, profile, select)
    }

    fn build_by(&self, mut command: Command, profile: &str, select: &[&Package]) -> Result<Built> {
        command.args(["build", "--profile", profile]);
        for package in select {
            command.args(["--package", &package.name]);
        }
        say(format_args!("    $ {}", render(&command)));
        let output = command
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("the build failed ({})", output.status);
        }
        Built::parse(&output.stdout, select)
    }
}

impl Built {
    fn parse(messages: &[u8], select: &[&Package]) -> Result<Built> {
        let mut built = Built::default();
        for line in messages.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")) {
            let message: Message =
                serde_json::from_slice(line).context("cargo build sent a message that is not understood")?;
            let (Some(manifest), Some(target)) = (message.manifest_path, message.target) else { continue };
            // Dependencies make `cdylib`s too now and then; they are nobody's plugins.
            if message.reason != "compiler-artifact"
                || !select.iter().any(|package| package.manifest_path == manifest)
            {
                continue;
            }
            built.executables.extend(message.executable);
            if target.is_plugin() {
                let library = |file: &PathBuf| file.to_string_lossy().ends_with(env::consts::DLL_SUFFIX);
                let file = message.filenames.into_iter().find(library);
                built.plugins.push(
                    file.with_context(|| format!("{} came out without a shared library", target.name))?,
                );
            }
        }
        Ok(built)
    }
}

fn cargo(directory: &Path) -> Command {
    // The cargo that runs us, not whichever comes first in PATH.
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "packages": [
            {"name": "antiphon-tts-flite", "version": "0.1.0", "manifest_path": "/w/plugins/tts-flite/Cargo.toml",
             "targets": [{"name": "antiphon_tts_flite", "kind": ["cdylib", "rlib"]}, {"name": "live", "kind": ["test"]}]},
            {"name": "antiphon-llm-echo", "version": "0.1.0", "manifest_path": "/w/plugins/llm-echo/Cargo.toml",
             "targets": [{"name": "antiphon_llm_echo", "kind": ["cdylib"]}]},
            {"name": "shared-code", "version": "0.1.0", "manifest_path": "/w/plugins/shared-code/Cargo.toml",
             "targets": [{"name": "shared_code", "kind": ["lib"]}]},
            {"name": "fixture-panics", "version": "0.1.0", "manifest_path": "/w/tests/fixtures/panics/Cargo.toml",
             "targets": [{"name": "fixture_panics", "kind": ["cdylib"]}]},
            {"name": "antiphon-host", "version": "0.1.0", "manifest_path": "/w/host/Cargo.toml",
             "targets": [{"name": "antiphon_host", "kind": ["lib"]}, {"name": "antiphon", "kind": ["bin"]}]}
        ],
        "target_directory": "/elsewhere/target",
        "workspace_root": "/w"
    }"#;

    fn workspace() -> Workspace {
        Workspace::parse(METADATA.as_bytes()).expect("the snippet is valid")
    }

    #[test]
    fn plugins_are_the_shared_libraries_under_plugins() {
        let workspace = workspace();
        let names: Vec<_> = workspace.plugins().iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["antiphon-llm-echo", "antiphon-tts-flite"]);
    }

    #[test]
    fn a_target_directory_outside_the_checkout_is_honoured() {
        assert_eq!(workspace().dist(), Path::new("/elsewhere/target/dist"));
        assert_eq!(
            workspace().relative(Path::new("/elsewhere/target/dist")),
            Path::new("/elsewhere/target/dist")
        );
        assert_eq!(workspace().relative(Path::new("/w/target/dist")), Path::new("target/dist"));
    }

    #[test]
    fn only_artifacts_of_selected_packages_count() {
        let workspace = workspace();
        let select =
            [&workspace.plugins()[..], &[workspace.package("antiphon-host").expect("in the snippet")]]
                .concat();
        let suffix = env::consts::DLL_SUFFIX;
        let messages = [
            r#"{"reason":"build-script-executed","package_id":"x"}"#.to_owned(),
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/registry/other/Cargo.toml","target":{{"name":"other","kind":["cdylib"]}},"filenames":["/t/other{suffix}"],"executable":null}}"#
            ),
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/plugins/llm-echo/Cargo.toml","target":{{"name":"antiphon_llm_echo","kind":["cdylib"]}},"filenames":["/t/libe.rlib","/t/libe{suffix}"],"executable":null}}"#
            ),
            r#"{"reason":"compiler-artifact","manifest_path":"/w/host/Cargo.toml","target":{"name":"antiphon","kind":["bin"]},"filenames":["/t/antiphon"],"executable":"/t/antiphon"}"#.to_owned(),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let built = Built::parse(messages.join("\n").as_bytes(), &select).expect("the messages are valid");
        assert_eq!(
            built,
            Built {
                executables: vec!["/t/antiphon".into()],
                plugins: vec![format!("/t/libe{suffix}").into()]
            }
        );
    }
}
