//! Goal: messages round trip, and no bytes make a decoder panic or hand out what was not encoded.

use proptest::prelude::*;

use super::*;
use crate::frame::FrameDecoder;

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn level() -> impl Strategy<Value = Option<Level>> {
    any::<u8>().prop_map(|byte| Level::from_byte(byte).unwrap_or(None))
}

fn request() -> impl Strategy<Value = Request> {
    let head = (any::<u32>(), bytes(20), level(), any::<(u64, u64, u32)>());
    (head, bytes(40), bytes(40), 0..3).prop_map(
        |((bucket, key, level, ids), value, context, which)| {
            let bucket = BucketId(bucket);
            let (client, sequence, timeout_ms) = ids;
            let request = RequestId { client, sequence };
            match which {
                0 => Request::Put(Put { bucket, key, value, context, level, request, timeout_ms }),
                1 => Request::Get(Get { bucket, key, level, timeout_ms }),
                _ => Request::Delete(Delete { bucket, key, context, level, request, timeout_ms }),
            }
        },
    )
}

fn reply() -> impl Strategy<Value = Reply> {
    let dot = (any::<u64>(), 1..u64::MAX).prop_map(|(a, counter)| Dot { actor: Actor(a), counter });
    let sibling = (dot.clone(), any::<u64>(), bytes(30)).prop_map(|(dot, hlc, value)| Sibling {
        dot,
        hlc: Hlc(hlc),
        value,
    });
    let entry = any::<(u64, u16, bool)>().prop_map(|(node, region, fallback)| ReceiptEntry {
        node: NodeId(node),
        region: RegionId(region),
        fallback,
    });
    let receipt = (any::<u64>(), prop::collection::vec(entry, 0..5)).prop_map(|(n, replicas)| {
        Receipt { coordinator: NodeId(n), level: Level::Quorum, replicas }
    });
    let siblings = prop::collection::vec(sibling, 0..4);
    (dot, any::<u64>(), bytes(40), receipt, siblings, any::<bool>()).prop_map(
        |(dot, hlc, context, receipt, siblings, written)| match written {
            true => Reply::Written(Written { dot, hlc: Hlc(hlc), context, receipt }),
            false => Reply::Values(Values { siblings, context, receipt }),
        },
    )
}

fn only_frame(stream: &[u8]) -> Frame {
    let mut decoder = FrameDecoder::new();
    decoder.push(stream);
    decoder.next_frame().unwrap().unwrap()
}

proptest! {
    #[test]
    fn requests_round_trip(request in request(), id: u64) {
        let mut out = BytesMut::new();
        request.encode(id, &mut out);
        let frame = only_frame(&out);
        prop_assert_eq!(frame.id, id);
        prop_assert_eq!(Request::decode(&frame), Ok(request));
    }

    #[test]
    fn replies_round_trip(reply in reply(), id: u64) {
        let mut out = BytesMut::new();
        reply.encode(id, &mut out);
        prop_assert_eq!(Reply::decode(&only_frame(&out)), Ok(reply));
    }

    /// Method: cut and flip valid frames; whatever decodes must encode to the same bytes again.
    #[test]
    fn damaged_requests_never_panic(request in request(), at: usize, flip: u8, cut: usize) {
        let mut out = BytesMut::new();
        request.encode(0, &mut out);
        let mut frame = only_frame(&out);
        let mut body = frame.body.to_vec();
        let at = at % body.len();
        body[at] ^= flip;
        body.truncate(body.len() - cut % 3);
        frame.body = body.into();
        if let Ok(decoded) = Request::decode(&frame) {
            let mut again = BytesMut::new();
            decoded.encode(0, &mut again);
            prop_assert_eq!(only_frame(&again).body, frame.body);
        }
    }

    #[test]
    fn noise_never_panics(kind: u8, body in bytes(200)) {
        let frame = Frame { kind, id: 0, body };
        let _ = Request::decode(&frame);
        let _ = Reply::decode(&frame);
    }
}

/// Goal: every error keeps its meaning across the wire.
#[test]
fn errors_round_trip() {
    let error = RequestError::WriteUnknown { needed: 2, durable: 1 };
    let mut out = BytesMut::new();
    Reply::Error(error.clone()).encode(7, &mut out);
    assert_eq!(Reply::decode(&only_frame(&out)), Ok(Reply::Error(error)));
}
