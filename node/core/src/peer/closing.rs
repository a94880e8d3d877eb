//! What nodes say to each other about actors of runs that ended: questions of who closes them,
//! answers, and what was decided. Each speaks of several partitions, and is repeated by whoever misses
//! something; nothing is matched by operations.

use bytes::{BufMut, BytesMut};

use holm_protocol::ids::{Actor, Partition};
use holm_protocol::message::kind;
use holm_protocol::wire::{Reader, WireError};

use super::gaps::{by_shard, first_of, parts, put_parts};
use super::{OpId, PeerMessage};
use crate::clock::IntervalSet;

/// Apart from the other messages between nodes, so that each list can grow.
const ASK: u8 = kind::PEER_FIRST + 104;
const ANSWER: u8 = ASK + 1;
const ENDS: u8 = ASK + 2;
const WANTED: u8 = ASK + 3;

/// Actors of some partitions.
pub type Actors = Vec<(Partition, Actor)>;

/// An actor of some partition, and what is said of it.
type Of<T> = (Partition, (Actor, T));

/// What is asked of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Whether the actor is its own, and whether it has hints of the partition.
    Whose = 1,
    /// To keep no hint that names the actor, and have none of the partition.
    Hints = 2,
    /// To take no dot of the actor that it lacks.
    Dots = 3,
}

/// What a node answers of one actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is this node's own, and not at its end.
    Alive,
    /// The node cannot promise yet what it is asked for.
    Later,
    /// It is not this node's; what was asked for is promised, durably. Of replicas, these dots are here.
    Promised(IntervalSet),
    /// It was decided before: the actor has these dots.
    Closed(IntervalSet),
}

/// A message about actors of runs that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseMessage {
    /// Who is to close these actors asks a node that may have dots of them.
    Ask {
        /// The runs of all nodes and the layout, as the sender knows them.
        view: u64,
        /// What is asked.
        step: Step,
        /// Of which actors; at least one.
        actors: Actors,
    },
    /// The node's answer: under the same view, and durable.
    Answer {
        /// The view.
        view: u64,
        /// What was asked.
        step: Step,
        /// What the node says of each; at least one.
        found: Vec<Of<Finding>>,
    },
    /// Which dots closed actors have. All others are void.
    Ends(Vec<Of<IntervalSet>>),
    /// These actors seem to be at their end: to who is to close them, or knows their dots.
    Wanted(Actors),
}

impl CloseMessage {
    /// Whether a frame of this kind is one.
    pub(super) fn is_kind(kind: u8) -> bool {
        (ASK..=WANTED).contains(&kind)
    }

    pub(super) fn partition(&self) -> Partition {
        match self {
            CloseMessage::Ask { actors, .. } | CloseMessage::Wanted(actors) => first_of(actors),
            CloseMessage::Answer { found, .. } => first_of(found),
            CloseMessage::Ends(ends) => first_of(ends),
        }
    }

    pub(super) fn kind_and_op(&self) -> (u8, OpId) {
        let kind = match self {
            CloseMessage::Ask { .. } => ASK,
            CloseMessage::Answer { .. } => ANSWER,
            CloseMessage::Ends(_) => ENDS,
            CloseMessage::Wanted(_) => WANTED,
        };
        (kind, OpId(0))
    }

    pub(super) fn split(self, shards: usize) -> Vec<(usize, PeerMessage)> {
        match self {
            CloseMessage::Ask { view, step, actors } => by_shard(actors, shards, |actors| {
                PeerMessage::Close(CloseMessage::Ask { view, step, actors })
            }),
            CloseMessage::Answer { view, step, found } => by_shard(found, shards, |found| {
                PeerMessage::Close(CloseMessage::Answer { view, step, found })
            }),
            CloseMessage::Ends(ends) => {
                by_shard(ends, shards, |ends| PeerMessage::Close(CloseMessage::Ends(ends)))
            }
            CloseMessage::Wanted(actors) => {
                by_shard(actors, shards, |actors| PeerMessage::Close(CloseMessage::Wanted(actors)))
            }
        }
    }

    pub(super) fn encode_rest(&self, out: &mut BytesMut) {
        match self {
            CloseMessage::Ask { view, step, actors } => {
                put_head(out, *view, *step);
                put_parts(out, actors, |out, actor| out.put_u64(actor.0));
            }
            CloseMessage::Answer { view, step, found } => {
                put_head(out, *view, *step);
                put_parts(out, found, |out, (actor, standing)| {
                    out.put_u64(actor.0);
                    put_standing(out, standing);
                });
            }
            CloseMessage::Ends(ends) => put_parts(out, ends, |out, (actor, dots)| {
                out.put_u64(actor.0);
                dots.encode(out);
            }),
            CloseMessage::Wanted(actors) => {
                put_parts(out, actors, |out, actor| out.put_u64(actor.0));
            }
        }
    }

    /// Reads what follows the partition in a frame of such a kind.
    ///
    /// # Errors
    /// [`WireError`]; lengths are checked before anything is allocated.
    pub(super) fn decode(
        kind: u8,
        first: Partition,
        reader: &mut Reader<'_>,
    ) -> Result<CloseMessage, WireError> {
        let actor = |reader: &mut Reader<'_>| Ok(Actor(reader.u64()?));
        Ok(match kind {
            ASK => {
                let (view, step) = head(reader)?;
                CloseMessage::Ask { view, step, actors: parts(first, reader, actor)? }
            }
            ANSWER => {
                let (view, step) = head(reader)?;
                let one =
                    |reader: &mut Reader<'_>| Ok((Actor(reader.u64()?), read_standing(reader)?));
                CloseMessage::Answer { view, step, found: parts(first, reader, one)? }
            }
            ENDS => {
                let one = |reader: &mut Reader<'_>| {
                    Ok((Actor(reader.u64()?), IntervalSet::decode(reader)?))
                };
                CloseMessage::Ends(parts(first, reader, one)?)
            }
            WANTED => CloseMessage::Wanted(parts(first, reader, actor)?),
            got => return Err(WireError::Invalid { field: "frame kind", got: got.into() }),
        })
    }
}

fn put_head(out: &mut BytesMut, view: u64, step: Step) {
    out.put_u64(view);
    out.put_u8(step as u8);
}

fn head(reader: &mut Reader<'_>) -> Result<(u64, Step), WireError> {
    let view = reader.u64()?;
    match reader.u8()? {
        1 => Ok((view, Step::Whose)),
        2 => Ok((view, Step::Hints)),
        3 => Ok((view, Step::Dots)),
        got => Err(WireError::Invalid { field: "step", got: got.into() }),
    }
}

fn put_standing(out: &mut BytesMut, standing: &Finding) {
    match standing {
        Finding::Alive => out.put_u8(1),
        Finding::Later => out.put_u8(2),
        Finding::Promised(dots) => {
            out.put_u8(3);
            dots.encode(out);
        }
        Finding::Closed(dots) => {
            out.put_u8(4);
            dots.encode(out);
        }
    }
}

fn read_standing(reader: &mut Reader<'_>) -> Result<Finding, WireError> {
    Ok(match reader.u8()? {
        1 => Finding::Alive,
        2 => Finding::Later,
        3 => Finding::Promised(IntervalSet::decode(reader)?),
        4 => Finding::Closed(IntervalSet::decode(reader)?),
        got => return Err(WireError::Invalid { field: "standing", got: got.into() }),
    })
}
