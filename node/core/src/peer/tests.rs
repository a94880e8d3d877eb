//! Goal: messages between nodes round trip, and no bytes make the decoder panic (I8).

use bytes::BytesMut;
use holm_protocol::dot::Dot;
use holm_protocol::frame::{Frame, FrameDecoder};
use holm_protocol::ids::{Actor, PlacementId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::Put;
use proptest::prelude::*;

use super::fingerprint::BucketDigest;
use super::verify::{Answer, KeyState, Question};
use super::*;
use crate::clock::{IntervalSet, PartitionClock};

fn only_frame(stream: &[u8]) -> Frame {
    let mut decoder = FrameDecoder::new();
    decoder.push(stream);
    decoder.next_frame().unwrap().unwrap()
}

fn samples() -> Vec<PeerMessage> {
    let partition = Partition { placement: PlacementId(1), index: 77 };
    let (op, bucket) = (OpId(9), BucketId(3));
    let key = Bytes::from_static(b"key");
    let object = Bytes::from_static(b"object");
    let put = Put {
        bucket,
        key: key.clone(),
        value: object.clone(),
        context: Bytes::new(),
        level: Some(Level::Quorum),
        request: RequestId { client: 1, sequence: 2 },
        timeout_ms: 5,
    };
    let found = [
        Found::Object(object.clone()),
        Found::Digest(5),
        Found::Absent,
        Found::Refused(Refusal::Behind),
    ];
    let mut samples = vec![
        PeerMessage::Write {
            op,
            partition,
            bucket,
            key: key.clone(),
            object: object.clone(),
            fan_out: vec![NodeId(4), NodeId(500)],
        },
        PeerMessage::WriteReply {
            op,
            partition,
            durable: vec![NodeId(4)],
            refused: vec![(NodeId(5), Refusal::StoreFull)],
        },
        PeerMessage::Read { op, partition, bucket, key: key.clone(), want: Want::Full },
        PeerMessage::Read { op, partition, bucket, key: key.clone(), want: Want::Digest },
        PeerMessage::Repair { partition, bucket, key: key.clone(), object },
        PeerMessage::Proxy { op, partition, request: Request::Put(put) },
        PeerMessage::Inspect { op, partition, bucket, key },
        PeerMessage::InspectReply { op, partition, state: ReplicaState::default() },
    ];
    let (replica, key) = (NodeId(300), Bytes::from_static(b"key"));
    let object = Bytes::from_static(b"object");
    let refused = Some(Refusal::HintsFull);
    let hints = [
        HintMessage::Keep {
            op,
            partition,
            replica,
            bucket,
            key: key.clone(),
            object: object.clone(),
        },
        HintMessage::Kept { op, partition, replica, refused },
        HintMessage::Kept { op, partition, replica, refused: None },
        HintMessage::HandOff { op, partition, bucket, key, object },
        HintMessage::HandedOff { op, partition, refused, window_bytes: 0 },
        HintMessage::HandedOff { op, partition, refused: None, window_bytes: u32::MAX },
    ];
    samples.extend(hints.map(PeerMessage::Hint));
    let digest = |bucket, keys| BucketDigest {
        bucket: BucketId(bucket),
        digest: 1 << 99,
        keys,
        tombstones: 3,
    };
    let fingerprints = [
        FingerprintMessage::Ask { op, partition },
        FingerprintMessage::Answer { op, partition, result: Ok(vec![]) },
        FingerprintMessage::Answer {
            op,
            partition,
            result: Ok(vec![digest(1, 5), digest(9, 300)]),
        },
        FingerprintMessage::Answer { op, partition, result: Err(Refusal::Behind) },
    ];
    samples.extend(fingerprints.map(PeerMessage::Fingerprint));
    samples.extend(about_gaps(op, partition));
    samples.extend(about_ends(partition));
    samples.extend(found.map(|found| PeerMessage::ReadReply { op, partition, found }));
    samples.extend(verifying(op, partition));
    samples
}

fn about_gaps(op: OpId, partition: Partition) -> Vec<PeerMessage> {
    let other = Partition { placement: PlacementId(0), index: 2 };
    let mut dots = DotSet::new();
    dots.insert_range(Actor(3), 1, 4);
    dots.insert_range(Actor(3), 9, 10);
    let object = GapObject {
        bucket: BucketId(3),
        key: Bytes::from_static(b"key"),
        object: Bytes::from_static(b"object"),
        done: dots.clone(),
    };
    let counters = vec![(partition, 300), (other, 1)];
    let know = dots.prefixes();
    let claimed = Claimed { seen: dots.clone(), know };
    let clocks = vec![(partition, claimed), (other, Claimed::default())];
    let (cut, unknown) = (dots.clone(), DotSet::new());
    let (bucket, key) = (BucketId(3), Bytes::from_static(b"key"));
    let page = PageObject { bucket, key: key.clone(), object: Bytes::from_static(b"object") };
    let (clock, run, bytes_max) = (dots.clone(), Actor(77), 9);
    let mut know = VersionVector::new();
    know.insert(holm_protocol::dot::Dot { actor: Actor(3), counter: 4 });
    let position = |standing, know: &VersionVector| Position { standing, know: know.clone() };
    let positions = vec![
        (partition, position(Standing::Behind, &know)),
        (other, position(Standing::Doubt, &VersionVector::new())),
        (Partition { placement: PlacementId(1), index: 0 }, position(Standing::Serves, &know)),
    ];
    let ends = vec![
        (Actor(1), End::Frozen),
        (Actor(2), End::Closed(IntervalSet::from_prefix(2))),
        (Actor(3), End::Folded(IntervalSet::from_prefix(3))),
    ];
    vec![
        PeerMessage::PageAsk {
            op,
            partition,
            after: None,
            know: know.clone(),
            gathers: true,
            run,
            bytes_max,
        },
        PeerMessage::PageAsk {
            op,
            partition,
            after: Some((bucket, key)),
            know: VersionVector::new(),
            gathers: false,
            run,
            bytes_max,
        },
        PeerMessage::PageAnswer {
            op,
            partition,
            clock,
            know: know.clone(),
            ends,
            objects: vec![page],
            is_last: true,
        },
        PeerMessage::Compare(CompareMessage::Compare {
            op,
            run: Actor(9),
            positions: positions.clone(),
        }),
        PeerMessage::Compare(CompareMessage::Compared { op, positions }),
        PeerMessage::Pulse { actor: Actor(3), hlc: Hlc(8), counters },
        PeerMessage::Seen { op, run: Actor(4), layout: 300, clocks },
        PeerMessage::Noted { op, partition, shard: 1, shards: 2 },
        PeerMessage::GapAsk { op, partition, missing: dots, bytes_max: 70_000 },
        PeerMessage::GapAnswer { op, partition, objects: vec![object], cut, unknown },
    ]
}

fn about_ends(partition: Partition) -> [PeerMessage; 4] {
    let other = Partition { placement: PlacementId(0), index: 2 };
    let mut dots = IntervalSet::from_prefix(3);
    dots.insert(5);
    let actors = vec![(partition, Actor(3)), (partition, Actor(4)), (other, Actor(3))];
    let standings = [
        Finding::Alive,
        Finding::Later,
        Finding::Promised(IntervalSet::new()),
        Finding::Closed(dots.clone()),
    ];
    let found = standings.map(|standing| (partition, (Actor(9), standing))).to_vec();
    let ends = vec![(partition, (Actor(3), dots.clone())), (other, (Actor(4), dots))];
    let messages = [
        CloseMessage::Ask { view: 7, step: Step::Hints, actors: actors.clone() },
        CloseMessage::Answer { view: 7, step: Step::Dots, found },
        CloseMessage::Ends(ends),
        CloseMessage::Wanted(actors),
    ];
    messages.map(PeerMessage::Close)
}

/// Goal: a receiver with another number of shards gets every partition's part at the shard that owns
/// it, once.
#[test]
fn what_spans_partitions_is_cut_by_shard() {
    let partition = |index| Partition { placement: PlacementId(0), index };
    let counters: Vec<(Partition, u64)> = (0..10).map(|at| (partition(at), at.into())).collect();
    let pulse = PeerMessage::Pulse { actor: Actor(1), hlc: Hlc(1), counters: counters.clone() };
    let mut found = Vec::new();
    for (shard, part) in pulse.split(3) {
        let PeerMessage::Pulse { counters, .. } = part else { panic!("{part:?}") };
        assert!(counters.iter().all(|(it, _)| it.to_u32() as usize % 3 == shard));
        found.extend(counters);
    }
    found.sort();
    assert_eq!(found, counters);
    let op = OpId(1);
    let whole = PeerMessage::Noted { op, partition: partition(5), shard: 0, shards: 1 };
    assert_eq!(whole.clone().split(3), vec![(2, whole)]);
}

fn verifying(op: OpId, partition: Partition) -> Vec<PeerMessage> {
    let at = (BucketId(3), Bytes::from_static(b"key"));
    let mut clock = PartitionClock::new();
    clock.insert(Dot { actor: Actor(7), counter: 2 });
    let object = Bytes::from_static(b"object");
    let states = vec![
        KeyState { at: at.clone(), object: Some(object) },
        KeyState { at: at.clone(), object: None },
    ];
    let questions = [
        Question::Middle,
        Question::Leaves(vec![0, 5, 31]),
        Question::Keys { segments: vec![0, 1023], after: None },
        Question::Keys { segments: vec![4], after: Some(at.clone()) },
        Question::Objects(clock.clone(), states.clone()),
    ];
    let answers = [
        Answer::Middle(vec![[1; 32], [2; 32]]),
        Answer::Leaves(vec![[3; 32]]),
        Answer::Keys { keys: vec![(at.clone(), 1 << 100)], until: Some(at) },
        Answer::Keys { keys: vec![], until: None },
        Answer::Objects(clock, states),
        Answer::Refused(Refusal::Overloaded),
    ];
    let ask = questions.map(|question| PeerMessage::Verify { op, partition, question });
    let tell = answers.map(|answer| PeerMessage::VerifyReply { op, partition, answer });
    ask.into_iter().chain(tell).collect()
}

/// Goal: numbers of segments and nodes that there are not, or that are out of order, are refused.
#[test]
fn questions_about_nothing_are_refused() {
    let partition = Partition { placement: PlacementId(1), index: 77 };
    for nodes in [vec![32], vec![4, 4], vec![5, 4]] {
        let question = Question::Leaves(nodes);
        let mut out = BytesMut::new();
        PeerMessage::Verify { op: OpId(9), partition, question }.encode(&mut out);
        assert!(PeerMessage::decode(&only_frame(&out)).is_err());
    }
}

#[test]
fn messages_round_trip() {
    for message in samples() {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        assert_eq!(PeerMessage::decode(&only_frame(&out)), Ok(message));
    }
}

proptest! {
    /// Method: flip and cut valid messages; what still decodes encodes to the same bytes.
    #[test]
    fn damaged_messages_never_panic(which: usize, at: usize, flip: u8, cut in 0usize..4) {
        let samples = samples();
        let mut out = BytesMut::new();
        samples[which % samples.len()].encode(&mut out);
        let mut frame = only_frame(&out);
        let mut body = frame.body.to_vec();
        let at = at % body.len();
        body[at] ^= flip;
        body.truncate(body.len().saturating_sub(cut));
        frame.body = body.into();
        if let Ok(message) = PeerMessage::decode(&frame) {
            let mut again = BytesMut::new();
            message.encode(&mut again);
            prop_assert_eq!(only_frame(&again).body, frame.body);
        }
    }

    #[test]
    fn noise_never_panics(kind in 60u8..144, body: Vec<u8>) {
        let _ = PeerMessage::decode(&Frame { kind, id: 1, body: body.into() });
    }
}

/// Goal: no message looks like a compressed one (the first number of the kind was that of comparisons, so
/// that no node that started was ever answered).
#[test]
fn no_message_is_taken_for_a_packed_one() {
    for message in samples() {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        assert_ne!(out[4], packed::PACKED, "{message:?}");
    }
}
