//! New plugins: a crate that builds on its own, works, and tests itself, for its author to change.
//!
//! Reading order: [`render`] makes the files of a crate as text, [`write`] puts them in a directory or does nothing,
//! [`PluginApi`] is where the crate takes `antiphon-plugin-api` from. What the crates hold is in `scaffold/templates`:
//! their sources are compiled where they are written to, never here.
//!
//! Not here: building and testing what was written; that is its author's cargo.

mod name;
mod plugin_api;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use self::name::checked;
pub use self::{
    name::NameProblem,
    plugin_api::{PluginApi, PluginApiError},
};
use crate::plugins::Kind;

/// Why there is no new plugin. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScaffoldError {
    /// A crate, or a plugin, cannot have this name.
    #[error("a plugin cannot be called {name:?}: {problem}; wanted something such as {suggestion}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
        /// A name that would do.
        suggestion: String,
    },
    /// Something is there already.
    #[error("wanted a directory that is new or empty, found {found} at {}; {}", .path.display(), NEW_PLACE)]
    Occupied {
        /// The place.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The directory that it should be made in is not there.
    #[error("{} cannot be made: there is no directory {}; make that one first, or {}", .path.display(), .parent.display(), NEW_PLACE)]
    NoParent {
        /// The directory that was to be made.
        path: PathBuf,
        /// The one that it would be in.
        parent: PathBuf,
    },
    /// A new directory takes the place of an empty one, which a shell that stands in it would not notice.
    #[error("{} is the current directory: change to the one above it, and name it from there", .path.display())]
    Here {
        /// The directory.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{} cannot be written", .path.display())]
    Io {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

const NEW_PLACE: &str = "say with --path where the plugin is to be";

/// What differs from one kind to the next, besides the code.
struct Sample {
    /// `src/lib.rs`.
    code: &'static str,
    description: &'static str,
    /// Lines of `[dependencies]`, each with its newline.
    dependencies: &'static str,
    setting: &'static str,
    default: &'static str,
    /// A value that shows.
    example: &'static str,
    meaning: &'static str,
    /// A command that shows the plugin at work.
    used_by: &'static str,
}

/// All of them derive their settings' schema. A test holds the versions to the workspace's.
const DEPENDENCIES: &str = "schemars = \"1\"\nserde = { version = \"1\", features = [\"derive\"] }\n";

/// And some have work for other threads.
const DEPENDENCIES_AND_TOKIO: &str = "schemars = \"1\"\nserde = { version = \"1\", features = [\"derive\"] }\n\
                                      tokio = { version = \"1\", features = [\"rt\"] }\n";

fn sample(kind: Kind) -> Sample {
    match kind {
        Kind::Turn => Sample {
            code: include_str!("scaffold/templates/turn.rs"),
            description: "Takes who is loud for speaking, and who is quiet for long for done",
            dependencies: DEPENDENCIES,
            setting: "silence_ms",
            default: "700",
            example: "500",
            meaning: "milliseconds of silence that end a turn, 100 to 10000",
            used_by: "talk hello.wav --set agent.turn={{name}}",
        },
        Kind::Stt => Sample {
            code: include_str!("scaffold/templates/stt.rs"),
            description: "Says how long and how loud an utterance was, and understands no words",
            dependencies: DEPENDENCIES,
            setting: "quiet_db",
            default: "-60.0",
            example: "-50.0",
            meaning: "level in decibels below which an utterance counts as nothing said, -96 to 0",
            used_by: "talk hello.wav --set agent.stt={{name}}",
        },
        Kind::Llm => Sample {
            code: include_str!("scaffold/templates/llm.rs"),
            description: "Says the user's words backwards, one word at a time",
            dependencies: DEPENDENCIES,
            setting: "max_words",
            default: "50",
            example: "3",
            meaning: "words of one reply, 1 to 1000",
            used_by: "talk hello.wav --set agent.llm={{name}}",
        },
        Kind::Tts => Sample {
            code: include_str!("scaffold/templates/tts.rs"),
            description: "Says each word as a tone, longer and higher for longer words",
            dependencies: DEPENDENCIES,
            setting: "pitch_hz",
            default: "220",
            example: "330",
            meaning: "pitch of a word of no letters in hertz, 50 to 2000; each letter adds 20",
            used_by: "talk hello.wav --set agent.tts={{name}} --out reply.wav",
        },
        Kind::Vision => Sample {
            code: include_str!("scaffold/templates/vision.rs"),
            description: "Sees how bright a picture is",
            dependencies: DEPENDENCIES_AND_TOKIO,
            setting: "dark_below",
            default: "64.0",
            example: "100.0",
            meaning: "mean brightness below which a picture counts as dark, 0 to 255",
            used_by: "look picture.png",
        },
    }
}

/// The files of a new plugin's crate: paths within its directory, and what they hold.
///
/// `name` is the plugin's, and its package's.
///
/// # Errors
///
/// [`ScaffoldError::Name`].
pub fn render(
    kind: Kind,
    name: &str,
    plugin_api: &PluginApi,
) -> Result<Vec<(PathBuf, String)>, ScaffoldError> {
    let name = checked(kind, name)?;
    let sample = sample(kind);
    let library = library(name);
    let (plugin_api, plugin_api_testing) = (plugin_api.dependency(&[]), plugin_api.dependency(&["testing"]));
    let used_by = format!("antiphon --plugins target/debug {}", sample.used_by);
    // Those first whose values have names in them.
    let values = [
        ("{{try}}", used_by.as_str()),
        ("{{name}}", name),
        ("{{snake}}", &name.replace('-', "_")),
        ("{{kind}}", kind.as_str()),
        ("{{description}}", sample.description),
        ("{{library}}", &library),
        ("{{setting}}", sample.setting),
        ("{{default}}", sample.default),
        ("{{example}}", sample.example),
        ("{{meaning}}", sample.meaning),
        ("{{rust_version}}", env!("CARGO_PKG_RUST_VERSION")),
        ("{{dependencies}}", sample.dependencies),
        // Last: a path may hold anything.
        ("{{plugin_api}}", &plugin_api),
        ("{{plugin_api_testing}}", &plugin_api_testing),
    ];
    let filled = |template: &str| {
        values.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value))
    };
    Ok(vec![
        ("Cargo.toml".into(), filled(include_str!("scaffold/templates/manifest.toml"))),
        (".gitignore".into(), filled(include_str!("scaffold/templates/gitignore"))),
        ("README.md".into(), filled(include_str!("scaffold/templates/readme.md"))),
        ("src/lib.rs".into(), filled(sample.code)),
    ])
}

/// What cargo calls the library of a plugin's crate.
#[must_use]
pub fn library(name: &str) -> String {
    format!("lib{}.so", name.replace('-', "_"))
}

/// Makes a directory of these files: all of them, or nothing.
///
/// They are written beside it, and moved when all are there.
///
/// # Errors
///
/// [`ScaffoldError::Occupied`] when something is there already that is no empty directory; [`ScaffoldError::NoParent`],
/// [`ScaffoldError::Here`], [`ScaffoldError::Io`].
pub fn write(directory: &Path, files: &[(PathBuf, String)]) -> Result<(), ScaffoldError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ScaffoldError::Io { path, source }
    };
    // Without `.` and a slash at the end, so that it has a name and a parent.
    let full = std::path::absolute(directory).map_err(failed(directory))?;
    let full: PathBuf = full.components().collect();
    check_place(directory, &full)?;
    let (Some(parent), Some(name)) = (full.parent(), full.file_name()) else {
        return Err(ScaffoldError::Occupied { path: directory.to_owned(), found: "the root of all" });
    };
    if !parent.is_dir() {
        return Err(ScaffoldError::NoParent { path: directory.to_owned(), parent: parent.to_owned() });
    }
    let draft = parent.join(format!(".{}.new-{}", name.to_string_lossy(), std::process::id()));
    fs::create_dir(&draft).map_err(failed(&draft))?;
    let written = fill(&draft, files).and_then(|()| match fs::rename(&draft, &full) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            Err(ScaffoldError::Occupied { path: directory.to_owned(), found: "files" })
        }
        other => other.map_err(failed(directory)),
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&draft);
    }
    written
}

