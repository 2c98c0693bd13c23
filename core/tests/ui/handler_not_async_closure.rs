use antiphon_core::{Event, EventBus, event::session::SessionReadyEvent};

fn main() {
    EventBus::new().subscribe(|event: Event<SessionReadyEvent>| println!("{}", event.seq())).detach();
}
