//! What a node with a valid certificate can say: anything that can be encoded.

use bytes::Bytes;
use holm_core::clock::{DotSet, IntervalSet};
use holm_core::object::Object;
use holm_core::peer::fingerprint::FingerprintMessage;
use holm_core::peer::{
    Claimed, CloseMessage, CompareMessage, Finding, Found, GapObject, HintMessage, OpId,
    PageObject, PeerMessage, Position, Refusal, Standing, Step, Want,
};
use holm_core::shard::ends::End;
use holm_protocol::admin::{HintState, ReplicaState};
use holm_protocol::dot::Dot;
use holm_protocol::error::{NotReady, RequestError};
use holm_protocol::ids::{Actor, BucketId, Hlc, NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::message::{Receipt, ReceiptEntry, Reply, Request, Sibling, Values, Written};
use holm_protocol::version_vector::VersionVector;

use super::place::{self, BUCKETS, KEYS, ME, NO_BUCKET, NODES, OUR_RUNS, STRANGER};
use super::requests;
use super::verifying;
use super::world::{self, World};
use crate::input::{Input, RawObject};

const STANDINGS: [Standing; 3] = [Standing::Serves, Standing::Doubt, Standing::Behind];

const REFUSALS: [Refusal; 13] = [
    Refusal::NotReplica,
    Refusal::Malformed,
    Refusal::WrongKind,
    Refusal::TooLarge,
    Refusal::ClockSkew,
    Refusal::StoreFull,
    Refusal::StoreIo,
    Refusal::Corrupt,
    Refusal::Behind,
    Refusal::InDoubt,
    Refusal::Overloaded,
    Refusal::UnknownBucket,
    Refusal::Unreachable,
];

/// A node that speaks: mostly one of the layout.
pub(super) fn sender(input: &mut Input<'_>) -> NodeId {
    match input.below(8) {
        7 => STRANGER,
        at => NODES[1 + at % 6],
    }
}

/// A key, its bucket, and the partition that is claimed for it.
fn target(input: &mut Input<'_>) -> (Partition, BucketId, Bytes) {
    let (bucket, key) = requests::key(input);
    let right = place::layout().partition(holm_protocol::ids::PlacementId(0), bucket, &key);
    let partition = match (input.byte(), right) {
        (0..=239, Some(right)) => right,
        (240..=249, _) => place::partitions()[input.below(4)],
        _ => Partition::from_u32(input.number() as u32),
    };
    (partition, bucket, key)
}

/// Something that nobody was asked for.
pub(super) fn claim(input: &mut Input<'_>, world: &World) -> PeerMessage {
    let op = OpId(input.below(6) as u64);
    let (partition, bucket, key) = target(input);
    match input.below(10) {
        8 => {
            let object = object(input, world, bucket);
            let replica = sender(input);
            let keep = HintMessage::Keep { op, partition, replica, bucket, key, object };
            PeerMessage::Hint(keep)
        }
        9 => {
            let object = object(input, world, bucket);
            PeerMessage::Hint(HintMessage::HandOff { op, partition, bucket, key, object })
        }
        0..=2 => {
            let object = object(input, world, bucket);
            let fan_out = nodes(input);
            PeerMessage::Write { op, partition, bucket, key, object, fan_out }
        }
        3 => {
            let object = object(input, world, bucket);
            PeerMessage::Repair { partition, bucket, key, object }
        }
        4 => {
            let want = if input.flag() { Want::Full } else { Want::Digest };
            PeerMessage::Read { op, partition, bucket, key, want }
        }
        5 => PeerMessage::Inspect { op, partition, bucket, key },
        6 => {
            let request = requests::request(input, &world.contexts);
            PeerMessage::Proxy { op, partition, request }
        }
        _ if input.flag() => verifying::question(input, world, (op, partition)),
        _ => answer(input, world, op, partition),
    }
}

/// What nodes say of clocks, unasked.
pub(super) fn about_clocks(input: &mut Input<'_>, world: &World, from: NodeId) -> PeerMessage {
    let op = OpId(input.below(6) as u64);
    let (partition, bucket, key) = target(input);
    match input.below(8) {
        0 => {
            let actor = if input.flag() { world.actor } else { Actor(input.below(16) as u64) };
            let counters = vec![(partition, input.number())];
            PeerMessage::Pulse { actor, hlc: Hlc(input.number()), counters }
        }
        1 | 2 => {
            let mut claimed = |partition| {
                let (seen, know) = (dots(input, world), dots(input, world).prefixes());
                (partition, Claimed { seen, know })
            };
            let mut clocks = vec![claimed(partition)];
            if input.flag() {
                let other = place::partitions()[input.below(4)];
                let (seen, know) = (dots(input, world), dots(input, world).prefixes());
                clocks.push((other, Claimed { seen, know }));
            }
            let run = run(input, from);
            PeerMessage::Seen { op, run, layout: 1 + u64::from(input.byte() == 0), clocks }
        }
        3 => {
            let (missing, bytes_max) = (dots(input, world), input.number() as u32);
            PeerMessage::GapAsk { op, partition, missing, bytes_max }
        }
        4 => {
            let after = input.flag().then_some((bucket, key));
            let know = if after.is_none() { known(input, world) } else { VersionVector::new() };
            let (gathers, bytes_max) = (input.flag(), input.number() as u32);
            let run = Actor(sender(input).0 | 1 << 60);
            PeerMessage::PageAsk { op, partition, after, know, gathers, run, bytes_max }
        }
        5 => PeerMessage::Close(about_ends(input, world, partition)),
        6 => {
            let position = |input: &mut Input<'_>| Position {
                standing: STANDINGS[input.below(STANDINGS.len())],
                know: known(input, world),
            };
            let mut positions = vec![(partition, position(input))];
            if input.flag() {
                positions.push((place::partitions()[input.below(4)], position(input)));
            }
            let run = run(input, from);
            PeerMessage::Compare(CompareMessage::Compare { op, run, positions })
        }
        _ => page_answer(input, world, (op, partition)),
    }
}

