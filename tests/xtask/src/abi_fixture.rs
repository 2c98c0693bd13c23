//! `cargo xtask abi-fixture`: a plugin of today, kept for the hosts of later years.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    shell::{render, say, size, step},
    workspace::Workspace,
};

/// Build the plugin that later hosts must still load, and put it into tests/fixtures/abi
///
/// Builds tests/fixtures/abi/plugin against the plugin-api of this checkout, small and without symbols, and writes the library
/// and a description of it to tests/fixtures/abi/v<ABI>, under the name of this machine's target. The test `abi_years` loads every
/// library there with the present host. A library that was published is never replaced: without --replace this refuses to.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Replace the library of this ABI: only as long as no plugin of it was published
    #[arg(long)]
    replace: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask abi-fixture            with the release of a new ABI: makes tests/fixtures/abi/v2/..
  cargo xtask abi-fixture --replace  while the ABI still changes from day to day

Afterwards:
  cargo test --package antiphon-tests abi_years";

/// The package, and the profile of the workspace's Cargo.toml that it is built by.
const PACKAGE: &str = "antiphon-fixture-abi";
const PROFILE: &str = "abi-fixture";

/// Version of the root ABI. `tests/suite/abi_years.rs` holds the folder to the section of the library.
const ABI: u32 = 1;

pub(crate) fn run(args: Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let target = target(&workspace)?;
    let folder = workspace.root.join(format!("tests/fixtures/abi/v{ABI}"));
    let library = folder.join(format!("{target}.so"));
    if library.exists() && !args.replace {
        bail!(
            "{} exists: what was published is never replaced (--replace does it all the same)",
            workspace.relative(&library).display()
        );
    }
    let built = step("build: one plugin of every kind", || build(&workspace))?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::copy(&built, &library)
        .with_context(|| format!("cannot copy {} to {}", built.display(), library.display()))?;
    let description = folder.join(format!("{target}.toml"));
    fs::write(&description, describe(&workspace, &library)?)
        .with_context(|| format!("cannot write {}", description.display()))?;
    let length = fs::metadata(&library).with_context(|| format!("cannot read {}", library.display()))?.len();
    say(format_args!("{} ({})", workspace.relative(&library).display(), size(length)));
    Ok(())
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let package = workspace
        .package(PACKAGE)
        .with_context(|| format!("there is no package {PACKAGE} in the workspace"))?;
    let built = workspace.build_with(PROFILE, &[package], &remap(workspace))?;
    built.plugins.into_iter().next().with_context(|| format!("{PACKAGE} came out without a shared library"))
}

/// Has the compiler write no place of this machine into the library.
fn remap(workspace: &Workspace) -> String {
    let cargo_home =
        env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
    let mut places = vec![(workspace.root.display().to_string(), "antiphon")];
    places.extend(cargo_home.ok().map(|home| (home, "cargo")));
    let flags = places.iter().map(|(place, name)| format!("--remap-path-prefix={place}={name}"));
    flags.collect::<Vec<_>>().join("\x1f")
}

/// What was built, of what, by what.
fn describe(workspace: &Workspace, library: &Path) -> Result<String> {
    // What decides about the ABI, wherever the rest of the tree is.
    let sources = ["--", "plugin-api/abi", "plugin-api/src", "core/src", "core/derive/src"];
    let changes = answer(workspace.program("git").args(["status", "--porcelain"]).args(sources))?;
    let dirty = if changes.is_empty() { "" } else { " with changes" };
    let commit = answer(workspace.program("git").args(["log", "-1", "--format=%H"]).args(sources))?;
    let rustc = answer(workspace.program("rustc").arg("--version"))?;
    let sum = answer(workspace.program("sha256sum").arg(library))?;
    let sum = sum.split_whitespace().next().context("sha256sum said nothing")?;
    let api = workspace.package("antiphon-plugin-api").context("there is no package antiphon-plugin-api")?;
    Ok(format!(
        "# Written by `cargo xtask abi-fixture`.\nplugin_api = \"{}\"\nrustc = \"{rustc}\"\ncommit = \"{commit}{dirty}\"\n\
         sha256 = \"{sum}\"\n",
        api.version
    ))
}

/// The target triple of this machine's compiler.
fn target(workspace: &Workspace) -> Result<String> {
    let about = answer(workspace.program("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc did not say what it compiles for")?.to_owned())
}

/// What a program prints, without the end of its line.
fn answer(command: &mut Command) -> Result<String> {
    let text = render(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
