//! The voices that the package `libflite1` brings, and where each one lives.
//!
//! Not here: opening them, which is [`sys`](crate::sys)'s work.

use std::{ffi::CStr, fmt, str::FromStr};

/// One of flite's US English voices; all four speak at 16 kHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Voice {
    /// Male, diphones: robotic, and twenty times faster than the others.
    Kal16,
    /// Female, statistical.
    Slt,
    /// Male, statistical.
    Rms,
    /// Male with a Scottish accent, statistical.
    Awb,
}

impl Voice {
    /// Every voice, in the order of the enum.
    pub const ALL: [Voice; 4] = [Voice::Kal16, Voice::Slt, Voice::Rms, Voice::Awb];

    /// Samples per second. Source: `sample_rate` of each voice in flite 2.2; a test compares it with the audio.
    pub const fn sample_rate_hz(self) -> u32 {
        16_000
    }

    /// Whether a pitch can be asked of it. `Rms` has a model of pitch that takes no mean (`cst_spamf0.c` in flite 2.2):
    /// it speaks as ever.
    pub const fn heeds_pitch(self) -> bool {
        !matches!(self, Voice::Rms)
    }

    /// Name in settings, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Voice::Kal16 => "kal16",
            Voice::Slt => "slt",
            Voice::Rms => "rms",
            Voice::Awb => "awb",
        }
    }

    /// File name of the shared library, as the dynamic linker knows it.
    pub(crate) const fn library(self) -> &'static str {
        match self {
            Voice::Kal16 => "libflite_cmu_us_kal16.so.1",
            Voice::Slt => "libflite_cmu_us_slt.so.1",
            Voice::Rms => "libflite_cmu_us_rms.so.1",
            Voice::Awb => "libflite_cmu_us_awb.so.1",
        }
    }

    /// The function of that library that makes the voice.
    pub(crate) const fn register_symbol(self) -> &'static CStr {
        match self {
            Voice::Kal16 => c"register_cmu_us_kal16",
            Voice::Slt => c"register_cmu_us_slt",
            Voice::Rms => c"register_cmu_us_rms",
            Voice::Awb => c"register_cmu_us_awb",
        }
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Voice {
    type Err = UnknownVoice;

    fn from_str(name: &str) -> Result<Voice, UnknownVoice> {
        Voice::ALL
            .into_iter()
            .find(|voice| voice.name() == name)
            .ok_or_else(|| UnknownVoice { name: name.to_owned() })
    }
}

/// A voice name that is none of [`Voice::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no voice is called `{name}`; there are kal16, slt, rms and awb")]
pub struct UnknownVoice {
    /// What was asked for.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_the_same_voice() {
        for voice in Voice::ALL {
            assert_eq!(voice.to_string().parse(), Ok(voice));
        }
    }

    #[test]
    fn unknown_name_is_told_the_known_ones() {
        let error = "Slt".parse::<Voice>().unwrap_err();
        assert_eq!(error.to_string(), "no voice is called `Slt`; there are kal16, slt, rms and awb");
    }
}