/// A run of who speaks: mostly the one that has been met.
fn run(input: &mut Input<'_>, from: NodeId) -> Actor {
    let of = if input.byte() < 224 { from } else { NODES[input.below(NODES.len())] };
    world::run_of(of)
}

/// What somebody claims to be stable, of this run too.
fn known(input: &mut Input<'_>, world: &World) -> VersionVector {
    let mut known = VersionVector::new();
    for (actor, _, counter) in dots(input, world).spans() {
        known.insert(Dot { actor, counter: counter.max(1) });
    }
    known
}

/// Some dots, of this run too, in ranges that may be long.
fn dots(input: &mut Input<'_>, world: &World) -> DotSet {
    let mut dots = DotSet::new();
    for _ in 0..input.below(4) {
        let actor = if input.byte() < 32 { world.actor } else { Actor(10 + input.below(5) as u64) };
        let first = input.number();
        dots.insert_range(actor, first, first.saturating_add(input.number()));
    }
    dots
}

fn gap_answer(
    input: &mut Input<'_>,
    world: &World,
    (op, partition): (OpId, Partition),
    missing: DotSet,
) -> PeerMessage {
    let (cut, unknown) = match input.below(4) {
        0 => (missing.clone(), DotSet::new()),
        1 => (DotSet::new(), missing.clone()),
        _ => (DotSet::new(), DotSet::new()),
    };
    let object = |input: &mut Input<'_>| {
        let (_, bucket, key) = target(input);
        let object = object(input, world, bucket);
        let done = if input.byte() < 200 { missing.clone() } else { dots(input, world) };
        GapObject { bucket, key, object, done }
    };
    let objects = (0..input.below(3)).map(|_| object(input)).collect();
    PeerMessage::GapAnswer { op, partition, objects, cut, unknown }
}

fn page_answer(
    input: &mut Input<'_>,
    world: &World,
    (op, partition): (OpId, Partition),
) -> PeerMessage {
    let object = |input: &mut Input<'_>| {
        let (_, bucket, key) = target(input);
        let object = object(input, world, bucket);
        PageObject { bucket, key, object }
    };
    let objects = (0..input.below(3)).map(|_| object(input)).collect();
    let (clock, know) = (dots(input, world), known(input, world));
    let ends = (0..input.below(3)).map(|_| {
        let dots = counters(input);
        let end = match input.below(3) {
            0 => End::Frozen,
            1 => End::Closed(dots),
            _ => End::Folded(dots),
        };
        (some_actor(input, world), end)
    });
    let ends = ends.collect();
    PeerMessage::PageAnswer { op, partition, clock, know, ends, objects, is_last: input.flag() }
}

