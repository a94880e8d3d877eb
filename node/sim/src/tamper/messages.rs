//! Bugs played on messages between nodes.

use bytes::Bytes;
use holm_core::clock::{DotSet, IntervalSet};
use holm_core::object::{Object, ObjectKind, Sibling, State};
use holm_core::peer::{
    Claimed, CloseMessage, CompareMessage, Finding, Found, GapObject, PeerMessage,
};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, Hlc, NodeId, Partition};
use holm_protocol::version_vector::VersionVector;

use crate::tamper::Tamper;

/// What a bug may look at when a message leaves.
#[derive(Debug)]
pub struct Passing<'a> {
    /// All replicas of the partition.
    pub replicas: &'a [NodeId],
    /// Those in the sender's region.
    pub region: &'a [NodeId],
    /// The receiver's actor.
    pub actor: Actor,
    /// The sender's actor.
    pub sender: Actor,
    /// What the receiver holds of the key.
    pub held: Option<Object>,
    /// What the sender held of the key before its last change, encoded.
    pub outdated: Option<Bytes>,
    /// What the sender last answered to a read of the receiver in this partition.
    pub answered: Option<Found>,
}

impl Tamper {
    /// What becomes of a message on its way out; `None` if it is not sent.
    #[must_use]
    pub fn message(self, message: PeerMessage, passing: &Passing<'_>) -> Option<PeerMessage> {
        Some(match message {
            PeerMessage::WriteReply { op, partition, durable, refused } => {
                let durable = self.votes(durable, &refused, passing);
                let refused = refused.into_iter().filter(|(node, _)| !durable.contains(node));
                PeerMessage::WriteReply { op, partition, refused: refused.collect(), durable }
            }
            PeerMessage::ReadReply { op, partition, found } => {
                PeerMessage::ReadReply { op, partition, found: self.found(found, passing) }
            }
            PeerMessage::GapAsk { .. } if self == Tamper::GapsNotAskedFor => return None,
            PeerMessage::Compare(CompareMessage::Compare { op, run, mut positions })
                if self == Tamper::ComparesOneWay =>
            {
                let nothing = VersionVector::new;
                positions.iter_mut().for_each(|(_, position)| position.know = nothing());
                PeerMessage::Compare(CompareMessage::Compare { op, run, positions })
            }
            PeerMessage::Seen { op, run, layout, clocks } => {
                let clocks = self.claims(clocks, passing.sender);
                PeerMessage::Seen { op, run, layout, clocks }
            }
            PeerMessage::Close(CloseMessage::Ends(_)) if self == Tamper::EndsNotTold => {
                return None;
            }
            PeerMessage::Close(CloseMessage::Answer { view, step, found })
                if self == Tamper::DotsDenied =>
            {
                let found = found.into_iter().map(|(at, (actor, it))| (at, (actor, denied(it))));
                let found = found.collect();
                PeerMessage::Close(CloseMessage::Answer { view, step, found })
            }
            PeerMessage::PageAnswer { op, partition, clock, know, ends, objects, .. }
                if self == Tamper::ResyncEndsEarly =>
            {
                let is_last = true;
                PeerMessage::PageAnswer { op, partition, clock, know, ends, objects, is_last }
            }
            PeerMessage::GapAnswer { op, partition, objects, cut, unknown }
                if self == Tamper::GapClosedUnsent =>
            {
                let objects = closes_all(objects);
                PeerMessage::GapAnswer { op, partition, objects, cut, unknown }
            }
            PeerMessage::Repair { partition, bucket, key, object } => {
                let object = change(object, |object| self.repair(object, passing));
                PeerMessage::Repair { partition, bucket, key, object }
            }
            PeerMessage::Write { op, partition, bucket, key, object, fan_out } => {
                let object = change(object, |object| self.write(object, passing));
                PeerMessage::Write { op, partition, bucket, key, object, fan_out }
            }
            other => other,
        })
    }

    /// What a node claims.
    fn claims(
        self,
        mut clocks: Vec<(Partition, Claimed)>,
        sender: Actor,
    ) -> Vec<(Partition, Claimed)> {
        for (_, claimed) in &mut clocks {
            match self {
                Tamper::ClaimsOwnRunOnly => own_only(claimed, sender),
                Tamper::StableBySet => without_holes(claimed),
                Tamper::StableNotTold => claimed.know = VersionVector::new(),
                Tamper::SeenIsStable => claimed.know = claimed.seen.prefixes(),
                _ => {}
            }
        }
        clocks
    }

    /// Whom an acknowledgement names.
    fn votes<R>(
        self,
        mut durable: Vec<NodeId>,
        refused: &[(NodeId, R)],
        passing: &Passing<'_>,
    ) -> Vec<NodeId> {
        let is_new = |durable: &[NodeId], node: &NodeId| !durable.contains(node);
        match self {
            Tamper::RelayForgesVotes if !durable.is_empty() => passing.region.to_vec(),
            Tamper::VoteCountedTwice if !durable.is_empty() => {
                let other = passing.replicas.iter().find(|node| is_new(&durable, node));
                durable.extend(other.copied());
                durable
            }
            Tamper::RefusalCounts => {
                durable.extend(refused.iter().map(|(node, _)| *node));
                durable
            }
            _ => durable,
        }
    }

    /// What a read is told.
    fn found(self, found: Found, passing: &Passing<'_>) -> Found {
        match (self, found) {
            (_, Found::Refused(refusal)) => Found::Refused(refusal),
            (Tamper::ReplicaDenies, _) => Found::Absent,
            (Tamper::DigestIgnored, Found::Digest(digest)) => {
                Found::Digest(passing.held.as_ref().map_or(digest, Object::digest))
            }
            (Tamper::CacheNotUpdated, Found::Object(object)) => {
                Found::Object(passing.outdated.clone().unwrap_or(object))
            }
            (Tamper::ReplyOfEarlierRead, found @ Found::Object(_)) => {
                passing.answered.clone().unwrap_or(found)
            }
            (_, found) => found,
        }
    }

