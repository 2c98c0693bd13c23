use std::time::Duration;

use antiphon_core::{
    Event, EventBus,
    event::session::{SessionClosedEvent, SessionReadyEvent},
};

fn main() {
    let bus = EventBus::new();
    let second = Duration::from_secs(1);
    drop(bus.wait_for::<Event<SessionReadyEvent>, _>(|_: &Event<SessionClosedEvent>| true, second));
    drop(bus.wait_for(|event: &Event<SessionReadyEvent>| event.seq(), second));
    drop(bus.wait_for(|event: Event<SessionReadyEvent>| event.seq() == 1, second));
}