fn some_actor(input: &mut Input<'_>, world: &World) -> Actor {
    if input.byte() < 32 { world.actor } else { Actor(10 + input.below(5) as u64) }
}

fn counters(input: &mut Input<'_>) -> IntervalSet {
    let mut set = IntervalSet::new();
    for _ in 0..input.below(3) {
        let first = input.number();
        set.insert_range(first, first.saturating_add(input.number()));
    }
    set
}

/// What nodes say of actors that ended.
fn about_ends(input: &mut Input<'_>, world: &World, partition: Partition) -> CloseMessage {
    let (view, actor) = (input.number(), some_actor(input, world));
    let step = [Step::Whose, Step::Hints, Step::Dots][input.below(3)];
    match input.below(4) {
        0 => CloseMessage::Ask { view, step, actors: vec![(partition, actor)] },
        1 => {
            let finding = match input.below(4) {
                0 => Finding::Alive,
                1 => Finding::Later,
                2 => Finding::Promised(counters(input)),
                _ => Finding::Closed(counters(input)),
            };
            CloseMessage::Answer { view, step, found: vec![(partition, (actor, finding))] }
        }
        2 => CloseMessage::Ends(vec![(partition, (actor, counters(input)))]),
        _ => CloseMessage::Wanted(vec![(partition, actor)]),
    }
}

/// An answer to something that was asked, by who was asked or by somebody else, as often as liked.
pub(super) fn reply(input: &mut Input<'_>, world: &World) -> Option<(NodeId, PeerMessage)> {
    let at = world.asked.len().checked_sub(1 + input.below(world.asked.len().max(1)))?;
    let (asked, question) = world.asked.get(at)?;
    let from = if input.byte() < 224 { *asked } else { sender(input) };
    let partition = question.partition();
    let is_fitting = input.byte() < 224;
    let message = match question {
        PeerMessage::Write { op, .. } if is_fitting => vote(input, *op, partition),
        PeerMessage::Read { op, bucket, .. } if is_fitting => {
            PeerMessage::ReadReply { op: *op, partition, found: found(input, world, *bucket) }
        }
        PeerMessage::Proxy { op, request, .. } if is_fitting => {
            let reply = forwarded(input, world, request);
            PeerMessage::ProxyReply { op: *op, partition, reply }
        }
        PeerMessage::Inspect { op, .. } if is_fitting => {
            PeerMessage::InspectReply { op: *op, partition, state: state(input) }
        }
        PeerMessage::Verify { op, .. } if is_fitting => {
            verifying::answer(input, world, (*op, partition))
        }
        PeerMessage::Fingerprint(FingerprintMessage::Ask { op, .. }) if is_fitting => {
            PeerMessage::Fingerprint(verifying::digests(input, *op, partition))
        }
        PeerMessage::Hint(HintMessage::Keep { op, replica, .. }) if is_fitting => {
            let refused = input.flag().then(|| REFUSALS[input.below(REFUSALS.len())]);
            let (op, replica) = (*op, *replica);
            PeerMessage::Hint(HintMessage::Kept { op, partition, replica, refused })
        }
        PeerMessage::Hint(HintMessage::HandOff { op, .. }) if is_fitting => {
            handed_off(input, *op, partition)
        }
        PeerMessage::Seen { op, .. } => {
            let (shard, shards) = (input.byte().into(), input.byte().into());
            PeerMessage::Noted { op: *op, partition, shard, shards }
        }
        PeerMessage::GapAsk { op, missing, .. } => {
            gap_answer(input, world, (*op, partition), missing.clone())
        }
        PeerMessage::PageAsk { op, .. } => page_answer(input, world, (*op, partition)),
        PeerMessage::Compare(CompareMessage::Compare { op, positions, .. }) => {
            let position = |(partition, _): &(Partition, Position)| {
                let standing = STANDINGS[input.below(STANDINGS.len())];
                (*partition, Position { standing, know: known(input, world) })
            };
            let positions = positions.iter().map(position).collect();
            PeerMessage::Compare(CompareMessage::Compared { op: *op, positions })
        }
        PeerMessage::Write { op, .. }
        | PeerMessage::Verify { op, .. }
        | PeerMessage::Read { op, .. }
        | PeerMessage::Proxy { op, .. }
        | PeerMessage::Inspect { op, .. } => answer(input, world, *op, partition),
        echo => echo.clone(),
    };
    Some((from, message))
}

