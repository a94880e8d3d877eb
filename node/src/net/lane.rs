//! A lane: frames both ways on one long-lived stream, in batches.
//!
//! Reading: everything that has arrived is taken at once, cut into frames, and handed on as one
//! batch. Writing: everything that waits in the [`Outbox`] goes out in one write. Thus under load
//! the cost of wake-ups is shared by many requests, and a lone request is not held back.
//!
//! Nothing is read ahead of the handler, and nothing is kept for a frame beyond the bytes received.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holm_protocol::error::RequestError;
use holm_protocol::frame::{FRAME_HEAD_LEN, Frame, FrameDecoder, FrameError};
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::message::Reply;
use quinn::{RecvStream, SendStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::counters::NetCounters;
use super::outbox::{Budget, NotSent, Outbox};

/// Chunks taken by one read. A chunk is at most a datagram: 32 of them are what one system call
/// receives.
const CHUNKS_MAX: usize = 32;

/// Longest first frame, bytes: a hello is names and numbers. Smaller than any lie about a length.
const HELLO_LEN_MAX: usize = 4096;

/// The slowest a client may take answers without being closed, bytes a second. Arbitrary: a phone on
/// a bad day manages it.
const RATE_MIN: u64 = 64 << 10;

/// The least that must be taken within `net.stall_timeout_ms`, bytes. Without it, a client that has
/// asked for megabytes and takes a byte a second would be given minutes by [`RATE_MIN`].
const PIECE: usize = 64 << 10;

/// What a lane may hold of an unfinished frame without asking for more, bytes.
const UNFINISHED_FREE: usize = 64 << 10;

/// When a client should come back whose frame had no room, milliseconds. Unfinished frames are
/// finished, or closed as stalled, meanwhile or soon after.
const CROWDED_RETRY_MS: u32 = 500;

/// Why a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEnd {
    /// The other side finished it.
    Finished,
    /// The stream or its connection is gone.
    Lost,
    /// The bytes are no frames.
    Malformed(FrameError),
    /// A frame is longer than this lane takes.
    TooLong {
        /// Its length as far as it is known, bytes.
        len: u64,
        /// The most taken.
        limit: u64,
    },
    /// The other side did not finish a frame, or did not take what was written, in time.
    Stalled,
    /// Too many bytes of unfinished frames wait on the whole node.
    Crowded,
    /// No first frame came in time.
    Silent,
    /// The own side finished it.
    Drained,
}

impl LaneEnd {
    /// What to tell the other side, if it is at fault.
    #[must_use]
    pub fn error(self) -> Option<RequestError> {
        match self {
            LaneEnd::TooLong { len, limit } => Some(RequestError::FrameTooLong { len, limit }),
            LaneEnd::Malformed(FrameError::TooLong { len }) => {
                Some(RequestError::FrameTooLong { len, limit: FRAME_LEN_MAX as u64 })
            }
            LaneEnd::Crowded => {
                let retry_after_ms = CROWDED_RETRY_MS;
                Some(RequestError::Overloaded { in_flight: 0, limit: 0, retry_after_ms })
            }
            LaneEnd::Malformed(fault) => Some(RequestError::Malformed { what: fault.to_string() }),
            _ => None,
        }
    }
}

/// The reading half of a lane.
#[derive(Debug)]
pub struct LaneReader {
    recv: RecvStream,
    decoder: FrameDecoder,
    chunks: [Bytes; CHUNKS_MAX],
    frame_len_max: usize,
    unfinished: Option<Unfinished>,
}

/// What a lane holds of an unfinished frame, counted against what all lanes may hold together.
#[derive(Debug)]
struct Unfinished {
    budget: Arc<Budget>,
    counted: usize,
}

impl Unfinished {
    /// Counts `buffered` bytes; `false` if they have no room.
    fn count(&mut self, buffered: usize) -> bool {
        let now = buffered.saturating_sub(UNFINISHED_FREE);
        if now > self.counted && !self.budget.take(now - self.counted) {
            return false;
        }
        self.budget.give_back(self.counted.saturating_sub(now));
        self.counted = now;
        true
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.budget.give_back(self.counted);
    }
}

