use std::rc::Rc;

use antiphon_core::{Event, EventBus, event::session::SessionReadyEvent};

async fn on_ready(event: Event<SessionReadyEvent>) {
    let seq = Rc::new(event.seq());
    std::future::ready(()).await;
    println!("{seq}");
}

fn main() {
    EventBus::new().subscribe(on_ready).detach();
}
