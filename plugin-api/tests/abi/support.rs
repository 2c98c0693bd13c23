//! A host that records what a plugin says, and has as much room for it as the test wants.

mod record;

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::event::{EventRegistry, EventType};
use antiphon_plugin_api::{
    __private::Exported,
    PluginManifest,
    abi::{
        AbiError, CAPABILITY_V1, Capability, CapabilityObject, HostBox, HostV1, InterestV1, PluginBox,
        SinkBox, WakerBox, WakerV1,
        abi_stable::{
            erased_types::TD_Opaque,
            std_types::{RArc, ROption, RSlice, RStr},
        },
    },
    export::root,
};

use self::record::Sink;
pub(crate) use self::record::{Output, Record};

/// What `export_plugin!` says of a plugin; the macro itself can be used once per library.
macro_rules! exported {
    ($plugin:ty, $name:literal, [$($capability:ident),+]) => {
        impl antiphon_plugin_api::__private::Exported for $plugin {
            const NAME: &'static str = $name;
            const VERSION: &'static str = "1.2.3";
            const DESCRIPTION: &'static str = "for tests";
            const LICENSE: &'static str = "MIT";
            const CAPABILITIES: &'static [antiphon_plugin_api::export::Capability<Self>] =
                &[$(antiphon_plugin_api::$capability::capability::<Self>()),+];
        }
    };
}
pub(crate) use exported;

/// Ends a test that would hang. No test waits for it to pass.
const HUNG: Duration = Duration::from_secs(30);

/// A running plugin.
pub(crate) struct Running {
    pub(crate) plugin: PluginBox,
    pub(crate) interest: RArc<InterestV1>,
    types: Arc<[Arc<EventType>]>,
    manifest: PluginManifest,
}

pub(crate) fn manifest<E: Exported>() -> PluginManifest {
    serde_json::from_slice(&root::<E>().manifest()()).expect("a manifest")
}

pub(crate) fn start<E: Exported>() -> Running {
    try_start::<E>("{}").expect("starts")
}

pub(crate) fn try_start<E: Exported>(settings: &str) -> Result<Running, AbiError> {
    let manifest = manifest::<E>();
    let registry = EventRegistry::with_catalogue();
    let types = manifest.events.iter().map(|event| match (registry.find(&event.name), &event.schema) {
        (Some(known), _) => known,
        (None, schema) => {
            let schema = schema.clone().expect("events that are not of the core have a schema");
            registry.declare(&event.name, &event.extends, event.media, schema)
        }
    });
    let types = types.collect();
    let host = host();
    let interest = host.interest();
    let plugin = root::<E>().create()(host, RSlice::from_slice(settings.as_bytes())).into_result()?;
    Ok(Running { plugin, interest, types, manifest })
}

/// A host that wants all events.
pub(crate) fn host() -> HostBox {
    let interest = RArc::new(InterestV1::default());
    interest.words.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    HostBox::from_value(Host { interest }, TD_Opaque)
}

impl Running {
    /// A capability's object.
    pub(crate) fn capability<C: Capability>(&self) -> C {
        let object = self.plugin.query(RStr::from_str(C::NAME), CAPABILITY_V1).into_option();
        object.expect("declared").into_object().expect("of this very crate")
    }

    /// A new sink, and the record of what comes into it.
    pub(crate) fn sink(&self) -> (SinkBox, Arc<Record>) {
        let record = Arc::new(Record::default());
        let sink = Sink { record: Arc::clone(&record), types: Arc::clone(&self.types) };
        (SinkBox::from_value(sink, TD_Opaque), record)
    }

    /// Nobody wants events of this type any more.
    pub(crate) fn unwant(&self, name: &str) {
        let index = self.manifest.events.iter().position(|event| event.name == name).expect("declared");
        self.interest.words[index / 64].fetch_and(!(1 << (index % 64)), Ordering::Relaxed);
    }
}

struct Host {
    interest: RArc<InterestV1>,
}

impl HostV1 for Host {
    fn interest(&self) -> RArc<InterestV1> {
        self.interest.clone()
    }

    fn log_level(&self) -> u32 {
        1
    }

    /// The panics of tests come here too.
    fn log(&self, _: u32, target: RStr<'_>, message: RStr<'_>) {
        eprintln!("{target}: {message}");
    }

    fn query(&self, _: RStr<'_>, _: u32) -> ROption<CapabilityObject> {
        ROption::RNone
    }
}

/// A waker that counts.
#[derive(Clone, Default)]
pub(crate) struct Bell {
    rung: Arc<(Mutex<u64>, Condvar)>,
}

impl WakerV1 for Bell {
    fn wake(&self) {
        *self.rung.0.lock().expect("no panic under the lock") += 1;
        self.rung.1.notify_all();
    }
}

impl Bell {
    pub(crate) fn waker(&self) -> WakerBox {
        WakerBox::from_value(self.clone(), TD_Opaque)
    }

    pub(crate) fn wait(&self) {
        let rung = self.rung.0.lock().expect("no panic under the lock");
        let waited = self.rung.1.wait_timeout_while(rung, HUNG, |rung| *rung == 0);
        assert!(!waited.expect("no panic under the lock").1.timed_out(), "waited for a waker");
    }
}

/// A session id that no other test has.
pub(crate) fn session_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("session-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A panic while it is dropped.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}
