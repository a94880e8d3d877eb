//! Messages between regions that nobody's request waits for, compressed (DESIGN 7).
//!
//! A packed frame has the kind [`PACKED`] and the id 0; its body is one whole frame, LZ4 block format, after
//! its length (4 bytes, little-endian). Not every message: what is short, or does not get shorter, goes
//! as it is, and within a region the bandwidth is worth less than the time.
//!
//! **Bounded** (I8): what is announced is at most a frame, and at most what LZ4 can make of so few bytes;
//! a packed frame inside a packed one is refused.

use bytes::{BufMut, BytesMut};
use holm_protocol::frame::{FRAME_HEAD_LEN, Frame, FrameDecoder, put_frame};
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::wire::WireError;
use lz4_flex::block::{compress_into, decompress, get_maximum_output_size};

use crate::peer::PeerMessage;

/// The kind of frames that hold a compressed one: the last, far from all lists of messages, which grow.
pub const PACKED: u8 = u8::MAX;

/// Frames that are shorter are not worth it. Arbitrary: a packet is some five times as long.
const LEN_MIN: usize = 256;

/// LZ4 makes at most so many bytes of one: a match of 255 more for each byte of its length.
const RATIO_MAX: usize = 255;

impl PeerMessage {
    /// Whether nobody's request waits for it: pulses, repair, verification.
    #[must_use]
    pub fn is_background(&self) -> bool {
        matches!(
            self,
            PeerMessage::Pulse { .. }
                | PeerMessage::Seen { .. }
                | PeerMessage::GapAsk { .. }
                | PeerMessage::GapAnswer { .. }
                | PeerMessage::PageAsk { .. }
                | PeerMessage::PageAnswer { .. }
                | PeerMessage::Verify { .. }
                | PeerMessage::VerifyReply { .. }
                | PeerMessage::Compare(_)
                | PeerMessage::Close(_)
        )
    }
}

/// Appends an encoded frame, compressed. `false`, and nothing appended, if that makes it no shorter.
pub fn pack(frame: &[u8], out: &mut BytesMut) -> bool {
    if frame.len() < LEN_MIN || frame.len() > FRAME_LEN_MAX {
        return false;
    }
    let mut block = vec![0; get_maximum_output_size(frame.len())];
    let Ok(len) = compress_into(frame, &mut block) else { return false };
    if FRAME_HEAD_LEN + 4 + len >= frame.len() {
        return false;
    }
    put_frame(out, PACKED, 0, |out| {
        // At most `FRAME_LEN_MAX`.
        out.put_u32_le(frame.len() as u32);
        out.put_slice(&block[..len]);
    });
    true
}

/// The frame in a packed one.
///
/// # Errors
/// It is not of the form that the [module](self) describes, or longer than may be.
pub fn unpack(packed: &Frame) -> Result<Frame, WireError> {
    let invalid = |got: usize| WireError::Invalid { field: "packed frame", got: got as u64 };
    let Some((head, block)) = packed.body.split_first_chunk::<4>() else {
        return Err(invalid(packed.body.len()));
    };
    let len = u32::from_le_bytes(*head) as usize;
    let limit = (FRAME_LEN_MAX + 4).min(block.len().saturating_mul(RATIO_MAX));
    if len > limit {
        let (got, limit) = (len as u64, limit as u64);
        return Err(WireError::TooLong { field: "packed frame", got, limit });
    }
    let frame = decompress(block, len).map_err(|_| invalid(block.len()))?;
    if frame.len() != len {
        return Err(invalid(frame.len()));
    }
    let mut decoder = FrameDecoder::new();
    decoder.push(&frame);
    match decoder.next_frame() {
        Ok(Some(frame)) if decoder.buffered() == 0 && frame.kind != PACKED => Ok(frame),
        _ => Err(invalid(len)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, id: u64, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        put_frame(&mut out, kind, id, |out| out.put_slice(body));
        out
    }

    fn only(bytes: &[u8]) -> Frame {
        let mut decoder = FrameDecoder::new();
        decoder.push(bytes);
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(decoder.buffered(), 0);
        frame
    }

    /// Goal: what repeats itself travels in a fraction and comes back as it was; what is short or
    /// random goes as it is.
    #[test]
    fn only_what_gets_shorter_is_packed() {
        let told = b"{\"name\":\"somebody\",\"city\":\"somewhere\"}".repeat(40);
        let (whole, mut out) = (frame(7, 99, &told), BytesMut::from(&b"before"[..]));
        assert!(pack(&whole, &mut out));
        assert!(out.len() * 5 < whole.len(), "{} of {}", out.len(), whole.len());
        let packed = only(&out[6..]);
        assert_eq!((packed.kind, packed.id), (PACKED, 0));
        assert_eq!(unpack(&packed), Ok(only(&whole)));

        let random: Vec<u8> =
            (0..2_000_u64).map(|n| (xxhash_rust::xxh3::xxh3_64(&n.to_be_bytes())) as u8).collect();
        for as_it_is in [frame(7, 1, &[0; 100]), frame(7, 1, &random)] {
            let mut out = BytesMut::new();
            assert!(!pack(&as_it_is, &mut out) && out.is_empty());
        }
    }

    /// Goal: bombs, lies about the length, nesting and rubbish are refused, with nothing allocated for
    /// what was only announced.
    #[test]
    fn lies_are_refused() {
        let whole = frame(7, 1, &[5; 5_000]);
        let mut out = BytesMut::new();
        assert!(pack(&whole, &mut out));
        let good = only(&out);
        let lying = |len: u32| {
            let body = [&len.to_le_bytes()[..], &good.body[4..]].concat();
            unpack(&Frame { body: Bytes::from(body), ..good.clone() })
        };
        let len = whole.len() as u32;
        assert!(lying(len).is_ok());
        for wrong in [0, 1, len - 1, len + 1, u32::MAX] {
            assert!(lying(wrong).is_err(), "{wrong}");
        }
        let mut nested = BytesMut::new();
        let inner = frame(PACKED, 0, &[1; 5_000]);
        assert!(pack(&inner, &mut nested));
        assert!(unpack(&only(&nested)).is_err());
        let two = [&whole[..], &whole[..]].concat();
        let mut both = BytesMut::new();
        assert!(pack(&two, &mut both));
        assert!(unpack(&only(&both)).is_err());
    }

    proptest! {
        /// Goal: any bytes are refused or give one frame, and never more than may be.
        #[test]
        fn unpacking_is_total(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let packed = Frame { kind: PACKED, id: 0, body: body.into() };
            if let Ok(frame) = unpack(&packed) {
                prop_assert!(frame.body.len() <= packed.body.len() * RATIO_MAX);
            }
        }

        /// Goal: what is packed comes back.
        #[test]
        fn packing_loses_nothing(words in proptest::collection::vec(0_u8..4, 300..3_000)) {
            let whole = frame(3, 8, &words);
            let mut out = BytesMut::new();
            if pack(&whole, &mut out) {
                prop_assert_eq!(unpack(&only(&out)).unwrap(), only(&whole));
            }
        }
    }
}
