//! Consistency levels: how many replicas must answer before a request is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many replicas must have made a write durable, or must have answered a read.
///
/// A level counts *replicas of the key's partition*, by identity. With `R + W > N` a read sees
/// every write acknowledged before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Level {
    /// Any one replica.
    One,
    /// A majority of the replicas in the coordinator's region.
    LocalQuorum,
    /// A majority of all replicas in all regions.
    Quorum,
    /// A majority of the replicas in every region.
    EachQuorum,
    /// Every replica.
    All,
    /// This many replicas, wherever they are. Never 0.
    Count(u8),
}

impl Level {
    /// One byte: 1 to 5 for the named levels, `0x80 | n` for a number up to 127; 0 means "the
    /// bucket's default".
    #[must_use]
    pub fn to_byte(level: Option<Level>) -> u8 {
        match level {
            None => 0,
            Some(Level::One) => 1,
            Some(Level::LocalQuorum) => 2,
            Some(Level::Quorum) => 3,
            Some(Level::EachQuorum) => 4,
            Some(Level::All) => 5,
            Some(Level::Count(n)) => 0x80 | n.clamp(1, 127),
        }
    }

    /// The reverse of [`Level::to_byte`].
    ///
    /// # Errors
    /// [`WireError::Invalid`](crate::wire::WireError::Invalid) for a byte that names no level.
    pub fn from_byte(byte: u8) -> Result<Option<Level>, crate::wire::WireError> {
        Ok(Some(match byte {
            0 => return Ok(None),
            1 => Level::One,
            2 => Level::LocalQuorum,
            3 => Level::Quorum,
            4 => Level::EachQuorum,
            5 => Level::All,
            n if n > 0x80 => Level::Count(n & 0x7f),
            got => {
                return Err(crate::wire::WireError::Invalid { field: "level", got: got.into() });
            }
        }))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::One => f.write_str("one"),
            Level::LocalQuorum => f.write_str("local_quorum"),
            Level::Quorum => f.write_str("quorum"),
            Level::EachQuorum => f.write_str("each_quorum"),
            Level::All => f.write_str("all"),
            Level::Count(n) => write!(f, "{n}"),
        }
    }
}

/// A text that names no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no consistency level: use one, local_quorum, quorum, each_quorum, all or a number from 1 to 127"
)]
pub struct LevelParseError(pub String);

impl FromStr for Level {
    type Err = LevelParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "one" => Level::One,
            "local_quorum" => Level::LocalQuorum,
            "quorum" => Level::Quorum,
            "each_quorum" => Level::EachQuorum,
            "all" => Level::All,
            number => match number.parse() {
                Ok(n @ 1..=127) => Level::Count(n),
                _ => return Err(LevelParseError(text.to_owned())),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: bytes and texts name levels one to one. Method: all 256 bytes, there and back.
    #[test]
    fn bytes_and_texts_round_trip() {
        for byte in 0..=255u8 {
            if let Ok(level) = Level::from_byte(byte) {
                assert_eq!(Level::to_byte(level), byte);
                if let Some(level) = level {
                    assert_eq!(level.to_string().parse(), Ok(level));
                }
            }
        }
        assert!("0".parse::<Level>().is_err() && "128".parse::<Level>().is_err());
    }
}
