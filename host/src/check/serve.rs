//! The child's side: runs one test, and tells how it goes.

use antiphon_plugin_api::abi::API_VERSION;

use super::{
    catalogue,
    message::{Job, Message},
    running::{Context, Patience, Tell},
};
use crate::child::Reporter;

/// Runs the test of a job.
///
/// # Errors
///
/// There is no such test.
pub(crate) fn serve(job: Job, mut reporter: Reporter) -> std::io::Result<()> {
    let Some((test, kind)) = catalogue::find(&job.test) else {
        return Err(std::io::Error::other(format!("antiphon {API_VERSION} has no test {}", job.test)));
    };
    let tell = Tell::new(move |message| {
        let value = serde_json::to_value(&message).expect("messages are plain data");
        // Without a host there is nobody to tell, and this process ends any moment.
        let _ = reporter.report(&value);
    });
    let context = Context {
        path: job.path,
        source: None,
        settings: job.settings,
        text: job.text,
        tell: tell.clone(),
        patience: Patience::of(job.timeout),
    };
    // What is wrong was told where it was seen.
    let _ = (test.run)(&context, kind);
    tell.tell(Message::Done);
    Ok(())
}
