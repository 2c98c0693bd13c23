//! Memory of a plugin's versions: what a replaced one leaves behind, and what a worker takes. In a fresh process.

use std::time::Duration;

use antiphon_bench_support::peers::number;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    Bench,
    files::{PLUGIN, Place},
    pair::{Pair, plugin},
    system::{fresh, size},
};

/// How often the plugin is replaced: once more, and the host refuses.
pub(crate) const REPLACED: u64 = 15;

/// Where the plugin runs, as tables name it.
pub(crate) const HERE: &str = "inside the host";
pub(crate) const WORKER: &str = "in a worker";

/// Until threads of an old version and its worker have ended.
const SETTLED: Duration = Duration::from_millis(300);

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    for (who, arguments) in [(HERE, &["generations"][..]), (WORKER, &["generations", "--isolated"])] {
        let answer = fresh(arguments)?;
        let mb = |name: &str| Ok::<f64, anyhow::Error>(number(&answer, name)? / 1e6);
        bench.report.figure("generations", "host", who, 0, "MB of the host before", &[mb("before")?]);
        for (what, name) in [("rss", "memory"), ("private", "private memory")] {
            let sizes = answer[what].as_array().context("the sizes of the host")?;
            let sizes: Vec<f64> = sizes.iter().filter_map(Value::as_f64).map(|bytes| bytes / 1e6).collect();
            for (generation, size) in (1..).zip(&sizes) {
                bench.report.figure("generations", what, who, generation, "MB of the host", &[*size]);
            }
            // The first replacement needs what no later one needs again.
            let (Some(second), Some(last)) = (sizes.get(1), sizes.last()) else { continue };
            let each = (last - second) / (REPLACED - 1) as f64;
            let name = format!("generations: {name} of the host for each version {who}");
            bench.report.claim("generations", name, each, "MB", None);
        }
        if who == WORKER {
            for (what, name) in [("rss", "worker"), ("private", "worker_private"), ("pss", "worker_pss")] {
                bench.report.figure("worker", what, WORKER, 0, "MB of the worker", &[mb(name)?]);
            }
        }
    }
    Ok(())
}

/// The work of the fresh process.
pub(crate) fn child(isolated: bool) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let before = size("self", "status", "VmRSS")?;
        let place = Place::with_plugin()?;
        let builder = if isolated { place.host().isolate(PLUGIN) } else { place.host() };
        let host = builder.start().await;
        let (mut rss, mut private) = (Vec::new(), Vec::new());
        for version in 0..=REPLACED {
            if version > 0 {
                place.put_plugin(version)?;
                let reloaded = host.reload().await;
                ensure!(
                    reloaded.len() == 1 && reloaded[0].refused.is_none(),
                    "version {version} was not taken: {reloaded:?}"
                );
            }
            // Used a little: what a version needs once counts as well.
            let (mut pair, mut voice) = Pair::open(&plugin(&host)?, host.bus()).await?;
            for number in 0..50 {
                pair.stt.push_audio(&crate::pair::chunk(number)).await?;
                voice.recv().await.context("the plugin has ended")?;
            }
            pair.close().await;
            tokio::time::sleep(SETTLED).await;
            rss.push(size("self", "status", "VmRSS")?);
            private.push(size("self", "status", "RssAnon")?);
        }
        let mut answer = json!({ "before": before, "rss": rss, "private": private });
        if let Some(worker) = plugin(&host)?.process_id() {
            let worker = worker.to_string();
            answer["worker"] = size(&worker, "status", "VmRSS")?.into();
            answer["worker_private"] = size(&worker, "status", "RssAnon")?.into();
            answer["worker_pss"] = size(&worker, "smaps_rollup", "Pss")?.into();
        }
        host.shutdown().await;
        Ok(answer)
    })
}
