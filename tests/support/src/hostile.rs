//! Plugins without manners: copies of the fixture `hostile`, each with one way to misbehave patched into it.
//!
//! Each is a plugin of its own name in a file of its own contents, so that several can lie in one directory, and verdicts
//! about one say nothing of the next. `try-plugin` (in `bin`) takes one through its life in a process of its own;
//! `tests/suite/hostile.rs` proves that each does what is said here.

mod behaviours;

use std::{fs, ops::Range, path::PathBuf};

use object::{Object, ObjectSection, ObjectSymbol};
use rustix::process::Signal;

use crate::{built, plugins::PluginDir};

/// A way to misbehave; the constants say which there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// What the plugin's code knows it by: `segv-load`.
    pub name: &'static str,
    /// When it strikes.
    pub strikes: Strikes,
    /// What can be seen then.
    pub effect: Effect,
}

/// When a plugin misbehaves, in the order of its life. What comes before goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strikes {
    /// Not at all.
    Never,
    /// In what its file says, before any of its code runs.
    File,
    /// While the dynamic linker loads it.
    Load,
    /// When it is asked for its manifest, and in what that says.
    Manifest,
    /// When an instance is made, and in the objects that the instance hands out.
    Create,
    /// When it is asked whether it still answers.
    Ping,
    /// When a prompt contains `strike`. Other prompts are answered.
    Call,
    /// When a session is closed.
    Close,
    /// When a session was closed.
    AfterClose,
    /// When it is to end.
    Stop,
}

/// What misbehaviour looks like to a process that goes through with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// This signal ends the process.
    Signal(Signal),
    /// The process ends itself with this code.
    Exit(i32),
    /// A function that may not block does not return, or what was promised never comes.
    Hangs,
    /// It writes to stdout without end.
    FillsStdout,
    /// It writes to stderr without end.
    FillsStderr,
    /// The host will not have it, with this in the reason.
    Refused(&'static str),
    /// It breaks a promise, and the process lives on.
    Breach,
    /// Nothing that is forbidden: it has to be taken as it is.
    Fine,
}

impl Behaviour {
    /// The plugin's name in both manifests: `hostile-segv-load`.
    #[must_use]
    pub fn plugin_name(&self) -> String {
        format!("hostile-{}", self.name)
    }

    /// What its file is called.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.so", self.plugin_name())
    }

    /// Whether opening the library and reading its manifest is enough to see it.
    #[must_use]
    pub fn shows_when_opened(&self) -> bool {
        (Strikes::File..=Strikes::Manifest).contains(&self.strikes) && self.effect != Effect::Fine
    }

    /// Whether making an instance, and asking it for what it declares, is enough to see it.
    #[must_use]
    pub fn shows_when_started(&self) -> bool {
        (Strikes::File..=Strikes::Create).contains(&self.strikes) && self.effect != Effect::Fine
    }

    /// Whether it ends the process that it is in.
    #[must_use]
    pub fn is_deadly(&self) -> bool {
        matches!(self.effect, Effect::Signal(_) | Effect::Exit(_))
    }
}

/// Section that names the behaviour; see the fixture.
const BEHAVIOUR_SECTION: &str = ".antiphon_hostile";

/// Where `AbiHeader` of abi_stable has its minor version: after the magic text and the major one.
const ABI_STABLE_MINOR: usize = 32 + 4;

/// Puts a plugin that misbehaves into a directory.
///
/// # Panics
///
/// When the fixture is not built, or there is no room.
#[track_caller]
pub fn hostile(dir: &PluginDir, behaviour: Behaviour) -> PathBuf {
    let mut bytes = copy(behaviour.name, &section(behaviour));
    match behaviour {
        Behaviour::OTHER_ABI_STABLE => {
            let header = entry(&bytes);
            bytes[header + ABI_STABLE_MINOR] ^= 0x40;
        }
        Behaviour::OTHER_ROOT => rename_field(&mut bytes),
        _ => {}
    }
    dir.write(&behaviour.file_name(), bytes);
    dir.file(&behaviour.file_name())
}