fn answer(input: &mut Input<'_>, world: &World, op: OpId, partition: Partition) -> PeerMessage {
    match input.below(7) {
        6 => {
            let refused = input.flag().then(|| REFUSALS[input.below(REFUSALS.len())]);
            let replica = sender(input);
            PeerMessage::Hint(HintMessage::Kept { op, partition, replica, refused })
        }
        5 => handed_off(input, op, partition),
        0 => vote(input, op, partition),
        4 => verifying::answer(input, world, (op, partition)),
        1 => {
            let found = found(input, world, BUCKETS[input.clone().below(2)]);
            PeerMessage::ReadReply { op, partition, found }
        }
        2 => {
            let request = requests::request(input, &world.contexts);
            let reply = forwarded(input, world, &request);
            PeerMessage::ProxyReply { op, partition, reply }
        }
        _ => PeerMessage::InspectReply { op, partition, state: state(input) },
    }
}

fn handed_off(input: &mut Input<'_>, op: OpId, partition: Partition) -> PeerMessage {
    let refused = input.flag().then(|| REFUSALS[input.below(REFUSALS.len())]);
    let window_bytes = u32::from(input.byte()) << 8;
    PeerMessage::Hint(HintMessage::HandedOff { op, partition, refused, window_bytes })
}

fn vote(input: &mut Input<'_>, op: OpId, partition: Partition) -> PeerMessage {
    let durable = nodes(input);
    let refused = nodes(input);
    let refusal = |node| (node, REFUSALS[input.below(REFUSALS.len())]);
    let refused = refused.into_iter().map(refusal).collect();
    PeerMessage::WriteReply { op, partition, durable, refused }
}

/// Any nodes, also none, repeated ones and strangers: a bit each, and what the next byte adds.
fn nodes(input: &mut Input<'_>) -> Vec<NodeId> {
    let bits = input.byte();
    let mut nodes: Vec<NodeId> =
        NODES.into_iter().filter(|node| bits >> (node.0 - 1) & 1 == 1).collect();
    if bits >> 7 == 1 {
        nodes.extend([STRANGER, ME, NodeId(input.number())]);
    }
    nodes
}

fn found(input: &mut Input<'_>, world: &World, bucket: BucketId) -> Found {
    match input.below(6) {
        0..=2 => Found::Object(object(input, world, bucket)),
        3 => {
            let ours = world.objects.last().and_then(|bytes| Object::decode(bytes).ok());
            Found::Digest(ours.map_or(7, |object| object.digest()))
        }
        4 => Found::Absent,
        _ => Found::Refused(REFUSALS[input.below(REFUSALS.len())]),
    }
}

fn forwarded(input: &mut Input<'_>, world: &World, request: &Request) -> Reply {
    let entry = |input: &mut Input<'_>| ReceiptEntry {
        node: NODES[input.below(7)],
        region: RegionId(input.byte().into()),
        fallback: input.flag(),
    };
    // Answers of this node are judged by its disk: a liar does not speak in its name here.
    let coordinator = if input.byte() < 200 { NODES[1 + input.below(6)] } else { STRANGER };
    let replicas = (0..input.below(4)).map(|_| entry(input)).collect();
    let receipt = Receipt { coordinator, level: Level::One, replicas };
    let context = world.contexts.last().map(|it| it.2.clone()).unwrap_or_default();
    let dot = Dot::new(Actor(input.below(4) as u64), 1 + input.number() / 2);
    let hlc = Hlc(input.number());
    match (input.below(4), request) {
        (0, _) => Reply::Error(RequestError::NotReady { reason: NotReady::Starting }),
        (1, _) => Reply::Error(RequestError::CoordinatorLost),
        (2, Request::Get(_)) | (3, Request::Put(_) | Request::Delete(_)) => {
            let value = Bytes::copy_from_slice(input.bytes(16));
            Reply::Values(Values { siblings: vec![Sibling { value, hlc, dot }], context, receipt })
        }
        _ => Reply::Written(Written { dot, hlc, context, receipt }),
    }
}

