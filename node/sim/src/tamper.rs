//! Bugs put back on purpose, to see that the referee finds them.
//!
//! The core is not touched: a bug is played by changing what it says on its way out, or what its
//! disk does. Each stands for a mistake that somebody made in a database like this one.

use bytes::Bytes;
use holm_core::object::{Object, ObjectKind, Sibling};
use holm_core::peer::{Found, PeerMessage};
use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::NodeId;
use holm_protocol::message::{Reply, Request};
use holm_protocol::version_vector::VersionVector;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tamper {
    /// A relay acknowledges for replicas that it has not passed the write on to.
    RelayForgesVotes,
    /// A commit is acknowledged before it is synced.
    AcknowledgedBeforeSync,
    /// Read repair replaces the receiver's object instead of joining.
    RepairOverwrites,
    /// A read leaves a sibling out and covers it in its context.
    ContextCoversUnseen,
    /// A write that missed its quorum is reported as not done.
    TimeoutIsFailure,
    /// A restarted node goes on under its old actor.
    ActorReused,
    /// A delete reaches the other replicas without a dot of its own.
    DeleteForgetsDot,
    /// The idempotence window forgets a request.
    RetryForgotten,
    /// A replica that has the key answers a read as if it did not.
    ReplicaDenies,
    /// A value is damaged before its checksum is taken.
    ChecksumTooLate,
}

impl Tamper {
    /// All of them.
    pub const ALL: [Tamper; 10] = [
        Tamper::RelayForgesVotes,
        Tamper::AcknowledgedBeforeSync,
        Tamper::RepairOverwrites,
        Tamper::ContextCoversUnseen,
        Tamper::TimeoutIsFailure,
        Tamper::ActorReused,
        Tamper::DeleteForgetsDot,
        Tamper::RetryForgotten,
        Tamper::ReplicaDenies,
        Tamper::ChecksumTooLate,
    ];

    /// Changes a message on its way out. `stored` gives what its receiver holds of a key.
    #[must_use]
    pub fn message(
        self,
        message: PeerMessage,
        region_of_relay: &[NodeId],
        stored: impl Fn(&PeerMessage) -> Option<Object>,
    ) -> PeerMessage {
        match (self, message) {
            (
                Tamper::RelayForgesVotes,
                PeerMessage::WriteReply { op, partition, durable, refused },
            ) if !durable.is_empty() => {
                let durable = region_of_relay.to_vec();
                let refused = refused.into_iter().filter(|(node, _)| !durable.contains(node));
                let refused = refused.collect();
                PeerMessage::WriteReply { op, partition, durable, refused }
            }
            (Tamper::RepairOverwrites, message @ PeerMessage::Repair { .. }) => {
                let held = stored(&message);
                change_object(message, |mut object| {
                    if let Some(held) = held {
                        object.context.merge(&held.context);
                    }
                    object
                })
            }
            (Tamper::DeleteForgetsDot, message @ PeerMessage::Write { .. }) => {
                change_object(message, forget_last_dot)
            }
            (Tamper::ReplicaDenies, PeerMessage::ReadReply { op, partition, found }) => {
                let found = match found {
                    Found::Refused(refusal) => Found::Refused(refusal),
                    _ => Found::Absent,
                };
                PeerMessage::ReadReply { op, partition, found }
            }
            (Tamper::ChecksumTooLate, message @ PeerMessage::Write { .. }) => {
                change_object(message, damage_first_value)
            }
            (_, message) => message,
        }
    }

    /// Changes an answer on its way to a client.
    #[must_use]
    pub fn reply(self, reply: Reply) -> Reply {
        match (self, reply) {
            (Tamper::ContextCoversUnseen, Reply::Values(mut values)) => {
                if values.siblings.len() > 1 {
                    values.siblings.pop();
                }
                Reply::Values(values)
            }
            (Tamper::TimeoutIsFailure, Reply::Error(RequestError::WriteUnknown { .. })) => {
                Reply::Error(RequestError::Store { fault: StoreFault::Full })
            }
            (_, reply) => reply,
        }
    }

    /// Changes a request on its way in. `repeated` counts earlier tries.
    pub fn request(self, request: &mut Request, repeated: u32) {
        if self != Tamper::RetryForgotten || repeated == 0 {
            return;
        }
        let id = match request {
            Request::Put(put) => &mut put.request,
            Request::Delete(delete) => &mut delete.request,
            Request::Get(_) | Request::Admin(_) => return,
        };
        id.client ^= u64::from(repeated) << 32;
    }
}

/// The message with another object in it.
fn change_object(message: PeerMessage, change: impl FnOnce(Object) -> Object) -> PeerMessage {
    let encode = |bytes: &Bytes, change: &mut dyn FnMut(Object) -> Object| {
        let Ok(object) = Object::decode(bytes) else { return bytes.clone() };
        let mut out = Vec::new();
        change(object).encode(&mut out);
        Bytes::from(out)
    };
    let mut change = Some(change);
    let mut once = |object: Object| match change.take() {
        Some(change) => change(object),
        None => object,
    };
    match message {
        PeerMessage::Write { op, partition, bucket, key, object, fan_out } => {
            let object = encode(&object, &mut once);
            PeerMessage::Write { op, partition, bucket, key, object, fan_out }
        }
        PeerMessage::Repair { partition, bucket, key, object } => {
            let object = encode(&object, &mut once);
            PeerMessage::Repair { partition, bucket, key, object }
        }
        other => other,
    }
}

/// A tombstone whose context lacks its greatest counter, most likely the delete's own dot.
fn forget_last_dot(mut object: Object) -> Object {
    if object.kind() != ObjectKind::Siblings || !object.is_deleted() {
        return object;
    }
    let mut entries: Vec<_> = object.context.iter().collect();
    let last = entries.iter().enumerate().max_by_key(|(_, dot)| dot.counter).map(|(at, _)| at);
    if let Some(entry) = last.and_then(|at| entries.get_mut(at)) {
        entry.counter -= 1;
    }
    object.context = VersionVector::new();
    entries.into_iter().for_each(|dot| object.context.insert(dot));
    object
}

fn damage_first_value(object: Object) -> Object {
    let Some(first) = object.siblings().first().filter(|first| !first.value.is_empty()) else {
        return object;
    };
    if object.kind() != ObjectKind::Siblings {
        return object;
    }
    let mut value = first.value.to_vec();
    value[0] ^= 1;
    let mut damaged = Object::new(ObjectKind::Siblings);
    damaged.put(&VersionVector::new(), Sibling::new(first.dot, first.hlc, value.into()));
    for sibling in &object.siblings()[1..] {
        damaged.put(&VersionVector::new(), sibling.clone());
    }
    damaged.context.merge(&object.context);
    damaged
}
