//! Frames waiting to be written on one lane.
//!
//! Any thread appends whole encoded frames to one buffer under a short lock; the lane's writer swaps
//! the buffer for an empty one and writes it in one go. The writer is woken only when the buffer
//! turns non-empty, so a batch of answers costs one wake-up, and the two buffers are reused.
//!
//! An outbox outlives the stream it feeds: each stream gets a new *epoch*, and a writer of an older
//! one takes nothing. While there is no stream, appending fails.
//!
//! Bounds: at most `bytes_max` wait or are being written, or one frame of any length if nothing
//! waits; several outboxes can share a [`Budget`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;

/// Capacity that a drained buffer keeps, bytes: what a busy lane fills between two writes. More
/// would be memory that one burst leaves behind on every lane.
const CAPACITY_KEPT: usize = 256 << 10;

/// Why frames were not queued. Nothing of them will be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// There is no connection.
    #[error("not connected")]
    NotConnected,
    /// The queue is full.
    #[error("queue full")]
    Full,
}

/// Bytes that several outboxes, or readers, may hold together.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

/// See the module's head.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
    bytes_max: usize,
    budget: Option<Arc<Budget>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BytesMut,
    /// Bytes in the writer's hands.
    writing: usize,
    /// Which stream this feeds. 0: none yet.
    epoch: u64,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What waits is still written, nothing more is taken in.
    Draining,
    #[default]
    Closed,
}

impl Budget {
    /// At most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Budget {
        Budget { used: AtomicUsize::new(0), max }
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Outbox {
    /// A closed outbox for at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize, budget: Option<Arc<Budget>>) -> Outbox {
        Outbox {
            state: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            bytes_max,
            budget,
        }
    }

    /// Starts feeding a new stream, and forgets what waited for the one before.
    pub fn open(&self) -> u64 {
        let mut state = self.lock();
        self.reset(&mut state);
        state.phase = Phase::Open;
        state.epoch += 1;
        state.epoch
    }

    /// Stops feeding the stream of `epoch`, at once, unless there is a newer one.
    pub fn close(&self, epoch: u64) {
        let mut state = self.lock();
        if state.epoch == epoch {
            self.reset(&mut state);
            state.phase = Phase::Closed;
            drop(state);
            self.filled.notify_one();
            self.drained.notify_one();
        }
    }

    /// Takes nothing more in; the writer ends after what waits.
    pub fn finish(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Appends the whole frames that `write` encodes.
    ///
    /// # Errors
    /// [`NotSent`]; nothing is kept of them.
    pub fn append(&self, write: impl FnOnce(&mut BytesMut)) -> Result<(), NotSent> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(NotSent::NotConnected);
        }
        let before = state.waiting.len();
        write(&mut state.waiting);
        let added = state.waiting.len().saturating_sub(before);
        let held = state.waiting.len() + state.writing;
        let alone = held == added;
        let budgeted = |budget: &Arc<Budget>| budget.take(added);
        if (held > self.bytes_max && !alone) || !self.budget.as_ref().is_none_or(budgeted) {
            state.waiting.truncate(before);
            return Err(NotSent::Full);
        }
        drop(state);
        if before == 0 && added > 0 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Whether frames are taken in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    /// Bytes that wait or are being written.
    #[must_use]
    pub fn held(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.writing
    }

    /// Whether so many bytes more fit easily: half of what may be held stays free for answers that
    /// cannot be replaced by a refusal. Something alone always fits.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let held = self.held();
        let fits = |used: usize, max: usize| used == 0 || used + bytes <= max / 2;
        fits(held, self.bytes_max)
            && self.budget.as_ref().is_none_or(|budget| fits(budget.used(), budget.max))
    }

    /// Waits until less than `bytes` are held, or the outbox is closed. For one waiter.
    pub async fn wait_below(&self, bytes: usize) {
        while self.held() >= bytes {
            self.drained.notified().await;
        }
    }

    /// Swaps what waits into `spare`, which has been written and is emptied first. `false` if there
    /// will be nothing more for this epoch.
    pub async fn take(&self, epoch: u64, spare: &mut BytesMut) -> bool {
        if spare.capacity() > CAPACITY_KEPT {
            *spare = BytesMut::new();
        }
        spare.clear();
        loop {
            {
                let mut state = self.lock();
                if state.epoch != epoch {
                    // The wake-up may have been meant for the newer stream's writer.
                    drop(state);
                    self.filled.notify_one();
                    return false;
                }
                let written = std::mem::take(&mut state.writing);
                self.give_back(written);
                if written > 0 {
                    self.drained.notify_one();
                }
                if !state.waiting.is_empty() {
                    std::mem::swap(&mut state.waiting, spare);
                    state.writing = spare.len();
                    return true;
                }
                if state.phase != Phase::Open {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    fn reset(&self, state: &mut State) {
        self.give_back(state.waiting.len() + state.writing);
        state.waiting = BytesMut::new();
        state.writing = 0;
    }

    fn give_back(&self, bytes: usize) {
        if let Some(budget) = &self.budget {
            budget.give_back(bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while appending leaves at worst a frame too few or cut short, which the other
        // side refuses; the lock itself stays usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let held = self.held();
        self.give_back(held);
    }
}
