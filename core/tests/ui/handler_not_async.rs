use antiphon_core::{Event, EventBus, event::session::SessionReadyEvent};

fn on_ready(event: Event<SessionReadyEvent>) {
    println!("{}", event.seq());
}

fn main() {
    EventBus::new().subscribe(on_ready).detach();
}
