//! Costs at the plugin ABI, beside a tokio channel in the same run.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_core::{
    AudioChunk, Event, PluginBaseEvent, TurnId,
    event::values::{Message, Role},
};
use antiphon_host::{
    Host, Kind, Outcome,
    plugins::{LlmSession, PluginInstance, Received},
};
use anyhow::{Context, Result, ensure};
use criterion::{Criterion, SamplingMode};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::Notify};

use crate::{
    Args,
    cpu::{CpuTime, used},
    report::{Report, Row},
};

/// Time after which events that have not come count as lost.
const HANG: Duration = Duration::from_secs(15);

/// Measures and adds the rows.
pub(crate) fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build()?;
    let directory = plugin_directory(&args.out)?;
    let host = runtime.block_on(Host::builder().plugin_dir(&directory).start());
    let plugin = host.provider(Kind::Llm, Some("bench-plugin"))?;
    let output = args.out.join("criterion");
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .output_directory(&output)
        .without_plots()
        .sample_size(20)
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1));
    let mut group = criterion.benchmark_group("abi");
    group.sampling_mode(SamplingMode::Flat);

    group.bench_function("tokio_mpsc", |bencher| bencher.iter_custom(|count| channel(&runtime, count)));
    group.bench_function("unwanted_event", |bencher| {
        let session = host.bus().open_session();
        let (llm, received) =
            runtime.block_on(async { plugin.open_llm(&session) }).expect("it has this capability");
        let _received = received;
        bencher.iter_custom(|count| runtime.block_on(ask(&llm, "ask", count)));
    });
    for (name, order, event_type) in
        [("plugin_event", "interim", "stt.transcript.interim"), ("own_event", "emit", "bench.tick")]
    {
        group.bench_function(name, |bencher| {
            let session = host.bus().open_session();
            let counter = Arc::new(Counter { wanted: event_type, ..Counter::default() });
            let seen = Arc::clone(&counter);
            let _subscription =
                host.bus().subscribe_with(seen, async |seen: Arc<Counter>, event: Event<PluginBaseEvent>| {
                    if event.event_type() == seen.wanted {
                        seen.one();
                    }
                });
            let (llm, received) =
                runtime.block_on(async { plugin.open_llm(&session) }).expect("it has this capability");
            let _received = received;
            bencher.iter_custom(|count| {
                counter.expect(count);
                let begin = used();
                runtime.block_on(async {
                    ask(&llm, order, count).await;
                    if tokio::time::timeout(HANG, counter.reached()).await.is_err() {
                        panic!("events of {order} got lost: {:?}", host.bus().subscriptions());
                    }
                });
                used() - begin
            });
        });
    }
    for samples in [320_usize, 1_920] {
        group.bench_function(format!("audio_chunk_{}_bytes", samples * 2), |bencher| {
            let session = host.bus().open_session();
            let chunk = AudioChunk::mono(vec![7_i16; samples]);
            bencher.iter_custom(|count| runtime.block_on(audio(&plugin, &session, &chunk, count)));
        });
    }
    group.finish();
    runtime.block_on(host.shutdown());

    let median = |name: &str| -> Result<f64> {
        let path = output.join("abi").join(name).join("new/estimates.json");
        let text = std::fs::read(&path).with_context(|| format!("criterion wrote no {}", path.display()))?;
        let estimates: Value = serde_json::from_slice(&text)?;
        estimates["median"]["point_estimate"].as_f64().context("a median in criterion's estimates")
    };
    let mpsc = median("tokio_mpsc")?;
    report.add(Row::cpu("one hop over a tokio mpsc channel (the yardstick)", mpsc, None));
    let event = median("plugin_event")?;
    report.add(
        Row::cpu("plugin event: plugin -> ABI -> bus -> async handler", event, Some(600.0))
            .ratio("tokio mpsc hops", event / mpsc),
    );
    let own = median("own_event")?;
    report.add(
        Row::cpu("the same, of a type that only the plugin knows: arrives as JSON", own, None)
            .ratio("tokio mpsc hops", own / mpsc),
    );
    report.add(Row::cpu(
        "event that nobody wants, asked in the plugin",
        median("unwanted_event")?,
        Some(2.0),
    ));
    let small = median("audio_chunk_640_bytes")?;
    report.add(
        Row::cpu("20 ms audio chunk (640 bytes) host -> ABI -> plugin session", small, Some(150.0))
            .ratio("tokio mpsc hops", small / mpsc),
    );
    let large = median("audio_chunk_3840_bytes")?;
    report.add(Row::cpu("the same, 3,840 bytes", large, Some(150.0)).ratio("times 640 bytes", large / small));
    Ok(())
}

/// A directory with the plugin that is measured and nothing else.
fn plugin_directory(out: &Path) -> Result<std::path::PathBuf> {
    let library = std::env::current_exe()?.with_file_name("libantiphon_bench_plugin.so");
    ensure!(
        library.is_file(),
        "{} is not there: cargo build --release --package antiphon-bench-plugin",
        library.display()
    );
    let directory = out.join("plugins");
    std::fs::create_dir_all(&directory)?;
    let target = directory.join("libantiphon_bench_plugin.so");
    let fresh = directory.join("fresh");
    std::fs::copy(&library, &fresh)?;
    std::fs::rename(&fresh, &target)?;
    Ok(directory)
}

/// Lets the plugin do something `count` times; the processor time that it took.
async fn ask(llm: &LlmSession, order: &str, count: u64) -> Duration {
    let content = format!("{order} {count}");
    let message = Message { id: "1".into(), role: Role::User, content, interrupted: false };
    let request =
        antiphon_host::LlmRequest { messages: vec![message], ..antiphon_host::LlmRequest::default() };
    let begin = used();
    let completion = llm.respond(Some(TurnId(1)), &request).await.expect("the plugin takes requests");
    let outcome = completion.finished().await;
    assert_eq!(outcome, Outcome::COMPLETED, "the plugin obeys");
    used() - begin
}

async fn audio(
    plugin: &Arc<PluginInstance>,
    session: &antiphon_core::SessionBus,
    chunk: &AudioChunk,
    count: u64,
) -> Duration {
    let (stt, received): (_, Received) = plugin.open_stt(session).expect("it has this capability");
    let _received = received;
    stt.begin(TurnId(1)).await.expect("the session is open");
    let begin = used();
    for _ in 0..count {
        stt.push_audio(chunk).await.expect("the session is open");
    }
    stt.end().await.expect("the session is open").finished().await;
    let took = used() - begin;
    stt.close().finished().await;
    took
}

/// The yardstick: as many values over a bounded channel between two tasks.
fn channel(runtime: &Runtime, count: u64) -> Duration {
    runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Arc<u64>>(1024);
        let begin = used();
        let counting = tokio::spawn(async move {
            let mut seen = 0_u64;
            while receiver.recv().await.is_some() {
                seen += 1;
            }
            seen
        });
        let value = Arc::new(1);
        for _ in 0..count {
            sender.send(Arc::clone(&value)).await.expect("the other task receives");
        }
        drop(sender);
        let seen = counting.await.expect("the other task ends");
        assert_eq!(seen, count);
        used() - begin
    })
}

/// Counts events and tells when all have come.
#[derive(Default)]
struct Counter {
    wanted: &'static str,
    missing: AtomicU64,
    done: Notify,
}

impl Counter {
    fn expect(&self, count: u64) {
        self.missing.store(count, Ordering::Release);
    }

    fn one(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    async fn reached(&self) {
        while self.missing.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
    }
}