impl LaneReader {
    /// Reads from the start of a stream. No more is kept of an unfinished frame than
    /// `frame_len_max` and what one read gives.
    #[must_use]
    pub fn new(recv: RecvStream, frame_len_max: usize) -> LaneReader {
        let chunks = Default::default();
        let decoder = FrameDecoder::new();
        LaneReader { recv, decoder, chunks, frame_len_max, unfinished: None }
    }

    /// Has unfinished frames counted against `budget`, but for their first 64 KiB.
    #[must_use]
    pub fn with_budget(mut self, budget: Arc<Budget>) -> LaneReader {
        self.unfinished = Some(Unfinished { budget, counted: 0 });
        self
    }

    /// The first frame, which must be short and come by `deadline`.
    ///
    /// # Errors
    /// [`LaneEnd`]; [`LaneEnd::Silent`] if the time is over.
    pub async fn hello(&mut self, deadline: Instant) -> Result<Frame, LaneEnd> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(LaneEnd::Malformed)? {
                return Ok(frame);
            }
            self.check_unfinished(HELLO_LEN_MAX)?;
            timeout_at(deadline, self.read()).await.map_err(|_| LaneEnd::Silent)??;
        }
    }

    /// Appends the frames that have arrived, at least one. With `stall`, a frame that was begun must
    /// be finished within that time.
    ///
    /// # Errors
    /// [`LaneEnd`], after all frames before it were given.
    pub async fn batch(
        &mut self,
        frames: &mut Vec<Frame>,
        stall: Option<Duration>,
    ) -> Result<(), LaneEnd> {
        let mut deadline = None;
        loop {
            loop {
                match self.decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    // The fault stays in the decoder: it is met again by the next call.
                    Err(_) if !frames.is_empty() => break,
                    Err(fault) => return Err(LaneEnd::Malformed(fault)),
                }
            }
            // Also when there are frames: what is left over may be long, and may wait long.
            let buffered = self.decoder.buffered();
            let room = self.unfinished.as_mut().is_none_or(|held| held.count(buffered));
            if !frames.is_empty() {
                return Ok(());
            }
            if !room {
                return Err(LaneEnd::Crowded);
            }
            self.check_unfinished(self.frame_len_max)?;
            match stall {
                Some(stall) if self.decoder.buffered() > 0 => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + stall);
                    timeout_at(deadline, self.read()).await.map_err(|_| LaneEnd::Stalled)??;
                }
                _ => self.read().await?,
            }
        }
    }

    /// Tells the other side that nothing more will be read.
    pub fn stop(&mut self, code: quinn::VarInt) {
        // Fails only if the stream has ended, which is as good.
        let _ = self.recv.stop(code);
    }

    fn check_unfinished(&self, limit: usize) -> Result<(), LaneEnd> {
        match self.decoder.buffered() {
            held if held > FRAME_HEAD_LEN + limit => {
                Err(LaneEnd::TooLong { len: held as u64, limit: limit as u64 })
            }
            _ => Ok(()),
        }
    }

    /// Reads to the end, whatever it is.
    #[cfg(test)]
    pub(super) async fn drain(mut self) -> usize {
        while self.read().await.is_ok() {}
        self.decoder.buffered()
    }

    async fn read(&mut self) -> Result<(), LaneEnd> {
        match self.recv.read_chunks(&mut self.chunks).await {
            Ok(Some(count)) => {
                for chunk in &mut self.chunks[..count] {
                    self.decoder.push(&std::mem::take(chunk));
                }
                Ok(())
            }
            Ok(None) => Err(LaneEnd::Finished),
            Err(_) => Err(LaneEnd::Lost),
        }
    }
}

