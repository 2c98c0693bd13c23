//! The machine we are on: whose distribution it is, which files and libraries it has. Looks, never changes anything.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// A view of one file system, so that tests can look at an invented one.
pub(crate) struct System {
    root: PathBuf,
    library_dirs: Vec<PathBuf>,
}

/// The distribution, from `/etc/os-release`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct OsRelease {
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub(crate) name: String,
    ids: Vec<String>,
}

impl System {
    /// This machine.
    pub(crate) fn here() -> System {
        let extra = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let extra: Vec<_> = env::split_paths(&extra).filter(|directory| directory.is_absolute()).collect();
        System::at(Path::new("/"), env::consts::ARCH, &extra)
    }

    /// A machine with processor `arch` whose files are below `root`; `extra` directories are searched for libraries first.
    pub(crate) fn at(root: &Path, arch: &str, extra: &[PathBuf]) -> System {
        let mut library_dirs: Vec<_> = extra.iter().map(|directory| below(root, directory)).collect();
        for base in ["usr/lib", "lib", "usr/local/lib"].map(|base| root.join(base)) {
            library_dirs.extend(multiarch(&base, arch));
            library_dirs.push(base.with_file_name("lib64"));
            library_dirs.push(base);
        }
        System { root: root.to_owned(), library_dirs }
    }

    /// Whether the loader would find a library of this name (directories that only `ld.so.conf` names are not searched).
    pub(crate) fn has_library(&self, name: &str) -> bool {
        self.library_dirs.iter().any(|directory| directory.join(name).exists())
    }

    pub(crate) fn has_file(&self, path: &str) -> bool {
        below(&self.root, Path::new(path)).exists()
    }

    /// Empty when the system does not say.
    pub(crate) fn os_release(&self) -> OsRelease {
        let text = ["etc/os-release", "usr/lib/os-release"]
            .iter()
            .find_map(|file| fs::read_to_string(self.root.join(file)).ok());
        text.map_or_else(OsRelease::default, |text| OsRelease::parse(&text))
    }
}

impl OsRelease {
    fn parse(text: &str) -> OsRelease {
        let value = |key: &str| {
            let line =
                text.lines().rfind(|line| line.split_once('=').is_some_and(|(name, _)| name == key))?;
            Some(line.split_once('=')?.1.trim().trim_matches(['"', '\'']).to_owned())
        };
        let ids = [value("ID"), value("ID_LIKE")].into_iter().flatten().collect::<Vec<_>>().join(" ");
        OsRelease {
            name: value("PRETTY_NAME").or_else(|| value("ID")).unwrap_or_default(),
            ids: ids.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Debian itself or something made from it, such as Ubuntu.
    pub(crate) fn is_debian(&self) -> bool {
        self.ids.iter().any(|id| id == "debian")
    }
}

/// Debian's directories per processor below `base`: `x86_64-linux-gnu`, `arm-linux-gnueabihf`, ...
fn multiarch(base: &Path, arch: &str) -> Vec<PathBuf> {
    let prefix = if arch == "x86" { "i386-" } else { arch };
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    let ours = |name: &str| name.starts_with(prefix) && name.contains("-linux-gnu");
    entries
        .flatten()
        .filter(|entry| ours(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, name: &str, is_debian: bool) {
        let os = OsRelease::parse(text);
        assert_eq!((os.name.as_str(), os.is_debian()), (name, is_debian));
    }

    #[test]
    fn debian_and_its_relatives_are_known() {
        check(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
            "Debian GNU/Linux 12 (bookworm)",
            true,
        );
        check("PRETTY_NAME=\"Ubuntu 24.04 LTS\"\nID=ubuntu\nID_LIKE=debian\n", "Ubuntu 24.04 LTS", true);
        check(
            "PRETTY_NAME='Linux Mint 22'\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
            "Linux Mint 22",
            true,
        );
        check("ID=fedora\nID_LIKE=\"rhel centos\"\n# ID=debian\n", "fedora", false);
        check("ID=notdebian\n", "notdebian", false);
        check("", "", false);
    }
}
