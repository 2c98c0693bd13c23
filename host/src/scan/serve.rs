//! The child's side of a scan: opens a library, and does with it once what a host would do.
//!
//! Each step is reported before it is taken, so that the host knows where the child ended.

use std::{io, path::Path, sync::mpsc};

use antiphon_plugin_api::{
    PluginManifest,
    abi::{
        AbiError, CAPABILITY_V1, Capability, CapabilityObject, HostBox, HostV1, InterestV1, LlmBox,
        PluginBox, SttBox, TtsBox, TurnBox, VisionBox, WakerBox, WakerV1,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, ROption, RStr},
        },
    },
};
use serde::{Deserialize, Serialize};

use super::conform;
use crate::{
    child::Reporter,
    inspect::inspect,
    loader::{Library, LoadError},
    plugins::chain,
};

/// A step of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Open,
    Manifest,
    Create,
    Query,
    Ping,
    Stop,
    Exit,
}

impl Stage {
    /// What goes on, after `while`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "its library was opened",
            Self::Manifest => "it gave its manifest",
            Self::Create => "it started",
            Self::Query => "it gave its capabilities",
            Self::Ping => "it was asked whether it answers",
            Self::Stop => "it stopped",
            Self::Exit => "the process ended",
        }
    }
}

/// What the child reports.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// This comes next.
    Entering(Stage),
    /// What the plugin declares.
    Declares(Box<PluginManifest>),
    /// It does not start with its default settings, for which there can be good reasons.
    DoesNotStart(String),
    /// It cannot be used here and now.
    Unusable(String),
    /// It is not what it says.
    Lies(String),
}

/// Why a scan ends early.
enum Stop {
    Told(Told),
    /// The host cannot be reached.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Tries a library, and tells the host how it goes.
pub(crate) fn try_library(path: &Path, mut reporter: Reporter) -> io::Result<()> {
    let mut tell = |told: Told| reporter.report(&serde_json::to_value(told)?);
    match steps(path, &mut tell) {
        Ok(()) => {}
        Err(Stop::Told(told)) => tell(told)?,
        Err(Stop::Io(error)) => return Err(error),
    }
    // What runs after `main` is the plugin's too: destructors, and what it has registered with `atexit`.
    tell(Told::Entering(Stage::Exit))
}

fn steps(path: &Path, tell: &mut impl FnMut(Told) -> io::Result<()>) -> Result<(), Stop> {
    let unusable = |error: &LoadError| Stop::Told(Told::Unusable(chain(error)));
    tell(Told::Entering(Stage::Open))?;
    let section = inspect(path).map_err(|error| unusable(&LoadError::Inspect(error)))?;
    let mut told = Ok(());
    let opened = Library::open_in_steps(path, || told = tell(Told::Entering(Stage::Manifest)));
    told?;
    let library = opened.map_err(|error| match error {
        LoadError::Manifest(_) => Stop::Told(Told::Lies(chain(&error))),
        other => unusable(&other),
    })?;
    let manifest = library.manifest();
    if let Some(problem) = conform::problem(&section, manifest) {
        return Err(Stop::Told(Told::Lies(problem)));
    }
    let bytes = serde_json::to_vec(manifest).map_err(io::Error::from)?.len();
    if bytes > MAX_MANIFEST {
        let problem = format!("its manifest has {bytes} bytes; at most {MAX_MANIFEST} are sensible");
        return Err(Stop::Told(Told::Lies(problem)));
    }
    tell(Told::Declares(Box::new(manifest.clone())))?;
    tell(Told::Entering(Stage::Create))?;
    let plugin = match library.create(HostBox::from_value(ScanHost::default(), TD_Opaque), b"{}") {
        Ok(plugin) => plugin,
        Err(AbiError { message, .. }) => return Err(Stop::Told(Told::DoesNotStart(message.into_string()))),
    };
    tell(Told::Entering(Stage::Query))?;
    for declared in &manifest.capabilities {
        query(&plugin, &declared.kind, declared.version).map_err(Stop::Told)?;
    }
    tell(Told::Entering(Stage::Ping))?;
    answered(|waker| plugin.ping(waker)).map_err(Stop::Told)?;
    tell(Told::Entering(Stage::Stop))?;
    answered(|waker| plugin.stop(waker)).map_err(Stop::Told)?;
    drop(plugin);
    Ok(())
}

/// Bytes of a manifest as JSON. Schemas are the longest of it, and have some kilobytes for each event.
pub(crate) const MAX_MANIFEST: usize = 4 << 20;

/// Asks for a capability, and compares its layout. What this host has no use for is left alone.
fn query(plugin: &PluginBox, kind: &str, version: u32) -> Result<(), Told> {
    match kind {
        _ if version != CAPABILITY_V1 => Ok(()),
        TurnBox::NAME => has::<TurnBox>(plugin),
        SttBox::NAME => has::<SttBox>(plugin),
        LlmBox::NAME => has::<LlmBox>(plugin),
        TtsBox::NAME => has::<TtsBox>(plugin),
        VisionBox::NAME => has::<VisionBox>(plugin),
        _ => Ok(()),
    }
}

fn has<C: Capability>(plugin: &PluginBox) -> Result<(), Told> {
    let ROption::RSome(object) = plugin.query(RStr::from_str(C::NAME), CAPABILITY_V1) else {
        let kind = C::NAME;
        let problem = format!("it declares {kind} (version {CAPABILITY_V1}), and has no such capability");
        return Err(Told::Lies(problem));
    };
    object.into_object::<C>().map(drop).map_err(|error| Told::Unusable(error.to_string()))
}

/// Hands out a waker and waits until it is called. The host has an eye on how long that takes.
fn answered(ask: impl FnOnce(WakerBox)) -> Result<(), Told> {
    let (sender, called) = mpsc::channel();
    ask(WakerBox::from_value(Ring(sender), TD_Opaque));
    called.recv().map_err(|_| Told::Lies("it drops the waker that it should call".into()))
}

struct Ring(mpsc::Sender<()>);

impl WakerV1 for Ring {
    fn wake(&self) {
        // It may be called more than once.
        let _ = self.0.send(());
    }
}

/// A host that wants no events, and keeps what the plugin has to say.
#[derive(Default)]
struct ScanHost {
    interest: RArc<InterestV1>,
}

impl HostV1 for ScanHost {
    fn interest(&self) -> RArc<InterestV1> {
        self.interest.clone()
    }

    fn log_level(&self) -> u32 {
        // Errors and warnings.
        2
    }

    fn log(&self, _: u32, target: RStr<'_>, message: RStr<'_>) {
        // The host keeps the end of it for the reason that it gives.
        eprintln!("{target}: {message}");
    }

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}
