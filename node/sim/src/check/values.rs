//! Values are what somebody wrote, and nobody was told that they were not.

use bytes::Bytes;

use crate::check::{Property, Verdict, Violation};
use crate::history::{EventId, History, KeyId, Outcome};

/// P6, P11.
pub const GENUINE: Property = Property {
    name: "values are genuine",
    invariant: "P11",
    statement: "every value that is shown, sent or stored was put to that key, byte for byte",
    source: "TESTING 2, W9: checksums from the coordinator on; I8, I11",
    tla: None,
    file: file!(),
};

/// P9.
pub const NOT_DONE: Property = Property {
    name: "what was certainly not done is never seen",
    invariant: "P9",
    statement: "no value of a write that was answered 'nothing happened' is ever shown or stored",
    source: "TESTING 2, W8; STYLE 15: outcomes have three values",
    tla: None,
    file: file!(),
};

/// Finds the write of a value seen at `place`.
///
/// # Errors
/// Nobody put it, or its writer was told that nothing happened.
pub fn writer_of(
    history: &History,
    key: KeyId,
    value: &Bytes,
    place: &str,
) -> Result<EventId, Violation> {
    let Some(id) = history.by_value(key, value) else {
        let name = String::from_utf8_lossy(&history.key(key).name).into_owned();
        let text: String = String::from_utf8_lossy(value).chars().take(40).collect();
        let how = format!("{place} holds {text:?} under {name}, which nobody put");
        return Err(Violation::new(&GENUINE, how));
    };
    may_be_seen(history, id, place)?;
    Ok(id)
}

/// Whether a write's effect may be seen at `place`.
///
/// # Errors
/// Its writer was told that nothing happened.
pub fn may_be_seen(history: &History, id: EventId, place: &str) -> Verdict {
    if history.event(id).outcome != Outcome::NotDone {
        return Ok(());
    }
    let how = format!("{place} has the effect of {}", history.describe(id));
    Err(Violation::new(&NOT_DONE, how))
}

/// At the end: no write that was not done had a dot that anybody saw.
///
/// # Errors
/// One had.
pub fn nothing_undone_was_seen(history: &History) -> Verdict {
    for (id, event) in history.events() {
        if event.dot.is_some() {
            may_be_seen(history, id, "a replica or a message")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, dot};

    /// Goal: put values pass; others, other keys' and undone ones do not.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let a = told.put("a", &[]);
        let find = |told: &Told, text: &'static str| {
            writer_of(&told.history, told.key, &Bytes::from_static(text.as_bytes()), "n1")
        };
        assert_eq!(find(&told, "a"), Ok(a));
        assert_eq!(find(&told, "A").unwrap_err().property, &GENUINE);
        told.acknowledge(a, dot(1, 1), &[1]);
        assert_eq!(nothing_undone_was_seen(&told.history), Ok(()));
        told.history.event_mut(a).outcome = Outcome::NotDone;
        assert_eq!(find(&told, "a").unwrap_err().property, &NOT_DONE);
        assert!(nothing_undone_was_seen(&told.history).is_err());
    }
}
