//! How long the host takes to start, and where the time of the demo's reply goes.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use antiphon_core::{Event, event::agent::TurnMetricsEvent, event::values::TurnDurations};
use antiphon_host::{
    Host,
    core::AudioChunk,
    media::{AudioSource, RawFormat},
};
use anyhow::{Context, Result, ensure};

use crate::{
    Args,
    report::{Report, Row, median},
};

const RECORDING: &str = "/usr/share/pocketsphinx/test/data/goforward.raw";
const GRAMMAR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/demo/commands.gram");

/// Measures and adds the rows.
pub(crate) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let starts = (0..args.runs).map(|_| start_up(&args.dist)).collect::<Result<Vec<_>>>()?;
    let milliseconds: Vec<f64> = starts.iter().map(|took| took.as_secs_f64() * 1e3).collect();
    report.add(Row::wall(
        "start-up: exec, load and start all plugins, list them, exit",
        median(&milliseconds),
        Some(100.0),
    ));
    if !Path::new(RECORDING).is_file() {
        report.skip("time to first audio", "the recording of pocketsphinx-testdata is not installed");
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let turns = runtime.block_on(turns(args))?;
    let stage = |name: &str, pick: fn(&TurnDurations) -> Option<f64>, target: Option<f64>| -> Result<Row> {
        let values: Vec<f64> = turns.iter().filter_map(pick).collect();
        ensure!(!values.is_empty(), "no turn of the demo reached the stage: {name}");
        Ok(Row::wall(name, median(&values), target))
    };
    report.add(stage("demo: end of turn -> final transcript", |turn| turn.turn_end_to_stt_final, None)?);
    report.add(stage(
        "demo: final transcript -> first word of the reply",
        |turn| turn.stt_final_to_first_token,
        None,
    )?);
    report.add(stage("demo: first word -> first audio", |turn| turn.first_token_to_first_audio, None)?);
    report.add(stage("demo: first audio -> played", |turn| turn.first_audio_to_playback, None)?);
    report.add(stage("demo: end of turn -> first audio played", |turn| turn.voice_to_voice, None)?);
    Ok(())
}

/// Wall time of a process that loads and starts every plugin.
#[expect(clippy::disallowed_methods, reason = "wall time of another process")]
fn start_up(dist: &Path) -> Result<Duration> {
    let begin = std::time::Instant::now();
    let binary = dist.join("antiphon");
    let status = Command::new(&binary)
        .args(["plugins", "list", "--json"])
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{} cannot be run: cargo xtask dist", binary.display()))?;
    ensure!(status.success(), "`antiphon plugins list` failed");
    Ok(begin.elapsed())
}

/// The stages of each run's turn. The first run, which loads the model, is not among them.
async fn turns(args: &Args) -> Result<Vec<TurnDurations>> {
    let host = Host::builder()
        .plugin_dir(args.dist.join("plugins"))
        .set("stt-pocketsphinx", "grammar", GRAMMAR)
        .start()
        .await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let subscription = host.bus().subscribe_with(
        log,
        async |log: Arc<Mutex<Vec<TurnDurations>>>, event: Event<TurnMetricsEvent>| {
            log.lock().expect("no holder panics").push(event.durations.clone());
        },
    );
    for _ in 0..=args.runs {
        let agent = host.agent().start().await?;
        let mut source = AudioSource::open(RECORDING, RawFormat::default())?;
        while let Some(samples) = source.next_chunk()? {
            agent.push_audio(AudioChunk::mono(samples)).await?;
        }
        agent.finish().await?;
    }
    host.bus().drain(Duration::from_secs(5)).await;
    subscription.unsubscribe().await;
    host.shutdown().await;
    let seen = std::mem::take(&mut *seen.lock().expect("no holder panics"));
    Ok(seen.into_iter().skip(1).collect())
}
