//! Subscribes one async function to a union of event types, and another to the failures of handlers.
//!
//! `cargo run --example subscribe_union -- target/debug`
#![expect(clippy::print_stdout, reason = "an example that talks to people")]

use antiphon_host::{
    Host,
    core::{
        Event, EventUnion,
        event::{
            agent::{AgentTranscriptEvent, UserTranscriptEvent},
            bus::ExceptionEvent,
            values::TranscriptMode,
        },
    },
};

/// What was said, by either side.
#[derive(EventUnion)]
enum Said {
    User(Event<UserTranscriptEvent>),
    Agent(Event<AgentTranscriptEvent>),
}

async fn on_said(said: Said) -> Result<(), std::io::Error> {
    match said {
        Said::User(event) => println!("user:  {}", event.text),
        Said::Agent(event) if event.mode == TranscriptMode::Final => println!("agent: {}", event.text),
        Said::Agent(_) => {}
    }
    Err(std::io::Error::other("handlers may fail, and nobody else notices"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Plugins are tried in child processes, which are this program, started again.
    antiphon_host::child::serve_if_asked();
    run()
}

#[tokio::main]
async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "target/debug".into());
    let host = Host::builder().plugin_dir(directory).start().await;

    let said = host.bus().subscribe(on_said);
    let failures = host.bus().subscribe(async |event: Event<ExceptionEvent>| {
        println!("{} failed at {}: {}", event.handler.name, event.source_type, event.exc.message);
    });

    let agent = host.agent().start().await?;
    agent.send_text("go forward ten meters").await?;
    agent.finish().await?;

    host.shutdown().await;
    println!("{} said, {} failures", said.stats().delivered, failures.stats().delivered);
    Ok(())
}
