//! What a node with a valid certificate can say when replicas verify what they hold.

use bytes::Bytes;
use holm_core::clock::PartitionClock;
use holm_core::peer::fingerprint::{BucketDigest, FingerprintMessage};
use holm_core::peer::verify::{Answer, KeyState, Place, Question};
use holm_core::peer::{OpId, PeerMessage, Refusal};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, BucketId, Partition};

use super::hostile;
use super::requests;
use super::world::World;
use crate::input::Input;

/// A question that nobody expects.
pub(super) fn question(
    input: &mut Input<'_>,
    world: &World,
    (op, partition): (OpId, Partition),
) -> PeerMessage {
    if input.byte() >= 224 {
        return PeerMessage::Fingerprint(FingerprintMessage::Ask { op, partition });
    }
    let question = match input.below(4) {
        0 => Question::Middle,
        1 => Question::Leaves(ascending(input, 32)),
        2 => {
            let after = input.flag().then(|| requests::key(input));
            Question::Keys { segments: ascending(input, 1024), after }
        }
        _ => {
            let (clock, states) = states(input, world);
            Question::Objects(clock, states)
        }
    };
    PeerMessage::Verify { op, partition, question }
}

/// An answer to a question of the shard, fitting or not.
pub(super) fn answer(
    input: &mut Input<'_>,
    world: &World,
    (op, partition): (OpId, Partition),
) -> PeerMessage {
    if input.byte() >= 224 {
        return PeerMessage::Fingerprint(digests(input, op, partition));
    }
    let hash = |input: &mut Input<'_>| [input.byte(); 32];
    let answer = match input.below(5) {
        0 => Answer::Middle((0..input.below(33)).map(|_| hash(input)).collect()),
        1 => {
            let first = hash(input);
            Answer::Leaves(vec![first; 32 * input.below(33)])
        }
        2 => {
            let one = |input: &mut Input<'_>| (requests::key(input), u128::from(input.number()));
            let keys: Vec<(Place, u128)> = (0..input.below(6)).map(|_| one(input)).collect();
            let until = input.flag().then(|| requests::key(input));
            Answer::Keys { keys, until }
        }
        3 => {
            let (clock, states) = states(input, world);
            Answer::Objects(clock, states)
        }
        _ => Answer::Refused(Refusal::Overloaded),
    };
    PeerMessage::VerifyReply { op, partition, answer }
}

/// An answer to a question for digests, fitting or not.
pub(super) fn digests(input: &mut Input<'_>, op: OpId, partition: Partition) -> FingerprintMessage {
    let mut digest = |bucket| BucketDigest {
        bucket: BucketId(bucket),
        digest: input.number().into(),
        keys: input.number(),
        tombstones: input.number(),
    };
    let result = match digest(0).keys % 4 {
        0 => Err(Refusal::Behind),
        count => Ok((1..count as u32).map(&mut digest).collect()),
    };
    FingerprintMessage::Answer { op, partition, result }
}

fn ascending(input: &mut Input<'_>, limit: usize) -> Vec<u16> {
    let step = 1 + input.below(limit);
    (0..limit as u16).step_by(step).collect()
}

fn states(input: &mut Input<'_>, world: &World) -> (PartitionClock, Vec<KeyState>) {
    let mut clock = PartitionClock::new();
    for _ in 0..input.below(4) {
        clock.insert(Dot { actor: Actor(input.number()), counter: 1 + input.number() % 1000 });
    }
    // One that claims to have seen all that this node has ever written.
    if input.flag() {
        world.dots().for_each(|dot| clock.insert_range(dot.actor, 1, dot.counter));
    }
    let state = |input: &mut Input<'_>| -> KeyState {
        let at: (BucketId, Bytes) = requests::key(input);
        let object = input.flag().then(|| hostile::object(input, world, at.0));
        KeyState { at, object: object.filter(|object| !object.is_empty()) }
    };
    let states = (0..input.below(4)).map(|_| state(input)).collect();
    (clock, states)
}