fn state(input: &mut Input<'_>) -> ReplicaState {
    let dot = Dot::new(Actor(input.number()), input.number());
    ReplicaState {
        digest: input.number(),
        siblings: vec![(dot, Hlc(input.number()), input.byte().into())],
        context: vec![dot],
        clock: vec![(dot, input.number())],
        fault: input.flag().then(|| "fault".to_owned()),
        hints: vec![HintState { replica: sender(input), bytes: 3, since_ms: input.number() }],
        violations: vec![],
    }
}

/// An encoded object: one that the shard sent, one with any fields, or a very large one.
pub(super) fn object(input: &mut Input<'_>, world: &World, bucket: BucketId) -> Bytes {
    let kind = if input.byte() < 240 { 1 + u8::from(bucket == BUCKETS[1]) } else { input.byte() };
    match input.byte() {
        0..=63 => {
            let at = input.below(world.objects.len().max(1));
            world.objects.get(at).cloned().unwrap_or_default()
        }
        64..=79 => large(input, kind).encode(),
        80..=87 => Bytes::copy_from_slice(input.bytes(40)),
        _ => plausible(input, world, kind).encode(),
    }
}

/// A few actors, this run among them, with live dots that the context covers, mostly.
fn plausible(input: &mut Input<'_>, world: &World, kind: u8) -> RawObject {
    let mut raw = RawObject { kind, ..RawObject::default() };
    let actors = input.byte();
    let others = (0..5).filter(|bit| actors >> bit & 1 == 1).map(|bit| Actor(10 + bit));
    for actor in others {
        raw.context.push((actor, input.number().max(1)));
    }
    if actors >> 5 & 1 == 1 {
        raw.context.push((Actor(input.number() & !OUR_RUNS | 1 << 62), input.number().max(1)));
    }
    if actors >> 6 == 3 {
        raw.context.push((world.actor, 1 + input.below(12) as u64));
    }
    for place in 0..raw.context.len() {
        let top = raw.context[place].1;
        let live = input.byte();
        if live < 128 && (kind == 1 || raw.live.is_empty()) {
            let counter = top.saturating_sub(u64::from(live & 3)).max(u64::from(live >= 8));
            let hlc = reading(input);
            let value = (kind == 1 || input.flag()).then(|| input.bytes(8).to_vec());
            raw.live.push((place as u64, counter, hlc, value));
        }
    }
    raw
}

/// Around the time at which the shard lives, or far from it.
fn reading(input: &mut Input<'_>) -> Hlc {
    match input.byte() {
        byte @ 0..=199 => Hlc::new(1_700_000_000_000 + u64::from(byte) * 10, 0),
        200..=219 => Hlc(u64::MAX),
        _ => Hlc(input.number()),
    }
}

/// As many siblings and context entries as there may be, or one more.
fn large(input: &mut Input<'_>, kind: u8) -> RawObject {
    let first = input.number() >> 2;
    let entries = 1 + u64::from(input.byte()) * 1025 / 256;
    let entries = entries + u64::from(input.byte() == 255);
    let siblings = if kind == 1 { u64::from(input.byte()) * 4 } else { 0 };
    let top = 1 + u64::from(input.byte());
    let context = (0..entries).map(|n| (Actor(first + n), top)).collect();
    let value = input.bytes(16).to_vec();
    let live = (0..siblings.min(entries))
        .map(|place| (place, top, Hlc::new(1_700_000_000_000, 0), Some(value.clone())))
        .collect();
    RawObject { kind, context, live }
}

/// The bucket that a request may name: also one that nobody made.
pub(super) fn bucket(input: &mut Input<'_>) -> BucketId {
    match input.byte() {
        byte @ 0..=249 => BUCKETS[usize::from(byte) % 2],
        _ => NO_BUCKET,
    }
}

/// A key of the few that are used.
pub(super) fn key(input: &mut Input<'_>) -> Bytes {
    Bytes::from_static(KEYS[input.below(KEYS.len())])
}
