use antiphon_core::{Event, EventBus};

struct Transcript {
    text: String,
}

fn main() {
    let bus = EventBus::new();
    bus.subscribe(async |text: String| println!("{text}")).detach();
    bus.subscribe(async |event: Event<Transcript>| println!("{}", event.seq())).detach();
    bus.emit(Transcript { text: String::new() });
}
