//! A set kept by reading, adding and writing back loses no element.
//!
//! The application's view of [`super::kept`]: clients on such a key read it, merge the siblings'
//! sets, add their own element and put the result with the context of the read. What the database
//! calls overwritten is then contained in what overwrote it.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::check::{Property, Verdict, Violation};
use crate::history::{EventId, History, KeyId};

/// I5, as an application sees it.
pub const ELEMENTS_KEPT: Property = Property {
    name: "sets lose no element",
    invariant: "I5",
    statement: "in the end the union of a set's siblings has every element whose writer was acknowledged",
    source: "Dynamo (SOSP 2007) 4.4: the shopping cart; TESTING 2, W3",
    tla: Some("tla/Causality.tla!NothingVanishes"),
    file: file!(),
};

/// A set as a value: the writing event, and all elements, each the event that added it.
#[must_use]
pub fn encode(event: EventId, elements: &BTreeSet<usize>) -> Bytes {
    let list: Vec<String> = elements.iter().map(usize::to_string).collect();
    Bytes::from(format!("{}:{}", event.0, list.join(",")))
}

/// The elements of a value; none if it is not a set.
#[must_use]
pub fn decode(value: &[u8]) -> BTreeSet<usize> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let list = text.split_once(':').map_or("", |(_, list)| list);
    list.split(',').filter_map(|element| element.parse().ok()).collect()
}

/// Checks the union of a key's final siblings.
///
/// # Errors
/// An acknowledged element that is missing.
pub fn check(history: &History, key: KeyId, siblings: &[Bytes]) -> Verdict {
    let union: BTreeSet<usize> = siblings.iter().flat_map(|value| decode(value)).collect();
    for (id, event) in history.events_of(key).filter(|(_, event)| event.is_owed()) {
        // The element is named after the first try.
        let element = history.first_try(id).0;
        let is_set = event.value.as_ref().is_some_and(|value| decode(value).contains(&element));
        if is_set && !union.contains(&element) {
            let how =
                format!("element {element} is missing from {union:?}: {}", history.describe(id));
            return Err(Violation::new(&ELEMENTS_KEPT, how));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, dot};
    use crate::history::EventSet;

    /// Goal: a set comes back as it went in, and a missing element is told.
    #[test]
    fn good_and_bad() {
        let mut told = Told::default();
        let value = encode(EventId(0), &[0].into());
        let a = told.history.begin(told.key, Some(value.clone()), EventSet::default(), told.at());
        told.acknowledge(a, dot(1, 1), &[1]);
        assert_eq!(decode(&encode(EventId(7), &[0, 7].into())), [0, 7].into());
        assert_eq!(check(&told.history, told.key, &[encode(EventId(7), &[0, 7].into())]), Ok(()));
        assert!(check(&told.history, told.key, &[encode(EventId(7), &[7].into())]).is_err());
    }
}
