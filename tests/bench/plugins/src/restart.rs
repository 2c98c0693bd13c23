//! The time without a plugin when its worker is killed.

use std::time::Duration;

use antiphon_bench_support::stats::{Target, quantile};
use antiphon_core::{Clock, Event, SystemClock, event::plugin::PluginLifecycleEvent};
use antiphon_host::{
    PluginState,
    child::ChildProgram,
    plugins::{Isolation, PolicyConfig},
};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::{
    Bench,
    files::{PLUGIN, Place},
};

/// When the kill is over for the host, and for whoever needs the plugin; for comparison, a child that does nothing.
pub(crate) const SEEN: &str = "until the host knows";
pub(crate) const READY: &str = "until it is ready again";
pub(crate) const CHILD: &str = "a child that begins and ends";

/// Nobody waits longer for a restart.
const HANG: Duration = Duration::from_secs(30);

/// Between two kills: longer than the window in which restarts are counted, so that none has to wait its turn.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut seen, mut ready, mut child) = runtime.block_on(kills(bench.settings.kills))?;
    for (who, taken) in [(SEEN, &mut seen), (READY, &mut ready), (CHILD, &mut child)] {
        taken.sort_by(f64::total_cmp);
        bench.report.figure("restart", "p50", who, 0, "ms wall", &[quantile(taken, 0.5)]);
        bench.report.figure("restart", "p99", who, 0, "ms wall", &[quantile(taken, 0.99)]);
    }
    let p50 = quantile(&ready, 0.5);
    let target = Some(Target::AtMost(50.0));
    bench.report.claim("restart", "restart of a killed worker, p50", p50, "ms", target);
    let name = "restart of a killed worker / a child that begins and ends, p50";
    bench.report.claim("restart", name, p50 / quantile(&child, 0.5), "x", None);
    Ok(())
}

/// Milliseconds from each kill to both ends of it, and of as many children in between.
async fn kills(count: usize) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let place = Place::with_plugin()?;
    let policy = PolicyConfig {
        isolation: Some(Isolation::Process),
        max_restarts: Some(u32::MAX),
        restart_window_ms: Some(1),
        ..PolicyConfig::default()
    };
    let host = place.host().policy(PLUGIN, policy).start().await;
    let (told, mut states) = mpsc::unbounded_channel();
    let _subscription = host.bus().subscribe(move |event: Event<PluginLifecycleEvent>| {
        let told = told.clone();
        async move {
            // Only the end of the measurement ends the other side.
            let _ = told.send(event.phase);
        }
    });
    let (clock, program) = (SystemClock::new(), ChildProgram::find()?);
    let (mut seen, mut ready, mut child) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        tokio::time::sleep(PAUSE).await;
        let process = host.plugins().first().and_then(|plugin| plugin.process_id);
        let process = process.and_then(|id| Pid::from_raw(id.cast_signed()));
        let begin = clock.mono_ns();
        let since = || (clock.mono_ns() - begin) as f64 / 1e6;
        kill_process(process.context("the plugin has no worker")?, Signal::KILL)?;
        loop {
            let state = tokio::time::timeout(HANG, states.recv()).await.context("nothing restarts it")?;
            match state.context("the host has ended")? {
                PluginState::Failed => seen.push(since()),
                PluginState::Ready => break ready.push(since()),
                _ => {}
            }
        }
        let begin = clock.mono_ns();
        let program = program.clone();
        tokio::task::spawn_blocking(move || program.check()).await??;
        child.push((clock.mono_ns() - begin) as f64 / 1e6);
    }
    ensure!(seen.len() == count, "{} of {count} kills were told", seen.len());
    host.shutdown().await;
    Ok((seen, ready, child))
}
