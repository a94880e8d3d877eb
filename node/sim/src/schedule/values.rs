//! Values as words without spaces, there and back.

use std::fmt::Debug;

use holm_protocol::ids::NodeId;
use holm_protocol::level::Level;

use crate::net::Delay;
use crate::plan::{FaultKind, Mode, Repeats, Workload};
use crate::store::SyncMode;
use crate::tamper::Tamper;

/// Joins lists, lists of lists, and so on.
const SEPARATORS: [&str; 3] = [",", ";", "|"];

/// What can stand after the `=` of a word.
pub(super) trait Value: Sized {
    /// How many lists lie in each other.
    const DEPTH: usize = 0;

    /// The word: no space, no `#`.
    fn word(&self) -> String;

    /// The value of a word.
    ///
    /// # Errors
    /// What was expected instead.
    fn read(word: &str) -> Result<Self, String>;
}

macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl Value for $number {
            fn word(&self) -> String {
                self.to_string()
            }

            fn read(word: &str) -> Result<Self, String> {
                let expected = || format!("a number from {} to {}", <$number>::MIN, <$number>::MAX);
                word.parse().map_err(|_| expected())
            }
        }
    )+};
}

numbers!(u8, u16, u32, u64, usize, i32, i64);

impl Value for bool {
    fn word(&self) -> String {
        self.to_string()
    }

    fn read(word: &str) -> Result<Self, String> {
        word.parse().map_err(|_| "true or false".to_owned())
    }
}

/// Enums whose values have no fields: by the name in the program.
macro_rules! names {
    ($($name:ty),+) => {$(
        impl Value for $name {
            fn word(&self) -> String {
                format!("{self:?}")
            }

            fn read(word: &str) -> Result<Self, String> {
                named(&<$name>::ALL, word)
            }
        }
    )+};
}

names!(FaultKind, Repeats, Tamper, Workload);

fn named<T: Copy + Debug>(all: &[T], word: &str) -> Result<T, String> {
    let names: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
    let at = names.iter().position(|name| name == word);
    at.map(|at| all[at]).ok_or_else(|| format!("one of {}", names.join(", ")))
}

impl Value for NodeId {
    fn word(&self) -> String {
        self.to_string()
    }

    fn read(word: &str) -> Result<Self, String> {
        let number = word.strip_prefix('n').and_then(|number| number.parse().ok());
        number.map(NodeId).ok_or_else(|| "a node, as n1".to_owned())
    }
}

impl Value for Level {
    fn word(&self) -> String {
        self.to_string()
    }

    fn read(word: &str) -> Result<Self, String> {
        let expected = "one, local_quorum, quorum, each_quorum, all or a number from 1 to 127";
        word.parse().map_err(|_| expected.to_owned())
    }
}

impl Value for Delay {
    fn word(&self) -> String {
        let Delay { base_us, jitter_us } = self;
        format!("{base_us}+{jitter_us}")
    }

    fn read(word: &str) -> Result<Self, String> {
        let expected = || "microseconds as least+jitter, 500+200 for one".to_owned();
        let (base, jitter) = word.split_once('+').ok_or_else(expected)?;
        let number = |word: &str| word.parse().map_err(|_| expected());
        Ok(Delay { base_us: number(base)?, jitter_us: number(jitter)? })
    }
}

impl Value for SyncMode {
    fn word(&self) -> String {
        match self {
            SyncMode::Always => "always".to_owned(),
            SyncMode::Interval { ms } => format!("interval:{ms}"),
        }
    }

    fn read(word: &str) -> Result<Self, String> {
        let interval = || word.strip_prefix("interval:").and_then(|ms| ms.parse().ok());
        match word {
            "always" => Ok(SyncMode::Always),
            _ => match interval() {
                Some(ms) if ms > 0 => Ok(SyncMode::Interval { ms }),
                _ => Err("always or interval:MILLISECONDS".to_owned()),
            },
        }
    }
}

impl Value for Mode {
    fn word(&self) -> String {
        match self {
            Mode::Calm => "calm".to_owned(),
            Mode::Swarm => "swarm".to_owned(),
            Mode::Nemesis(kind) => format!("nemesis:{}", kind.word()),
            Mode::Pair(one, other) => format!("pair:{}", (*one, *other).word()),
        }
    }

    fn read(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            None if word == "calm" => Ok(Mode::Calm),
            None if word == "swarm" => Ok(Mode::Swarm),
            Some(("nemesis", kind)) => FaultKind::read(kind).map(Mode::Nemesis),
            Some(("pair", kinds)) => Value::read(kinds).map(|(one, other)| Mode::Pair(one, other)),
            _ => Err("calm, swarm, nemesis:KIND or pair:KIND:KIND".to_owned()),
        }
    }
}

impl<T: Value> Value for Option<T> {
    fn word(&self) -> String {
        self.as_ref().map_or("none".to_owned(), Value::word)
    }

    fn read(word: &str) -> Result<Self, String> {
        match word {
            "none" => Ok(None),
            _ => T::read(word).map(Some).map_err(|expected| format!("none or {expected}")),
        }
    }
}

impl<A: Value, B: Value> Value for (A, B) {
    fn word(&self) -> String {
        format!("{}:{}", self.0.word(), self.1.word())
    }

    fn read(word: &str) -> Result<Self, String> {
        let (a, b) = word.split_once(':').ok_or("a pair, joined by a colon")?;
        let one = |expected| format!("before the colon {expected}");
        let other = |expected| format!("after the colon {expected}");
        Ok((A::read(a).map_err(one)?, B::read(b).map_err(other)?))
    }
}

impl<T: Value> Value for Vec<T> {
    const DEPTH: usize = T::DEPTH + 1;

    fn word(&self) -> String {
        let words: Vec<String> = self.iter().map(Value::word).collect();
        words.join(SEPARATORS[T::DEPTH])
    }

    fn read(word: &str) -> Result<Self, String> {
        if word.is_empty() {
            return Ok(Vec::new());
        }
        let separator = SEPARATORS[T::DEPTH];
        let several = |expected| format!("a list, joined by `{separator}`, of {expected}");
        word.split(separator).map(|one| T::read(one).map_err(several)).collect()
    }
}
