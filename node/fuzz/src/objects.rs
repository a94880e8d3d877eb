//! Objects: on disk and in messages.
//!
//! Promises: the decoder is total, and accepts exactly what the encoder writes; what it accepts
//! keeps the object's invariants and limits. On what decodes, the join is commutative, associative
//! and idempotent, loses nothing that the other side does not cover, and puts and deletes do what
//! they say (I4, I5).

use bytes::Bytes;
use holm_core::object::{Object, ObjectKind, Sibling};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Hlc};

use crate::input::{Input, RawObject, sealed};

/// The first byte chooses: bytes as they are, bytes with a right checksum, fields that may
/// contradict each other, or three states of one key and the laws between them.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => drop(decode(input.rest())),
        1 => drop(decode(&sealed(input.rest().to_vec()))),
        2 => drop(decode(&raw(&mut input).encode())),
        _ => laws(&mut input),
    }
}

fn decode(bytes: &[u8]) -> Option<Object> {
    let object = match Object::decode(bytes) {
        Ok(object) => object,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    assert_eq!(object.check(), Ok(()));
    assert_eq!(object.check_limits(), Ok(()));
    assert!(object.siblings().iter().all(Sibling::verify));
    let mut again = Vec::new();
    object.encode(&mut again);
    assert_eq!(again, bytes, "an object has two encodings");
    let mut named: Vec<Dot> = object.named_dots().collect();
    named.sort_unstable();
    let count = named.len();
    named.dedup();
    assert_eq!(named.len(), count, "a dot is named twice");
    Some(object)
}

/// Fields of any kind: places out of range, dots out of order or uncovered, doubled actors.
pub fn raw(input: &mut Input<'_>) -> RawObject {
    let kind = if input.byte() == 255 { input.byte() } else { 1 + input.byte() % 2 };
    let context = (0..input.below(8)).map(|_| (Actor(input.number()), input.number())).collect();
    let value = |input: &mut Input<'_>| {
        let is_deletion = kind != 1 && input.flag();
        (!is_deletion).then(|| input.bytes(32).to_vec())
    };
    let live = (0..input.below(8))
        .map(|_| (input.below(9) as u64, input.number(), Hlc(input.number()), value(input)))
        .collect();
    RawObject { kind, context, live }
}

/// A state of one key in which a dot says all there is to a write, as in a cluster without liars.
fn honest(input: &mut Input<'_>, kind: ObjectKind) -> Object {
    let mut raw = RawObject { kind: kind.tag(), ..RawObject::default() };
    for actor in 1..=4 {
        let counter = u64::from(input.byte() % 6);
        if counter > 0 {
            raw.context.push((Actor(actor), counter));
        }
    }
    for (place, &(actor, counter)) in raw.context.iter().enumerate() {
        let alive = input.byte();
        for counter in (1..=counter).filter(|counter| alive >> counter & 1 == 1) {
            let hlc = Hlc((actor.0 * 7 + counter * 11) % 13);
            let is_deletion = kind == ObjectKind::Lww && counter % 3 == 0;
            let value = (!is_deletion).then(|| vec![actor.0 as u8, counter as u8]);
            raw.live.push((place as u64, counter, hlc, value));
        }
    }
    if kind == ObjectKind::Lww {
        raw.live.truncate(1);
    }
    match decode(&raw.encode()) {
        Some(object) => object,
        None => panic!("a sound object does not decode: {raw:?}"),
    }
}

fn joined(one: &Object, other: &Object) -> Object {
    let mut joined = one.clone();
    assert_eq!(joined.join(other.clone()), Ok(()));
    let mut bytes = Vec::new();
    joined.encode(&mut bytes);
    assert_eq!(decode(&bytes).as_ref(), Some(&joined), "a join does not read back");
    joined
}

fn laws(input: &mut Input<'_>) {
    let kind = if input.flag() { ObjectKind::Siblings } else { ObjectKind::Lww };
    let [a, b, c] = [(); 3].map(|()| honest(input, kind));
    let ab = joined(&a, &b);
    assert_eq!(ab, joined(&b, &a), "the join is not commutative");
    assert_eq!(joined(&ab, &c), joined(&a, &joined(&b, &c)), "the join is not associative");
    assert_eq!(joined(&a, &a), a, "the join is not idempotent");
    assert_eq!(joined(&ab, &a), ab, "a join that repeats changes something");
    assert_eq!(a.digest() == b.digest(), a.live_dots().eq(b.live_dots()));
    if kind == ObjectKind::Siblings {
        let alive = |object: &Object, dot: Dot| object.live_dots().any(|live| live == dot);
        for dot in a.live_dots().chain(b.live_dots()) {
            let is_dead = [&a, &b].iter().any(|it| it.context.covers(dot) && !alive(it, dot));
            assert_eq!(alive(&ab, dot), !is_dead, "dot {dot} after the join");
        }
    }
    let other = if kind == ObjectKind::Lww { ObjectKind::Siblings } else { ObjectKind::Lww };
    let mut untouched = a.clone();
    assert!(untouched.join(Object::new(other)).is_err() && untouched == a);
    write(input, ab);
}

/// A put or a delete on behalf of a writer that had read anything at all.
fn write(input: &mut Input<'_>, before: Object) {
    let context = input.vector();
    let dot = Dot::new(Actor(99), 1 + input.below(9) as u64);
    if before.context.covers(dot) {
        return;
    }
    let mut after = before.clone();
    let is_put = input.flag();
    if is_put {
        after.put(&context, Sibling::new(dot, Hlc(20), Bytes::from_static(b"new")));
    } else {
        after.delete(&context, dot, Hlc(20));
    }
    assert!(after.context.covers(dot));
    if before.kind() == ObjectKind::Siblings {
        assert!(after.siblings().iter().all(|s| s.dot == dot || !context.covers(s.dot)));
        let unseen = |s: &&Sibling| !context.covers(s.dot);
        let kept = before.siblings().iter().filter(unseen).count();
        assert_eq!(after.siblings().len(), kept + usize::from(is_put));
    } else {
        assert_eq!(after.is_deleted(), !is_put, "the greatest reading wins");
    }
}