fn check_place(directory: &Path, full: &Path) -> Result<(), ScaffoldError> {
    let occupied = |found| Err(ScaffoldError::Occupied { path: directory.to_owned(), found });
    let Ok(there) = full.symlink_metadata() else { return Ok(()) };
    if there.is_symlink() {
        return occupied("a symbolic link");
    }
    if !there.is_dir() {
        return occupied("a file");
    }
    let mut entries =
        full.read_dir().map_err(|source| ScaffoldError::Io { path: full.to_owned(), source })?;
    if entries.next().is_some() {
        return occupied("files");
    }
    let is_here = |here: PathBuf| full.canonicalize().is_ok_and(|full| here == full);
    if env::current_dir().is_ok_and(is_here) {
        return Err(ScaffoldError::Here { path: full.to_owned() });
    }
    Ok(())
}

fn fill(directory: &Path, files: &[(PathBuf, String)]) -> Result<(), ScaffoldError> {
    for (path, text) in files {
        let path = directory.join(path);
        let folder = path.parent().expect("a file in the directory");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| ScaffoldError::Io { path: path.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(kind: Kind) -> Vec<(PathBuf, String)> {
        let plugin_api = PluginApi::Version("0.1.0".into());
        render(kind, "my-plugin", &plugin_api).expect("a name like others")
    }

    fn file(kind: Kind, name: &str) -> String {
        let found = files(kind).into_iter().find(|(path, _)| path == Path::new(name));
        found.expect("every crate has it").1
    }

    #[test]
    fn every_mark_is_filled_in() {
        for kind in Kind::ALL {
            for (path, text) in files(kind) {
                assert!(!text.contains("{{"), "{kind} {}: {text}", path.display());
            }
            assert!(file(kind, "src/lib.rs").contains("name: \"my-plugin\""), "{kind}");
            assert!(file(kind, "README.md").contains("libmy_plugin.so"), "{kind}");
        }
        assert!(file(Kind::Vision, "src/lib.rs").contains("\"my_plugin.brightness\""));
    }

    #[test]
    fn the_readme_tells_of_the_setting_that_the_code_has() {
        for kind in Kind::ALL {
            let (code, sample) = (file(kind, "src/lib.rs"), sample(kind));
            let default =
                format!("Self {{ {}: {} }}", sample.setting, sample.default.replace("10000", "10_000"));
            assert!(code.contains(&default), "{kind}: {default}");
            assert!(code.contains(&format!("capabilities: [{kind}]")), "{kind}");
        }
    }

    #[test]
    fn versions_are_the_workspaces() {
        let workspace: toml::Table = include_str!("../../Cargo.toml").parse().expect("cargo reads it");
        let workspace = workspace["workspace"]["dependencies"].as_table().expect("a table");
        let major = |dependency: &toml::Value| {
            let version = dependency.get("version").unwrap_or(dependency).as_str().expect("a version");
            version.split('.').next().expect("a part").to_owned()
        };
        for kind in Kind::ALL {
            let manifest: toml::Table = file(kind, "Cargo.toml").parse().expect("valid TOML");
            assert!(manifest["workspace"].as_table().is_some_and(toml::Table::is_empty));
            let dependencies = manifest["dependencies"].as_table().expect("a table");
            for (name, dependency) in dependencies.iter().filter(|(name, _)| *name != "antiphon-plugin-api") {
                assert_eq!(major(dependency), major(&workspace[name]), "{kind} {name}");
            }
        }
    }

    #[test]
    fn a_new_directory_and_an_empty_one_are_filled() {
        let place = tempfile::tempdir().expect("a directory");
        let (new, empty) = (place.path().join("new"), place.path().join("empty"));
        fs::create_dir(&empty).expect("writable");
        for directory in [new, empty] {
            write(&directory, &files(Kind::Llm)).expect("room");
            for (path, text) in files(Kind::Llm) {
                assert_eq!(fs::read_to_string(directory.join(path)).expect("written"), text);
            }
        }
        assert_eq!(place.path().read_dir().expect("a directory").count(), 2, "nothing is left beside them");
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let place = tempfile::tempdir().expect("a directory");
        let (full, other) = (place.path().join("full"), place.path().join("other"));
        fs::create_dir(&full).expect("writable");
        fs::write(full.join("Cargo.toml"), "mine").expect("writable");
        fs::write(&other, "mine").expect("writable");
        for (directory, found) in [(&full, "found files"), (&other, "found a file")] {
            let error = write(directory, &files(Kind::Llm)).expect_err("it is taken").to_string();
            assert!(error.contains(found) && error.contains("--path"), "{error}");
        }
        assert_eq!(fs::read_to_string(full.join("Cargo.toml")).expect("still there"), "mine");
        assert_eq!(full.read_dir().expect("a directory").count(), 1);
        assert_eq!(place.path().read_dir().expect("a directory").count(), 2);
    }

    #[test]
    fn when_one_file_cannot_be_written_none_is() {
        let place = tempfile::tempdir().expect("a directory");
        let mut files = files(Kind::Llm);
        // A file where a folder is wanted.
        files.push(("Cargo.toml/more".into(), String::new()));
        assert!(matches!(write(&place.path().join("new"), &files), Err(ScaffoldError::Io { .. })));
        assert_eq!(place.path().read_dir().expect("a directory").count(), 0);
        let error = write(&place.path().join("no/new"), &files).expect_err("there is no `no`");
        assert!(matches!(error, ScaffoldError::NoParent { .. }), "{error}");
    }
}
