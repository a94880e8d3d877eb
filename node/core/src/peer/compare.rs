//! What replicas tell each other when one of them has started: how far each can vouch for what its
//! disk holds (DESIGN 7).
//!
//! A node that starts tells a replica what it durably knows to be stable, of each partition that
//! both hold, and is told the same. Each concludes for itself whether it has missed something.

use bytes::{BufMut, BytesMut};

use holm_protocol::ids::{Actor, Partition};
use holm_protocol::message::kind;
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::{Reader, WireError};

use super::gaps::{first_of, parts, put_parts};
use super::{OpId, PeerMessage};
use crate::clock::ACTORS_MAX;

/// Apart from the other messages between nodes, so that each list can grow.
const COMPARE: u8 = kind::PEER_FIRST + 96;
const COMPARED: u8 = COMPARE + 1;

/// Whether a replica vouches for what it holds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It does.
    Serves = 1,
    /// It has started and has not compared with another replica yet: its disk may be an older one.
    Doubt = 2,
    /// It has missed something, or lost it: it takes the partition whole from another.
    Behind = 3,
}

/// Where a replica stands with a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Whether it vouches for what it holds.
    pub standing: Standing,
    /// What it knows that every replica has durably seen, of actors that it has folded away too.
    pub know: VersionVector,
}

/// A message about where replicas stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareMessage {
    /// This is where I stand; where do you?
    Compare {
        /// The operation.
        op: OpId,
        /// The sender's run: who has not met it still counts on claims of an earlier one, and gives no
        /// answer.
        run: Actor,
        /// Per partition; at least one.
        positions: Vec<(Partition, Position)>,
    },
    /// Where the receiver stood when it was asked.
    Compared {
        /// The operation.
        op: OpId,
        /// Per partition; at least one. Those that it does not hold are left out.
        positions: Vec<(Partition, Position)>,
    },
}

/// Where a replica stands with some partitions.
type Positions = Vec<(Partition, Position)>;

impl CompareMessage {
    /// Whether a frame of this kind holds one.
    pub(super) fn is_kind(kind: u8) -> bool {
        (COMPARE..=COMPARED).contains(&kind)
    }

    /// The first partition.
    pub(super) fn partition(&self) -> Partition {
        match self {
            CompareMessage::Compare { positions, .. }
            | CompareMessage::Compared { positions, .. } => first_of(positions),
        }
    }

    pub(super) fn kind_and_op(&self) -> (u8, OpId) {
        match self {
            CompareMessage::Compare { op, .. } => (COMPARE, *op),
            CompareMessage::Compared { op, .. } => (COMPARED, *op),
        }
    }

    pub(super) fn encode_rest(&self, out: &mut BytesMut) {
        let positions = match self {
            CompareMessage::Compare { run, positions, .. } => {
                out.put_u64(run.0);
                positions
            }
            CompareMessage::Compared { positions, .. } => positions,
        };
        put_parts(out, positions, |out, position| {
            out.put_u8(position.standing as u8);
            position.know.encode(out);
        });
    }

    /// Reads what follows the first partition in a frame of such a kind.
    ///
    /// # Errors
    /// [`WireError`]; lengths are checked before anything is allocated.
    pub(super) fn decode(
        kind: u8,
        op: OpId,
        first: Partition,
        reader: &mut Reader<'_>,
    ) -> Result<CompareMessage, WireError> {
        let run = match kind {
            COMPARE => Some(Actor(reader.u64()?)),
            _ => None,
        };
        let positions = parts(first, reader, |reader| {
            let standing = standing(reader)?;
            let know = VersionVector::decode(reader, ACTORS_MAX)?;
            Ok(Position { standing, know })
        })?;
        Ok(CompareMessage::new(op, run, positions))
    }

    /// Of several partitions, as a message about some.
    pub(super) fn split(self) -> (Positions, impl Fn(Positions) -> PeerMessage) {
        let (op, run, positions) = match self {
            CompareMessage::Compare { op, run, positions } => (op, Some(run), positions),
            CompareMessage::Compared { op, positions } => (op, None, positions),
        };
        let message =
            move |positions| PeerMessage::Compare(CompareMessage::new(op, run, positions));
        (positions, message)
    }

    /// A question, if it names the run of who asks.
    fn new(op: OpId, run: Option<Actor>, positions: Positions) -> CompareMessage {
        match run {
            Some(run) => CompareMessage::Compare { op, run, positions },
            None => CompareMessage::Compared { op, positions },
        }
    }
}

fn standing(reader: &mut Reader<'_>) -> Result<Standing, WireError> {
    Ok(match reader.u8()? {
        1 => Standing::Serves,
        2 => Standing::Doubt,
        3 => Standing::Behind,
        got => return Err(WireError::Invalid { field: "standing", got: got.into() }),
    })
}