    /// What a stale replica is sent.
    fn repair(self, object: Object, passing: &Passing<'_>) -> Object {
        match self {
            Tamper::RepairOverwrites => over(object, passing),
            Tamper::RepairWithoutContext => without_context(object),
            _ => object,
        }
    }

    /// What a replica is sent to join.
    fn write(self, object: Object, passing: &Passing<'_>) -> Object {
        let is_lww = object.kind() == ObjectKind::Lww;
        match self {
            Tamper::LatestByArrival if is_lww => latest_of_all(object, passing),
            _ if is_lww => object,
            Tamper::WriteOverwrites => over(object, passing),
            Tamper::WriteWithoutContext => without_context(object),
            Tamper::DeleteForgetsDot => forget_last_dot(object),
            Tamper::ChecksumTooLate => damage_first_value(object),
            Tamper::ContextOfWrongActor => wrong_actor(object, passing.actor),
            Tamper::PutDropsUnseen => {
                let newest = object.siblings().iter().map(|s| (s.hlc, s.dot)).max();
                keep(object, |sibling| Some((sibling.hlc, sibling.dot)) == newest)
            }
            Tamper::ClockOrdersOneActor => {
                let all = object.siblings().to_vec();
                let is_later = |a: &Sibling, b: &Sibling| {
                    a.dot.actor == b.dot.actor && (a.hlc, a.dot) > (b.hlc, b.dot)
                };
                keep(object, |sibling| !all.iter().any(|other| is_later(other, sibling)))
            }
            _ => object,
        }
    }
}

/// An object in its encoding, changed.
pub(crate) fn change(bytes: Bytes, change: impl FnOnce(Object) -> Object) -> Bytes {
    let Ok(object) = Object::decode(&bytes) else { return bytes };
    let mut out = Vec::new();
    change(object).encode(&mut out);
    Bytes::from(out)
}

/// The object without some of its siblings, which its context still covers.
pub(crate) fn keep(mut object: Object, keep: impl Fn(&Sibling) -> bool) -> Object {
    let kept: Vec<Dot> = object.siblings().iter().filter(|s| keep(s)).map(|s| s.dot).collect();
    object.retain_dots(|dot| kept.contains(&dot));
    object
}

/// What an answer says of an actor, with nothing here.
fn denied(finding: Finding) -> Finding {
    match finding {
        Finding::Promised(_) => Finding::Promised(IntervalSet::new()),
        other => other,
    }
}

/// What a claim says of the sender's own run.
fn own_only(claimed: &mut Claimed, sender: Actor) {
    let mut own = DotSet::new();
    claimed.seen.get(sender).into_iter().for_each(|seen| own.merge_actor(sender, seen));
    claimed.seen = own;
}

/// All up to the last of each actor.
fn without_holes(claimed: &mut Claimed) {
    let mut all = DotSet::new();
    claimed.seen.iter().for_each(|(actor, seen)| all.insert_range(actor, 1, seen.max()));
    claimed.seen = all;
}

/// One object, which is said to stand for all that its context covers.
fn closes_all(mut objects: Vec<GapObject>) -> Vec<GapObject> {
    let covers = |object: &GapObject, dot: Dot| {
        Object::decode(&object.object).is_ok_and(|object| object.context.covers(dot))
    };
    let Some(mut last) = objects.pop() else { return objects };
    let mut left = Vec::new();
    for object in objects {
        let mut dots = object.done.spans().map(|(actor, _, counter)| Dot { actor, counter });
        let is_covered = dots.all(|dot| covers(&last, dot));
        drop(dots);
        if is_covered {
            last.done.merge(&object.done);
        } else {
            left.push(object);
        }
    }
    left.push(last);
    left
}

/// The object as if it had overwritten all that its receiver holds.
fn over(mut object: Object, passing: &Passing<'_>) -> Object {
    if let Some(held) = &passing.held {
        object.context.merge(&held.context);
    }
    object
}

/// The live values alone.
fn without_context(mut object: Object) -> Object {
    object.context = object.live_dots().collect();
    object
}

/// A tombstone whose context lacks its greatest counter, most likely the delete's own dot.
fn forget_last_dot(mut object: Object) -> Object {
    if !object.is_deleted() {
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

/// The actor with the least counter gets the greatest. The receiver would refuse dots of its own
/// that it never made.
fn wrong_actor(mut object: Object, receiver: Actor) -> Object {
    let most = object.context.iter().map(|dot| dot.counter).max().unwrap_or(0);
    let least = object.context.iter().filter(|dot| dot.actor != receiver);
    if let Some(least) = least.min_by_key(|dot| dot.counter) {
        object.context.insert(Dot { actor: least.actor, counter: most });
    }
    object
}

fn damage_first_value(object: Object) -> Object {
    let Some(first) = object.siblings().first().filter(|first| !first.value.is_empty()) else {
        return object;
    };
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

/// A value with a reading that is later than what its receiver holds.
fn latest_of_all(object: Object, passing: &Passing<'_>) -> Object {
    let held = match passing.held.as_ref().map(|held| &held.state) {
        Some(State::Latest(held)) => held.hlc(),
        _ => None,
    };
    let (Some(held), Some(own)) = (held, object.siblings().first()) else { return object };
    if held < own.hlc {
        return object;
    }
    let mut later = Object::new(ObjectKind::Lww);
    later.put(&VersionVector::new(), Sibling::new(own.dot, Hlc(held.0 + 1), own.value.clone()));
    later.context.merge(&object.context);
    later
}
