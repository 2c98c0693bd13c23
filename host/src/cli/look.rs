//! `antiphon look`: shows pictures to the vision plugins, and prints what they see.

mod detection;
mod picture;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use antiphon_core::{
    Event, EventBus, SessionBus, VideoFrame,
    event::{
        Overflow,
        session::{SessionClosedEvent, SessionReadyEvent},
        values::{CloseReason, Dimensions, FrameTriggerReason},
        vision::{FrameReceivedEvent, VideoProcessorDetectionEvent},
    },
};
use antiphon_host::{
    Host, Kind,
    plugins::{PluginInstance, VisionSession},
};
use antiphon_plugin_api::abi::Outcome;
use anyhow::{Result, anyhow, bail};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use self::picture::Picture;
use super::{
    Exit,
    output::{self, Ink, Style, clean, complain, count},
    record::EventsFile,
    setting::Setting,
    setup::{Global, Setup},
    stage::explain,
    stop::Stop,
};

/// Show pictures to the vision plugins; print what they see
///
/// Pictures are PNG, JPEG or WebP files of up to 64 million pixels; a picture that its camera held sideways is turned
/// upright first. Every vision plugin that runs looks at every picture. What they tell is printed whole, also what
/// this program has never heard of.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Write every event to this file, one JSON object per line (-: standard output)
    #[arg(short, long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Change a setting of a plugin. VALUE is TOML, else text; repeat it for more
    #[arg(short, long = "set", value_name = "PLUGIN.KEY=VALUE")]
    set: Vec<Setting>,
    /// Print one JSON object: every picture with its detection events
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  antiphon look ticket.png
  antiphon look *.jpg --json | jq '.images[].detections[]'
  antiphon look page.webp --set vision-qr.max_pixels=50000000
  antiphon look ticket.png --events - | jq .type";

/// How long a plugin may look at one picture.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

/// How long a plugin may take to close its session, and handlers to see its last events.
const SETTLE_DEADLINE: Duration = Duration::from_secs(2);

/// What the plugins said of the picture that they look at.
type Detections = Mutex<Vec<Value>>;

/// What came of one picture.
struct Seen {
    path: PathBuf,
    size: Option<(u32, u32)>,
    detections: Vec<Value>,
    errors: Vec<String>,
}

pub(super) async fn run(global: &Global, args: Args) -> Result<Exit> {
    let setup = Setup::read(global, &args.set)?;
    let is_taken = args.events.as_deref() == Some(Path::new("-"));
    if is_taken && args.json {
        bail!("standard output takes one thing only: the events (--events -) or the report (--json)");
    }
    let mut seen: Vec<Seen> = args.images.iter().map(|path| check(path, args.events.as_deref())).collect();
    let is_any_fine = seen.iter().any(|seen| seen.errors.is_empty());
    if !is_any_fine {
        return finish(&args, &seen, None);
    }
    setup.has_libraries()?;
    setup.warn_of_missing();
    let mut events = args.events.as_deref().map(EventsFile::create).transpose()?;
    let stop = Stop::install()?;
    let bus = EventBus::new();
    if let Some(events) = &mut events {
        events.record(&bus);
    }
    let starting = setup.host().bus(bus.clone()).start();
    let host = tokio::select! {
        biased;
        () = stop.asked() => None,
        host = starting => Some(host),
    };
    let outcome = match &host {
        Some(host) => look(&args, &setup, host, &stop, &mut seen).await,
        None => Ok(()),
    };
    if let Some(host) = host {
        host.shutdown().await;
    }
    // A host leaves slow handlers behind. These are our own, and whoever reads the events slowly gets them all.
    bus.shutdown().await;
    if let Some(events) = events {
        events.finish().await?;
    }
    outcome?;
    finish(&args, &seen, stop.exit())
}

/// Finds out what can be found out before a plugin is opened.
fn check(path: &Path, events: Option<&Path>) -> Seen {
    let mut seen = Seen { path: path.to_owned(), size: None, detections: Vec::new(), errors: Vec::new() };
    let overwritten = |events: &Path| match (events.canonicalize(), path.canonicalize()) {
        (Ok(events), Ok(path)) => events == path,
        _ => false,
    };
    let problem = match picture::check(path) {
        Ok(()) if events.is_some_and(overwritten) => {
            Some(anyhow!("--events {} would overwrite a picture; name another file", path.display()))
        }
        Ok(()) => None,
        Err(error) => Some(error.into()),
    };
    if let Some(error) = problem {
        seen.fail(&error);
    }
    seen
}

impl Seen {
    fn fail(&mut self, error: &anyhow::Error) {
        complain(error);
        self.errors.push(format!("{error:#}"));
    }
}

