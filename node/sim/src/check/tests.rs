//! Histories for the checks' own tests: hand-made ones here, generated good ones in [`model`], and
//! each good one made bad in [`bad`].

mod bad;
mod model;

use bytes::Bytes;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::version_vector::VersionVector;

use super::{PROPERTIES, Property};
use crate::history::{EventId, History, KeyId, Outcome};

/// A history of one key.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) history: History,
    pub(crate) key: KeyId,
}

impl Default for Told {
    fn default() -> Self {
        Told::of(false)
    }
}

impl Told {
    fn of(is_lww: bool) -> Told {
        let mut history = History::new();
        let name = (BucketId(1), Bytes::from_static(b"k"));
        let key = history.add_key(name, Partition::from_u32(0), is_lww);
        Told { history, key }
    }

    pub(crate) fn lww() -> Told {
        Told::of(true)
    }

    pub(crate) fn at(&self) -> (Level, u64) {
        (Level::One, self.history.len() as u64)
    }

    pub(crate) fn put(&mut self, value: &'static str, saw: &[EventId]) -> EventId {
        let value = Some(Bytes::from_static(value.as_bytes()));
        let saw = self.history.shown_by(saw.iter().copied());
        self.history.begin(self.key, value, saw, self.at())
    }

    pub(crate) fn delete(&mut self, saw: &[EventId]) -> EventId {
        let saw = self.history.shown_by(saw.iter().copied());
        self.history.begin(self.key, None, saw, self.at())
    }

    pub(crate) fn acknowledge(&mut self, id: EventId, dot: Dot, durable: &[u64]) {
        assert_eq!(self.history.learn(id, dot), crate::history::Learned::Fits);
        let event = self.history.event_mut(id);
        event.outcome = Outcome::Acknowledged;
        event.acknowledged_us = Some(10);
        event.region = Some(RegionId(0));
        // Nobody named: the coordinator, node 1, has it.
        let nodes = if durable.is_empty() { &[1][..] } else { durable };
        event.durable = nodes.iter().map(|&node| NodeId(node)).collect();
    }
}

pub(crate) fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: Actor(actor), counter }
}

pub(crate) fn covers(dots: &[(u64, u64)]) -> VersionVector {
    let mut vector = VersionVector::new();
    dots.iter().for_each(|&(actor, counter)| vector.insert(dot(actor, counter)));
    vector
}

/// Goal: the table in the README is the code's. Method: each property's row, word for word, and
/// no other rows.
#[test]
fn the_readme_lists_every_property() {
    let readme = include_str!("../../README.md");
    for property in PROPERTIES {
        let Property { name, invariant, statement, source, tla, file } = property;
        let tla = tla.map_or("none".to_owned(), |tla| format!("`{tla}`"));
        let file = file.rsplit('/').next().unwrap();
        let row = format!("| {name} | {invariant} | {statement} | {source} | {tla} | `{file}` |");
        assert!(readme.contains(&row), "README.md lacks\n{row}");
    }
    let rows = readme.lines().filter(|line| line.ends_with(".rs` |"));
    assert_eq!(rows.count(), PROPERTIES.len());
}
