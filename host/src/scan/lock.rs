//! The lock: which plugins may be loaded, by their content.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a lock is called where nobody says otherwise.
pub const LOCK_FILE: &str = "antiphon.lock";

/// Version of the form of the file.
const FORMAT: u32 = 1;

/// What the file begins with.
const HEADER: &str = "\
# The plugins that may be loaded, by their content (SHA-256).
# Written by `antiphon plugins lock`, which accepts what is installed now. Keep it with the configuration.
";

/// Digits of a hash that people compare.
const SHOWN: usize = 12;

/// The plugins that may be loaded; nothing of any other runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    path: PathBuf,
    plugins: Vec<LockedPlugin>,
}

/// A plugin that may be loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPlugin {
    /// Its name.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// SHA-256 of its library, in hexadecimal digits.
    pub sha256: String,
    /// What its library was called, for people: nothing is looked for by it.
    pub file: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    #[serde(default, rename = "plugin")]
    plugins: Vec<LockedPlugin>,
}

/// A lock cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The file cannot be read.
    #[error("the lock {} cannot be read", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no lock.
    #[error("the lock {} is damaged; `antiphon plugins lock` writes it anew: {why}", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Lock {
    /// Reads a lock. Blocks.
    ///
    /// # Errors
    ///
    /// [`LockError`] when it cannot be read. A damaged lock is not a missing one: nothing should load then.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LockError> {
        let path = path.as_ref();
        let text =
            fs::read_to_string(path).map_err(|source| LockError::Io { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, LockError> {
        let damaged = |why: String| LockError::Damaged { path: path.to_owned(), why };
        let form: Form = toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))?;
        if form.version != FORMAT {
            return Err(damaged(format!("wanted version {FORMAT}, found {}", form.version)));
        }
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(plugin) = form.plugins.iter().find(|plugin| !is_hash(&plugin.sha256)) {
            return Err(damaged(format!("sha256 of {} is none", plugin.name)));
        }
        Ok(Self::of(path, form.plugins))
    }

    /// A lock for these plugins, which is not written anywhere yet.
    #[must_use]
    pub fn of(path: impl Into<PathBuf>, plugins: impl IntoIterator<Item = LockedPlugin>) -> Self {
        let mut plugins: Vec<LockedPlugin> = plugins.into_iter().collect();
        plugins.iter_mut().for_each(|plugin| plugin.sha256.make_ascii_lowercase());
        plugins.sort();
        plugins.dedup();
        Self { path: path.into(), plugins }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The plugins that may be loaded, by name.
    #[must_use]
    pub fn plugins(&self) -> &[LockedPlugin] {
        &self.plugins
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let form = Form { version: FORMAT, plugins: self.plugins.clone() };
        let text = toml::to_string(&form).expect("names and hashes are plain data");
        format!("{HEADER}\n{text}")
    }

    /// Those that are not among these hashes.
    #[must_use]
    pub fn missing<'a>(&'a self, found: &[&str]) -> Vec<&'a LockedPlugin> {
        self.plugins.iter().filter(|plugin| !found.contains(&plugin.sha256.as_str())).collect()
    }

    /// Why a library may not be loaded.
    pub(super) fn refusal(&self, name: &str, sha256: &str) -> Option<String> {
        if self.plugins.iter().any(|plugin| plugin.name == name && plugin.sha256 == sha256) {
            return None;
        }
        let (lock, found) = (self.path.display(), short(sha256));
        let locked: Vec<&str> = self
            .plugins
            .iter()
            .filter(|plugin| plugin.name == name)
            .map(|plugin| short(&plugin.sha256))
            .collect();
        let wanted = match locked.is_empty() {
            true => format!("{lock} has no {name}"),
            false => format!("{lock} wants {name} with the content {}", locked.join(" or ")),
        };
        Some(format!("is locked out: {wanted}, this one has {found}; `antiphon plugins lock` accepts it"))
    }
}

/// The beginning of a hash.
fn short(sha256: &str) -> &str {
    sha256.get(..SHOWN).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(name: &str, digit: &str) -> LockedPlugin {
        let (version, file) = ("1.0.0".into(), format!("lib{name}.so"));
        LockedPlugin { name: name.into(), version, sha256: digit.repeat(64), file }
    }

    #[test]
    fn a_lock_is_written_sorted_and_read_again() {
        let lock = Lock::of("a.lock", [plugin("tts-y", "B"), plugin("llm-x", "a"), plugin("llm-x", "a")]);
        let text = lock.to_toml();
        let want = format!(
            "{HEADER}\nversion = 1\n\n[[plugin]]\nname = \"llm-x\"\nversion = \"1.0.0\"\nsha256 = \"{}\"\nfile = \
             \"libllm-x.so\"\n\n[[plugin]]\nname = \"tts-y\"\nversion = \"1.0.0\"\nsha256 = \"{}\"\nfile = \
             \"libtts-y.so\"\n",
            "a".repeat(64),
            "b".repeat(64)
        );
        assert_eq!(text, want);
        assert_eq!(Lock::parse(&text, Path::new("a.lock")).expect("a lock"), lock);
    }

    #[test]
    fn only_what_is_in_the_lock_is_let_in() {
        let lock = Lock::of("a.lock", [plugin("llm-x", "a")]);
        let refusal = |name: &str, digit: &str| lock.refusal(name, &digit.repeat(64));
        assert_eq!(refusal("llm-x", "a"), None);
        assert_eq!(
            refusal("llm-x", "b").expect("another content"),
            "is locked out: a.lock wants llm-x with the content aaaaaaaaaaaa, this one has bbbbbbbbbbbb; `antiphon \
             plugins lock` accepts it"
        );
        assert!(refusal("llm-y", "a").expect("another name").contains("a.lock has no llm-y"));
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        assert!(lock.missing(&[&a, &b]).is_empty());
        assert_eq!(lock.missing(&[&b]), [&plugin("llm-x", "a")]);
    }

    #[test]
    fn a_damaged_lock_is_not_an_empty_one() {
        #[track_caller]
        fn check(text: &str, want: &str) {
            let error = Lock::parse(text, Path::new("a.lock")).expect_err("no lock").to_string();
            assert!(error.contains("a.lock is damaged") && error.contains(want), "{error}");
        }
        check("", "version");
        check("version = 2", "wanted version 1, found 2");
        check("version = 1\nplugins = []", "unknown field");
        let short = "version = 1\n[[plugin]]\nname = 'x'\nversion = '1'\nsha256 = 'ab'\nfile = 'x.so'";
        check(short, "sha256 of x is none");
        let error = Lock::load("/nowhere/a.lock").expect_err("no file").to_string();
        assert_eq!(error, "the lock /nowhere/a.lock cannot be read");
    }
}
