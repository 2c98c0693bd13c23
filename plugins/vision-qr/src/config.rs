//! Settings: how large a picture may be.
//!
//! Not here: how often frames are looked at (the host's).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of the search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Largest picture that is searched, in pixels. A larger one is refused with an error, not scaled down: scaling
    /// would lose small codes in silence.
    #[schemars(range(min = 441, max = 100_000_000))]
    pub max_pixels: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_pixels: 16_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_keys_take_the_default_and_unknown_keys_are_refused() {
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings { max_pixels: 16_000_000 });
        let error = serde_json::from_str::<Settings>(r#"{"pixels": 5}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `pixels`"), "{error}");
    }
}
