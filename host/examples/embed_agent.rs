//! A whole agent in a program of one's own: audio in, audio out, and its events as a stream.
//!
//! `cargo run --example embed_agent -- target/debug recording.raw` (16 kHz, one channel, signed 16-bit)
#![expect(clippy::print_stdout, reason = "an example that talks to people")]

use std::sync::mpsc;

use antiphon_host::{
    AudioOutput, Host, OutputError,
    core::{AudioChunk, BaseEvent, Event},
    media::{AudioSource, RawFormat},
};

/// The agent's voice goes through a channel; a program would play it.
struct Speaker(mpsc::Sender<AudioChunk>);

impl AudioOutput for Speaker {
    fn play(&mut self, audio: &AudioChunk) -> Result<(), OutputError> {
        self.0.send(audio.clone()).map_err(OutputError::new)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Plugins are tried in child processes, which are this program, started again.
    antiphon_host::child::serve_if_asked();
    run()
}

#[tokio::main]
async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "target/debug".into());
    let recording = arguments.next().ok_or("usage: embed_agent PLUGIN_DIR RECORDING")?;

    let host = Host::builder().plugin_dir(directory).set("turn-earshot", "hangover_ms", 700).start().await;

    let (voice, heard) = mpsc::channel();
    let agent = host.agent().output(Speaker(voice)).start().await?;
    let mut events = agent.session().stream::<Event<BaseEvent>>();
    let watcher = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            println!("{:>4} {}", event.seq(), event.event_type());
        }
    });

    let mut source = AudioSource::open(recording, RawFormat::default())?;
    while let Some(samples) = source.next_chunk()? {
        agent.push_audio(AudioChunk::mono(samples)).await?;
    }
    let summary = agent.finish().await?;
    watcher.await?;
    host.shutdown().await;

    let spoken: f64 = heard.try_iter().map(|audio| audio.duration().as_secs_f64()).sum();
    println!("{} turns, {} answered, {spoken:.2} s spoken", summary.turns, summary.answered);
    Ok(())
}
