//! Files that are no plugins, and plugins whose files were damaged.
//!
//! [`junk`] is what the host sees through by reading; [`Damage`] leaves all headers as they were, so that only the dynamic
//! linker, or the processor, finds out.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use rustix::process::Signal;

use crate::{
    built,
    hostile::{self, Effect},
    plugins::PluginDir,
};

/// Puts files that are no plugins into a directory; returns their names, and what is said of each.
///
/// # Panics
///
/// When there is no room, or no plugin to make them of.
#[track_caller]
pub fn junk(plugins: &PluginDir) -> [(&'static str, &'static str); 12] {
    let library = built::plugin("llm-echo");
    let bytes = fs::read(&library).expect("a library");
    plugins.write("text.so", "This is no plugin.\n");
    plugins.write("empty.so", "");
    plugins.write("random.so", [0xf0_u8, 0x0d].repeat(500));
    plugins.write("archive.so", b"!<arch>\n");
    plugins.write("header.so", &bytes[..40]);
    plugins.write("half.so", &bytes[..bytes.len() / 2]);
    plugins.write("almost.so", &bytes[..bytes.len() - 1]);
    fs::create_dir(plugins.file("folder.so")).expect("room for a folder");
    symlink("nowhere", plugins.file("gone.so")).expect("room for a link");
    // Ordinary libraries and programs, both real.
    plugins.copy(&system_library(), "library.so");
    plugins.copy(&built::plugin("llm-echo"), "again.so");
    let mut foreign = bytes;
    // `e_machine`: another processor than this one.
    foreign[18] = if foreign[18] == 183 { 62 } else { 183 };
    plugins.write("foreign.so", foreign);
    [
        ("text.so", "is a text file"),
        ("empty.so", "is empty"),
        ("random.so", "not a shared library"),
        ("archive.so", "archive"),
        ("header.so", "damaged"),
        ("half.so", "is truncated"),
        ("almost.so", "is truncated"),
        ("folder.so", "is not a file"),
        ("gone.so", "cannot be read"),
        ("library.so", "no Antiphon plugin"),
        ("foreign.so", "is built for"),
        // The one that is found first by name wins.
        ("libantiphon_llm_echo.so", "a plugin named llm-echo was already found"),
    ]
}

/// A library that every process has open: the C library.
fn system_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").expect("a list of what this process has open");
    let library =
        maps.lines().filter_map(|line| line.split_whitespace().last()).find(|path| path.contains("/libc."));
    library.expect("this process uses the C library").into()
}

/// Damage that no header shows. Opening such a file mostly ends the process.
#[derive(Debug, Clone, Copy)]
pub struct Damage {
    /// What is damaged: `zeroed-text`.
    pub name: &'static str,
    /// What comes of opening it.
    pub effect: Effect,
    make: fn(&mut [u8]),
}

/// An address that nothing is mapped at, wherever the library is.
const NOWHERE: u64 = 0x6_6666_6666_6000;

/// Bytes of an entry of `.dynamic`, and of one of `.rela.dyn`.
const DYN: usize = 16;
const RELA: usize = 24;

/// Tags of entries of `.dynamic`. Source: the ELF specification.
const DT_SYMTAB: u64 = 6;

