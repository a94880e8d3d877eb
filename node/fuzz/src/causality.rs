//! Version vectors, partition clocks and their interval sets, and the contexts that clients hold.
//!
//! Promises: decoders are total and one value has one encoding; merges keep their laws and agree
//! with `covers` and `difference`; interval sets agree with plain sets of numbers, also at the
//! highest counter; a context opens only under the MAC it was sealed with (I8).

use std::collections::BTreeSet;

use holm_core::clock::{IntervalSet, PartitionClock};
use holm_core::context::ContextSecrets;
use holm_protocol::ids::{Actor, BucketId};
use holm_protocol::version_vector::{Relation, VersionVector};
use holm_protocol::wire::Reader;

use crate::input::Input;

/// Entries that vectors are decoded with at most: small, so that the limit is met.
const ENTRIES_MAX: usize = 6;

/// The first byte chooses what is tried.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => vectors(input.rest()),
        1 => clocks(input.rest()),
        2 => intervals(&mut input),
        3 => opened(&mut input),
        _ => sealed(&mut input),
    }
}

fn decoded<'a, T>(
    bytes: &'a [u8],
    decode: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    encode: impl FnOnce(&T, &mut Vec<u8>),
) -> Option<(T, &'a [u8])> {
    let mut reader = Reader::new(bytes);
    let value = decode(&mut reader)?;
    let mut again = Vec::new();
    encode(&value, &mut again);
    let left = reader.left();
    assert_eq!(again, &bytes[..bytes.len() - left.len()], "a value has two encodings");
    Some((value, left))
}

fn vectors(bytes: &[u8]) {
    let one = |bytes| {
        decoded(
            bytes,
            |reader| VersionVector::decode(reader, ENTRIES_MAX).ok(),
            |vector, out| vector.encode(out),
        )
    };
    let Some((a, left)) = one(bytes) else { return };
    assert!(a.len() <= ENTRIES_MAX && a.iter().all(|dot| a.covers(dot)));
    let Some((b, _)) = one(left) else { return };
    let (mut ab, mut ba) = (a.clone(), b.clone());
    ab.merge(&b);
    ba.merge(&a);
    assert_eq!(ab, ba, "the merge is not commutative");
    assert!(a.iter().chain(b.iter()).all(|dot| ab.covers(dot)));
    assert!(ab.iter().all(|dot| dot.counter == a.get(dot.actor).max(b.get(dot.actor))));
    let (a_covers, b_covers) = (b.iter().all(|d| a.covers(d)), a.iter().all(|d| b.covers(d)));
    let relation = match (a_covers, b_covers) {
        (true, true) => Relation::Equal,
        (true, false) => Relation::After,
        (false, true) => Relation::Before,
        (false, false) => Relation::Concurrent,
    };
    assert_eq!(a.relation(&b), relation);
}

fn clocks(bytes: &[u8]) {
    let one = |bytes| {
        decoded(bytes, |reader| PartitionClock::decode(reader).ok(), |clock, out| clock.encode(out))
    };
    let Some((a, left)) = one(bytes) else { return };
    let _ = (a.count(), a.ranges(), a.prefixes());
    let Some((b, _)) = one(left) else { return };
    let (mut ab, mut ba) = (a.clone(), b.clone());
    ab.merge(&b);
    ba.merge(&a);
    assert_eq!(ab, ba, "the merge is not commutative");
    assert!(ab.covers(&a) && ab.covers(&b));
    assert_eq!(a.covers(&b), ab == a);
    // What one lacks, and nothing else, makes it whole.
    let mut filled = a.clone();
    for (actor, ranges) in b.difference(&a) {
        for (first, last) in ranges {
            assert!((1..=last).contains(&first));
            assert!(a.get(actor).is_none_or(|seen| !seen.contains(first) && !seen.contains(last)));
            filled.insert_range(actor, first, last);
        }
    }
    assert_eq!(filled, ab, "the difference is not what is missing");
    let minimum = PartitionClock::minimum([&a, &b]);
    let least = |actor: Actor| {
        let prefix = |clock: &PartitionClock| clock.get(actor).map_or(0, IntervalSet::prefix);
        prefix(&a).min(prefix(&b))
    };
    assert!(ab.iter().all(|(actor, _)| minimum.get(actor) == least(actor)));
}

