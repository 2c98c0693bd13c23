//! Answers that cross: numbers, so that a newer side can give one that an older side does not know.

use std::fmt;

use abi_stable::StableAbi;

/// Answer to a command or an event.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, StableAbi)]
pub struct Status(u32);

impl Status {
    pub const ACCEPTED: Self = Self(0);
    pub const FULL: Self = Self(1);
    pub const CLOSED: Self = Self(2);
    /// Not understood: an unknown event index, or a payload that cannot be read. Trying again is of no use.
    pub const REFUSED: Self = Self(3);
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ACCEPTED => f.write_str("ACCEPTED"),
            Self::FULL => f.write_str("FULL"),
            Self::CLOSED => f.write_str("CLOSED"),
            Self::REFUSED => f.write_str("REFUSED"),
            Self(other) => write!(f, "Status({other})"),
        }
    }
}

/// How a command ended.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, StableAbi)]
pub struct Outcome(u32);

impl Outcome {
    pub const COMPLETED: Self = Self(0);
    pub const FAILED: Self = Self(1);
    pub const CANCELLED: Self = Self(2);
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::COMPLETED => f.write_str("COMPLETED"),
            Self::FAILED => f.write_str("FAILED"),
            Self::CANCELLED => f.write_str("CANCELLED"),
            Self(other) => write!(f, "Outcome({other})"),
        }
    }
}
