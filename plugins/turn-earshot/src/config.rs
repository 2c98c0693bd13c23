//! Settings of the detector: defaults, units and ranges.
//!
//! Not here: what the numbers do frame by frame (`endpoint.rs`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How sure and how long speech and silence must be.
///
/// The ranges are those of the JSON Schema, which the host checks; a value outside of them makes a detector that is
/// too eager or too deaf, never one that panics. Times are rounded up to whole frames of 16 ms.
///
/// The defaults are measured on 14 human recordings and 80 synthetic words, clean and with noise; the README has
/// the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Probability of voice that opens a speech segment.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,

    /// How far below `threshold` the probability must fall to close the segment again.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub hysteresis: f64,

    /// Probability that a segment must reach to start a turn, and again to keep it going; noise stays below it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub turn_threshold: f64,

    /// Speech without a gap before a turn starts, in milliseconds. The start that is reported lies before this delay.
    #[schemars(range(min = 0, max = 5000))]
    pub min_speech_ms: u32,

    /// Silence that ends a turn, in milliseconds. Shorter: quicker answers; longer: room to think in mid-sentence.
    #[schemars(range(min = 100, max = 10000))]
    pub hangover_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { threshold: 0.5, hysteresis: 0.15, turn_threshold: 0.7, min_speech_ms: 200, hangover_ms: 800 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_keys_take_the_default_and_unknown_keys_are_refused() {
        let settings: Settings = serde_json::from_str(r#"{"hangover_ms": 600}"#).unwrap();
        assert_eq!(settings, Settings { hangover_ms: 600, ..Settings::default() });

        let error = serde_json::from_str::<Settings>(r#"{"hangover": 600}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `hangover`"), "{error}");
        assert!(error.contains("hangover_ms"), "{error}");
    }

    #[test]
    fn schema_carries_ranges_and_readable_defaults() {
        let schema = serde_json::to_value(schemars::schema_for!(Settings)).unwrap();
        let properties = &schema["properties"];
        assert_eq!(properties["turn_threshold"]["default"], 0.7);
        assert_eq!(properties["turn_threshold"]["maximum"], 1.0);
        assert_eq!(properties["hangover_ms"]["minimum"], 100);
        assert_eq!(schema["additionalProperties"], false);
    }
}
