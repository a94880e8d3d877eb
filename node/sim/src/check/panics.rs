//! The core never panics.

use std::any::Any;

use crate::check::{Property, Violation};

/// I8.
pub const NEVER: Property = Property {
    name: "the core never panics",
    invariant: "I8",
    statement: "no input makes the core panic, its own assertions included",
    source: "TigerBeetle: assertions on in the simulator; STYLE 5",
    tla: None,
    file: file!(),
};

/// What a panic said.
#[must_use]
pub fn violation(payload: &(dyn Any + Send)) -> Violation {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    Violation::new(&NEVER, text.unwrap_or("a panic without words").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both kinds of panic messages are kept.
    #[test]
    fn messages_are_kept() {
        assert_eq!(violation(&"plain").how, "plain");
        assert_eq!(violation(&"made".to_owned()).how, "made");
        assert_eq!(violation(&7_u8).property, &NEVER);
    }
}