async fn look(args: &Args, setup: &Setup, host: &Host, stop: &Stop, seen: &mut [Seen]) -> Result<()> {
    let plugins = host.plugins();
    setup.check_settings(&plugins)?;
    if let Err(missing) = host.provider(Kind::Vision, None) {
        bail!("{}", explain(&missing, &plugins));
    }
    let is_vision = |plugin: &&Arc<PluginInstance>| plugin.manifest().has(Kind::Vision.as_str());
    let running = plugins.iter().filter_map(|plugin| plugin.instance()).filter(is_vision);
    let session = host.bus().open_session();
    let detections = Arc::<Detections>::default();
    let subscription = session.subscription().name("look").overflow(Overflow::Wait);
    let _subscription = subscription.subscribe_with(
        Arc::clone(&detections),
        async |detections: Arc<Detections>, event: Event<VideoProcessorDetectionEvent>| {
            lock(&detections).push(event.to_json());
        },
    );
    let mut eyes = Vec::new();
    for plugin in running {
        // What it tells goes to the bus; its other channel is for agents.
        let (eye, _) = plugin.open_vision(&session)?;
        eyes.push((plugin.manifest().name.clone(), eye));
    }
    session.emit_wait(SessionReadyEvent {}).await;
    let to_stdout = !args.json && args.events.as_deref() != Some(Path::new("-"));
    for (sequence, seen) in seen.iter_mut().enumerate() {
        if seen.errors.is_empty() {
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = look_at(seen, sequence as u64, &session, &eyes) => {}
            }
            // The handler has seen what was emitted when this returns.
            session.bus().drain(SETTLE_DEADLINE).await;
            seen.detections = std::mem::take(&mut *lock(&detections));
        }
        if to_stdout {
            output::print(&seen.to_text(Style::stdout()))?;
        }
    }
    let closing = eyes.iter().map(|(_, eye)| timeout(SETTLE_DEADLINE, eye.close().finished()));
    join_all(closing).await;
    session.emit_wait(SessionClosedEvent { reason: CloseReason::SdkRequest }).await;
    session.close().await;
    Ok(())
}

/// Has all plugins look at a picture, at the same time.
async fn look_at(seen: &mut Seen, sequence: u64, session: &SessionBus, eyes: &[(String, VisionSession)]) {
    let path = seen.path.clone();
    let picture = match tokio::task::spawn_blocking(move || Picture::read(&path)).await {
        Ok(Ok(picture)) => picture,
        Ok(Err(error)) => return seen.fail(&error.into()),
        Err(error) => return seen.fail(&anyhow!("the picture could not be decoded: {error}")),
    };
    let (width, height) = (picture.frame.width(), picture.frame.height());
    seen.size = Some((width, height));
    session
        .emit_wait(FrameReceivedEvent {
            sequence,
            frame_timestamp: session.bus().clock().now().utc.timestamp_millis(),
            trigger_reason: FrameTriggerReason::UserRequest,
            size: picture.encoded_bytes,
            dimensions: Dimensions { width, height },
        })
        .await;
    let looking = eyes.iter().map(|(name, eye)| look_with(name, eye, sequence, &picture.frame));
    for error in join_all(looking).await.into_iter().flatten() {
        seen.fail(&anyhow!("{}: {error}", seen.path.display()));
    }
}

async fn look_with(plugin: &str, eye: &VisionSession, sequence: u64, frame: &VideoFrame) -> Option<String> {
    let looking = async {
        match eye.process(sequence, frame).await {
            Ok(completion) => match completion.finished().await {
                Outcome::COMPLETED => None,
                _ => Some(format!("{plugin} could not examine the picture; it says why in the log above")),
            },
            Err(error) => Some(format!("{plugin} did not take the picture: {error}")),
        }
    };
    let overdue = || Some(format!("{plugin} did not finish within {} s", LOOK_DEADLINE.as_secs()));
    timeout(LOOK_DEADLINE, looking).await.unwrap_or_else(|_| overdue())
}

impl Seen {
    fn to_text(&self, style: Style) -> String {
        let Some((width, height)) = self.size else { return String::new() };
        let name = clean(&self.path.display().to_string());
        let mut text = format!("{}  {width} x {height}\n", style.paint(Ink::Bold, name));
        for detection in &self.detections {
            text.push_str(&detection::to_text(detection, style));
        }
        if self.detections.is_empty() && self.errors.is_empty() {
            text.push_str("  nothing was told of it\n");
        }
        text
    }

    fn to_json(&self) -> Value {
        let size = self.size.map(|(width, height)| json!({ "width": width, "height": height }));
        json!({ "image": self.path.display().to_string(), "size": size, "detections": self.detections, "errors": self.errors })
    }
}

fn finish(args: &Args, seen: &[Seen], stopped: Option<Exit>) -> Result<Exit> {
    let failed = seen.iter().filter(|seen| !seen.errors.is_empty()).count();
    let exit = stopped.unwrap_or(Exit::done_if(failed == 0));
    if args.json {
        let images: Vec<Value> = seen.iter().map(Seen::to_json).collect();
        output::print_json(&json!({ "done": exit == Exit::Done, "images": images }))?;
    }
    if failed > 0 && seen.len() > 1 {
        complain(&anyhow!("{failed} of {} could not be examined", count(seen.len() as u64, "picture")));
    }
    Ok(exit)
}

fn lock(detections: &Detections) -> std::sync::MutexGuard<'_, Vec<Value>> {
    detections.lock().unwrap_or_else(PoisonError::into_inner)
}
