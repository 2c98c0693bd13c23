//! A stage of the conversation: the session of the plugin that does it, opened anew when the plugin breaks.

use std::{sync::Arc, time::Duration};

use antiphon_core::{
    PluginBaseEvent, SessionBus,
    event::{
        plugin::{ProviderFallbackEvent, ProviderRecoveryEvent},
        values::{ComponentKind, ErrorInfo, FallbackReason, PluginRef},
    },
};

use crate::{
    Kind,
    plugins::{Down, PluginInstance, PluginSessionError, Provider, Received},
    worker::CRASHED,
};

/// How long a conversation waits for a plugin that is being started again: a worker without a model to load takes some
/// ten milliseconds, and a user who waits for longer hears of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a session is opened.
pub(super) type Open<S> = fn(&PluginInstance, &SessionBus) -> Result<(S, Received), PluginSessionError>;

/// A stage, and who does it.
pub(super) struct Stage<S> {
    provider: Provider,
    open: Open<S>,
    session: SessionBus,
    instance: Arc<PluginInstance>,
    /// None when the plugin has let go of it.
    pub(super) link: Option<(S, Received)>,
}

impl<S> Stage<S> {
    /// Opens the session of a plugin that runs.
    pub(super) fn open(
        provider: Provider,
        instance: Arc<PluginInstance>,
        session: &SessionBus,
        open: Open<S>,
    ) -> Result<Self, PluginSessionError> {
        let link = open(&instance, session)?;
        Ok(Self { provider, open, session: session.clone(), instance, link: Some(link) })
    }

    /// Whether the plugin is gone, so that another session is of use.
    pub(super) fn has_ended(&self) -> bool {
        self.instance.has_ended()
    }

    /// How the plugin ended, if it has: the code and the text of the error.
    pub(super) fn crash(&self) -> Option<(&'static str, String)> {
        self.instance.end_reason().map(|reason| (CRASHED, format!("the plugin {reason}")))
    }

    /// What the host stamps on the plugin's events.
    pub(super) fn base(&self) -> &Arc<PluginBaseEvent> {
        self.instance.base()
    }

    pub(super) fn component(&self) -> PluginRef {
        let manifest = self.instance.manifest();
        let kind = component(self.provider.kind());
        PluginRef { name: manifest.name.clone(), version: manifest.version.clone(), kind }
    }

    /// That a stand-in does the work from the beginning, if it does.
    pub(super) fn stand_in(&self) -> Option<ProviderFallbackEvent> {
        let (chosen, name) = (self.provider.chosen(), &self.instance.manifest().name);
        (name != chosen).then(|| fallback(&self.provider, chosen.to_owned(), name.clone()))
    }

    /// Makes sure that a running plugin has the stage: the one that it is, else the one that was chosen, else its
    /// stand-in. Waits for a plugin that is being started again, for three seconds.
    pub(super) async fn ensure(&mut self) -> Result<&mut (S, Received), Down> {
        if self.has_ended() {
            let instance = self.provider.acquire(PATIENCE).await?;
            self.take_over(instance).await?;
        }
        let gone =
            || Down { plugin: self.instance.manifest().name.clone(), reason: "has ended its session".into() };
        self.link.as_mut().ok_or_else(gone)
    }

    /// Gives the stage back to the plugin that was chosen, if a stand-in has it and that one runs again. To be called
    /// where nothing is under way: what is, is lost.
    pub(super) async fn switch_back(&mut self) {
        let is_stand_in = self.instance.manifest().name != self.provider.chosen();
        if is_stand_in
            && let Ok(instance) = self.provider.first_choice()
            && let Err(down) = self.take_over(instance).await
        {
            tracing::warn!("{down}; its stand-in goes on");
        }
    }

    /// Takes the plugin that runs now, if it is another one than that which broke. Does not wait.
    pub(super) async fn recover(&mut self) -> bool {
        if !self.has_ended() {
            return false;
        }
        match self.provider.acquire(Duration::ZERO).await {
            Ok(instance) => self.take_over(instance).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn take_over(&mut self, instance: Arc<PluginInstance>) -> Result<(), Down> {
        let name = instance.manifest().name.clone();
        let down =
            |error: PluginSessionError| Down { plugin: name.clone(), reason: crate::plugins::chain(&error) };
        let link = (self.open)(&instance, &self.session).map_err(down)?;
        let (from, chosen) = (self.instance.manifest().name.clone(), self.provider.chosen());
        if from != name && name == chosen {
            let event = ProviderRecoveryEvent {
                provider: name,
                attempt: 1,
                max_attempts: 1,
                recovering: false,
                recovered: true,
                error: None,
            };
            self.session.emit_wait(event).await;
        } else if from != name {
            let event = fallback(&self.provider, from, name);
            self.session.emit_wait(event).await;
        }
        self.instance = instance;
        self.link = Some(link);
        Ok(())
    }
}

/// That a stand-in does the work from now on, and why.
fn fallback(provider: &Provider, from: String, to: String) -> ProviderFallbackEvent {
    let message = match provider.first_choice() {
        Ok(_) => "is back".to_owned(),
        Err(down) => down.reason,
    };
    let error = ErrorInfo {
        kind: "error".into(),
        code: Some("provider_down".into()),
        message,
        recoverable: true,
        context: None,
        source_chain: Vec::new(),
    };
    let role = component(provider.kind());
    ProviderFallbackEvent { role, from, to, reason: FallbackReason::StreamError, error }
}

/// The session of a stage, where there is one.
pub(super) fn link<S>(stage: &mut Option<Stage<S>>) -> Option<&mut (S, Received)> {
    stage.as_mut().and_then(|stage| stage.link.as_mut())
}

/// A kind of work, as events have it.
fn component(kind: Kind) -> ComponentKind {
    match kind {
        Kind::Turn => ComponentKind::TurnDetector,
        Kind::Stt => ComponentKind::Stt,
        Kind::Llm => ComponentKind::Llm,
        Kind::Tts => ComponentKind::Tts,
        Kind::Vision => ComponentKind::Vision,
    }
}
