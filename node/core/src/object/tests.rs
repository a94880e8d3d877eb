//! Objects against the history of events that made them.
//!
//! The model of a replica is the set of writes it has heard of, and of each write what its writer
//! had seen. A value is visible where it is known and no known write's writer had seen it (or, in a
//! last-writer-wins object, where no known write is greater). Everything else is computed from
//! that, slowly and obviously.

mod codec;
mod history;
mod laws;

use bytes::Bytes;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Hlc};

use super::*;

fn dot(actor: u64, counter: u64) -> Dot {
    Dot::new(Actor(actor), counter)
}

fn sibling(dot: Dot, hlc: u64) -> Sibling {
    Sibling::new(dot, Hlc(hlc), Bytes::from(format!("{dot}")))
}

/// Goal: the example of the module's documentation holds. Method: a delete of `y` that never saw
/// an older `x` leaves `x`, in either order.
#[test]
fn an_older_value_outlives_a_newer_one_that_is_deleted() {
    let mut x = Object::new(ObjectKind::Siblings);
    x.put(&VersionVector::new(), sibling(dot(1, 1), 10));
    let mut y = Object::new(ObjectKind::Siblings);
    y.put(&VersionVector::new(), sibling(dot(2, 1), 20));
    let mut d = y.clone();
    d.delete(&y.context, dot(2, 2), Hlc(30));
    assert!(d.is_deleted());

    let mut left = x.clone();
    left.join(y.clone()).unwrap();
    assert_eq!(left.siblings().len(), 2);
    left.join(d.clone()).unwrap();
    let mut right = y;
    right.join(d).unwrap();
    right.join(x.clone()).unwrap();
    assert_eq!(left, right);
    assert_eq!(left.siblings(), x.siblings());
}

/// Goal: in a last-writer-wins object a client's context does not claim writes that this replica
/// has not applied (I3). Method: the client read a greater write elsewhere, then wrote here; the
/// greater write arrives later and must still be new here, and win.
#[test]
fn a_client_context_claims_nothing_in_lww() {
    let mut elsewhere = Object::new(ObjectKind::Lww);
    elsewhere.put(&VersionVector::new(), sibling(dot(1, 1), 50));
    let mut here = Object::new(ObjectKind::Lww);
    here.put(&elsewhere.context, sibling(dot(2, 1), 40));
    assert!(here.named_dots().all(|named| named != dot(1, 1)));
    here.join(elsewhere.clone()).unwrap();
    assert_eq!(here.siblings(), elsewhere.siblings());
}

/// Goal: a write that was overwritten, and whose overwriting is forgotten, can be kept out (I4).
/// Method: a late state meets an absent object; the caller takes out what its clock has seen.
#[test]
fn retain_dots_keeps_late_writes_dead() {
    for kind in [ObjectKind::Siblings, ObjectKind::Lww] {
        let mut late = Object::new(kind);
        late.put(&VersionVector::new(), sibling(dot(1, 1), 10));
        let mut here = Object::new(kind);
        let seen = [dot(1, 1), dot(2, 1)];
        late.retain_dots(|dot| !seen.contains(&dot));
        here.join(late).unwrap();
        assert!(here.is_deleted(), "{kind:?}");
        assert!(here.context.covers(dot(1, 1)));
    }
}

/// Goal: kinds do not mix, and the refusal changes nothing. Method: join one to the other.
#[test]
fn kinds_do_not_mix() {
    let mut own = Object::new(ObjectKind::Siblings);
    own.put(&VersionVector::new(), sibling(dot(1, 1), 10));
    let before = own.clone();
    let mut other = Object::new(ObjectKind::Lww);
    other.put(&VersionVector::new(), sibling(dot(2, 1), 10));
    let refused = own.join(other);
    let mismatch = KindMismatch { own: ObjectKind::Siblings, theirs: ObjectKind::Lww };
    assert_eq!(refused, Err(mismatch));
    assert_eq!(own, before);
}

/// Goal: a deletion that won is named like a value: its dot is seen where the object is joined (I3),
/// and tells states apart. Method: a deletion whose actor has made a later write that lost.
#[test]
fn deletions_that_won_are_named() {
    let mut object = Object::new(ObjectKind::Lww);
    object.delete(&VersionVector::new(), dot(1, 1), Hlc(100));
    object.put(&VersionVector::new(), sibling(dot(1, 2), 10));
    assert!(object.is_deleted());
    assert_eq!(object.live_dots().collect::<Vec<_>>(), [dot(1, 1)]);
    let mut named: Vec<Dot> = object.named_dots().collect();
    named.sort_unstable();
    assert_eq!(named, [dot(1, 1), dot(1, 2)]);
    let mut without = object.clone();
    without.retain_dots(|_| false);
    assert_eq!(without.context, object.context);
    assert_ne!(without.digest(), object.digest());
}

/// Goal: what an object takes is counted, so that a cache of objects keeps its budget (I10).
/// Method: each byte of a value, each value and each context entry adds its size.
#[test]
fn sizes_follow_what_is_held() {
    let empty = Object::new(ObjectKind::Siblings);
    assert_eq!(empty.size_bytes(), size_of::<Object>());
    let mut object = empty.clone();
    let value = |counter, len| Sibling::new(dot(1, counter), Hlc(1), Bytes::from(vec![0; len]));
    object.put(&VersionVector::new(), value(1, 1_000));
    let one = size_of::<Object>() + size_of::<Sibling>() + size_of::<Dot>() + 1_000;
    assert_eq!(object.size_bytes(), one);
    object.put(&VersionVector::new(), value(2, 10));
    assert_eq!(object.size_bytes(), one + size_of::<Sibling>() + 10);
    object.context.insert(dot(2, 7));
    assert_eq!(object.size_bytes(), one + size_of::<Sibling>() + 10 + size_of::<Dot>());
}

/// Goal: damage to a value is found by its own checksum. Method: change each part in turn.
#[test]
fn siblings_verify() {
    let good = sibling(dot(1, 2), 3);
    assert!(good.verify());
    let damaged = [
        Sibling { dot: dot(1, 3), ..good.clone() },
        Sibling { dot: dot(2, 2), ..good.clone() },
        Sibling { hlc: Hlc(4), ..good.clone() },
        Sibling { value: Bytes::from_static(b"other"), ..good.clone() },
        Sibling { checksum: good.checksum ^ 1, ..good.clone() },
    ];
    assert!(damaged.iter().all(|sibling| !sibling.verify()));
}

/// Goal: broken invariants are found. Method: objects that no history makes.
#[test]
fn check_finds_broken_invariants() {
    let mut object = Object::new(ObjectKind::Siblings);
    object.put(&VersionVector::new(), sibling(dot(1, 1), 1));
    assert_eq!(object.check(), Ok(()));
    let mut uncovered = object.clone();
    uncovered.context = VersionVector::new();
    assert!(uncovered.check().is_err());
    let twice = vec![sibling(dot(1, 1), 1); 2];
    object.state = State::Siblings(Siblings { values: twice });
    assert!(object.check().is_err());
}
