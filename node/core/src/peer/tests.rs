//! Goal: messages between nodes round trip, and no bytes make the decoder panic (I8).

use holm_protocol::frame::FrameDecoder;
use holm_protocol::ids::{PlacementId, RequestId};
use holm_protocol::level::Level;
use holm_protocol::message::Put;
use proptest::prelude::*;

use super::*;

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
        Found::Refused(Refusal::Amnesia),
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
    samples.extend(found.map(|found| PeerMessage::ReadReply { op, partition, found }));
    samples
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
    fn noise_never_panics(kind in 60u8..80, body: Vec<u8>) {
        let _ = PeerMessage::decode(&Frame { kind, id: 1, body: body.into() });
    }
}
