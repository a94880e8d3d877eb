//! Frames: how messages follow each other on a lane.
//!
//! A lane is one long-lived bidirectional QUIC stream. Each message is one frame:
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | length of what follows, big-endian, at most [`FRAME_LEN_MAX`] |
//! | 1 | kind |
//! | 8 | request id, big-endian, chosen by the sender of the request and repeated in the answer |
//! | length - 9 | body |
//!
//! Many requests are in flight on one lane, and answers come in any order. QUIC protects the bytes
//! on their way; values carry a checksum of their own from coordinator to disk and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::FRAME_LEN_MAX;

/// ALPN of connections from clients.
pub const ALPN_CLIENT: &[u8] = b"holm/1";

/// ALPN of connections between nodes.
pub const ALPN_PEER: &[u8] = b"holm-peer/1";

/// Bytes of a frame before its body, the length prefix included.
pub const FRAME_HEAD_LEN: usize = 4 + FRAME_REST_LEN;

/// Bytes of kind and request id.
const FRAME_REST_LEN: usize = 1 + 8;

/// One message as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: u8,
    /// Ties an answer to its request. 0 where there is none.
    pub id: u64,
    /// The message.
    pub body: Bytes,
}

/// Why a lane cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The announced length is above [`FRAME_LEN_MAX`].
    #[error("frame of {len} bytes announced, limit {FRAME_LEN_MAX}")]
    TooLong {
        /// The announced length.
        len: u64,
    },
    /// The announced length does not even hold kind and id.
    #[error("frame of {len} bytes announced, shorter than its head")]
    TooShort {
        /// The announced length.
        len: u64,
    },
}

/// Appends one frame whose body `write` appends.
pub fn put_frame(out: &mut BytesMut, kind: u8, id: u64, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    out.put_u64(id);
    write(out);
    // Encoders keep every field within limits whose sum is below FRAME_LEN_MAX, so it fits u32.
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// Cuts a byte stream into frames. Holds at most what was received, never what was announced.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    received: BytesMut,
}

impl FrameDecoder {
    /// Starts at a frame's first byte.
    #[must_use]
    pub fn new() -> Self {
        FrameDecoder::default()
    }

    /// Takes in what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Bytes received and not yet given out.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.received.len()
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// [`FrameError`] if the announced length is not possible. The lane is useless from then on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.received.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*head) as usize;
        if len > FRAME_LEN_MAX {
            return Err(FrameError::TooLong { len: len as u64 });
        }
        if len < FRAME_REST_LEN {
            return Err(FrameError::TooShort { len: len as u64 });
        }
        if self.received.len() < 4 + len {
            return Ok(None);
        }
        let mut frame = self.received.split_to(4 + len).freeze();
        frame.advance(4);
        let kind = frame.get_u8();
        let id = frame.get_u64();
        Ok(Some(Frame { kind, id, body: frame }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: frames survive any cutting of the stream. Method: encode some, feed in pieces.
        #[test]
        fn frames_survive_any_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            cut in 1usize..50,
        ) {
            let mut stream = BytesMut::new();
            for (i, body) in bodies.iter().enumerate() {
                put_frame(&mut stream, i as u8, i as u64, |out| out.put_slice(body));
            }
            let mut decoder = FrameDecoder::new();
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame.body.to_vec());
                }
            }
            prop_assert_eq!(got, bodies);
            prop_assert_eq!(decoder.buffered(), 0);
        }
    }

    /// Goal: a length that lies is refused before anything is kept for it.
    #[test]
    fn impossible_lengths_are_refused() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong { len: u32::MAX.into() }));
        let mut decoder = FrameDecoder::new();
        decoder.push(&3u32.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooShort { len: 3 }));
    }
}
