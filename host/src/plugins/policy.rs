//! How plugins are run: inside the host or in a process of their own, and what happens when they break.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::child::Limits;

/// Where a plugin's code runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Inside the host: fastest; a crash ends the host.
    #[default]
    None,
    /// In a worker process: a crash ends the worker alone, which is started again.
    Process,
}

/// What happens when a plugin breaks while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnCrash {
    /// It is started again as it was, where that is possible: nobody can end a plugin that hangs inside the host.
    #[default]
    Restart,
    /// It is started again in a worker process.
    Isolate,
    /// It stays failed.
    Fail,
}

/// How a plugin is run. What is not said is as for all plugins (`*`), then as the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Where its code runs: `none` (inside the host, the default) or `process` (in a worker process).
    pub isolation: Option<Isolation>,
    /// What happens when it breaks: `restart` (the default), `isolate` (restart in a worker process) or `fail`.
    pub on_crash: Option<OnCrash>,
    /// Memory that its worker may write to, in MiB: heap, stacks and writable data, not mapped files. Default: no limit.
    #[schemars(range(min = 16))]
    pub memory_mb: Option<u64>,
    /// Processor time that its worker may use in all, in seconds, before it is ended and started again. Default: no limit.
    #[schemars(range(min = 1))]
    pub cpu_seconds: Option<u64>,
    /// Environment variables that its worker gets beside the usual ones, by name. Keys of providers belong here.
    pub environment: Option<Vec<String>>,
    /// Time that it may take to start, in milliseconds. Default: 30 000; most load their models when they are first used.
    #[schemars(range(min = 1))]
    pub start_timeout_ms: Option<u64>,
    /// Time without an answer after which it counts as hung, in milliseconds. Default: 10 000. It is asked every second,
    /// and counts as degraded after a quarter of this.
    #[schemars(range(min = 1000))]
    pub hang_timeout_ms: Option<u64>,
    /// How often it may be started again within `restart_window_ms`. Default: 5.
    pub max_restarts: Option<u32>,
    /// Time over which restarts are counted, in milliseconds. Default: 60 000.
    #[schemars(range(min = 1))]
    pub restart_window_ms: Option<u64>,
}

/// The policies of a configuration: by plugin, `*` for all.
pub type Policies = BTreeMap<String, PolicyConfig>;

/// What stands for all plugins.
pub(crate) const ALL: &str = "*";

/// How one plugin is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) isolation: Isolation,
    pub(crate) on_crash: OnCrash,
    pub(crate) limits: Limits,
    pub(crate) environment: Vec<String>,
    pub(crate) start_timeout: Duration,
    pub(crate) hang_timeout: Duration,
    pub(crate) max_restarts: u32,
    pub(crate) restart_window: Duration,
}

impl Policy {
    /// The policy of a plugin.
    pub(crate) fn of(policies: &Policies, plugin: &str) -> Self {
        let (own, all) = (policies.get(plugin), policies.get(ALL));
        fn first<T: Clone>(
            [own, all]: [Option<&PolicyConfig>; 2],
            field: impl Fn(&PolicyConfig) -> &Option<T>,
        ) -> Option<T> {
            own.and_then(|own| field(own).clone()).or_else(|| all.and_then(|all| field(all).clone()))
        }
        let from = [own, all];
        let millis = |value: Option<u64>, default| Duration::from_millis(value.unwrap_or(default));
        Self {
            isolation: first(from, |policy| &policy.isolation).unwrap_or_default(),
            on_crash: first(from, |policy| &policy.on_crash).unwrap_or_default(),
            limits: Limits {
                memory_bytes: first(from, |policy| &policy.memory_mb).map(|mb| mb.saturating_mul(1 << 20)),
                cpu_seconds: first(from, |policy| &policy.cpu_seconds),
                open_files: None,
            },
            environment: first(from, |policy| &policy.environment).unwrap_or_default(),
            start_timeout: millis(first(from, |policy| &policy.start_timeout_ms), 30_000),
            hang_timeout: millis(first(from, |policy| &policy.hang_timeout_ms), 10_000),
            // As Erlang's and Kubernetes' habits: a handful per minute is an accident, more is a defect.
            max_restarts: first(from, |policy| &policy.max_restarts).unwrap_or(5),
            restart_window: millis(first(from, |policy| &policy.restart_window_ms), 60_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_plugin_goes_before_what_is_said_of_all() {
        let config: Policies = toml::from_str(
            "['*']\nisolation = 'process'\nmemory_mb = 64\n[tts-x]\nisolation = 'none'\nhang_timeout_ms = 1500\n",
        )
        .expect("policies");
        let (own, other) = (Policy::of(&config, "tts-x"), Policy::of(&config, "tts-y"));
        assert_eq!((own.isolation, other.isolation), (Isolation::None, Isolation::Process));
        assert_eq!((own.limits.memory_bytes, other.limits.memory_bytes), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((own.hang_timeout.as_millis(), other.hang_timeout.as_millis()), (1500, 10_000));
        assert_eq!(Policy::of(&Policies::new(), "tts-x").isolation, Isolation::None);
    }
}
