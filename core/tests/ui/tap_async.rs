use antiphon_core::{Event, EventBus, event::session::SessionReadyEvent};

fn on_seq(_: u64) {}

fn main() {
    EventBus::new().observe(async |event: Event<SessionReadyEvent>| on_seq(event.seq())).detach();
}
