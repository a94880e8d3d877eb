//! The secrets of a cluster whose first layout was applied at more than one node.
//!
//! Each of those nodes drew a secret. Merged, they are the set of all keys, of which the smallest
//! stay: the smallest of all seals, the others still open what was sealed with them meanwhile. That
//! depends on the set alone, so nodes agree in whatever order they meet.
//!
//! A secret's id is taken from its key, so that a merge does not rename it and contexts given out
//! before stay good. Where two ids would be equal (once in 256 pairs), the larger key gets the next
//! free one; contexts sealed with it before are refused, as if forged, and are to be read again.

use std::collections::BTreeSet;

use crate::context::{ContextSecret, ContextSecrets, PREVIOUS_SECRETS_MAX};

/// The secrets of a cluster that has just got its first layout.
pub(super) fn first(key: [u8; 32]) -> ContextSecrets {
    let current = ContextSecret { id: preferred_id(&key), key };
    ContextSecrets { current, previous: Vec::new() }
}

/// What two nodes' secrets come to: commutative, associative and idempotent.
pub(super) fn merged(
    one: Option<&ContextSecrets>,
    other: Option<&ContextSecrets>,
) -> Option<ContextSecrets> {
    let (one, other) = match (one, other) {
        (Some(one), Some(other)) if one != other => (one, other),
        (one, other) => return one.or(other).cloned(),
    };
    let keys: BTreeSet<[u8; 32]> = keys(one).chain(keys(other)).copied().collect();
    let mut kept: Vec<ContextSecret> = Vec::new();
    for key in keys.into_iter().take(1 + PREVIOUS_SECRETS_MAX) {
        let mut id = preferred_id(&key);
        while kept.iter().any(|secret| secret.id == id) {
            id = id.wrapping_add(1);
        }
        kept.push(ContextSecret { id, key });
    }
    let mut kept = kept.into_iter();
    let current = kept.next()?;
    Some(ContextSecrets { current, previous: kept.collect() })
}

/// Whether any key is known to both.
pub(super) fn in_common(one: &ContextSecrets, other: &ContextSecrets) -> bool {
    keys(one).any(|key| keys(other).any(|theirs| theirs == key))
}

fn keys(secrets: &ContextSecrets) -> impl Iterator<Item = &[u8; 32]> {
    std::iter::once(&secrets.current).chain(&secrets.previous).map(|secret| &secret.key)
}

/// One way: the id travels in the clear.
fn preferred_id(key: &[u8; 32]) -> u8 {
    blake3::derive_key("holm context secret id v1", key)[0]
}
