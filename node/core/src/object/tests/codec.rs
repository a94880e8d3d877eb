//! The encoding: canonical, total, pinned.

use holm_protocol::limits::{CONTEXT_ENTRIES_MAX, SIBLINGS_HARD_MAX, VALUE_LEN_MAX};
use holm_protocol::wire::{WireError, put_varint};
use proptest::prelude::*;
use proptest::sample::Index;

use super::history::{World, worlds};
use super::*;

fn encoded(object: &Object) -> Vec<u8> {
    let mut out = Vec::new();
    object.encode(&mut out);
    out
}

/// Replaces the trailing checksum by one that matches, so that what lies behind it is tested.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&body);
    body.extend_from_slice(&crc.to_be_bytes());
    body
}

fn pick(world: &World, index: Index) -> &Object {
    &world.states[index.index(world.states.len())].0
}

proptest! {
    /// Goal: one object has one encoding, wherever in a buffer it is. Method: write behind other
    /// bytes, read back; different objects have different bytes.
    #[test]
    fn encoding_reads_back(world in worlds(), a: Index, b: Index, before: Vec<u8>) {
        let (a, b) = (pick(&world, a), pick(&world, b));
        let mut out = before.clone();
        a.encode(&mut out);
        prop_assert_eq!(&out[..before.len()], &before[..]);
        let read = Object::decode(&out[before.len()..]);
        prop_assert_eq!(read.as_ref(), Ok(a));
        prop_assert_eq!(a == b, encoded(a) == encoded(b));
        prop_assert!(a.size_bytes() >= size_of::<Object>());
    }

    /// Goal: damage never passes. Method: flip one to three bits, or cut, or append.
    #[test]
    fn damage_is_refused(world in worlds(), pick_at: Index, flips in prop::collection::vec(any::<Index>(), 1..4), tail: Vec<u8>) {
        let bytes = encoded(pick(&world, pick_at));
        let mut flipped = bytes.clone();
        for flip in &flips {
            let bit = flip.index(bytes.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        prop_assert_eq!(Object::decode(&flipped).is_ok(), flipped == bytes);
        prop_assert!(Object::decode(&bytes[..flips[0].index(bytes.len())]).is_err());
        if !tail.is_empty() {
            prop_assert!(Object::decode(&[bytes, tail].concat()).is_err());
        }
    }

    /// Goal: the decoder is total, and takes nothing but what the encoder writes, whoever made the
    /// checksum. Method: damage a body, make the trailing checksum match; what still reads keeps
    /// the invariants and encodes to the same bytes.
    #[test]
    fn only_canonical_bytes_decode(world in worlds(), pick_at: Index, at: Index, noise in prop::collection::vec(any::<u8>(), 0..6), cut in 0usize..6) {
        let mut body = encoded(pick(&world, pick_at));
        body.truncate(body.len() - 4);
        let at = at.index(body.len());
        body.splice(at..body.len().min(at + cut), noise);
        let bytes = sealed(body);
        if let Ok(object) = Object::decode(&bytes) {
            prop_assert_eq!(object.check(), Ok(()));
            prop_assert_eq!(encoded(&object), bytes);
        }
    }

    /// Goal: any bytes give an object or an error. Method: noise, with and without a plausible
    /// head and a matching checksum.
    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64), kind in 0u8..4) {
        prop_assert!(Object::decode(&noise).is_err());
        let bytes = sealed([&[1, kind][..], &noise].concat());
        if let Ok(object) = Object::decode(&bytes) {
            prop_assert_eq!(encoded(&object), bytes);
        }
    }
}

/// A body with the context {9: 3} and then `rest`.
fn body(kind: ObjectKind, rest: &[u8]) -> Vec<u8> {
    let context = [1, 0, 0, 0, 0, 0, 0, 0, 9, 3];
    sealed([&[1, kind.tag()][..], &context, rest].concat())
}

/// What `put_sibling` writes for actor 9, whose place is 0.
fn entry(counter: u8, checksum_flip: u32) -> Vec<u8> {
    let sibling = sibling(dot(9, u64::from(counter)), 5);
    let mut out = vec![0, counter];
    out.extend_from_slice(&sibling.hlc.0.to_be_bytes());
    out.extend_from_slice(&(sibling.checksum ^ checksum_flip).to_be_bytes());
    put_varint(&mut out, sibling.value.len() as u64);
    out.extend_from_slice(&sibling.value);
    out
}

