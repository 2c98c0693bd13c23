use antiphon_core::{Event, EventUnion, event::session::SessionReadyEvent};

#[derive(EventUnion)]
enum WithUnit {
    Ready(Event<SessionReadyEvent>),
    Other,
}

#[derive(EventUnion)]
enum WithTwo {
    Ready(Event<SessionReadyEvent>, u32),
}

#[derive(EventUnion)]
enum WithText {
    Ready(Event<SessionReadyEvent>),
    Text(String),
}

#[derive(EventUnion)]
enum Empty {}

#[derive(EventUnion)]
struct NoEnum {
    ready: Event<SessionReadyEvent>,
}

fn main() {}
