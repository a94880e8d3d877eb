//! Frames, handshakes, requests and replies of clients, messages between nodes.
//!
//! Promises: decoders are total; a stream gives the same frames however it is cut; what decodes is
//! encoded to a frame that decodes to the same, and, but for the parts in postcard, to the same
//! bytes: one message has one encoding. The decoder of frames holds no more than it was given.

use bytes::{Bytes, BytesMut};
use holm_core::peer::PeerMessage;
use holm_core::peer::packed::{PACKED, unpack};
use holm_protocol::frame::{Frame, FrameDecoder, put_frame};
use holm_protocol::handshake::{self, ClientHello, ClientWelcome, PeerHello};
use holm_protocol::limits::FRAME_LEN_MAX;
use holm_protocol::message::{Reply, Request, kind};
use serde::{Deserialize, Serialize};

/// Kinds of messages between nodes whose bytes are not all theirs: a forwarded request or reply,
/// which may be rare, and a description, which is.
const PEER_POSTCARD: [u8; 3] = [kind::PEER_FIRST + 5, kind::PEER_FIRST + 6, kind::PEER_FIRST + 8];
/// The messages that have no operation, repairs and pulses: their frames' ids say nothing.
const PEER_WITHOUT_OP: [u8; 2] = [kind::PEER_FIRST + 4, kind::PEER_FIRST + 9];

/// The first byte says how the rest is cut; 0: the rest is one frame's kind and body.
pub fn run(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    if cut == 0 {
        if let Some((&kind, body)) = stream.split_first() {
            message(&Frame { kind, id: 7, body: Bytes::copy_from_slice(body) });
        }
        return;
    }
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    let mut is_sound = true;
    for piece in stream.chunks(cut.into()) {
        decoder.push(piece);
        is_sound = is_sound && drain(&mut decoder, &mut frames);
        assert!(decoder.buffered() <= stream.len());
    }
    let mut whole = FrameDecoder::new();
    whole.push(stream);
    let mut at_once = Vec::new();
    assert_eq!(drain(&mut whole, &mut at_once), is_sound, "how a stream is cut decides if it ends");
    assert_eq!(frames, at_once, "how a stream is cut decides its frames");
    frames.iter().for_each(message);
}

/// Takes out the whole frames. Says whether the stream can go on.
fn drain(decoder: &mut FrameDecoder, frames: &mut Vec<Frame>) -> bool {
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                assert!(frame.body.len() <= FRAME_LEN_MAX);
                let mut again = BytesMut::new();
                put_frame(&mut again, frame.kind, frame.id, |out| {
                    out.extend_from_slice(&frame.body);
                });
                assert_eq!(only_frame(&again).as_ref(), Some(&frame));
                frames.push(frame);
            }
            Ok(None) => return true,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return false;
            }
        }
    }
}

/// The frame that bytes are, if they are one.
#[must_use]
pub fn only_frame(bytes: &[u8]) -> Option<Frame> {
    let mut decoder = FrameDecoder::new();
    decoder.push(bytes);
    let frame = decoder.next_frame().ok().flatten()?;
    (decoder.buffered() == 0).then_some(frame)
}

fn message(frame: &Frame) {
    if frame.kind == PACKED
        && let Ok(inner) = unpack(frame)
    {
        assert!(inner.kind != PACKED && inner.body.len() <= FRAME_LEN_MAX);
        message(&inner);
    }
    if let Ok(request) = Request::decode(frame) {
        let again = encoded(|out| request.encode(frame.id, out));
        assert_eq!(Request::decode(&again), Ok(request));
        assert!(again == *frame || frame.kind == kind::ADMIN, "a request has two encodings");
    }
    if let Ok(reply) = Reply::decode(frame) {
        if let Reply::Error(error) = &reply {
            assert!(error.code() > 0 && !error.to_string().is_empty());
            let _ = (error.outcome(), error.retry());
        }
        let again = encoded(|out| reply.encode(frame.id, out));
        assert_eq!(Reply::decode(&again), Ok(reply));
        let is_rare = matches!(frame.kind, kind::ADMIN_REPLY | kind::ERROR);
        assert!(again == *frame || is_rare, "a reply has two encodings");
    }
    if let Ok(message) = PeerMessage::decode(frame) {
        let mut again = encoded(|out| message.encode(out));
        assert_eq!(PeerMessage::decode(&again).as_ref(), Ok(&message));
        if PEER_WITHOUT_OP.contains(&frame.kind) {
            again.id = frame.id;
        }
        let is_rare = PEER_POSTCARD.contains(&frame.kind);
        assert!(again == *frame || is_rare, "a message between nodes has two encodings");
    }
    hello::<ClientHello>(&frame.body);
    hello::<ClientWelcome>(&frame.body);
    hello::<PeerHello>(&frame.body);
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut out = BytesMut::new();
    encode(&mut out);
    match only_frame(&out) {
        Some(frame) => frame,
        None => panic!("what was encoded is no frame: {} bytes", out.len()),
    }
}

fn hello<T>(body: &[u8])
where
    T: for<'a> Deserialize<'a> + Serialize + PartialEq + std::fmt::Debug,
{
    match handshake::decode::<T>(body) {
        Ok(hello) => assert_eq!(handshake::decode(&handshake::encode(&hello)), Ok(hello)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
