//! Decoded objects in memory: what a batch has changed, and what is read often.
//!
//! Two generations: an object that is touched moves to the young one; when the young one is half
//! the budget, the old one is dropped and the young one becomes old. It costs two map lookups at
//! most and no list to keep in order. Objects that a batch has changed stay until its commit,
//! because the store does not have them yet; generations turn only between batches.

use bytes::Bytes;

use crate::map::FixedMap;
use crate::object::{Object, ObjectKind};
use crate::store::{Store, StoreError, Table};

/// Per entry, about what map, key header and bookkeeping take, bytes. Measured generously.
const ENTRY_OVERHEAD_BYTES: usize = 160;

/// One object in memory.
#[derive(Debug)]
pub struct Cached {
    /// The object; a key that is not in the store is an empty one.
    pub object: Object,
    /// The object's bytes, where this batch has changed it: what the commit will write.
    pub changed: Option<Bytes>,
    bytes: usize,
}

/// The cache of one shard.
#[derive(Debug)]
pub struct ObjectCache {
    young: FixedMap<Bytes, Cached>,
    old: FixedMap<Bytes, Cached>,
    young_bytes: usize,
    old_bytes: usize,
    bytes_max: usize,
    /// Keys that this batch has changed, in the order of their first change.
    changed: Vec<Bytes>,
}

impl ObjectCache {
    /// An empty cache with a budget in bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        ObjectCache {
            young: FixedMap::default(),
            old: FixedMap::default(),
            young_bytes: 0,
            old_bytes: 0,
            bytes_max,
            changed: Vec::new(),
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }

    /// Whether this batch has changed anything.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The object under an object key, from memory or from the store.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its bytes are damaged, or what the store reports.
    pub fn load<S: Store>(
        &mut self,
        key: &[u8],
        kind: ObjectKind,
        store: &mut S,
    ) -> Result<&mut Cached, StoreError> {
        if !self.young.contains_key(key) {
            let (key, cached) = match self.old.remove_entry(key) {
                Some((key, cached)) => {
                    self.old_bytes -= cached.bytes;
                    (key, cached)
                }
                None => {
                    let object = match store.get(Table::Objects, key)? {
                        Some(bytes) => Object::decode(&bytes).map_err(|damage| {
                            StoreError::Corrupt(format!("object {}: {damage}", hex(key)))
                        })?,
                        None => Object::new(kind),
                    };
                    let bytes = entry_bytes(key, &object);
                    let cached = Cached { object, changed: None, bytes };
                    (Bytes::copy_from_slice(key), cached)
                }
            };
            self.young_bytes += cached.bytes;
            self.young.insert(key, cached);
        }
        match self.young.get_mut(key) {
            Some(cached) => Ok(cached),
            // It was there or has just been put there.
            None => Err(StoreError::Io("object cache lost an entry".to_owned())),
        }
    }

    /// Replaces the object under a key by its next state, which the commit will write.
    pub fn change(&mut self, key: &Bytes, object: Object, encoded: Bytes) {
        let bytes = entry_bytes(key, &object);
        let next = Cached { object, changed: Some(encoded), bytes };
        let before = self.young.insert(key.clone(), next);
        self.young_bytes += bytes;
        let was_changed = before.as_ref().is_some_and(|cached| cached.changed.is_some());
        self.young_bytes -= before.map_or(0, |cached| cached.bytes);
        if !was_changed {
            self.changed.push(key.clone());
        }
    }

    /// Stages everything changed.
    pub fn stage<S: Store>(&self, store: &mut S) {
        for key in &self.changed {
            if let Some(Cached { changed: Some(bytes), .. }) = self.young.get(key) {
                store.stage_put(Table::Objects, key, bytes);
            }
        }
    }

    /// After a commit: what was changed is in the store now.
    pub fn committed(&mut self) {
        for key in self.changed.drain(..) {
            if let Some(cached) = self.young.get_mut(&key) {
                cached.changed = None;
            }
        }
        if self.young_bytes > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
    }

    /// After a failed commit: forgets what was changed, so that it is read from the store again.
    pub fn roll_back(&mut self) {
        for key in self.changed.drain(..) {
            if let Some(cached) = self.young.remove(&key) {
                self.young_bytes -= cached.bytes;
            }
        }
    }
}

fn entry_bytes(key: &[u8], object: &Object) -> usize {
    key.len() + object.size_bytes() + ENTRY_OVERHEAD_BYTES
}

/// Bytes as hexadecimal digits, for errors.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
