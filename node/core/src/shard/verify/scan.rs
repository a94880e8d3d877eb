//! Scans of a partition, a slice at a time, so that requests are served between slices.

use bytes::Bytes;
use holm_protocol::ids::Partition;

use super::{bounds, place_of};
use crate::keys::object_key;
use crate::merkle::{Segments, Tree, key_digest, segment_of};
use crate::object::Object;
use crate::peer::verify::{KEYS_MAX, Place};
use crate::shard::Shard;
use crate::store::{Store, Table};

/// A partition being digested.
#[derive(Debug)]
pub(super) struct Digesting {
    segments: Segments,
    /// Where the next slice begins; `None` when all is scanned.
    from: Option<Vec<u8>>,
    end: Vec<u8>,
}

/// Which keys a page is about, and what they hold there.
#[derive(Debug)]
pub(super) struct KeyPage {
    pub(super) segments: Vec<u16>,
    pub(super) after: Option<Place>,
    pub(super) keys: Vec<(Place, u128)>,
    pub(super) until: Option<Place>,
}

/// Keys with their digests, and up to where they go; `None` to the end.
pub(super) type Stretch = (Vec<(Place, u128)>, Option<Place>);

impl Digesting {
    pub(super) fn new(partition: Partition) -> Digesting {
        let (from, end) = bounds(partition);
        Digesting { segments: Segments::default(), from: Some(from), end }
    }

    pub(super) fn is_done(&self) -> bool {
        self.from.is_none()
    }

    pub(super) fn tree(&self) -> Tree {
        self.segments.tree()
    }
}

/// The least key above a row's.
fn above(row_key: &[u8]) -> Vec<u8> {
    let mut next = row_key.to_vec();
    next.push(0);
    next
}

impl Shard {
    /// Takes in the next rows. What cannot be read makes its segment differ, so that it is compared
    /// key by key.
    pub(super) fn scan_slice<S: Store>(&mut self, digesting: &mut Digesting, store: &mut S) {
        let Some(from) = digesting.from.take() else { return };
        let limit = self.config.verify_rows;
        let me = self.boot.node.0;
        let Ok(rows) = store.scan(Table::Objects, &from, &digesting.end, limit) else {
            self.counters.scans_failed += 1;
            digesting.segments.spoil_all(me);
            return;
        };
        self.counters.verified_rows += rows.len() as u64;
        for (row_key, encoded) in &rows {
            let Some((bucket, key)) = place_of(row_key) else { continue };
            match Object::decode(encoded) {
                Ok(object) => digesting.segments.add(bucket, &key, &object),
                Err(_) => {
                    self.counters.corrupt_objects += 1;
                    digesting.segments.spoil(segment_of(bucket, &key), me);
                }
            }
        }
        if rows.len() == limit {
            digesting.from = rows.last().map(|(last, _)| above(last));
        }
    }

    /// The keys of some segments from a place on, as far as one slice goes, and up to where that
    /// is; nothing if they cannot be read.
    pub(super) fn own_keys<S: Store>(
        &mut self,
        partition: Partition,
        page: &KeyPage,
        store: &mut S,
    ) -> Option<Stretch> {
        let (first, end) = bounds(partition);
        let from = match &page.after {
            None => first,
            Some((bucket, key)) => {
                let mut row_key = Vec::new();
                object_key(&mut row_key, partition, *bucket, key);
                above(&row_key)
            }
        };
        let limit = self.config.verify_rows.min(KEYS_MAX);
        let rows = store.scan(Table::Objects, &from, &end, limit).ok()?;
        let is_whole = rows.len() < limit;
        let mut until = None;
        let mut keys = Vec::new();
        for (row_key, encoded) in rows {
            let Some(place) = place_of(&row_key) else { continue };
            let (bucket, key) = &place;
            if page.segments.binary_search(&segment_of(*bucket, key)).is_ok() {
                // A damaged row has a digest that no other replica's has.
                let digest = Object::decode(&encoded)
                    .map_or(u128::from(self.boot.node.0) | 1 << 127, |it| {
                        key_digest(*bucket, key, &it)
                    });
                if digest != 0 {
                    keys.push((place.clone(), digest));
                }
            }
            until = Some(place);
        }
        Some((keys, until.filter(|_| !is_whole)))
    }

    /// What is here under a key, what the open batch adds included; nothing if it cannot be read.
    pub(super) fn state_of<S: Store>(
        &mut self,
        partition: Partition,
        at: Place,
        store: &mut S,
    ) -> crate::peer::verify::KeyState {
        let read = crate::shard::replica::Lookup {
            partition,
            bucket: at.0,
            key: at.1.clone(),
            want: crate::peer::Want::Full,
        };
        let object: Option<Bytes> = match self.look_up(&read, store).0 {
            crate::peer::Found::Object(encoded) => Some(encoded),
            _ => None,
        };
        crate::peer::verify::KeyState { at, object }
    }
}
