use antiphon_core::{Event, EventBus, event::session::SessionReadyEvent};

fn main() {
    let log = String::new();
    EventBus::new().subscribe(async move |_: Event<SessionReadyEvent>| println!("{log}")).detach();
}
