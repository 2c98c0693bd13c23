//! Sends the plugin's `tracing` records, and its panics, to the host.
//!
//! Each library has its own copy of `tracing`, so the host's subscriber does not see what plugins log. Spans are not
//! bridged; their fields would have to be kept for records that are mostly not wanted.

use std::{
    fmt::{self, Write},
    panic::PanicHookInfo,
};

use abi_stable::std_types::RStr;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use crate::abi::HostBox;

struct Bridge {
    host: HostBox,
    level: LevelFilter,
}

/// Makes the bridge the library's subscriber, unless there is one (two instances of a plugin share the first's).
pub(crate) fn install(host: HostBox) {
    let level = match host.log_level() {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    if tracing::subscriber::set_global_default(Bridge { host, level }).is_ok() {
        std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let message = antiphon_core::event::values::panic_message(info.payload());
            tracing::error!(location, "panicked: {message}");
        }));
    }
}

fn number(level: &Level) -> u32 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Subscriber for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let message = text.message + &text.fields;
        self.host.log(number(metadata.level()), RStr::from_str(metadata.target()), RStr::from_str(&message));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail, and a failing `Debug` of a field only shortens the record.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
