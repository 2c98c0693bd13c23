use antiphon_core::{Event, EventBus, event::session::SessionReadyEvent};

fn main() {
    EventBus::new().subscribe(async |event: Event<SessionReadyEvent>| event.seq()).detach();
}
