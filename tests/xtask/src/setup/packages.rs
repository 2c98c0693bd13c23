//! The table of everything that the demo and the tests want from the system, and how to tell that it is there.

use std::fmt;

use clap::ValueEnum;

use super::system::System;

/// What a setup is for. Each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Purpose {
    /// What `cargo xtask demo` needs
    Demo,
    /// What `cargo xtask test` needs; includes the demo
    Test,
}

/// One row of [`PACKAGES`].
pub(crate) struct Package {
    /// Name of the package on Debian and its relatives.
    pub(crate) debian: &'static str,
    /// What it is, in words that lead to it on any system.
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
    /// The smallest purpose that needs it.
    pub(crate) needed_for: Purpose,
    pub(crate) probe: Probe,
}

/// How to see that something is there, whoever installed it. One of the alternatives is enough.
///
/// Looked for is what our plugins will open, not what the package database says: a PocketSphinx built by hand counts,
/// and a package whose files were deleted does not.
pub(crate) enum Probe {
    /// Names of shared libraries, as `dlopen` takes them.
    Library(&'static [&'static str]),
    /// Absolute paths of files.
    File(&'static [&'static str]),
}

/// Add a row for each new thing that is opened at run time. What cargo can build or download does not belong here.
pub(crate) const PACKAGES: &[Package] = &[
    Package {
        debian: "libpocketsphinx3",
        what: "PocketSphinx, the shared library (0.8 or 5.x)",
        why: "speech recognition: opened by the plugin stt-pocketsphinx",
        needed_for: Purpose::Demo,
        probe: Probe::Library(&["libpocketsphinx.so.3", "libpocketsphinx.so.5"]),
    },
    Package {
        debian: "pocketsphinx-en-us",
        what: "PocketSphinx's acoustic model, language model and dictionary for US English",
        why: "speech recognition: the default model of the plugin stt-pocketsphinx",
        needed_for: Purpose::Demo,
        probe: Probe::File(&[
            "/usr/share/pocketsphinx/model/en-us/en-us/mdef",
            "/usr/local/share/pocketsphinx/model/en-us/en-us/mdef",
        ]),
    },
    Package {
        debian: "pocketsphinx-testdata",
        what: "PocketSphinx's test recordings (goforward.raw and LibriVox readings)",
        why: "human speech for the demo and for the tests",
        needed_for: Purpose::Demo,
        probe: Probe::File(&["/usr/share/pocketsphinx/test/data/goforward.raw"]),
    },
    Package {
        debian: "libflite1",
        what: "Flite, the shared libraries with the voices kal16, slt, rms and awb (2.x)",
        why: "speech synthesis: opened by the plugin tts-flite",
        needed_for: Purpose::Demo,
        probe: Probe::Library(&["libflite.so.1"]),
    },
];

/// The rows that `purpose` needs and `system` does not have.
pub(crate) fn missing(system: &System, purpose: Purpose) -> Vec<&'static Package> {
    let needed = PACKAGES.iter().filter(|package| package.needed_for <= purpose);
    needed.filter(|package| !package.probe.finds(system)).collect()
}

impl Probe {
    fn finds(&self, system: &System) -> bool {
        match self {
            Probe::Library(names) => names.iter().any(|name| system.has_library(name)),
            Probe::File(paths) => paths.iter().any(|path| system.has_file(path)),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Probe::Library(names) | Probe::File(names)) = self;
        f.write_str(&names.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[track_caller]
    fn check(files: &[&str], want: &[&str]) {
        let root = tempfile::tempdir().expect("a temporary directory");
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a file has a parent")).expect("writable");
            fs::write(path, "").expect("writable");
        }
        let system = System::at(root.path(), "x86_64", &[Path::new("/opt/lib").to_owned()]);
        let got: Vec<_> = missing(&system, Purpose::Test).iter().map(|package| package.debian).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn missing_is_what_is_not_on_disk() {
        const MODEL: &str = "usr/share/pocketsphinx/model/en-us/en-us/mdef";
        const RECORDING: &str = "usr/share/pocketsphinx/test/data/goforward.raw";
        let all = ["libpocketsphinx3", "pocketsphinx-en-us", "pocketsphinx-testdata", "libflite1"];

        check(&[], &all);
        check(&["usr/lib/x86_64-linux-gnu/libflite.so.1", MODEL, RECORDING], &["libpocketsphinx3"]);
        check(&["usr/lib64/libpocketsphinx.so.3", "opt/lib/libflite.so.1", MODEL, RECORDING], &[]);
        check(&["usr/local/lib/libpocketsphinx.so.5", "usr/lib/libflite.so.1", MODEL, RECORDING], &[]);
        // A library for another processor, and one of another version, are of no use.
        check(
            &["usr/lib/aarch64-linux-gnu/libflite.so.1", "usr/lib/libpocketsphinx.so.1", MODEL, RECORDING],
            &["libpocketsphinx3", "libflite1"],
        );
    }

    #[test]
    fn every_package_is_named_once() {
        let mut names: Vec<_> = PACKAGES.iter().map(|package| package.debian).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
