//! Where a new plugin takes `antiphon-plugin-api` from: a directory, or a registry.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// The crate that a plugin depends on.
const PACKAGE: &str = "antiphon-plugin-api";

/// Where it is in a checkout of this project.
const FOLDER: &str = "plugin-api";

/// The checkout that this program was built from; it may be gone, or on another machine.
const BUILT_FROM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Where a new plugin takes `antiphon-plugin-api` from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginApi {
    /// A directory of this machine.
    Path(PathBuf),
    /// A version of a registry, as cargo reads it.
    Version(String),
}

/// Why a crate cannot be taken from where it was said to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginApiError {
    /// Nothing is there.
    #[error("wanted the crate {PACKAGE} at {}; name its directory, a checkout of antiphon, or a version", .path.display())]
    Nothing {
        /// The place.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// Another crate is there, or none.
    #[error("wanted the crate {PACKAGE} at {}, found {}; name its directory, a checkout of antiphon, or a version",
        .path.display(), .found.as_ref().map_or("none".to_owned(), |name| format!("the crate {name}")))]
    OtherCrate {
        /// The place.
        path: PathBuf,
        /// What is there.
        found: Option<String>,
    },
    /// A manifest can name the place by text alone.
    #[error("the path {} is no text (UTF-8), which Cargo.toml is: choose another place", .path.display())]
    NoText {
        /// The place.
        path: PathBuf,
    },
}

impl PluginApi {
    /// The checkout that this program was built from, if it is still there; otherwise the version of this program, from
    /// the registry.
    #[must_use]
    pub fn of_this_program() -> Self {
        let version = || Self::Version(env!("CARGO_PKG_VERSION").to_owned());
        Self::at(Path::new(BUILT_FROM)).unwrap_or_else(|_| version())
    }

    /// What a user says: a version, such as `0.1`, or a path (`./0.1` is one).
    ///
    /// # Errors
    ///
    /// [`PluginApiError`] when it is a path, and the crate is not there.
    pub fn read(text: &str) -> Result<Self, PluginApiError> {
        let is_version = text.starts_with(|first: char| first.is_ascii_digit() || "^~=<>*".contains(first))
            && text
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "^~=<>*.,+- ".contains(character));
        if is_version { Ok(Self::Version(text.to_owned())) } else { Self::at(Path::new(text)) }
    }

    /// The crate in this directory, or in the checkout that this directory is.
    fn at(path: &Path) -> Result<Self, PluginApiError> {
        let nothing = |source| PluginApiError::Nothing { path: path.to_owned(), source };
        let mut directory = path.canonicalize().map_err(nothing)?;
        let inner = directory.join(FOLDER);
        if inner.join("Cargo.toml").is_file() {
            directory = inner;
        }
        let text = match std::fs::read_to_string(directory.join("Cargo.toml")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(nothing(error)),
        };
        let found = text
            .parse::<toml::Table>()
            .ok()
            .and_then(|manifest| manifest.get("package")?.get("name")?.as_str().map(str::to_owned));
        if found.as_deref() != Some(PACKAGE) {
            return Err(PluginApiError::OtherCrate { path: path.to_owned(), found });
        }
        if directory.to_str().is_none() {
            return Err(PluginApiError::NoText { path: directory });
        }
        Ok(Self::Path(directory))
    }

    /// For machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Path(path) => json!({ "path": path.display().to_string() }),
            Self::Version(version) => json!({ "version": version }),
        }
    }

    /// What stands after `antiphon-plugin-api =` in a manifest.
    pub(super) fn dependency(&self, features: &[&str]) -> String {
        let (key, value) = match self {
            Self::Path(path) => ("path", path.display().to_string()),
            Self::Version(version) => ("version", version.clone()),
        };
        let value = toml::Value::String(value);
        match features {
            [] => format!("{{ {key} = {value} }}"),
            _ => format!("{{ {key} = {value}, features = {features:?} }}"),
        }
    }
}

impl fmt::Display for PluginApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Version(version) => write!(f, "version {version} of the registry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn versions_and_paths_are_told_apart() {
        for version in ["0.1", "0.1.0", "^0.1", "=0.1.0", ">=0.1, <0.3", "1.0.0-rc.1"] {
            assert_eq!(PluginApi::read(version).ok(), Some(PluginApi::Version(version.into())), "{version}");
        }
        for path in ["./0.1", "no/such/place", "0.1/plugin-api"] {
            let error = PluginApi::read(path).expect_err("nothing is there");
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn a_checkout_will_do_and_another_crate_will_not() {
        let place = tempfile::tempdir().expect("a directory");
        let write = |name: &str, package: &str| {
            fs::create_dir_all(place.path().join(name)).expect("writable");
            let manifest = format!("[package]\nname = {package:?}\n");
            fs::write(place.path().join(name).join("Cargo.toml"), manifest).expect("writable");
            place.path().join(name).to_str().expect("text").to_owned()
        };
        let other = write("other", "serde");
        let error = PluginApi::read(&other).expect_err("another crate").to_string();
        assert!(error.contains("found the crate serde"), "{error}");
        let api = write("checkout/plugin-api", PACKAGE);
        let checkout = place.path().join("checkout");
        let want = PluginApi::Path(Path::new(&api).canonicalize().expect("it is there"));
        assert_eq!(PluginApi::read(&api).ok().as_ref(), Some(&want));
        assert_eq!(PluginApi::read(checkout.to_str().expect("text")).ok(), Some(want));
        let error = PluginApi::read(place.path().to_str().expect("text")).expect_err("no crate").to_string();
        assert!(error.contains("found none"), "{error}");
    }

    #[test]
    fn this_checkout_is_what_the_program_was_built_from() {
        let PluginApi::Path(path) = PluginApi::of_this_program() else { panic!("the sources are there") };
        assert!(path.join("src/lib.rs").is_file(), "{}", path.display());
    }

    #[test]
    fn a_path_with_odd_characters_is_still_one_text() {
        let path = PluginApi::Path("/a \"b\"\\c".into());
        let manifest: toml::Table =
            format!("api = {}", path.dependency(&["testing"])).parse().expect("valid TOML");
        assert_eq!(manifest["api"]["path"].as_str(), Some("/a \"b\"\\c"));
        assert_eq!(manifest["api"]["features"][0].as_str(), Some("testing"));
    }
}
