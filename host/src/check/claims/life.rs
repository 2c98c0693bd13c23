//! Starts, stops and signs of life.

use std::{fs, io::Read, os::fd::AsFd, sync::mpsc, time::Duration};

use crate::{
    Kind,
    check::{
        Problem,
        message::Checked,
        running::{Context, Running},
    },
};

/// Capabilities that the plugin has and the host knows.
fn kinds(running: &Running) -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| running.manifest.has(kind.as_str())).collect()
}

/// Threads of this process.
pub(super) fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

pub(in crate::check) fn starts(context: &Context, _: Option<Kind>) -> Checked {
    let running = context.start()?;
    for kind in kinds(&running) {
        // Tells of an object that is missing, or not what the host knows.
        drop(running.open(kind)?);
    }
    Ok(())
}

/// Starts in one process.
const STARTS: usize = 10;

pub(in crate::check) fn start_stop(context: &Context, _: Option<Kind>) -> Checked {
    let source = context.source()?;
    let settings = serde_json::Value::Object(context.settings.clone()).to_string();
    let mut after_first = 0;
    for number in 1..=STARTS {
        context.tell.stage(format!("starting for the {number}. time"));
        let running = match context.create(&source, settings.as_bytes()) {
            Ok(running) => running,
            Err(error) => {
                return Err(context.tell.fail(Problem::new(
                    format!("start {number} of {STARTS} failed: {}", error.message),
                    "a plugin that starts again after it was stopped",
                    "give back in `stop` and `Drop` what `start` takes: ports, files, statics",
                )));
            }
        };
        if running.ping().is_none() {
            return Err(silent(context, "after it was started"));
        }
        // Once with sessions that nobody has closed.
        let kinds = if number == STARTS / 2 { kinds(&running) } else { Vec::new() };
        let open = kinds.into_iter().map(|kind| running.open(kind)).collect::<Checked<Vec<_>>>()?;
        running.stop()?;
        open.into_iter().for_each(|session| drop(session.let_go()));
        if number == 1 {
            after_first = threads();
        }
    }
    let grown = threads().saturating_sub(after_first);
    if grown >= STARTS - 2 {
        return Err(context.tell.fail(Problem::new(
            format!("{grown} more threads after {} more starts and stops", STARTS - 1),
            "threads that end with `stop`",
            "end threads in `stop` or `Drop`, or share them between instances",
        )));
    }
    Ok(())
}

pub(in crate::check) fn two_instances(context: &Context, _: Option<Kind>) -> Checked {
    let (first, second) = (context.start()?, context.start()?);
    for kind in kinds(&first) {
        let sessions = [first.open(kind)?, second.open(kind)?];
        let tokens = sessions.iter().map(|session| session.begin(&context.short_input(kind)));
        let tokens = tokens.collect::<Checked<Vec<_>>>()?;
        for (session, token) in sessions.iter().zip(tokens) {
            session.finished(token)?;
        }
        crate::check::session::conclude_all(sessions.into())?;
    }
    first.stop()?;
    for kind in kinds(&second) {
        let session = second.open(kind)?;
        session.exchange(&context.short_input(kind))?;
        session.conclude()?;
    }
    second.stop()
}

fn silent(context: &Context, when: &str) -> crate::check::message::Stop {
    context.tell.fail(Problem::new(
        format!("a ping {when} was not answered within {:.1} s", context.patience.quick().as_secs_f64()),
        "an answer: a plugin that gives none counts as one that hangs",
        "do what takes long, and all that blocks, in `spawn_blocking`; `await` the rest",
    ))
}

/// An answer that takes longer than this makes others wait.
const SLOW_PING: Duration = Duration::from_secs(1);

pub(in crate::check) fn ping(context: &Context, _: Option<Kind>) -> Checked {
    let running = context.start()?;
    context.tell.stage("asking whether the plugin is there");
    let mut slowest = running.ping().ok_or_else(|| silent(context, "after the start"))?;
    for kind in kinds(&running) {
        let session = running.open(kind)?;
        session.begin(&context.input(kind))?;
        context.tell.stage(format!("asking whether the plugin is there while it works on {kind}"));
        let answered =
            running.ping().ok_or_else(|| silent(context, &format!("while a command of {kind} ran")))?;
        slowest = slowest.max(answered);
        session.conclude()?;
    }
    if slowest > SLOW_PING {
        context.tell.warn(Problem::new(
            format!("a ping was answered after {:.1} s", slowest.as_secs_f64()),
            "an answer at once",
            "do what takes long, and all that blocks, in `spawn_blocking`",
        ));
    }
    running.stop()
}

/// Bytes of standard output that are shown.
const SHOWN: usize = 200;

pub(in crate::check) fn stdout_silent(context: &Context, _: Option<Kind>) -> Checked {
    let quiet = || context.tell.skip("standard output cannot be replaced here");
    let (mut reader, writer) = std::io::pipe().map_err(|_| quiet())?;
    rustix::stdio::dup2_stdout(writer.as_fd()).map_err(|_| quiet())?;
    drop(writer);
    let (sender, written) = mpsc::channel();
    // Ends with the last writer, at the latest with this process.
    std::thread::spawn(move || {
        let (mut start, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = reader.read(&mut buffer) {
            let room = SHOWN.saturating_sub(start.len());
            start.extend_from_slice(&buffer[..read.min(room)]);
        }
        let _ = sender.send(start);
    });
    let used = use_it(context);
    let nowhere = fs::File::open("/dev/null").map_err(|_| quiet())?;
    rustix::stdio::dup2_stdout(nowhere).map_err(|_| quiet())?;
    match written.recv_timeout(context.patience.quick()) {
        Ok(start) if start.is_empty() => used,
        Ok(start) => {
            context.tell.warn(Problem::new(
                format!("written to standard output: {:?}", String::from_utf8_lossy(&start)),
                "nothing: `--json` and `--events -` are spoilt by it",
                "log with `tracing`, which the host shows; use `eprintln!` while you look for something",
            ));
            used
        }
        Err(_) => Err(context.tell.skip("something that the plugin has started keeps standard output open")),
    }
}

fn use_it(context: &Context) -> Checked {
    let running = context.start()?;
    for kind in kinds(&running) {
        let session = running.open(kind)?;
        session.exchange(&context.short_input(kind))?;
        session.conclude()?;
    }
    running.stop()
}
