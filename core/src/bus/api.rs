//! What the bus and a session have in common, written once.
//!
//! Not here: what takes a handler. The compiler explains what is wrong with a handler at the method that takes it, and could
//! not show a method that a macro wrote.

/// Writes the methods that emit and subscribe. `$scope` is where events go, `$owner` the session that subscriptions end
/// with, `$of` says which events they receive.
macro_rules! emit_and_subscribe {
    ($this:ident, $bus:expr, $scope:expr, $owner:expr, $of:literal) => {
        #[doc = concat!("Emits an event of ", $of, ". Never waits: a full subscription loses it, or an older event, and is told.")]
        #[inline]
        pub fn emit<T: EventPayload>(&self, event: T) {
            let $this = self;
            let inner = $bus.inner();
            if !inner.interest.is_unwanted(T::event_type()) {
                inner.emit_plainly($scope, event);
            }
        }

        /// As `emit`, with what the emitter knows beside the event; tells what became of it.
        pub fn emit_with<T: EventPayload>(&self, event: T, stamp: Stamp) -> Emitted {
            let $this = self;
            $bus.inner().emit_typed($scope, event, stamp, Manner { keep: true, ..Manner::default() }).into()
        }

        #[doc = concat!("Emits an event of ", $of, ", and waits until the subscriptions that must not lose events have room again.")]
        /// Inside a handler it does not wait: handlers that wait for each other would never end.
        ///
        /// # Cancel safety
        ///
        /// The event is delivered at the first poll, unless more emitters wait than a queue has room for; then it is
        /// their turn first. Dropping the future afterwards only gives up the wait, before that the event.
        pub async fn emit_wait<T: EventPayload>(&self, event: T) {
            self.emit_wait_with(event, Stamp::default()).await;
        }

        /// As `emit_wait`, with what the emitter knows beside the event.
        ///
        /// # Cancel safety
        ///
        /// As `emit_wait`.
        pub async fn emit_wait_with<T: EventPayload>(&self, event: T, stamp: Stamp) {
            let $this = self;
            $bus.inner().emit_patiently($scope, event, stamp).await;
        }

        #[doc = concat!("Emits an event of ", $of, ", and waits until every handler is done with it.")]
        /// Inside a handler it waits neither for that handler, nor for what is queued behind handlers that are waiting
        /// here too: they would wait for each other without end. A task that the handler has spawned counts as outside; a
        /// handler that waits for such a task may wait for itself. Streams are not waited for.
        ///
        /// # Cancel safety
        ///
        /// The event is delivered at the first poll; dropping the future only gives up the wait.
        pub async fn emit_and_settle<T: EventPayload>(&self, event: T) -> Settled {
            let $this = self;
            $bus.inner().emit_and_settle($scope, event).await
        }

        /// Emits an event that comes as JSON: the flat object that `Event::to_json` gives, of which `type`, the payload's
        /// fields, `turn_id`, `causation_id`, `participant` and `user_metadata` are read; the rest is stamped anew.
        ///
        /// # Errors
        ///
        /// [`EmitJsonError`] when it is no event, or none of a type that is known, unless `unknown` lets those pass.
        pub fn emit_json(&self, event: serde_json::Value, unknown: UnknownType) -> Result<Emitted, EmitJsonError> {
            let $this = self;
            $bus.inner().emit_json($scope, event, unknown)
        }

        /// Calls a function at once, on the thread that emits; see [`SubscriptionBuilder::observe`].
        #[track_caller]
        pub fn observe<F: FromEvent>(&self, tap: impl Fn(F) + Send + Sync + 'static) -> Subscription {
            self.subscription().observe(tap)
        }

        /// Waits for the first event for which `predicate` holds; see [`SubscriptionBuilder::wait_for`].
        ///
        /// # Errors
        ///
        /// [`WaitError::Timeout`] after `timeout`, [`WaitError::Closed`] when what it waits at ends before.
        #[track_caller]
        pub fn wait_for<F: FromEvent, P: Fn(&F) -> bool + Send + Sync + 'static>(
            &self,
            predicate: P,
            timeout: Duration,
        ) -> impl Future<Output = Result<F, WaitError>> + Send + use<F, P> {
            self.subscription().wait_for(predicate, timeout)
        }

        #[doc = concat!("The events of ", $of, " as a stream, for code that would rather pull.")]
        #[track_caller]
        #[must_use]
        pub fn stream<F: FromEvent>(&self) -> EventStream<F> {
            self.subscription().stream()
        }

        #[doc = concat!("Begins a subscription to the events of ", $of, " that is not all defaults: name, patterns, capacity and so on.")]
        #[track_caller]
        pub fn subscription(&self) -> SubscriptionBuilder {
            let $this = self;
            SubscriptionBuilder::new($bus.clone(), $owner)
        }

        #[doc = concat!("Ends the subscriptions to the events of ", $of, " that have this name, as dropping their guards would; how many there were.")]
        pub fn unsubscribe(&self, name: &str) -> usize {
            let $this = self;
            $bus.inner().end_by_name($scope, name)
        }
    };
}

pub(super) use emit_and_subscribe;
