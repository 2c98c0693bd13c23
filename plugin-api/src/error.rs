//! The error of author code.

use std::{error::Error, fmt};

use antiphon_core::event::values::ErrorInfo;

use crate::abi::AbiError;

/// What went wrong in a plugin. Any error converts into it with `?`.
pub struct PluginError {
    code: &'static str,
    message: String,
    recoverable: bool,
    chain: Vec<String>,
}

impl PluginError {
    /// An error with a short machine-readable code (such as `model_missing`) and a text for people that says what was
    /// expected and what to do.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), recoverable: true, chain: Vec::new() }
    }

    /// The request was cancelled or its session is closed; there is nobody to produce for.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new("cancelled", "the request was cancelled")
    }

    /// Says that trying again is of no use.
    #[must_use]
    pub fn fatal(mut self) -> Self {
        self.recoverable = false;
        self
    }

    /// Machine-readable code; `error` for converted errors.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Whether trying again may succeed.
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        self.recoverable
    }

    pub(crate) fn panic(message: String) -> Self {
        Self { code: "panic", message, recoverable: true, chain: Vec::new() }
    }

    pub(crate) fn info(&self) -> ErrorInfo {
        ErrorInfo {
            kind: if self.code == "panic" { "panic" } else { "error" }.into(),
            code: Some(self.code.into()),
            message: self.message.clone(),
            recoverable: self.recoverable,
            context: None,
            source_chain: self.chain.clone(),
        }
    }
}

impl<E: Error> From<E> for PluginError {
    fn from(error: E) -> Self {
        let ErrorInfo { message, source_chain, .. } = error_info(&error);
        Self { code: "error", message, recoverable: true, chain: source_chain }
    }
}

fn error_info(error: &dyn Error) -> ErrorInfo {
    let mut source_chain = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        source_chain.push(cause.to_string());
        source = cause.source();
    }
    ErrorInfo {
        kind: "error".into(),
        code: None,
        message: error.to_string(),
        recoverable: true,
        context: None,
        source_chain,
    }
}

impl From<PluginError> for AbiError {
    fn from(error: PluginError) -> Self {
        AbiError {
            code: error.code.into(),
            message: error.to_string().into(),
            recoverable: error.recoverable,
        }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.chain.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self, self.code)
    }
}
