//! Decoded objects in memory: what a batch has changed, and what is read often.
//!
//! Two generations: an object that is touched moves to the young one; when the young one is half
//! the budget, the old one is dropped and the young one becomes old. It costs one map lookup where
//! the object is young, and no list to keep in order. Objects that a batch has changed stay until
//! its commit, because the store does not have them yet: generations turn only between batches.
//!
//! A [`Place`] names a loaded object until the next commit, so that it is looked up once.

use bytes::Bytes;

use crate::map::FixedMap;
use crate::object::{Object, ObjectKind};
use crate::store::{Store, StoreError, Table};

/// Per entry, about what map, key header and bookkeeping take, bytes. Measured generously.
const ENTRY_OVERHEAD_BYTES: usize = 160;

/// A turn may always load this much: an object of any length among others.
const CROWDED_BYTES_MIN: usize = 4 << 20;

/// Where a loaded object is, until the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// One object in memory.
#[derive(Debug)]
struct Cached {
    key: Bytes,
    object: Object,
    /// The batch that changed it last.
    changed_in: u64,
    bytes: usize,
}

/// Objects of one age.
#[derive(Debug, Default)]
struct Generation {
    places: FixedMap<Bytes, usize>,
    /// `None` where an object has moved on.
    objects: Vec<Option<Cached>>,
    bytes: usize,
}

/// The cache of one shard.
#[derive(Debug)]
pub struct ObjectCache {
    young: Generation,
    old: Generation,
    bytes_max: usize,
    /// The number of the open batch. Starts at 1: no object was changed in batch 0.
    batch: u64,
    /// What the open batch writes, in order: the place, its key, the encoded object.
    changes: Vec<(Place, Bytes, Bytes)>,
}

