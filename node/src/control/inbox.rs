//! What waits for the control thread: bounded in commands and in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use holm_protocol::admin::AdminRequest;
use holm_protocol::error::RequestError;
use holm_protocol::frame::Frame;
use holm_protocol::handshake::MetadataVersion;
use holm_protocol::ids::NodeId;
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::message::Reply;

use crate::net::counters::Counter;
use crate::net::lane::ReplySink;

/// Commands that may wait. Operators' requests and metadata are rare; beyond this they are refused
/// or lost, and metadata is pushed again at the next meeting.
const COMMANDS_MAX: usize = 256;

/// Bytes of bulk frames that may wait: two of the longest, so that one can be taken in while another
/// is worked on. One fits whatever its length, if nothing waits.
const COMMANDS_BYTES_MAX: usize = 2 * FRAME_LEN_MAX;

/// Something for the control thread.
#[derive(Debug)]
pub enum Command {
    /// A request of an operator or a client that concerns no key.
    Admin {
        /// Where the answer goes.
        replies: ReplySink,
        /// The request's number.
        frame: u64,
        /// What is asked.
        request: AdminRequest,
    },
    /// A message on a bulk lane.
    Bulk {
        /// The node.
        from: NodeId,
        /// The message.
        frame: Frame,
    },
    /// The number of this node's start that is to be remembered.
    Boot(u64),
    /// A node was met.
    PeerUp {
        /// The node.
        node: NodeId,
        /// Its store's name.
        store: u128,
        /// The metadata it holds.
        metadata: MetadataVersion,
    },
}

impl Command {
    /// Bytes that it keeps in memory beyond its own size. Admin requests are bounded by the limits of
    /// the lanes they come over.
    fn bytes(&self) -> usize {
        match self {
            Command::Bulk { frame, .. } => frame.body.len(),
            Command::Admin { .. } | Command::Boot(_) | Command::PeerUp { .. } => 0,
        }
    }
}

/// Where commands are put. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlInbox {
    sender: SyncSender<Command>,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<Counter>,
}

/// Where commands come out.
#[derive(Debug)]
pub struct Commands {
    receiver: Receiver<Command>,
    bytes: Arc<AtomicUsize>,
}

impl Commands {
    pub(super) fn next(&self, patience: Duration) -> Result<Command, RecvTimeoutError> {
        let command = self.receiver.recv_timeout(patience)?;
        self.bytes.fetch_sub(command.bytes(), Ordering::Relaxed);
        Ok(command)
    }
}

impl ControlInbox {
    /// An inbox and its other end.
    #[must_use]
    pub fn new() -> (ControlInbox, Commands) {
        let (sender, receiver) = sync_channel(COMMANDS_MAX);
        let bytes = Arc::<AtomicUsize>::default();
        let commands = Commands { receiver, bytes: bytes.clone() };
        (ControlInbox { sender, bytes, dropped: Arc::default() }, commands)
    }

    /// Puts a command in. An operator's request that does not fit is refused.
    pub fn send(&self, command: Command) {
        let bytes = command.bytes();
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > 0 && waiting > 0 && waiting + bytes > COMMANDS_BYTES_MAX {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.increment();
            return;
        }
        if let Err(error) = self.sender.try_send(command) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.increment();
            let (std::sync::mpsc::TrySendError::Full(command)
            | std::sync::mpsc::TrySendError::Disconnected(command)) = error;
            if let Command::Admin { replies, frame, .. } = command {
                let limit = COMMANDS_MAX as u32;
                let error =
                    RequestError::Overloaded { in_flight: limit, limit, retry_after_ms: 200 };
                replies.send(frame, &Reply::Error(error));
            }
        }
    }
}
