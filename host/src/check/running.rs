//! The plugin of one test: opened, started with a host of our own, stopped; and how the test tells what it sees.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

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
use serde_json::{Map, Value};

use super::{
    Problem,
    material::{self, Input},
    message::{Checked, Message, Stop},
    record::Types,
    session::{Open, Session},
};
use crate::{Kind, loader::Library, plugins::chain};

/// Where a plugin comes from: a library, or a fake of our own tests.
pub(super) trait Source: Send + Sync {
    fn manifest(&self) -> &PluginManifest;
    fn create(&self, host: HostBox, settings: &[u8]) -> Result<PluginBox, AbiError>;
}

impl Source for Library {
    fn manifest(&self) -> &PluginManifest {
        self.manifest()
    }

    fn create(&self, host: HostBox, settings: &[u8]) -> Result<PluginBox, AbiError> {
        self.create(host, settings)
    }
}

/// Tells the host's side; when it returns, a crash can no longer lose it.
#[derive(Clone)]
pub(super) struct Tell(Arc<Mutex<dyn FnMut(Message) + Send>>);

impl Tell {
    pub(super) fn new(tell: impl FnMut(Message) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(tell)))
    }

    pub(super) fn tell(&self, message: Message) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)(message);
    }

    pub(super) fn stage(&self, stage: impl Into<String>) {
        self.tell(Message::Stage(stage.into()));
    }

    /// Something fails the test. What follows may still run.
    pub(super) fn fail(&self, problem: Problem) -> Stop {
        self.tell(Message::Failed(problem));
        Stop
    }

    pub(super) fn warn(&self, problem: Problem) {
        self.tell(Message::Warned(problem));
    }

    pub(super) fn skip(&self, reason: impl Into<String>) -> Stop {
        self.tell(Message::Skipped(reason.into()));
        Stop
    }
}

/// What a test works with.
pub(super) struct Context {
    pub(super) path: PathBuf,
    pub(super) source: Option<Arc<dyn Source>>,
    pub(super) settings: Map<String, Value>,
    pub(super) text: Option<String>,
    pub(super) tell: Tell,
    pub(super) patience: Patience,
}

/// How long a test waits. Less than the host does, which kills it: what is missing can be told then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    timeout: Duration,
    /// For all commands together.
    pub(super) until: Instant,
}

impl Patience {
    #[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
    pub(super) fn of(timeout: Duration) -> Self {
        Self { timeout, until: Instant::now() + timeout.mul_f64(0.65) }
    }

    /// For what a host expects at once: an end, an answer to a ping.
    pub(super) fn quick(&self) -> Duration {
        Duration::from_secs(5).min(self.timeout.mul_f64(0.25))
    }

    #[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
    pub(super) fn soon(&self) -> Instant {
        Instant::now() + self.quick()
    }
}

impl Context {
    pub(super) fn manifest(&self) -> Checked<PluginManifest> {
        Ok(self.source()?.manifest().clone())
    }

    /// The plugin's library, open.
    pub(super) fn source(&self) -> Checked<Arc<dyn Source>> {
        if let Some(source) = &self.source {
            return Ok(Arc::clone(source));
        }
        self.tell.stage("opening the library");
        match Library::open(Path::new(&self.path)) {
            Ok(library) => Ok(Arc::new(library)),
            Err(error) => Err(self.tell.fail(Problem::new(
                chain(&error),
                "a library that the dynamic linker opens, with the entry that this host knows",
                "install what it names, or rebuild the plugin with this host's antiphon-plugin-api",
            ))),
        }
    }

    /// Starts an instance with the settings of the command line.
    pub(super) fn start(&self) -> Checked<Running> {
        let source = self.source()?;
        self.tell.stage("starting the plugin");
        let settings = Value::Object(self.settings.clone()).to_string();
        self.create(&source, settings.as_bytes()).map_err(|error| {
            self.tell.fail(Problem::new(
                format!("does not start: {}", error.message),
                "a plugin that starts with these settings",
                "give what it needs with --set PLUGIN.KEY=VALUE or --config, and variables with --env NAME",
            ))
        })
    }

    pub(super) fn create(&self, source: &Arc<dyn Source>, settings: &[u8]) -> Result<Running, AbiError> {
        let interest = RArc::new(InterestV1::default());
        let host = Host { interest: interest.clone(), tell: self.tell.clone(), logged: AtomicUsize::new(0) };
        let plugin = source.create(HostBox::from_value(host, TD_Opaque), settings)?;
        let manifest = source.manifest().clone();
        let types = Arc::new(Types::of(&manifest));
        let running = Running {
            plugin: Some(plugin),
            interest,
            types,
            manifest,
            tell: self.tell.clone(),
            patience: self.patience,
        };
        running.want(true);
        Ok(running)
    }

    /// What a session of this kind is given normally.
    pub(super) fn input(&self, kind: Kind) -> Input {
        let text = |greeting: &str| self.text.clone().unwrap_or_else(|| greeting.to_owned());
        match kind {
            Kind::Turn => material::utterance(1200, 600),
            Kind::Stt => material::utterance(400, 100),
            Kind::Llm => material::question(&text("Hello.")),
            Kind::Tts => Input::Text(text("Good morning to you.")),
            Kind::Vision => material::gradient(64, 48, antiphon_core::video::PixelFormat::Rgb8)
                .expect("as many pixels as it says"),
        }
    }

