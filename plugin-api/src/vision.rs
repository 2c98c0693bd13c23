//! Vision: what is to be seen in a picture.

use std::{future::Future, sync::Arc};

use abi_stable::{erased_types::TD_Opaque, std_types::RStr};
use antiphon_core::{
    VideoFrame,
    event::{EventPayload, vision::DetectionCompletedEvent, vision::VideoProcessorDetectionEvent},
};

use crate::{
    EventDeclarations, Plugin, PluginError, SessionContext,
    abi::{
        CapabilityObject, Outcome, SinkBox, Status, VideoV1, VisionBox, VisionSessionBox, VisionSessionV1,
        VisionV1, WakerBox,
    },
    export::{Capability, Instance, context_of},
    gate::Gate,
    runtime::{Held, Jobs, shielded, until_cancelled},
};

/// A plugin that looks at pictures.
pub trait Vision: Plugin {
    /// Looks at a picture and emits what it sees: an event that extends `VideoProcessorDetectionEvent`, also when it
    /// sees nothing. Pictures of one or more sessions run side by side.
    ///
    /// # Errors
    ///
    /// The picture could not be examined; the host is told.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the request is cancelled; from then on `output` answers with an error.
    fn process(
        &self,
        frame: VisionFrame,
        output: VisionOutput,
    ) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// A session is over: forget what is kept for it.
    fn session_closed(&self, _session_id: &str) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// A picture of a session.
#[derive(Debug, Clone)]
pub struct VisionFrame {
    /// The picture.
    pub frame: VideoFrame,
    /// Its number in the session.
    pub sequence: u64,
}

/// Where a vision plugin says what it saw.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    context: SessionContext,
    gate: Arc<Gate>,
}

impl VisionOutput {
    /// Emits a detection, or another event of the plugin's own.
    ///
    /// # Errors
    ///
    /// As [`SessionContext::emit`]; `cancelled` also when the request is cancelled or has ended.
    pub async fn emit<T: EventPayload>(&self, event: T) -> Result<(), PluginError> {
        self.context.emit_through(&self.gate, 0, event).await
    }

    /// The session.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.context
    }
}

struct Object<P: Vision>(Instance<P>);

impl<P: Vision> VisionV1 for Object<P> {
    fn open(&self, session_id: RStr<'_>, sink: SinkBox) -> VisionSessionBox {
        let context = context_of(&self.0, session_id, sink);
        let (plugin, over) = (Arc::clone(&self.0.plugin), context.clone());
        let closed = async move { plugin.session_closed(over.session_id()).await };
        let jobs = Jobs::new(self.0.runtime, context, closed);
        VisionSessionBox::from_value(Session { plugin: Arc::clone(&self.0.plugin), jobs }, TD_Opaque)
    }
}

struct Session<P: Vision> {
    plugin: Arc<Held<P>>,
    jobs: Jobs,
}

impl<P: Vision> VisionSessionV1 for Session<P> {
    fn process(&self, token: u64, sequence: u64, frame: VideoV1) -> Status {
        shielded(Status::REFUSED, || {
            let Ok(frame) = VideoFrame::try_from(frame) else { return Status::REFUSED };
            let (plugin, context) = (Arc::clone(&self.plugin), self.jobs.context().clone());
            let frame = VisionFrame { frame, sequence };
            self.jobs.start(token, move |gate| process(plugin, context, gate, frame))
        })
    }

    fn cancel(&self, token: u64) {
        self.jobs.cancel(token);
    }

    fn close(&self, token: u64) {
        self.jobs.close(token);
    }

    fn wake_when_ready(&self, waker: WakerBox) {
        self.jobs.wake_when_ready(waker);
    }
}

async fn process<P: Vision>(
    plugin: Arc<Held<P>>,
    context: SessionContext,
    gate: Arc<Gate>,
    frame: VisionFrame,
) -> Outcome {
    let output = VisionOutput { context, gate: Arc::clone(&gate) };
    match until_cancelled(&gate, async { plugin.process(frame, output).await }).await {
        Some(Ok(())) => Outcome::COMPLETED,
        None => Outcome::CANCELLED,
        Some(Err(error)) => {
            tracing::error!("a picture could not be examined: {error:?}");
            Outcome::FAILED
        }
    }
}

/// Used by `export_plugin!`.
#[doc(hidden)]
#[must_use]
pub const fn capability<P: Vision>() -> Capability<P> {
    Capability {
        kind: "vision",
        declare: |events: &mut EventDeclarations| {
            events.declare::<VideoProcessorDetectionEvent>().declare::<DetectionCompletedEvent>();
        },
        object: |instance| CapabilityObject::new(VisionBox::from_value(Object(instance.clone()), TD_Opaque)),
    }
}