/// Goal: each rule has its own refusal. Method: one input that breaks each.
#[test]
fn refusals_are_told_apart() {
    let siblings = |entries: &[Vec<u8>]| {
        let rest = [&[entries.len() as u8][..], &entries.concat()].concat();
        Object::decode(&body(ObjectKind::Siblings, &rest))
    };
    assert_eq!(siblings(&[entry(1, 0), entry(3, 0)]).unwrap().siblings().len(), 2);
    let damaged = siblings(&[entry(2, 1)]);
    assert_eq!(damaged, Err(ObjectError::ValueDamaged { dot: dot(9, 2) }));
    assert_eq!(siblings(&[entry(4, 0)]), Err(ObjectError::Uncovered { dot: dot(9, 4) }));
    let twice = siblings(&[entry(2, 0), entry(2, 0)]);
    assert_eq!(twice, Err(ObjectError::Unordered { dot: dot(9, 2) }));
    let swapped = siblings(&[entry(3, 0), entry(2, 0)]);
    assert_eq!(swapped, Err(ObjectError::Unordered { dot: dot(9, 2) }));
    assert!(matches!(siblings(&[entry(0, 0)]), Err(ObjectError::Wire(WireError::Invalid { .. }))));
    let mut foreign = entry(1, 0);
    foreign[0] = 1; // A place past the context's only entry.
    assert!(matches!(siblings(&[foreign]), Err(ObjectError::Wire(WireError::Invalid { .. }))));

    assert!(matches!(Object::decode(&[]), Err(ObjectError::Wire(WireError::Truncated { .. }))));
    assert_eq!(Object::decode(&sealed(vec![2, 1, 0, 0])), Err(ObjectError::Version { got: 2 }));
    assert_eq!(Object::decode(&[1, 1, 0, 0, 1]), Err(ObjectError::Damaged { len: 5 }));
    let kind = Object::decode(&sealed(vec![1, 9, 0, 0]));
    assert!(matches!(kind, Err(ObjectError::Wire(WireError::Invalid { .. }))));
    let marker = Object::decode(&body(ObjectKind::Lww, &[3]));
    assert!(matches!(marker, Err(ObjectError::Wire(WireError::Invalid { .. }))));
}

/// Goal: limits hold before anything is allocated. Method: counts and lengths one above them.
#[test]
fn limits_hold() {
    let too_long = |rest: Vec<u8>| {
        let refused = Object::decode(&sealed([&[1, 1][..], &rest].concat()));
        assert!(
            matches!(refused, Err(ObjectError::Wire(WireError::TooLong { .. }))),
            "{refused:?}"
        );
    };
    let mut context = Vec::new();
    put_varint(&mut context, CONTEXT_ENTRIES_MAX as u64 + 1);
    too_long(context);

    let mut siblings = vec![0];
    put_varint(&mut siblings, SIBLINGS_HARD_MAX as u64 + 1);
    too_long(siblings);

    let mut value = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 3, 1, 0, 1];
    value.extend_from_slice(&[0; 12]);
    put_varint(&mut value, VALUE_LEN_MAX as u64 + 1);
    too_long(value);
}

/// Goal: an object that has grown past what can be read back is told before it is written. Method:
/// one sibling more than the limit, from as many actors.
#[test]
fn oversized_objects_are_told() {
    let mut object = Object::new(ObjectKind::Siblings);
    for actor in 0..SIBLINGS_HARD_MAX as u64 {
        object.put(&VersionVector::new(), sibling(dot(actor, 1), 1));
    }
    assert_eq!(object.check_limits(), Ok(()));
    assert_eq!(Object::decode(&encoded(&object)).as_ref(), Ok(&object));
    object.put(&VersionVector::new(), sibling(dot(1 << 20, 1), 1));
    assert!(matches!(object.check_limits(), Err(ObjectError::Wire(WireError::TooLong { .. }))));
    assert!(Object::decode(&encoded(&object)).is_err());
}

/// Goal: the encoding is a contract between releases. Method: pinned bytes of each shape; the
/// checksums were computed by other means.
#[test]
fn encodings_are_pinned() {
    let context = [1, 0, 0, 0, 0, 0, 0, 0, 9, 3];
    let mut object = Object::new(ObjectKind::Siblings);
    object.put(&VersionVector::new(), Sibling::new(dot(9, 3), Hlc(5), Bytes::from_static(b"v")));
    let value = [0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 59, 151, 28, 163, 1, b'v'];
    let crc = [241, 253, 121, 120];
    assert_eq!(encoded(&object), [&[1, 1][..], &context, &[1], &value, &crc].concat());
    assert_eq!(object.digest(), 3_573_830_725_865_461_503);

    let mut object = Object::new(ObjectKind::Lww);
    assert_eq!(encoded(&object), [&[1, 2, 0, 0][..], &[218, 77, 179, 114]].concat());
    object.delete(&VersionVector::new(), dot(9, 3), Hlc(5));
    let deletion = [2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5];
    let crc = [96, 157, 153, 242];
    assert_eq!(encoded(&object), [&[1, 2][..], &context, &deletion, &crc].concat());
}