impl Damage {
    /// The code is zeros, which is an instruction that writes to an address by chance.
    pub const ZEROED_TEXT: Self = Self::new("zeroed-text", Effect::Signal(Signal::SEGV), |bytes| {
        let text = hostile::range(bytes, ".text");
        bytes[text].fill(0);
    });
    /// The code is breakpoints.
    pub const TRAPPED_TEXT: Self = Self::new("trapped-text", Effect::Signal(Signal::TRAP), |bytes| {
        let text = hostile::range(bytes, ".text");
        bytes[text].fill(0xcc);
    });
    /// The symbol table is said to be where nothing is.
    pub const WILD_SYMBOLS: Self = Self::new("wild-symbols", Effect::Signal(Signal::SEGV), |bytes| {
        for_each(bytes, ".dynamic", DYN, |entry| {
            if word(entry, 0) == DT_SYMTAB {
                set_word(entry, 1, NOWHERE);
            }
        });
    });
    /// Addresses are to be written where nothing is.
    pub const WILD_RELOCATIONS: Self = Self::new("wild-relocations", Effect::Signal(Signal::SEGV), |bytes| {
        for_each(bytes, ".rela.dyn", RELA, |entry| set_word(entry, 0, NOWHERE));
    });
    /// Pointers point to nothing, those to initialisers among them.
    pub const WILD_POINTERS: Self = Self::new("wild-pointers", Effect::Signal(Signal::SEGV), |bytes| {
        for_each(bytes, ".rela.dyn", RELA, |entry| set_word(entry, 2, NOWHERE));
    });
    /// The table that the dynamic linker begins with is noise. It finds that out, and ends the process.
    pub const NOISY_DYNAMIC: Self = Self::new("noisy-dynamic", Effect::Exit(127), |bytes| {
        for_each(bytes, ".dynamic", DYN, |entry| {
            if word(entry, 0) != 0 {
                set_word(entry, 1, word(entry, 1) ^ NOWHERE);
            }
        });
    });
    /// The names of symbols are gone, so there is no entry.
    pub const NO_NAMES: Self = Self::new("no-names", Effect::Refused("has no entry symbol"), |bytes| {
        replace(bytes, ".dynstr", b"antiphon_plugin_entry", b"antiphon_plugin_exits");
    });
    /// It needs a library that nobody has.
    pub const NEEDS_NOTHING_KNOWN: Self =
        Self::new("needs-unknown", Effect::Refused("cannot be opened: libq.so.6"), |bytes| {
            replace(bytes, ".dynstr", b"libc.so.6", b"libq.so.6");
        });

    /// All of them.
    pub const ALL: &[Self] = &[
        Self::ZEROED_TEXT,
        Self::TRAPPED_TEXT,
        Self::WILD_SYMBOLS,
        Self::WILD_RELOCATIONS,
        Self::WILD_POINTERS,
        Self::NOISY_DYNAMIC,
        Self::NO_NAMES,
        Self::NEEDS_NOTHING_KNOWN,
    ];

    const fn new(name: &'static str, effect: Effect, make: fn(&mut [u8])) -> Self {
        Self { name, effect, make }
    }

    /// The name that its manifest section gives the plugin.
    #[must_use]
    pub fn plugin_name(&self) -> String {
        format!("damaged-{}", self.name)
    }

    /// What its file is called.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.so", self.plugin_name())
    }
}

/// Puts a damaged plugin into a directory. Without the damage it would behave well.
///
/// # Panics
///
/// When the fixture is not built, or there is no room.
#[track_caller]
pub fn damaged(dir: &PluginDir, damage: Damage) -> PathBuf {
    let api = antiphon_plugin_api::abi::API_VERSION;
    let section = hostile::section_text(&damage.plugin_name(), 1, api, "llm");
    let mut bytes = hostile::copy("well", &section);
    (damage.make)(&mut bytes);
    dir.write(&damage.file_name(), bytes);
    dir.file(&damage.file_name())
}

fn for_each(bytes: &mut [u8], section: &str, size: usize, change: impl Fn(&mut [u8])) {
    let range = hostile::range(bytes, section);
    bytes[range].chunks_exact_mut(size).for_each(change);
}

/// A number of 64 bits by its position in an entry.
fn word(entry: &[u8], position: usize) -> u64 {
    let bytes = entry[position * 8..].first_chunk().expect("an entry has its numbers");
    u64::from_ne_bytes(*bytes)
}

fn set_word(entry: &mut [u8], position: usize, value: u64) {
    entry[position * 8..][..8].copy_from_slice(&value.to_ne_bytes());
}

/// Replaces a text of a section by one of the same length.
#[track_caller]
fn replace(bytes: &mut [u8], section: &str, old: &[u8], new: &[u8]) {
    let range = hostile::range(bytes, section);
    let place = &mut bytes[range];
    let at = place.windows(old.len()).position(|text| text == old);
    place[at.expect("the fixture has this text")..][..new.len()].copy_from_slice(new);
}