    /// Of the same kind, and as little as is worth anything.
    pub(super) fn short_input(&self, kind: Kind) -> Input {
        match kind {
            Kind::Turn | Kind::Stt => material::utterance(100, 20),
            Kind::Tts => Input::Text(self.text.clone().unwrap_or_else(|| "Yes.".into())),
            Kind::Llm | Kind::Vision => self.input(kind),
        }
    }
}

/// A running plugin. Dropped only where a test says so: the end of a test that failed must not hang or crash as well.
pub(super) struct Running {
    plugin: Option<PluginBox>,
    interest: RArc<InterestV1>,
    pub(super) types: Arc<Types>,
    pub(super) manifest: PluginManifest,
    pub(super) tell: Tell,
    pub(super) patience: Patience,
}

impl Running {
    fn plugin(&self) -> &PluginBox {
        self.plugin.as_ref().expect("taken by `stop` alone, which consumes this")
    }

    /// Says whether all events are wanted, or none.
    pub(super) fn want(&self, all: bool) {
        let word = if all { u64::MAX } else { 0 };
        self.interest.words.iter().for_each(|bits| bits.store(word, Ordering::Relaxed));
    }

    pub(super) fn open(&self, kind: Kind) -> Checked<Open> {
        let (id, sink, record) = Open::sink(kind, &self.types);
        self.tell.stage(format!("opening a session of {kind}"));
        let id_text = RStr::from_str(&id);
        let session = match kind {
            Kind::Turn => Session::Turn(self.capability::<TurnBox>()?.open(id_text, sink)),
            Kind::Stt => Session::Stt(self.capability::<SttBox>()?.open(id_text, sink)),
            Kind::Llm => Session::Llm(self.capability::<LlmBox>()?.open(id_text, sink)),
            Kind::Tts => Session::Tts(self.capability::<TtsBox>()?.open(id_text, sink)),
            Kind::Vision => Session::Vision(self.capability::<VisionBox>()?.open(id_text, sink)),
        };
        Ok(Open::new(kind, id, session, record, self.tell.clone(), self.patience))
    }

    pub(super) fn has(&self, capability: &str, version: u32) -> bool {
        matches!(self.plugin().query(RStr::from_str(capability), version), ROption::RSome(_))
    }

    fn capability<C: Capability>(&self) -> Checked<C> {
        let advice =
            "name the capability in `export_plugin!`, and build with this host's antiphon-plugin-api";
        match self.plugin().query(RStr::from_str(C::NAME), CAPABILITY_V1) {
            ROption::RSome(object) => object.into_object().map_err(|error| {
                self.tell.fail(Problem::new(error.to_string(), "the object that the host knows", advice))
            }),
            ROption::RNone => Err(self.tell.fail(Problem::new(
                format!("no object for the capability {} of version {CAPABILITY_V1}", C::NAME),
                "an object for each capability of the manifest",
                advice,
            ))),
        }
    }

    /// How long the plugin took to answer.
    #[expect(clippy::disallowed_methods, reason = "the plugin runs in real time")]
    pub(super) fn ping(&self) -> Option<Duration> {
        let (bell, asked) = (Bell::default(), Instant::now());
        self.plugin().ping(bell.waker());
        bell.wait(self.patience.quick()).then(|| asked.elapsed())
    }

    /// Stops it, and lets go of it.
    pub(super) fn stop(mut self) -> Checked {
        self.tell.stage("stopping the plugin");
        let bell = Bell::default();
        self.plugin().stop(bell.waker());
        if !bell.wait(self.patience.quick()) {
            return Err(self.tell.fail(Problem::new(
                format!("`stop` was not answered within {:.1} s", self.patience.quick().as_secs_f64()),
                "a waker that is called when the plugin has ended",
                "end what `stop` waits for; a host leaves a plugin behind after 2 s",
            )));
        }
        self.tell.stage("letting go of the plugin");
        drop(self.plugin.take());
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        std::mem::forget(self.plugin.take());
    }
}

/// A waker that can be waited for.
#[derive(Clone)]
pub(super) struct Bell {
    ring: mpsc::SyncSender<()>,
    rung: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Default for Bell {
    fn default() -> Self {
        let (ring, rung) = mpsc::sync_channel(1);
        Self { ring, rung: Arc::new(Mutex::new(rung)) }
    }
}

impl WakerV1 for Bell {
    fn wake(&self) {
        // It rings already.
        let _ = self.ring.try_send(());
    }
}

impl Bell {
    pub(super) fn waker(&self) -> WakerBox {
        WakerBox::from_value(self.clone(), TD_Opaque)
    }

    pub(super) fn wait(&self, within: Duration) -> bool {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(within).is_ok()
    }
}

/// The host, as the plugin sees it.
struct Host {
    interest: RArc<InterestV1>,
    tell: Tell,
    logged: AtomicUsize,
}

/// Log records that are passed on.
const LOGGED: usize = 200;

impl HostV1 for Host {
    fn interest(&self) -> RArc<InterestV1> {
        self.interest.clone()
    }

    fn log_level(&self) -> u32 {
        2
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>) {
        if self.logged.fetch_add(1, Ordering::Relaxed) < LOGGED {
            let level = if level <= 1 { "error" } else { "warning" };
            self.tell.tell(Message::Log(format!("{level}: {target}: {message}")));
        }
    }

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}
