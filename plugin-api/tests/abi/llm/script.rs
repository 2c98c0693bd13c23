//! A language model that does as it is told.

use std::{
    future::{Future, pending},
    io,
    sync::{Arc, Mutex},
};

use antiphon_core::{
    PluginBaseEvent,
    event::{
        Event,
        values::{Message, Role},
    },
};
use antiphon_plugin_api::{
    LlmRequest,
    abi::{
        LlmBox, LlmSessionBox, Outcome, Status,
        abi_stable::std_types::{RSlice, RStr},
    },
    prelude::{EventDeclarations, Llm, LlmReply, NoConfig, Plugin, PluginContext, PluginError},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, task::yield_now};
use uuid::Uuid;

use crate::support::{Bomb, Record, Running, exported, session_id};

/// Does what the prompt says, word by word.
pub(crate) struct Script {
    kept: Mutex<Vec<LlmReply>>,
    closed: Mutex<Vec<String>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the model did not answer")]
struct NoAnswer(#[source] io::Error);

/// A plugin's own event, with what is hard to read for a host that does not know it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "script.own", base = PluginBaseEvent)]
struct OwnEvent {
    id: Uuid,
    at: std::net::IpAddr,
    note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Event)]
#[event(type = "script.undeclared", base = PluginBaseEvent)]
struct UndeclaredEvent {}

impl Plugin for Script {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: PluginContext) -> Result<Self, PluginError> {
        Ok(Self { kept: Mutex::default(), closed: Mutex::default() })
    }

    fn declare(events: &mut EventDeclarations) {
        events.declare::<OwnEvent>();
    }
}

impl Llm for Script {
    fn respond(
        &self,
        request: LlmRequest,
        reply: LlmReply,
    ) -> impl Future<Output = Result<(), PluginError>> + Send {
        assert_ne!(request.prompt(), "panic-at-once", "as told");
        async move {
            for word in request.prompt().split_whitespace() {
                self.act(word, &reply).await?;
            }
            Ok(())
        }
    }

    async fn session_closed(&self, session_id: &str) {
        self.closed.lock().expect("no panic under the lock").push(session_id.to_owned());
        assert!(!session_id.starts_with("bad"), "as told");
    }
}

impl Script {
    async fn act(&self, word: &str, reply: &LlmReply) -> Result<(), PluginError> {
        match word {
            "wait" => pending().await,
            "yield" => yield_now().await,
            "panic" => panic!("as told"),
            "fail" => return Err(NoAnswer(io::Error::other("line is dead")).into()),
            "bomb" => {
                let _bomb = Bomb;
                pending().await
            }
            "keep" => self.kept.lock().expect("no panic under the lock").push(reply.clone()),
            "late" => {
                let kept = self.kept.lock().expect("no panic under the lock").pop().expect("kept");
                let texted = kept.text("late").await.expect_err("it has ended");
                let emitted = kept.emit(OwnEvent::example()).await.expect_err("it has ended");
                reply.text(format!("{} {}", texted.code(), emitted.code())).await?;
            }
            "thread" => {
                let (reply, runtime) = (reply.clone(), Handle::current());
                // Ends when the reply is not taken any more.
                std::thread::spawn(move || while runtime.block_on(reply.text("x")).is_ok() {});
            }
            "own" => reply.emit(OwnEvent::example()).await?,
            "undeclared" => reply.emit(UndeclaredEvent {}).await?,
            "closed" => {
                let closed = self.closed.lock().expect("no panic under the lock").join(" ");
                reply.text(closed).await?;
            }
            word => reply.text(word).await?,
        }
        Ok(())
    }
}

impl OwnEvent {
    fn example() -> Self {
        Self { id: Uuid::from_u128(7), at: [127, 0, 0, 1].into(), note: None }
    }
}

exported! { Script, "llm-script", [llm] }

pub(crate) struct Session {
    pub(crate) session: LlmSessionBox,
    pub(crate) record: Arc<Record>,
}

pub(crate) fn open(running: &Running) -> Session {
    open_as(running, &session_id())
}

pub(crate) fn open_as(running: &Running, id: &str) -> Session {
    let (sink, record) = running.sink();
    Session { session: running.capability::<LlmBox>().open(RStr::from_str(id), sink), record }
}

impl Session {
    pub(crate) fn ask(&self, token: u64, prompt: &str) -> Status {
        let message =
            Message { id: "m".into(), role: Role::User, content: prompt.into(), interrupted: false };
        let request =
            LlmRequest { request_id: format!("r{token}"), messages: vec![message], ..LlmRequest::default() };
        let bytes = rmp_serde::to_vec_named(&request).expect("plain data");
        self.session.respond(token, 9, RSlice::from_slice(&bytes))
    }

    #[track_caller]
    pub(crate) fn run(&self, token: u64, prompt: &str) -> Outcome {
        assert_eq!(self.ask(token, prompt), Status::ACCEPTED);
        self.record.finished(token)
    }
}
