//! What the conversation says of itself: states, errors, the history.

use std::time::Duration;

use antiphon_core::{
    TurnId,
    event::{
        EventPayload, Stamp,
        agent::{AgentErrorEvent, AgentStateChangedEvent, HistoryUpdatedEvent},
        values::{AgentState, ComponentKind, Message, Role},
    },
};
use tokio::time::Instant;

use super::Conversation;

impl Conversation {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.config.turn_timeout_ms)
    }

    /// Something happened: the turn is not stalled.
    pub(super) fn touch(&mut self) {
        self.deadline = Instant::now() + self.timeout();
    }

    pub(super) fn remember(&mut self, role: Role, content: &str, interrupted: bool) -> String {
        let id = self.clock.uuid(self.clock.now()).to_string();
        self.remember_as(id.clone(), role, content, interrupted);
        id
    }

    /// Appends to the history, which keeps what the language model is given.
    pub(super) fn remember_as(&mut self, id: String, role: Role, content: &str, interrupted: bool) {
        self.history.push(Message { id, role, content: content.to_owned(), interrupted });
        let excess = self.history.len().saturating_sub(self.config.max_messages.max(1));
        self.history.drain(..excess);
    }

    pub(super) async fn history_changed(&mut self, turn_id: Option<TurnId>) {
        let messages = self.history.clone();
        let last_message_id = messages.last().map(|message| message.id.clone());
        self.tell(turn_id, HistoryUpdatedEvent { messages, last_message_id }).await;
    }

    pub(super) async fn error(
        &mut self,
        turn_id: Option<TurnId>,
        component: ComponentKind,
        code: &str,
        message: String,
    ) {
        let event = AgentErrorEvent {
            error: None,
            error_code: Some(code.into()),
            context: None,
            is_recoverable: true,
            error_message: message,
            component: Some(component),
            fatal: false,
        };
        self.tell(turn_id, event).await;
    }

    /// Nothing is being said: listening or ready.
    pub(super) async fn settle(&mut self, cause: &str) {
        self.settle_in(None, cause).await;
    }

    pub(super) async fn settle_in(&mut self, turn_id: Option<TurnId>, cause: &str) {
        if self.reply.is_none() {
            let state = if self.user_speaks { AgentState::Listening } else { AgentState::Ready };
            self.become_state_in(turn_id, state, cause).await;
        }
    }

    pub(super) async fn become_state(&mut self, state: AgentState, cause: &str) {
        self.become_state_in(None, state, cause).await;
    }

    pub(super) async fn become_state_in(&mut self, turn_id: Option<TurnId>, state: AgentState, cause: &str) {
        let previous_state = std::mem::replace(&mut self.state, state);
        if previous_state != state {
            let cause = Some(cause.to_owned());
            self.tell(turn_id, AgentStateChangedEvent { state, previous_state, cause }).await;
        }
    }

    pub(super) async fn tell<T: EventPayload>(&self, turn_id: Option<TurnId>, event: T) {
        self.tell_with(Stamp::turn(turn_id), event).await;
    }

    pub(super) async fn tell_with<T: EventPayload>(&self, stamp: Stamp, event: T) {
        self.session.emit_wait_with(event, stamp).await;
    }
}
