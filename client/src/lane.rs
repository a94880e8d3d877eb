//! One lane: a long-lived stream with many requests in flight.
//!
//! Requests are encoded straight into one buffer, and their waiters live in a table whose index
//! travels as the frame's id, so a request costs no allocation, no channel and no task of its own.
//! The writer takes the whole buffer at once, after it has let every task that is ready add its
//! request: many requests go out in one packet. The reader completes all answers that arrived
//! together under one lock.
//!
//! States of a slot: free, waiting, answered, closed. Rules:
//! - A slot's generation rises when it is freed, and is part of the frame id: a late answer to a
//!   call that gave up never reaches the slot's next user.
//! - Requests are counted into *batches*; one whose batch was not taken by the writer was never
//!   sent, so a lost lane can say which of its requests cannot have reached the node.
//! - The table, and the bytes waiting to be written, are bounded; past that a call is refused at
//!   once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use holm_protocol::error::RequestError;
use holm_protocol::frame::{Frame, FrameDecoder};
use holm_protocol::message::{Request, kind};
use quinn::{RecvStream, SendStream};
use tokio::time::Instant;

use crate::error::FullQueue;

/// Bytes waiting to be written, above which calls are refused: a few of the longest values. The
/// writer only lags when the node does not read.
const UNSENT_BYTES_MAX: usize = 16 << 20;

/// A write buffer that grew above this is given back: one long value must not be held for ever.
const BUFFER_KEEP_BYTES: usize = 256 << 10;

/// Chunks taken from QUIC in one turn: a packet is at most one, and a turn of 64 is long enough to
/// make the lock cheap.
const CHUNKS: usize = 64;

/// Why a lane cannot be used any more.
#[derive(Debug, Clone)]
pub(crate) enum CloseReason {
    /// The connection is gone.
    Lost(Arc<str>),
    /// The node sent what is no answer.
    Garbage(Arc<str>),
    /// The node said so.
    Refused(Box<RequestError>),
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The node's frame.
    Frame(Frame),
    /// The lane closed first.
    Closed {
        /// Whether the request may have reached the node.
        sent: bool,
        /// Why it closed.
        reason: CloseReason,
    },
}

/// Why a call was not taken.
#[derive(Debug)]
pub(crate) enum StartError {
    /// A limit is reached.
    Full(FullQueue),
    /// The lane is closed.
    Closed(CloseReason),
}

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting(Option<Waker>),
    Answered(Frame),
    Closed { sent: bool },
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: SlotState,
    /// The batch that its request is in.
    batch: u64,
    /// When its waiter wants to be woken without an answer.
    wake_at: Option<Instant>,
}

#[derive(Debug)]
struct State {
    closed: Option<CloseReason>,
    unsent: BytesMut,
    /// The number of the batch in `unsent`.
    batch: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// No later than the earliest `wake_at`.
    earliest: Option<Instant>,
    writer: Option<Waker>,
    monitor: Option<Waker>,
}

/// A lane's shared half; its tasks are [`write_loop`] and [`read_loop`].
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<State>,
    in_flight_max: usize,
}

/// A request under way. Dropping it gives up on the answer.
#[derive(Debug)]
pub(crate) struct Call {
    lane: Arc<Lane>,
    slot: u32,
    generation: u32,
}

impl Lane {
    pub(crate) fn new(in_flight_max: usize) -> Lane {
        let state = State {
            closed: None,
            unsent: BytesMut::new(),
            batch: 0,
            slots: Vec::new(),
            free: Vec::new(),
            earliest: None,
            writer: None,
            monitor: None,
        };
        Lane { state: Mutex::new(state), in_flight_max }
    }