impl ObjectCache {
    /// An empty cache with a budget in bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        ObjectCache {
            young: Generation::default(),
            old: Generation::default(),
            bytes_max,
            batch: 1,
            changes: Vec::new(),
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// Whether so much was loaded or changed since the last commit that the next one is due.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.young.bytes > self.bytes_max.max(CROWDED_BYTES_MIN)
    }

    /// Whether the open batch has changed anything.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Finds the object under an object key, in memory or in the store. A key that is not in the
    /// store is an empty object.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its bytes are damaged, or what the store reports.
    pub fn load<S: Store>(
        &mut self,
        key: &[u8],
        kind: ObjectKind,
        store: &mut S,
    ) -> Result<Place, StoreError> {
        if let Some(&place) = self.young.places.get(key) {
            self.young.correct_kind(place, kind);
            return Ok(Place(place));
        }
        let cached = match self.old.take(key) {
            Some(cached) => cached,
            None => {
                let object = match store.get(Table::Objects, key)? {
                    Some(bytes) => Object::decode(&bytes).map_err(|damage| {
                        StoreError::Corrupt(format!("object {}: {damage}", hex(key)))
                    })?,
                    None => Object::new(kind),
                };
                let bytes = entry_bytes(key, &object);
                Cached { key: Bytes::copy_from_slice(key), object, changed_in: 0, bytes }
            }
        };
        let place = self.young.put(cached);
        self.young.correct_kind(place, kind);
        Ok(Place(place))
    }

    /// A place for what is to replace an object that cannot be read: nothing yet.
    pub fn replace_damaged(&mut self, key: &[u8], kind: ObjectKind) -> Place {
        let object = Object::new(kind);
        let bytes = entry_bytes(key, &object);
        let key = Bytes::copy_from_slice(key);
        Place(self.young.put(Cached { key, object, changed_in: 0, bytes }))
    }

    /// The object under an object key, if it is in memory: as the open batch has made it. Changes
    /// nothing, the order of generations included.
    #[must_use]
    pub fn peek(&self, key: &[u8]) -> Option<&Object> {
        let of = |generation: &Generation| generation.places.get(key).copied();
        let cached = match of(&self.young) {
            Some(place) => self.young.objects[place].as_ref(),
            None => self.old.objects[of(&self.old)?].as_ref(),
        };
        cached.map(|cached| &cached.object)
    }

    /// Whether the open batch has changed the object under an object key.
    #[must_use]
    pub fn is_changed(&self, key: &[u8]) -> bool {
        self.young.places.get(key).is_some_and(|&place| self.is_open(Place(place)))
    }

    /// The object at a place.
    ///
    /// # Panics
    /// Never for a place given since the last commit: entries leave the young generation only there.
    #[must_use]
    pub fn object(&self, place: Place) -> &Object {
        &self.cached(place).object
    }

    /// The object's key in the store, sharing its memory.
    #[must_use]
    pub fn key(&self, place: Place) -> Bytes {
        self.cached(place).key.clone()
    }

    /// Whether the open batch has changed the object: then it is not durable yet.
    #[must_use]
    pub fn is_open(&self, place: Place) -> bool {
        self.cached(place).changed_in == self.batch
    }

    /// Replaces an object by its next state, which the commit will write: its bytes, or none if nothing is
    /// left of it.
    pub fn change(&mut self, place: Place, object: Object, encoded: Bytes) {
        let batch = self.batch;
        let cached = self.cached_mut(place);
        let (before, after) = (cached.bytes, entry_bytes(&cached.key, &object));
        cached.bytes = after;
        cached.object = object;
        cached.changed_in = batch;
        let key = cached.key.clone();
        self.young.bytes = self.young.bytes - before + after;
        self.changes.push((place, key, encoded));
    }

    /// Stages everything changed, in the order of keys: neighbours in the store's sorted memory are
    /// then found from each other. Changes of one key keep their order, so the last one stays.
    pub fn stage<S: Store>(&mut self, store: &mut S) {
        self.changes.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        for (_, key, encoded) in &self.changes {
            match encoded.is_empty() {
                true => store.stage_delete(Table::Objects, key),
                false => store.stage_put(Table::Objects, key, encoded),
            }
        }
    }

    /// After a commit: what was changed is in the store now.
    pub fn committed(&mut self) {
        self.changes.clear();
        self.batch += 1;
        if self.young.bytes > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// After a failed commit: forgets what was changed, so that it is read from the store again.
    pub fn roll_back(&mut self) {
        for (_, key, _) in std::mem::take(&mut self.changes) {
            self.young.take(&key);
        }
    }

    fn cached(&self, place: Place) -> &Cached {
        match &self.young.objects[place.0] {
            Some(cached) => cached,
            None => unreachable!("objects leave the young generation only between batches"),
        }
    }

    fn cached_mut(&mut self, place: Place) -> &mut Cached {
        match &mut self.young.objects[place.0] {
            Some(cached) => cached,
            None => unreachable!("objects leave the young generation only between batches"),
        }
    }
}

impl Generation {
    /// Nothing is of no kind: an absent key that was first asked for as another one.
    fn correct_kind(&mut self, place: usize, kind: ObjectKind) {
        if let Some(cached) = &mut self.objects[place]
            && cached.object.context.is_empty()
            && cached.object.kind() != kind
        {
            cached.object = Object::new(kind);
        }
    }

    fn put(&mut self, cached: Cached) -> usize {
        let place = self.objects.len();
        self.bytes += cached.bytes;
        self.places.insert(cached.key.clone(), place);
        self.objects.push(Some(cached));
        place
    }

    fn take(&mut self, key: &[u8]) -> Option<Cached> {
        let place = self.places.remove(key)?;
        let cached = self.objects[place].take()?;
        self.bytes -= cached.bytes;
        Some(cached)
    }
}

fn entry_bytes(key: &[u8], object: &Object) -> usize {
    key.len() + object.size_bytes() + ENTRY_OVERHEAD_BYTES
}

/// Bytes as hexadecimal digits, for errors.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
