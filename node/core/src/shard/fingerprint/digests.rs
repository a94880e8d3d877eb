//! The digests of what this replica holds, made by scans and kept until something changes.
//!
//! Every commit that changes an object of a partition gives the partition a new number; digests
//! are good for one number. So a repeated question costs nothing where nothing was written. A scan
//! goes on a slice at a time, requests are served between; if the partition changes meanwhile it
//! is repeated, and at last what was found is told all the same and not kept: whoever is being written
//! to all the time differs from others anyhow.
//!
//! Only what is committed is digested. What the disk lost without a word is not noticed here:
//! that is for verification.

use std::collections::{BTreeMap, VecDeque};

use holm_protocol::ids::{BucketId, NodeId, Partition};
use xxhash_rust::xxh3::xxh3_128;

use super::send_digests;
use crate::merkle::key_digest;
use crate::object::Object;
use crate::peer::fingerprint::BucketDigest;
use crate::peer::{OpId, Refusal};
use crate::shard::verify::{bounds, place_of};
use crate::shard::{Shard, Turn};
use crate::store::{Store, Table};
use crate::time::Mono;

/// Scans of a partition that is being written to, before what one found is told as it is.
const SCANS_MAX: u32 = 3;

/// What opening a partition costs, in rows.
const OPENING_ROWS: usize = 16;

/// Between two slices, milliseconds: requests are served meanwhile.
const PAUSE_MS: u64 = 1;

/// Who waits for a partition's digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Peer(NodeId, OpId),
    Own(OpId),
}

/// A partition being digested.
#[derive(Debug)]
struct Job {
    partition: Partition,
    /// The partition's number when the scan began.
    number: u64,
    /// Where the next slice begins.
    from: Vec<u8>,
    sums: BTreeMap<BucketId, BucketDigest>,
    scans: u32,
    waiters: Vec<Waiter>,
}

#[derive(Debug, Default)]
struct Known {
    /// The last change.
    number: u64,
    digests: Option<Vec<BucketDigest>>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::shard) struct Digests {
    known: BTreeMap<Partition, Known>,
    jobs: VecDeque<Job>,
    last: u64,
    due: Option<Mono>,
    /// Fingerprints that are being gathered.
    pub(super) gathering: usize,
}

impl Digests {
    /// Objects were changed, by a commit that succeeded. Keys of the store, sorted.
    pub(in crate::shard) fn changed<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut before = None;
        for key in keys {
            let Some(number) = key.first_chunk() else { continue };
            let partition = Partition::from_u32(u32::from_be_bytes(*number));
            // Of a partition that nobody has asked about nothing is known, and nothing need be.
            if before.replace(partition) != Some(partition)
                && let Some(known) = self.known.get_mut(&partition)
            {
                self.last += 1;
                *known = Known { number: self.last, digests: None };
            }
        }
    }

    /// What is on the disk is not known for sure.
    pub(in crate::shard) fn doubt_all(&mut self) {
        self.last += 1;
        for known in self.known.values_mut() {
            *known = Known { number: self.last, digests: None };
        }
    }

    /// When the next slice is due.
    pub(in crate::shard) fn due(&self) -> Option<Mono> {
        self.due
    }
}

impl Job {
    fn restart(&mut self, number: u64) {
        self.number = number;
        self.from = bounds(self.partition).0;
        self.sums.clear();
        self.scans += 1;
    }

    fn digests(&self) -> Vec<BucketDigest> {
        self.sums.values().copied().collect()
    }
}

