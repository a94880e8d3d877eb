//! Sets of events, and what contexts stand for.

use super::*;

/// Goal: sets of events hold what was put in, beyond one word too. Method: against a sorted
/// set.
#[test]
fn event_sets() {
    let (mut odd, mut squares) = (EventSet::default(), EventSet::default());
    (0..100).filter(|place| place % 2 == 1).for_each(|place| odd.insert(place));
    (0..15).for_each(|root| squares.insert(root * root));
    odd.extend(&squares);
    let is_root = |place: usize| (0..15).any(|root| root * root == place);
    let expected: Vec<usize> =
        (0..200).filter(|&place| place < 100 && place % 2 == 1 || is_root(place)).collect();
    assert_eq!(odd.iter().collect::<Vec<_>>(), expected);
    assert!((0..200).all(|place| odd.contains(place) == expected.contains(&place)));
}

/// Goal: who holds a context was shown what each answer with these bytes showed, and what the
/// writers of that saw; who holds none, nothing.
#[test]
fn contexts_stand_for_what_was_shown() {
    let mut history = History::new();
    let name = (BucketId(1), Bytes::from_static(b"k"));
    let key = history.add_key(name, Partition::from_u32(0), false);
    let put = |history: &mut History, context: &'static [u8]| {
        let saw = history.shown_with(key, &Bytes::from_static(context));
        let value = Some(Bytes::from(history.len().to_string()));
        history.begin(key, value, saw, (Level::One, 0))
    };
    let (a, b) = (put(&mut history, b""), put(&mut history, b""));
    let shown = history.shown_by([a]);
    history.give(key, &Bytes::from_static(b"x"), &shown);
    let c = put(&mut history, b"x");
    assert!(history.saw(c, a) && !history.saw(c, b) && !history.saw(c, c));
    let shown = history.shown_by([c]);
    history.give(key, &Bytes::from_static(b"y"), &shown);
    let d = put(&mut history, b"y");
    assert_eq!(history.seen_by(d).collect::<Vec<_>>(), [a, c]);
    let shown = history.shown_by([b]);
    history.give(key, &Bytes::from_static(b"y"), &shown);
    let e = put(&mut history, b"y");
    assert_eq!(history.seen_by(e).collect::<Vec<_>>(), [a, b, c]);
    assert_eq!(put(&mut history, b""), EventId(5));
    assert_eq!(history.seen_by(EventId(5)).count(), 0);
    assert_eq!(history.contexts().len(), 2);
}
