//! `cargo xtask dist`: a directory that holds all of Antiphon and runs from anywhere.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    shell::{complain, say, size, step},
    workspace::{Built, Workspace},
};

/// Build everything that ships into target/dist
///
/// Builds the host and all plugins and lays them out as they are shipped. Files are replaced by renaming, so an `antiphon`
/// that runs from there is not disturbed. Shared libraries in target/dist/plugins that this build did not make are
/// removed: keep plugins of your own elsewhere and name their directory with `antiphon --plugins`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How to build: optimised, or quickly and with debug checks
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
}

const EXAMPLES: &str = "\
Layout:
  target/dist/antiphon
  target/dist/plugins/*.so
  target/dist/LICENSE-APACHE, LICENSE-MIT, README.md

Examples:
  cargo xtask dist                          then: target/dist/antiphon --help
  cargo xtask dist --profile dev            compiles faster, runs slower
  cp -r target/dist /opt/antiphon           there is nothing more to installing it
  CARGO_TARGET_DIR=/tmp/t cargo xtask dist  into /tmp/t/dist instead";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Release,
    Dev,
}

/// Texts that go with every copy. The licences ask for it.
const TEXTS: &[&str] = &["LICENSE-MIT", "LICENSE-APACHE", "README.md"];

/// Package and binary of the host.
const HOST: (&str, &str) = ("antiphon-host", "antiphon");

pub(crate) fn run(args: Args) -> Result<()> {
    let workspace = Workspace::load()?;
    build(&workspace, args.profile)?;
    show(&workspace)
}

/// Builds and lays out; returns the path of the `antiphon` executable.
pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let host = workspace
        .package(HOST.0)
        .with_context(|| format!("there is no package {} in the workspace", HOST.0))?;
    let select = [vec![host], workspace.plugins()].concat();
    let name = match profile {
        Profile::Release => "release",
        Profile::Dev => "dev",
    };
    let built = step(format_args!("build: the host and {} plugins", select.len() - 1), || {
        workspace.build(name, &select)
    })?;
    let dist = workspace.dist();
    let removed = lay_out(&built, &workspace.root, &dist)?;
    for path in removed {
        say(format_args!("    removed {}, which is no longer built", workspace.relative(&path).display()));
    }
    Ok(dist.join(executable_name()))
}

/// Makes `dist` hold exactly this build; returns the plugins that were removed.
fn lay_out(built: &Built, root: &Path, dist: &Path) -> Result<Vec<PathBuf>> {
    let executable = executable_name();
    let is_host = |path: &&PathBuf| path.file_name().is_some_and(|name| name == executable.as_str());
    let Some(host) = built.executables.iter().find(is_host) else {
        bail!("the build of {} made no executable named {executable}", HOST.0);
    };
    let plugins = dist.join("plugins");
    fs::create_dir_all(&plugins).with_context(|| format!("cannot create {}", plugins.display()))?;

    place(host, &dist.join(&executable))?;
    let mut ours = Vec::new();
    for file in &built.plugins {
        let target = plugins.join(file.file_name().context("cargo reported a library without a name")?);
        place(file, &target)?;
        ours.push(target);
    }
    for text in TEXTS {
        let file = root.join(text);
        if file.exists() {
            place(&file, &dist.join(text))?;
        } else {
            complain(format_args!("warning: {text} does not exist and is left out"));
        }
    }
    remove_others(&plugins, &ours)
}

/// Copies a file so that whoever has the old one open or mapped keeps it whole: the name moves, the old bytes stay.
///
/// A file that is already the same is left alone; a host that watches the directory then sees no change.
fn place(from: &Path, to: &Path) -> Result<()> {
    if same(from, to) {
        return Ok(());
    }
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    // Hidden and with another ending: nobody who looks for plugins takes the half-written file for one.
    let half = to.with_file_name(format!(".{name}.{}.new", process::id()));
    let copy = fs::copy(from, &half).and_then(|_| fs::rename(&half, to));
    copy.inspect_err(|_| drop(fs::remove_file(&half)))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn same(a: &Path, b: &Path) -> bool {
    let sizes_differ =
        fs::metadata(a).ok().map(|file| file.len()) != fs::metadata(b).ok().map(|file| file.len());
    !sizes_differ && matches!((fs::read(a), fs::read(b)), (Ok(a), Ok(b)) if a == b)
}

/// Removes shared libraries that are not `ours`, and half copies of a run that was stopped.
fn remove_others(directory: &Path, ours: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for path in list(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let half_copy = name.starts_with('.') && name.ends_with(".new");
        let other_plugin = name.ends_with(env::consts::DLL_SUFFIX) && !ours.contains(&path);
        if half_copy || other_plugin {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        if other_plugin {
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Prints what is in the directory, with sizes.
fn show(workspace: &Workspace) -> Result<()> {
    let dist = workspace.dist();
    say(workspace.relative(&dist).display());
    let (directories, files): (Vec<_>, Vec<_>) = list(&dist)?.into_iter().partition(|path| path.is_dir());
    let mut total = 0;
    let mut row = |indent: usize, path: &Path| -> Result<()> {
        let bytes = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        total += bytes;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        say(format_args!("{:indent$}{name:<width$} {:>9}", "", size(bytes), width = 44 - indent));
        Ok(())
    };
    for file in &files {
        row(2, file)?;
    }
    for directory in &directories {
        say(format_args!("  {}/", directory.file_name().unwrap_or_default().to_string_lossy()));
        for file in list(directory)? {
            row(4, &file)?;
        }
    }
    say(format_args!("  {:<42} {:>9}", "total", size(total)));
    Ok(())
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut paths = entries.with_context(|| format!("cannot read {}", directory.display()))?;
    paths.sort();
    Ok(paths)
}

fn executable_name() -> String {
    format!("{}{}", HOST.1, env::consts::EXE_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A finished build in `target/`, an old layout in `dist/`.
    struct Fixture {
        directory: tempfile::TempDir,
        built: Built,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let root = directory.path();
            let plugin = format!("liba{}", env::consts::DLL_SUFFIX);
            fs::create_dir_all(root.join("dist/plugins")).expect("writable");
            fs::create_dir_all(root.join("target")).expect("writable");
            for (file, text) in
                [("LICENSE-MIT", "mit"), ("LICENSE-APACHE", "apache"), ("README.md", "read me")]
            {
                fs::write(root.join(file), text).expect("writable");
            }
            let built = Built {
                executables: vec![root.join("target").join(executable_name())],
                plugins: vec![root.join("target").join(plugin)],
            };
            fs::write(&built.executables[0], "new host").expect("writable");
            fs::write(&built.plugins[0], "new plugin").expect("writable");
            Fixture { directory, built }
        }

        fn plugins(&self) -> PathBuf {
            self.directory.path().join("dist/plugins")
        }

        fn lay_out(&self) -> Vec<PathBuf> {
            lay_out(&self.built, self.directory.path(), &self.directory.path().join("dist"))
                .expect("can be laid out")
        }
    }

    #[test]
    fn the_layout_is_complete_and_holds_nothing_else() {
        let fixture = Fixture::new();
        let stale = fixture.plugins().join(format!("libgone{}", env::consts::DLL_SUFFIX));
        fs::write(&stale, "old").expect("writable");
        fs::write(fixture.plugins().join(".liba.so.17.new"), "half").expect("writable");
        fs::write(fixture.plugins().join("notes.txt"), "not ours, not a plugin").expect("writable");

        assert_eq!(fixture.lay_out(), [stale]);

        let names = |directory: &Path| -> Vec<_> {
            let paths = list(directory).expect("readable");
            paths.iter().map(|path| path.file_name().expect("named").to_string_lossy().into_owned()).collect()
        };
        let plugin = format!("liba{}", env::consts::DLL_SUFFIX);
        assert_eq!(names(&fixture.plugins()), [plugin, "notes.txt".to_owned()]);
        let mut want = vec![executable_name(), "plugins".to_owned()];
        want.extend(TEXTS.iter().map(|text| (*text).to_owned()));
        want.sort();
        assert_eq!(names(&fixture.directory.path().join("dist")), want);
    }

    #[test]
    fn a_file_in_use_is_replaced_not_overwritten() {
        let fixture = Fixture::new();
        let target = fixture.plugins().join(fixture.built.plugins[0].file_name().expect("named"));
        fs::write(&target, "old plugin").expect("writable");
        let in_use = fs::File::open(&target).expect("readable");

        fixture.lay_out();

        assert_eq!(io::read_to_string(in_use).expect("readable"), "old plugin");
        assert_eq!(fs::read_to_string(&target).expect("readable"), "new plugin");
    }

    #[test]
    fn an_unchanged_file_is_not_touched() {
        let fixture = Fixture::new();
        fixture.lay_out();
        let target = fixture.plugins().join(fixture.built.plugins[0].file_name().expect("named"));
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options()
            .write(true)
            .open(&target)
            .and_then(|file| file.set_modified(long_ago))
            .expect("writable");

        fixture.lay_out();

        let modified = fs::metadata(&target).and_then(|file| file.modified()).expect("readable");
        assert_eq!(modified, long_ago);
    }

    #[test]
    fn a_build_without_the_host_is_refused() {
        let mut fixture = Fixture::new();
        fixture.built.executables.clear();
        let dist = fixture.directory.path().join("dist");
        assert!(lay_out(&fixture.built, fixture.directory.path(), &dist).is_err());
    }
}