    /// Nothing panics while the lock is held, so a poisoned one still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request.
    pub(crate) fn start(self: &Arc<Self>, request: &Request) -> Result<Call, StartError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(reason) = &state.closed {
            return Err(StartError::Closed(reason.clone()));
        }
        let (in_flight, limit) = (state.in_flight(), self.in_flight_max);
        if in_flight >= limit {
            return Err(StartError::Full(FullQueue::Requests { in_flight, limit }));
        }
        let unsent = state.unsent.len();
        if unsent >= UNSENT_BYTES_MAX {
            return Err(StartError::Full(FullQueue::Bytes { unsent, limit: UNSENT_BYTES_MAX }));
        }
        let slot = state.free.pop().unwrap_or_else(|| {
            let slot = Slot { generation: 0, state: SlotState::Free, batch: 0, wake_at: None };
            state.slots.push(slot);
            // At most `in_flight_max` slots, which is below 2^17.
            (state.slots.len() - 1) as u32
        });
        let taken = &mut state.slots[slot as usize];
        taken.state = SlotState::Waiting(None);
        taken.batch = state.batch;
        taken.wake_at = None;
        let generation = taken.generation;
        request.encode(frame_id(slot, generation), &mut state.unsent);
        let wakers = (state.writer.take(), state.monitor.take());
        drop(guard);
        wake(wakers.0);
        wake(wakers.1);
        Ok(Call { lane: Arc::clone(self), slot, generation })
    }

    /// Closes the lane: every waiter hears of it, and nothing more is taken.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut wakers = Vec::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason);
        for slot in &mut state.slots {
            if let SlotState::Waiting(waker) = &mut slot.state {
                wakers.extend(waker.take());
                slot.state = SlotState::Closed { sent: slot.batch < state.batch };
            }
        }
        wakers.extend(state.writer.take());
        wakers.extend(state.monitor.take());
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Wakes every waiter whose time has come. Answers whether the lane has calls in flight.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        if state.earliest.is_some_and(|earliest| earliest <= now) {
            let mut earliest: Option<Instant> = None;
            for slot in &mut state.slots {
                let (SlotState::Waiting(waker), Some(at)) = (&mut slot.state, slot.wake_at) else {
                    continue;
                };
                if at <= now {
                    wakers.extend(waker.take());
                } else {
                    earliest = Some(earliest.map_or(at, |e| e.min(at)));
                }
            }
            state.earliest = earliest;
        }
        let busy = state.in_flight() > 0;
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        busy
    }

    /// Ready when the lane has calls in flight, or is closed.
    pub(crate) fn poll_busy(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.closed.is_some() || state.in_flight() > 0 {
            return Poll::Ready(());
        }
        state.monitor = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when there is something to write; `false` when the lane is closed.
    fn poll_unsent(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        if state.closed.is_some() {
            return Poll::Ready(false);
        }
        if !state.unsent.is_empty() {
            return Poll::Ready(true);
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Swaps the unsent bytes with an empty buffer; from here on they count as sent.
    fn take_batch(&self, empty: &mut BytesMut) {
        let mut state = self.lock();
        std::mem::swap(&mut state.unsent, empty);
        state.batch += 1;
    }

    /// Completes the calls that these frames answer.
    fn deliver(&self, frames: &mut Vec<Frame>, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        for frame in frames.drain(..) {
            let (slot, generation) = slot_of(frame.id);
            // Anything else is the late answer to a call that gave up.
            if let Some(slot) = state.slots.get_mut(slot)
                && slot.generation == generation
                && let SlotState::Waiting(waker) = &mut slot.state
            {
                wakers.extend(waker.take());
                slot.state = SlotState::Answered(frame);
            }
        }
        drop(state);
        wakers.drain(..).for_each(Waker::wake);
    }
}

impl State {
    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Call {
    /// The answer, or `None` from `until` on (checked every few milliseconds). May be polled
    /// again with a later `until`.
    pub(crate) fn poll_answer(&self, cx: &mut Context<'_>, until: Instant) -> Poll<Option<Answer>> {
        let mut guard = self.lane.lock();
        let state = &mut *guard;
        let slot = &mut state.slots[self.slot as usize];
        match std::mem::replace(&mut slot.state, SlotState::Waiting(None)) {
            SlotState::Answered(frame) => Poll::Ready(Some(Answer::Frame(frame))),
            SlotState::Closed { sent } => {
                let gone = || CloseReason::Lost("closed".into());
                let reason = state.closed.clone().unwrap_or_else(gone);
                Poll::Ready(Some(Answer::Closed { sent, reason }))
            }
            SlotState::Waiting(_) | SlotState::Free => {
                // The first poll sets the time; later ones come from an answer or the sweep.
                if slot.wake_at == Some(until) && Instant::now() >= until {
                    return Poll::Ready(None);
                }
                slot.wake_at = Some(until);
                slot.state = SlotState::Waiting(Some(cx.waker().clone()));
                state.earliest = Some(state.earliest.map_or(until, |e| e.min(until)));
                Poll::Pending
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        let slot = &mut state.slots[self.slot as usize];
        debug_assert_eq!(slot.generation, self.generation, "a slot was freed under its call");
        slot.state = SlotState::Free;
        slot.generation = slot.generation.wrapping_add(1);
        state.free.push(self.slot);
    }
}

/// Ids start above 0, which means "no request": the slot is counted from 1.
fn frame_id(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot + 1)
}

fn slot_of(id: u64) -> (usize, u32) {
    ((id as u32).wrapping_sub(1) as usize, (id >> 32) as u32)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Writes batches until the lane closes. Answers why the stream cannot be written, if that ended
/// it.
pub(crate) async fn write_loop(lane: Arc<Lane>, mut stream: SendStream) -> Option<CloseReason> {
    let mut batch = BytesMut::new();
    while std::future::poll_fn(|cx| lane.poll_unsent(cx)).await {
        // Every task that is ready adds its request first: many requests to a packet.
        tokio::task::yield_now().await;
        lane.take_batch(&mut batch);
        if let Err(error) = stream.write_all(&batch).await {
            return Some(CloseReason::Lost(error.to_string().into()));
        }
        batch.clear();
        if batch.capacity() > BUFFER_KEEP_BYTES {
            batch = BytesMut::new();
        }
    }
    None
}

/// Reads answers until the stream ends, and answers why it did.
pub(crate) async fn read_loop(
    lane: Arc<Lane>,
    mut stream: RecvStream,
    mut decoder: FrameDecoder,
) -> CloseReason {
    let mut chunks = vec![Bytes::new(); CHUNKS];
    let mut frames = Vec::new();
    let mut wakers = Vec::new();
    loop {
        match decode(&mut decoder, &mut frames) {
            Ok(()) => lane.deliver(&mut frames, &mut wakers),
            Err(reason) => return reason,
        }
        let count = match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => return CloseReason::Lost("the node closed the lane".into()),
            Err(error) => return CloseReason::Lost(error.to_string().into()),
        };
        for chunk in &mut chunks[..count] {
            decoder.push(&std::mem::take(chunk));
        }
    }
}

fn decode(decoder: &mut FrameDecoder, frames: &mut Vec<Frame>) -> Result<(), CloseReason> {
    loop {
        match decoder.next_frame() {
            Ok(None) => return Ok(()),
            // An error that answers no request is about the lane.
            Ok(Some(frame)) if frame.id == 0 && frame.kind == kind::ERROR => {
                return Err(match holm_protocol::admin::decode(&frame.body) {
                    Some(error) => CloseReason::Refused(Box::new(error)),
                    None => CloseReason::Garbage("an error frame that does not decode".into()),
                });
            }
            Ok(Some(frame)) => frames.push(frame),
            Err(error) => return Err(CloseReason::Garbage(error.to_string().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use holm_protocol::admin::AdminRequest;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn request() -> Request {
        Request::Admin(AdminRequest::View)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn answer(call: &Call) -> Frame {
        let id = frame_id(call.slot, call.generation);
        Frame { kind: kind::ADMIN_REPLY, id, body: Bytes::new() }
    }

    /// Goal: a late answer to a call that gave up never reaches the slot's next user. Method: give
    /// up, reuse the slot, deliver the old answer, then the new one.
    #[test]
    fn late_answers_reach_nobody() {
        let lane = Arc::new(Lane::new(4));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let first = lane.start(&request()).unwrap();
        let late = answer(&first);
        let slot = first.slot;
        drop(first);
        let second = lane.start(&request()).unwrap();
        assert_eq!(second.slot, slot);
        assert!(second.poll_answer(&mut cx, later()).is_pending());
        lane.deliver(&mut vec![late], &mut Vec::new());
        assert!(second.poll_answer(&mut cx, later()).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        lane.deliver(&mut vec![answer(&second)], &mut Vec::new());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(matches!(second.poll_answer(&mut cx, later()), Poll::Ready(Some(_))));
    }

    /// Goal: a lost lane knows which requests were never sent. Method: one request before the
    /// writer takes its batch, one after; close.
    #[test]
    fn a_lost_lane_tells_sent_from_unsent() {
        let lane = Arc::new(Lane::new(4));
        let sent = lane.start(&request()).unwrap();
        lane.take_batch(&mut BytesMut::new());
        let unsent = lane.start(&request()).unwrap();
        lane.close(CloseReason::Lost("test".into()));
        let mut cx = Context::from_waker(Waker::noop());
        for (call, expected) in [(sent, true), (unsent, false)] {
            match call.poll_answer(&mut cx, later()) {
                Poll::Ready(Some(Answer::Closed { sent, .. })) => assert_eq!(sent, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(lane.start(&request()), Err(StartError::Closed(_))));
    }

    /// Goal: the table is bounded, and room comes back.
    #[test]
    fn a_full_lane_refuses() {
        let lane = Arc::new(Lane::new(1));
        let call = lane.start(&request()).unwrap();
        let full = FullQueue::Requests { in_flight: 1, limit: 1 };
        assert!(matches!(lane.start(&request()), Err(StartError::Full(queue)) if queue == full));
        drop(call);
        assert!(lane.start(&request()).is_ok());
    }

    /// Goal: what is refused for its bytes says bytes, not requests. Method: fill the buffer.
    #[test]
    fn a_full_buffer_refuses() {
        let lane = Arc::new(Lane::new(4));
        lane.lock().unsent.resize(UNSENT_BYTES_MAX, 0);
        let Err(StartError::Full(queue)) = lane.start(&request()) else { panic!("was taken") };
        assert_eq!(queue, FullQueue::Bytes { unsent: UNSENT_BYTES_MAX, limit: UNSENT_BYTES_MAX });
        assert_eq!(queue.to_string(), "16777216 bytes wait to be sent to a node, limit 16777216");
        lane.take_batch(&mut BytesMut::new());
        assert!(lane.start(&request()).is_ok());
    }

    /// Goal: time passes without a timer for each call. Method: sweep before and after.
    #[test]
    fn a_sweep_wakes_who_waited_long_enough() {
        let lane = Arc::new(Lane::new(4));
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let call = lane.start(&request()).unwrap();
        let now = Instant::now();
        assert!(call.poll_answer(&mut cx, now).is_pending());
        assert!(lane.sweep(now - Duration::from_millis(1)));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(lane.sweep(now));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(matches!(call.poll_answer(&mut cx, now), Poll::Ready(None)));
        assert!(call.poll_answer(&mut cx, later()).is_pending());
        drop(call);
        assert!(!lane.sweep(now));
    }
}