/// Puts a plugin of a name and a version of one's own into a directory: the next version of one, where it lies there
/// already. Its file is `{name}.so`.
///
/// # Panics
///
/// When the fixture is not built, or there is no room.
#[track_caller]
pub fn hostile_as(dir: &PluginDir, name: &str, version: &str, behaviour: Behaviour) -> PathBuf {
    let file = format!("{name}.so");
    dir.write(&file, version_of(name, version, behaviour));
    dir.file(&file)
}

/// The library of such a plugin.
///
/// # Panics
///
/// When the fixture is not built.
#[must_use]
#[track_caller]
pub fn version_of(name: &str, version: &str, behaviour: Behaviour) -> Vec<u8> {
    let api = antiphon_plugin_api::abi::API_VERSION;
    let section = section_text(name, 1, api, "llm");
    copy(behaviour.name, &section.replace(r#""version":"1.0.0""#, &format!(r#""version":"{version}""#)))
}

/// The fixture's bytes with a behaviour and a manifest section.
#[track_caller]
pub(crate) fn copy(behaviour: &str, section: &str) -> Vec<u8> {
    let library = built::fixture_plugin("hostile");
    let mut bytes = fs::read(&library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    patch(&mut bytes, BEHAVIOUR_SECTION, behaviour);
    patch(&mut bytes, antiphon_plugin_api::SECTION_NAME, section);
    bytes
}

/// What the file says of the plugin. The plugin itself says the same, unless lying is what it does.
fn section(behaviour: Behaviour) -> String {
    let (abi, api) = match behaviour {
        Behaviour::OLDER_ABI => (0, "0.0.1"),
        Behaviour::NEWER_ABI => (99, "9.0.0"),
        Behaviour::NEWER_MANIFEST | Behaviour::NEWER_EVENT | Behaviour::NEWER_CAPABILITY => (1, "0.9.0"),
        _ => (1, antiphon_plugin_api::abi::API_VERSION),
    };
    let kinds = if behaviour == Behaviour::LYING_KINDS { "llm tts" } else { "llm" };
    section_text(&behaviour.plugin_name(), abi, api, kinds)
}

pub(crate) fn section_text(name: &str, abi: u32, api: &str, kinds: &str) -> String {
    format!(
        r#"{{"name":"{name}","version":"1.0.0","abi_version":{abi},"api_version":"{api}","kinds":"{kinds}"}}"#
    )
}

/// Replaces the text of a section, which is padded with spaces.
#[track_caller]
fn patch(bytes: &mut [u8], section: &str, text: &str) {
    let place = range(bytes, section);
    let place = &mut bytes[place];
    assert!(text.len() <= place.len(), "{section} has no room for {text}");
    place.fill(b' ');
    place[..text.len()].copy_from_slice(text.as_bytes());
}

/// Where the file has a section.
#[track_caller]
pub(crate) fn range(bytes: &[u8], section: &str) -> Range<usize> {
    let range = parse(bytes).section_by_name(section).and_then(|section| section.file_range());
    let (start, len) = range.unwrap_or_else(|| panic!("the fixture has no section {section}"));
    index(start)..index(start + len)
}

/// Where the file has the value of the entry symbol.
fn entry(bytes: &[u8]) -> usize {
    let file = parse(bytes);
    let name = antiphon_plugin_api::abi::ENTRY_SYMBOL.trim_ascii_end();
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name_bytes() == Ok(name));
    let address = symbol.expect("the fixture exports its entry").address();
    let section = file
        .sections()
        .find(|section| (section.address()..section.address() + section.size()).contains(&address));
    let section = section.expect("the entry is in a section");
    let (start, _) = section.file_range().expect("the entry is in the file");
    index(start + address - section.address())
}

/// Makes the root another type: one field is called otherwise, in the description that both sides compare.
fn rename_field(bytes: &mut [u8]) {
    let (old, new) = (b"abi_version;manifest;create;", b"abi_version;manifest;destroy");
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, text)| text == old).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the fixture does not describe its root");
    for place in places {
        bytes[place..place + old.len()].copy_from_slice(new);
    }
}

#[track_caller]
fn parse(bytes: &[u8]) -> object::File<'_> {
    object::File::parse(bytes).expect("cargo made a library")
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("the file is in memory")
}