impl Shard {
    /// A partition's digests if they are known; else whoever wants them is told when they are.
    pub(super) fn want_digests(
        &mut self,
        partition: Partition,
        waiter: Waiter,
        now: Mono,
    ) -> Result<Option<Vec<BucketDigest>>, Refusal> {
        if !self.partitions.contains_key(&partition) {
            return Err(Refusal::NotReplica);
        }
        self.check_standing(partition)?;
        let known = self.digests.known.entry(partition).or_default();
        if known.digests.is_some() {
            return Ok(known.digests.clone());
        }
        match self.digests.jobs.iter_mut().find(|job| job.partition == partition) {
            Some(job) => {
                // Who asks again does not wait for the first answer any more.
                let same = |other: &Waiter| match (*other, waiter) {
                    (Waiter::Peer(a, _), Waiter::Peer(b, _)) => a == b,
                    _ => false,
                };
                let of_peer = job.waiters.iter().filter(|other| same(other)).count();
                if of_peer >= super::GATHERED_MAX {
                    let first = job.waiters.iter().position(same);
                    first.map(|first| job.waiters.remove(first));
                }
                job.waiters.push(waiter);
            }
            None => {
                let number = known.number;
                let (from, _) = bounds(partition);
                let (sums, waiters) = (BTreeMap::new(), vec![waiter]);
                let job = Job { partition, number, from, sums, scans: 1, waiters };
                self.digests.jobs.push_back(job);
                self.digests.due = self.digests.due.or(Some(now));
            }
        }
        Ok(None)
    }

    /// The next slice.
    pub(in crate::shard) fn digest_slice<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        if self.digests.due.is_none_or(|due| due > now) {
            return;
        }
        let mut rows = self.config.verify_rows.max(1);
        while rows > 0 {
            let Some(mut job) = self.digests.jobs.pop_front() else { break };
            let limit = rows;
            let end = bounds(job.partition).1;
            let Ok(found) = turn.store.scan(Table::Objects, &job.from, &end, limit) else {
                self.counters.scans_failed += 1;
                self.tell_digests(job, Err(Refusal::Corrupt), turn);
                continue;
            };
            rows = rows.saturating_sub(found.len() + OPENING_ROWS);
            self.digest_rows(&mut job, &found);
            if found.len() == limit {
                if let Some((last, _)) = found.last() {
                    job.from = [last.as_slice(), &[0]].concat();
                }
                self.digests.jobs.push_front(job);
            } else {
                self.scanned(job, turn);
            }
        }
        self.digests.due = (!self.digests.jobs.is_empty()).then(|| now.plus_ms(PAUSE_MS));
    }

    fn digest_rows(&mut self, job: &mut Job, rows: &[(Vec<u8>, Vec<u8>)]) {
        self.counters.verified_rows += rows.len() as u64;
        for (row_key, encoded) in rows {
            let Some((bucket, key)) = place_of(row_key) else { continue };
            let digest = match Object::decode(encoded) {
                Ok(object) => key_digest(bucket, &key, &object),
                // Like no other replica's.
                Err(_) => {
                    self.counters.corrupt_objects += 1;
                    xxh3_128(&self.boot.node.0.to_be_bytes()) | 1
                }
            };
            let none = BucketDigest { bucket, digest: 0, keys: 0, tombstones: 0 };
            let sum = job.sums.entry(bucket).or_insert(none);
            sum.digest = sum.digest.wrapping_add(digest);
            if digest == 0 { sum.tombstones += 1 } else { sum.keys += 1 }
        }
    }

    /// A scan has come to its end.
    fn scanned<S: Store>(&mut self, mut job: Job, turn: &mut Turn<'_, S>) {
        let known = self.digests.known.entry(job.partition).or_default();
        if known.number == job.number {
            known.digests = Some(job.digests());
        } else if job.scans < SCANS_MAX {
            job.restart(known.number);
            self.digests.jobs.push_back(job);
            return;
        }
        let digests = job.digests();
        self.tell_digests(job, Ok(digests), turn);
    }

    fn tell_digests<S: Store>(
        &mut self,
        job: Job,
        result: Result<Vec<BucketDigest>, Refusal>,
        turn: &mut Turn<'_, S>,
    ) {
        for waiter in job.waiters {
            match waiter {
                Waiter::Peer(node, op) => {
                    send_digests((node, op), job.partition, result.clone(), turn);
                }
                Waiter::Own(op) => {
                    let me = self.boot.node;
                    self.on_digests((me, op), job.partition, result.clone(), turn);
                }
            }
        }
    }
}
