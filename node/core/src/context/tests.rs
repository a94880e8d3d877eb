//! Goal: a context opens for its key and cluster only, and no bytes make the decoder panic (I8).

use holm_protocol::dot::Dot;
use holm_protocol::ids::Actor;
use proptest::prelude::*;

use super::*;

const BUCKET: BucketId = BucketId(7);

fn secrets() -> ContextSecrets {
    ContextSecrets::new([42; 32])
}

fn contexts() -> impl Strategy<Value = VersionVector> {
    let dot = (any::<u64>(), 1u64..=u64::MAX).prop_map(|(a, c)| Dot::new(Actor(a), c));
    prop::collection::vec(dot, 1..6).prop_map(|dots| dots.into_iter().collect())
}

proptest! {
    /// Goal: a context comes back as it was given out, for its own key only. Method: seal, open
    /// for the same place, then for another bucket, key and cluster.
    #[test]
    fn contexts_are_bound_to_their_key(context in contexts(), key: Vec<u8>, other: Vec<u8>) {
        let secrets = secrets();
        let sealed = secrets.seal(BUCKET, &key, &context);
        prop_assert_eq!(secrets.open(BUCKET, &key, &sealed), Ok(context));
        prop_assert_eq!(secrets.open(BucketId(8), &key, &sealed), Err(ContextError::Forged));
        if key != other {
            prop_assert_eq!(secrets.open(BUCKET, &other, &sealed), Err(ContextError::Forged));
        }
        // Where the key ends is part of what is bound.
        let (head, vector) = sealed.split_at(HEAD_BYTES);
        let shifted = [head, &vector[1..]].concat();
        let longer = [&key[..], &vector[..1]].concat();
        prop_assert_eq!(secrets.open(BUCKET, &longer, &shifted), Err(ContextError::Forged));
        let foreign = ContextSecrets::new([43; 32]);
        prop_assert_eq!(foreign.open(BUCKET, &key, &sealed), Err(ContextError::Forged));
    }

    /// Goal: no altered context is taken. Method: change one byte, cut, or append.
    #[test]
    fn altered_contexts_are_refused(
        context in contexts(),
        at: prop::sample::Index,
        flip in 1u8..,
        extra in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let secrets = secrets();
        let sealed = secrets.seal(BUCKET, b"key", &context);
        let at = at.index(sealed.len());
        let mut flipped = sealed.to_vec();
        flipped[at] ^= flip;
        let refused = secrets.open(BUCKET, b"key", &flipped);
        prop_assert!(refused.is_err());
        if at >= 2 {
            prop_assert_eq!(refused, Err(ContextError::Forged));
        }
        // Cut to nothing it is a blind write, which is what the client could have sent anyway.
        if at > 0 {
            prop_assert!(secrets.open(BUCKET, b"key", &sealed[..at]).is_err());
        }
        let longer = [&sealed[..], &extra[..]].concat();
        prop_assert_eq!(secrets.open(BUCKET, b"key", &longer), Err(ContextError::Forged));
    }

    /// Goal: any bytes are an error, never a context and never a panic. Method: noise, with and
    /// without a plausible head.
    #[test]
    fn noise_is_refused(noise in prop::collection::vec(any::<u8>(), 1..80), plausible: bool) {
        let mut noise = noise;
        if plausible {
            noise[0] = VERSION;
            if let Some(id) = noise.get_mut(1) {
                *id = 0;
            }
        }
        prop_assert!(secrets().open(BUCKET, b"key", &noise).is_err());
    }
}

/// Goal: rotation overlaps. Method: rotate until a context's secret is dropped.
#[test]
fn previous_secrets_open_until_dropped() {
    let mut secrets = secrets();
    let context: VersionVector = [Dot::new(Actor(1), 1)].into_iter().collect();
    let sealed = secrets.seal(BUCKET, b"key", &context);
    for round in 0..PREVIOUS_SECRETS_MAX {
        secrets.rotate([round as u8; 32]);
        assert_eq!(secrets.open(BUCKET, b"key", &sealed), Ok(context.clone()));
        assert_ne!(secrets.seal(BUCKET, b"key", &context), sealed);
    }
    secrets.rotate([99; 32]);
    assert_eq!(secrets.open(BUCKET, b"key", &sealed), Err(ContextError::UnknownSecret { id: 0 }));
}

/// Goal: each refusal says what is wrong. Method: one input for each variant.
#[test]
fn refusals_are_told_apart() {
    let secrets = secrets();
    let open = |bytes: &[u8]| secrets.open(BUCKET, b"key", bytes);
    let len = CONTEXT_LEN_MAX + 1;
    assert_eq!(open(&vec![0; len]), Err(ContextError::TooLong { len, limit: CONTEXT_LEN_MAX }));
    assert_eq!(open(&[VERSION, 0, 1]), Err(ContextError::Truncated { len: 3 }));
    assert_eq!(open(&vec![0; len - 1]), Err(ContextError::Version { got: 0 }), "not too long");
    let mut bytes = [0; HEAD_BYTES + 1];
    assert_eq!(open(&bytes), Err(ContextError::Version { got: 0 }));
    bytes[0] = VERSION;
    bytes[1] = 5;
    assert_eq!(open(&bytes), Err(ContextError::UnknownSecret { id: 5 }));
    bytes[1] = 0;
    assert_eq!(open(&bytes), Err(ContextError::Forged));
    let mac = authenticate(&secrets.current, BUCKET, b"key", &[1]);
    bytes[2..HEAD_BYTES].copy_from_slice(&mac.as_bytes()[..MAC_BYTES]);
    bytes[HEAD_BYTES] = 1;
    assert!(matches!(open(&bytes), Err(ContextError::Malformed(_))));
}

/// Goal: a blind write needs no bytes, and the key never shows in logs. Method: seal nothing;
/// format a secret.
#[test]
fn empty_contexts_and_secrets_stay_silent() {
    let secrets = ContextSecrets::new([213; 32]);
    assert!(secrets.seal(BUCKET, b"key", &VersionVector::new()).is_empty());
    assert_eq!(secrets.open(BUCKET, b"key", b""), Ok(VersionVector::new()));
    let shown = format!("{secrets:?}");
    assert!(!shown.contains("213") && !shown.contains("key"), "{shown}");
}

/// Goal: the layout is a contract between releases and nodes. Method: pinned bytes.
#[test]
fn layout_is_pinned() {
    let context: VersionVector = [Dot::new(Actor(1), 2)].into_iter().collect();
    let sealed = secrets().seal(BUCKET, b"key", &context);
    assert_eq!(sealed[..2], [1, 0]);
    let mac = [129, 114, 95, 15, 212, 145, 127, 242, 103, 178, 244, 235, 137, 102, 76, 152];
    assert_eq!(sealed[2..18], mac);
    assert_eq!(sealed[18..], [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
}
