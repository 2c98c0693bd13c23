//! Rounds in turn: every contender does its round before any does its next, so that what disturbs the machine disturbs all.

use std::time::Duration;

use anyhow::Result;
use tokio::runtime::Runtime;

use crate::{Settings, cpu, report::Report, tally::Tally};

/// Events that are emitted before the publisher waits for their delivery.
pub(crate) const BURST: u64 = 500;

/// Does so many bursts; the processor time that they took.
pub(crate) type Round = Box<dyn FnMut(u64) -> Result<Duration>>;

/// One of those that are measured beside each other.
pub(crate) struct Contender {
    pub(crate) who: String,
    /// What varies: subscribers, types, sessions.
    pub(crate) at: u64,
    /// What is counted per burst: events, or deliveries.
    per_burst: u64,
    round: Round,
}

/// The rounds of one contender.
pub(crate) struct Entry {
    pub(crate) who: String,
    pub(crate) at: u64,
    /// Processor time per event or delivery, round by round.
    pub(crate) ns: Vec<f64>,
}

impl Contender {
    pub(crate) fn new(who: impl Into<String>, at: u64, per_burst: u64, round: Round) -> Self {
        Self { who: who.into(), at, per_burst, round }
    }

    /// Counts events instead of deliveries.
    pub(crate) fn per_event(self) -> Self {
        Self { per_burst: BURST, ..self }
    }

    /// One round that nobody measures.
    pub(crate) fn run(&mut self, bursts: u64) -> Result<()> {
        (self.round)(bursts).map(drop)
    }

    /// Warms up, and finds the number of bursts that makes a round long enough.
    fn size(&mut self, settings: &Settings) -> Result<u64> {
        let mut bursts = 1;
        loop {
            let took = (self.round)(bursts)?;
            if took * 8 >= settings.round {
                let wanted = bursts as f64 * settings.round.as_secs_f64() / took.as_secs_f64();
                return Ok((wanted as u64).max(1));
            }
            bursts *= 4;
        }
    }
}

/// Lets the contenders do their rounds in turn.
pub(crate) fn compare(mut contenders: Vec<Contender>, settings: &Settings) -> Result<Vec<Entry>> {
    let sizes: Vec<u64> =
        contenders.iter_mut().map(|contender| contender.size(settings)).collect::<Result<_>>()?;
    let entry =
        |contender: &Contender| Entry { who: contender.who.clone(), at: contender.at, ns: Vec::new() };
    let mut entries: Vec<Entry> = contenders.iter().map(entry).collect();
    // The first round of each is its warm-up: compilers that learn while they run need a whole one.
    for number in 0..=settings.rounds {
        for ((contender, bursts), entry) in contenders.iter_mut().zip(&sizes).zip(&mut entries) {
            let took = (contender.round)(*bursts)?;
            if number == 0 {
                continue;
            }
            entry.ns.push(took.as_secs_f64() * 1e9 / (bursts * contender.per_burst) as f64);
        }
    }
    Ok(entries)
}

/// Reports the processor time of all contenders.
pub(crate) fn add(
    report: &mut Report,
    group: &'static str,
    what: &'static str,
    unit: &'static str,
    entries: &[Entry],
) {
    for Entry { who, at, ns } in entries {
        report.figure(group, what, who, *at, unit, ns);
    }
}

/// The entry of a contender.
pub(crate) fn find<'a>(entries: &'a [Entry], who: &str, at: u64) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.who == who && entry.at == at)
}

/// Who receives an event.
#[derive(Clone, Copy)]
pub(crate) enum Reach {
    /// All of so many receivers.
    All(usize),
    /// One of so many, in turn.
    InTurn(usize),
}

/// What a design does to publish.
pub(crate) trait Publish: Send + 'static {
    /// Builds an event and sends it off, without waiting.
    fn publish(&mut self);

    /// Tidies up after a burst has been delivered.
    fn settle(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Two workers, as a small machine has.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?)
}

/// A round whose publisher is a task beside the receivers' tasks.
pub(crate) fn round<P: Publish>(
    runtime: Runtime,
    tally: &'static Tally,
    reach: Reach,
    publisher: P,
) -> Round {
    let mut waiting = Some((publisher, 0));
    Box::new(move |bursts| {
        let (mut publisher, mut next) = waiting.take().expect("given back at the end of each round");
        let work = async move {
            let begin = cpu::used();
            for _ in 0..bursts {
                match reach {
                    Reach::All(receivers) => tally.expect((0..receivers).map(|receiver| (receiver, BURST))),
                    Reach::InTurn(receivers) => {
                        tally.expect((next..next + BURST as usize).map(|event| (event % receivers, 1)));
                        next = (next + BURST as usize) % receivers;
                    }
                }
                for _ in 0..BURST {
                    publisher.publish();
                }
                tally.done().await?;
                publisher.settle().await;
            }
            anyhow::Ok((cpu::used() - begin, publisher, next))
        };
        let (took, publisher, next) = runtime.block_on(runtime.spawn(work))??;
        waiting = Some((publisher, next));
        Ok(took)
    })
}
