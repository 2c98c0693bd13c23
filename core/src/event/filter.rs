//! Which events a subscriber wants, and the handle in which it gets them.

use std::{
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    ops::Deref,
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{Envelope, EventInfo, EventType, EventView, Participant, PluginBaseEvent};
use crate::{SessionId, TurnId};

/// A shared handle on one event, seen as `T`: the payload's fields by deref, the base fields by method.
pub struct Event<T> {
    envelope: Arc<Envelope>,
    view: PhantomData<fn() -> T>,
}

impl<T: EventView> Event<T> {
    /// A view of an event as `T`, if it is one or derives from one.
    #[must_use]
    pub fn of(envelope: &Arc<Envelope>) -> Option<Self> {
        T::view(envelope)?;
        Some(Self { envelope: Arc::clone(envelope), view: PhantomData })
    }

    /// The same event seen as another type.
    #[must_use]
    pub fn cast<U: EventView>(&self) -> Option<Event<U>> {
        Event::of(&self.envelope)
    }
}

impl<T> Event<T> {
    /// Dotted type of the event itself, which may derive from `T`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.envelope.event_type()
    }

    /// Unique id.
    #[must_use]
    pub fn event_id(&self) -> Uuid {
        self.envelope.base().event_id
    }

    /// When it happened.
    #[must_use]
    pub fn timestamp(&self) -> DateTime<Utc> {
        self.envelope.base().timestamp
    }

    /// The session that it belongs to.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId> {
        self.envelope.base().session_id
    }

    /// Position in its session.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.envelope.base().seq
    }

    /// The turn that it belongs to.
    #[must_use]
    pub fn turn_id(&self) -> Option<TurnId> {
        self.envelope.base().turn_id
    }

    /// The event that caused it.
    #[must_use]
    pub fn causation_id(&self) -> Option<Uuid> {
        self.envelope.base().causation_id
    }

    /// Who it is about.
    #[must_use]
    pub fn participant(&self) -> Option<&Participant> {
        self.envelope.base().participant.as_deref()
    }

    /// The plugin that emitted it.
    #[must_use]
    pub fn plugin(&self) -> Option<&PluginBaseEvent> {
        self.envelope.plugin()
    }

    /// Monotonic time in nanoseconds since the host started.
    #[must_use]
    pub fn mono_ns(&self) -> u64 {
        self.envelope.base().mono_ns
    }

    /// The whole event as a flat JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.envelope.to_json()
    }

    /// The envelope that all handles on this event share.
    #[must_use]
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.envelope
    }
}

impl<T: EventView> Deref for Event<T> {
    type Target = T;

    fn deref(&self) -> &T {
        T::view(&self.envelope)
            .expect("whoever made the handle made sure of the view, and envelopes do not change")
    }
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        Self { envelope: Arc::clone(&self.envelope), view: PhantomData }
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.envelope.fmt(f)
    }
}

/// The event types that a subscription receives.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    views: Vec<(&'static str, Option<&'static EventInfo>)>,
    patterns: Vec<String>,
}

impl Filter {
    /// What makes two filters the same.
    fn key(&self) -> (impl Iterator<Item = &'static str>, &[String]) {
        (self.views.iter().map(|(name, _)| *name), &self.patterns)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        let ((views, patterns), (other_views, other_patterns)) = (self.key(), other.key());
        views.eq(other_views) && patterns == other_patterns
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (views, patterns) = self.key();
        views.for_each(|name| name.hash(state));
        patterns.hash(state);
    }
}

impl Filter {
    /// Every event that is or derives from one of the given names, or matches one of the patterns: an exact name,
    /// a prefix such as `tts.*`, or `*`.
    pub fn patterns<P: Into<String>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self { views: Vec::new(), patterns: patterns.into_iter().map(Into::into).collect() }
    }

    /// Adds events that are or derive from `T`.
    pub fn add<T: EventView>(&mut self) {
        self.views.push((T::NAME, T::info()));
    }

    pub(crate) fn add_pattern(&mut self, pattern: String) {
        self.patterns.push(pattern);
    }

    pub(crate) fn remove_pattern(&mut self, pattern: &str) {
        self.patterns.retain(|other| other != pattern);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.views.is_empty() && self.patterns.is_empty()
    }

    /// The compiled-in types that are named in the filter.
    pub(crate) fn infos(&self) -> impl Iterator<Item = &'static EventInfo> {
        self.views.iter().filter_map(|(_, info)| *info)
    }

    /// Whether events of a type are wanted. Media events are only for those who name their type or its family.
    #[must_use]
    pub fn wants(&self, event: &EventType) -> bool {
        let exact = |name: &str| event.name() == name;
        let derived = |name: &str| !event.is_media() && event.derives_from(name);
        self.views.iter().any(|(name, _)| exact(name) || derived(name))
            || self.patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some("") => !event.is_media(),
                Some(prefix) => event.name().starts_with(prefix),
                None => exact(pattern) || derived(pattern),
            })
    }
}

/// Names and patterns, separated by commas.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.views.iter().map(|(name, _)| *name);
        for (index, text) in names.chain(self.patterns.iter().map(String::as_str)).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{text}")?;
        }
        Ok(())
    }
}

/// What a handler can take: an [`Event<T>`], or an enum of them with `#[derive(EventUnion)]`.
#[diagnostic::on_unimplemented(
    message = "a handler cannot take `{Self}`",
    label = "expected `Event<SomeEvent>` or an enum with `#[derive(EventUnion)]`"
)]
pub trait FromEvent: Sized + Send + 'static {
    /// Adds the wanted types to a filter.
    fn extend_filter(filter: &mut Filter);

    /// The argument, if the event is of a wanted type.
    ///
    /// # Errors
    ///
    /// The event itself, if it is of another type.
    fn from_envelope(envelope: Arc<Envelope>) -> Result<Self, Arc<Envelope>>;
}

impl<T: EventView> FromEvent for Event<T> {
    fn extend_filter(filter: &mut Filter) {
        filter.add::<T>();
    }

    fn from_envelope(envelope: Arc<Envelope>) -> Result<Self, Arc<Envelope>> {
        match T::view(&envelope) {
            Some(_) => Ok(Self { envelope, view: PhantomData }),
            None => Err(envelope),
        }
    }
}