/// Writes what comes into the outbox until there will be nothing more. With `stall`, the other side
/// must take each 64 KiB of what is written within that time, and all of it within that time plus
/// what its length needs at 64 KiB a second.
pub async fn write_lane(
    outbox: &Outbox,
    epoch: u64,
    send: &mut SendStream,
    stall: Option<Duration>,
) -> LaneEnd {
    let mut spare = BytesMut::new();
    while outbox.take(epoch, &mut spare).await {
        let written = match stall {
            None => send.write_all(&spare).await.map_err(|_| LaneEnd::Lost),
            Some(stall) => write_in_time(send, &spare, stall).await,
        };
        if let Err(end) = written {
            return end;
        }
    }
    LaneEnd::Drained
}

/// Writes for [`write_lane`]; see there for the bounds.
async fn write_in_time(
    send: &mut SendStream,
    bytes: &[u8],
    stall: Duration,
) -> Result<(), LaneEnd> {
    let whole = Instant::now() + stall + Duration::from_secs(bytes.len() as u64 / RATE_MIN);
    for piece in bytes.chunks(PIECE) {
        let deadline = whole.min(Instant::now() + stall);
        match timeout_at(deadline, send.write_all(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(LaneEnd::Lost),
            Err(_) => return Err(LaneEnd::Stalled),
        }
    }
    Ok(())
}

/// Sends one error frame as the last thing on a stream, and waits (bounded) until it has arrived.
pub async fn refuse(send: &mut SendStream, id: u64, error: RequestError, within: Duration) {
    let mut frame = BytesMut::new();
    Reply::Error(error).encode(id, &mut frame);
    let sent = async {
        send.write_all(&frame).await.ok()?;
        send.finish().ok()?;
        send.stopped().await.ok()
    };
    // The other side is being refused: whether it learnt why is its own concern.
    let _ = timeout(within, sent).await;
}

/// Where the answers of one client lane go. Cheap to clone; callable from any thread.
///
/// Each request frame is owed exactly one answer: answers are what ends a request's count against
/// the connection's limit. Answers to a client that is gone are dropped and counted.
#[derive(Debug, Clone)]
pub struct ReplySink {
    lane: Arc<ClientLane>,
}

/// What a client lane's reader, writer and answering threads share.
#[derive(Debug)]
pub(super) struct ClientLane {
    pub(super) outbox: Outbox,
    /// Requests in flight on the whole connection.
    pub(super) in_flight: Arc<AtomicU32>,
    pub(super) counters: Arc<NetCounters>,
}

impl ReplySink {
    pub(super) fn new(lane: Arc<ClientLane>) -> ReplySink {
        ReplySink { lane }
    }

    /// Sends one answer to the request `id`.
    pub fn send(&self, id: u64, reply: &Reply) {
        self.send_batch([(id, reply)]);
    }

    /// Sends several answers with one wake-up.
    pub fn send_batch<'a>(&self, replies: impl IntoIterator<Item = (u64, &'a Reply)>) {
        let mut replies = replies.into_iter();
        let mut answers = 0;
        let result = self.lane.outbox.append(|out| {
            for (id, reply) in replies.by_ref() {
                reply.encode(id, out);
                answers += 1;
            }
        });
        // A closed outbox encodes nothing, and what it did not encode is settled all the same.
        answers += replies.count() as u32;
        self.settle(answers, result);
    }

    /// Sends `answers` answers that are encoded already.
    pub fn send_encoded(&self, answers: u32, frames: &[u8]) {
        let result = self.lane.outbox.append(|out| out.extend_from_slice(frames));
        self.settle(answers, result);
    }

    /// Whether an answer of so many bytes has room, so that it need not end the lane.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.lane.outbox.has_room(bytes)
    }

    /// Whether nobody waits for answers any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.lane.outbox.is_open()
    }

    fn settle(&self, answers: u32, result: Result<(), NotSent>) {
        let less = |count: u32| Some(count.saturating_sub(answers));
        // The closure always gives a value, so the update cannot fail.
        let _ = self.lane.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if let Err(not_sent) = result {
            self.lane.counters.replies_dropped.add(answers.into());
            if not_sent == NotSent::Full {
                // The client would wait for these answers: end the lane, so that it knows.
                self.lane.outbox.finish();
            }
        }
    }
}