/// Operations on two interval sets, and on plain sets of what they hold below and above `window`.
fn intervals(input: &mut Input<'_>) {
    // Counters 1 to 60, or the highest 60.
    let base = if input.flag() { u64::MAX - 60 } else { 0 };
    let mut sets = [IntervalSet::new(), IntervalSet::new()];
    let mut models = [BTreeSet::new(), BTreeSet::new()];
    while !input.is_empty() {
        let at = input.below(2);
        match input.below(4) {
            0 => {
                let counter = base + 1 + input.below(60) as u64;
                assert_eq!(sets[at].insert(counter), models[at].insert(counter));
            }
            1 => {
                let first = base + 1 + input.below(60) as u64;
                let last = first.saturating_add(input.below(12) as u64);
                let last = last.min(base + 60);
                sets[at].insert_range(first, last);
                models[at].extend(first..=last);
            }
            2 => {
                let other = sets[1 - at].clone();
                sets[at].merge(&other);
                let other = models[1 - at].clone();
                models[at].extend(other);
            }
            _ => agree(&sets, &models, base),
        }
    }
    agree(&sets, &models, base);
}

fn agree(sets: &[IntervalSet; 2], models: &[BTreeSet<u64>; 2], base: u64) {
    for (set, model) in sets.iter().zip(models) {
        for counter in base..=base + 60 {
            assert_eq!(set.contains(counter), model.contains(&counter), "{counter} in {set:?}");
        }
        assert_eq!(set.count(), model.len() as u64);
        assert_eq!(set.max(), model.last().copied().unwrap_or(0));
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(IntervalSet::decode(&mut reader).as_ref(), Ok(set));
        assert!(reader.finish().is_ok());
    }
    let [a, b] = sets;
    assert_eq!(a.covers(b), models[0].is_superset(&models[1]));
    let missing: BTreeSet<u64> =
        a.difference(b).into_iter().flat_map(|(first, last)| first..=last).collect();
    assert_eq!(missing, models[0].difference(&models[1]).copied().collect());
}

/// Secrets after two rotations; what they are is of no matter.
fn secrets() -> ContextSecrets {
    let mut secrets = ContextSecrets::new([1; 32]);
    secrets.rotate([2; 32]);
    secrets.rotate([3; 32]);
    secrets
}

/// Bytes from anywhere: whatever opens was sealed, by one of the secrets, for this key.
fn opened(input: &mut Input<'_>) {
    let bucket = BucketId(input.byte().into());
    let key = input.bytes(8);
    let bytes = input.rest();
    let secrets = secrets();
    match secrets.open(bucket, key, bytes) {
        Ok(vector) if bytes.is_empty() => assert!(vector.is_empty()),
        Ok(vector) => {
            let all = std::iter::once(&secrets.current).chain(&secrets.previous);
            let sealed_by_one = all.into_iter().any(|secret| {
                let only = ContextSecrets { current: secret.clone(), previous: vec![] };
                only.seal(bucket, key, &vector) == bytes
            });
            assert!(sealed_by_one, "opened what nobody sealed");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A context that was given out: opens as what was sealed, for its key and unaltered only.
fn sealed(input: &mut Input<'_>) {
    let bucket = BucketId(input.byte().into());
    let key = input.bytes(8);
    let vector = input.vector();
    let mut secrets = secrets();
    let bytes = secrets.seal(bucket, key, &vector);
    assert_eq!(secrets.open(bucket, key, &bytes), Ok(vector.clone()));
    if vector.is_empty() {
        return assert!(bytes.is_empty());
    }
    assert!(secrets.open(BucketId(bucket.0 ^ 1), key, &bytes).is_err());
    assert!(secrets.open(bucket, &[key, &[0]].concat(), &bytes).is_err());
    let mut altered = bytes.to_vec();
    let at = usize::from(input.byte()) % altered.len();
    altered[at] ^= 1 << (input.byte() % 8);
    assert!(secrets.open(bucket, key, &altered).is_err(), "byte {at} is not covered by the MAC");
    assert!(secrets.open(bucket, key, &bytes[..at.max(1)]).is_err());
    secrets.rotate([4; 32]);
    assert_eq!(secrets.open(bucket, key, &bytes), Ok(vector));
}
