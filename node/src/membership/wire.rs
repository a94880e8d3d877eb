//! The datagrams between nodes, and foca's packets in them.
//!
//! A datagram is a kind byte and its body. SWIM packets have the shape that foca gives them (header,
//! number of updates, updates) in an encoding of ours, because it must be read before foca sees it:
//! a node may speak only as itself. Every value has one encoding; identities have a fixed length,
//! so that where a sender was heard from can be written over its own in place.
//!
//! | kind | body |
//! | --- | --- |
//! | 1 | a SWIM packet |
//! | 2 | question for the time: nonce (8 bytes) |
//! | 3 | its answer: nonce (8), wall clock in microseconds (8), how the asker is known: boot (8), renewal (4) |

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};
use holm_protocol::admin::Epoch;
use holm_protocol::ids::NodeId;
use holm_protocol::wire::{Reader, WireError};

use super::identity::{BOOT_MAX, MemberId};

/// Longest datagram, bytes. QUIC takes datagrams of 1,162 bytes before it has explored the path. All
/// nodes must agree on it: what is longer is refused.
pub const DATAGRAM_LEN_MAX: usize = 1100;

/// Longest SWIM packet, bytes.
pub const PACKET_LEN_MAX: usize = DATAGRAM_LEN_MAX - 1;

const SWIM: u8 = 1;
const ASK: u8 = 2;
const TELL: u8 = 3;

/// Bytes of an identity: node, boot, renewal, flags, address, port.
const IDENTITY_LEN: usize = 8 + 8 + 4 + 1 + 16 + 2;
/// Bytes of one update: identity, incarnation, state.
const UPDATE_LEN: usize = IDENTITY_LEN + 2 + 1;
/// Where an identity's address begins.
const ADDR_AT: usize = 8 + 8 + 4 + 1;

/// One datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A packet of foca's.
    Swim(&'a [u8]),
    /// What is your time?
    Ask {
        /// Comes back with the answer.
        nonce: u64,
    },
    /// It is this.
    Tell {
        /// Of the question.
        nonce: u64,
        /// Microseconds since 1970.
        wall_us: u64,
        /// The newest start of the asker that is known to the answerer.
        known: Epoch,
    },
}

impl<'a> Datagram<'a> {
    /// Reads a datagram. A SWIM packet is not looked into: see [`Packet::decode`].
    ///
    /// # Errors
    /// [`WireError`]: too long, too short, of an unknown kind, with bytes left over.
    pub fn decode(bytes: &'a [u8]) -> Result<Datagram<'a>, WireError> {
        if bytes.len() > DATAGRAM_LEN_MAX {
            let (got, limit) = (bytes.len() as u64, DATAGRAM_LEN_MAX as u64);
            return Err(WireError::TooLong { field: "datagram", got, limit });
        }
        let mut reader = Reader::new(bytes);
        let datagram = match reader.u8()? {
            SWIM => return Ok(Datagram::Swim(reader.left())),
            ASK => Datagram::Ask { nonce: reader.u64()? },
            TELL => Datagram::Tell {
                nonce: reader.u64()?,
                wall_us: reader.u64()?,
                known: read_epoch(&mut reader)?,
            },
            kind => return Err(WireError::Invalid { field: "datagram kind", got: kind.into() }),
        };
        reader.finish()?;
        Ok(datagram)
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match *self {
            Datagram::Swim(packet) => {
                out.put_u8(SWIM);
                out.put_slice(packet);
            }
            Datagram::Ask { nonce } => {
                out.put_u8(ASK);
                out.put_u64(nonce);
            }
            Datagram::Tell { nonce, wall_us, known } => {
                out.put_u8(TELL);
                out.put_u64(nonce);
                out.put_u64(wall_us);
                put_epoch(&mut out, known);
            }
        }
        out
    }
}

/// A SWIM packet, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Who says what to whom.
    pub header: Header<MemberId>,
    /// What it has heard of members.
    pub updates: Vec<Member<MemberId>>,
}

impl Packet {
    /// Reads a packet as foca would: updates only if anything follows the header.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Packet, WireError> {
        let mut reader = Reader::new(bytes);
        let header = read_header(&mut reader)?;
        let mut updates = Vec::new();
        if !reader.left().is_empty() {
            let count = usize::from(reader.u16()?);
            // Checked before anything is allocated.
            if count * UPDATE_LEN != reader.left().len() {
                return Err(WireError::Invalid { field: "updates", got: count as u64 });
            }
            updates.reserve_exact(count);
            for _ in 0..count {
                updates.push(read_member(&mut reader)?);
            }
        }
        reader.finish()?;
        Ok(Packet { header, updates })
    }
}

/// Writes over a packet where its sender was heard from. The packet must have been decoded.
pub fn set_sender_addr(packet: &mut [u8], addr: SocketAddr) {
    if let Some(place) = packet.get_mut(ADDR_AT..IDENTITY_LEN) {
        let mut out = Vec::with_capacity(IDENTITY_LEN - ADDR_AT);
        put_addr(&mut out, Some(addr));
        place.copy_from_slice(&out);
    }
}

/// How foca writes and reads.
#[derive(Debug, Clone)]
pub struct Codec {
    me: NodeId,
    leaving: Arc<AtomicBool>,
}

impl Codec {
    /// The codec of a node. Once `leaving` is set, it says of itself that it has left.
    #[must_use]
    pub fn new(me: NodeId, leaving: Arc<AtomicBool>) -> Codec {
        Codec { me, leaving }
    }
}

impl foca::Codec<MemberId> for Codec {
    type Error = WireError;

    fn encode_header(
        &mut self,
        header: &Header<MemberId>,
        buf: impl BufMut,
    ) -> Result<(), WireError> {
        let mut out = Vec::with_capacity(3 * IDENTITY_LEN + 8);
        put_header(&mut out, header);
        append(&out, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<MemberId>, WireError> {
        read(buf, read_header)
    }

    fn encode_member(
        &mut self,
        member: &Member<MemberId>,
        buf: impl BufMut,
    ) -> Result<(), WireError> {
        let mut out = Vec::with_capacity(UPDATE_LEN);
        let mut id = *member.id();
        id.left |= id.node == self.me && self.leaving.load(Ordering::Relaxed);
        put_identity(&mut out, &id);
        out.put_u16(member.incarnation());
        out.put_u8(state_code(member.state()));
        append(&out, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<MemberId>, WireError> {
        read(buf, read_member)
    }
}

/// Appends what fits whole, or nothing.
fn append(bytes: &[u8], mut buf: impl BufMut) -> Result<(), WireError> {
    let limit = buf.remaining_mut();
    if bytes.len() > limit {
        let (got, limit) = (bytes.len() as u64, limit as u64);
        return Err(WireError::TooLong { field: "packet", got, limit });
    }
    buf.put_slice(bytes);
    Ok(())
}

/// Reads from foca's buffer, which is one slice.
fn read<T>(
    mut buf: impl Buf,
    parse: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<T, WireError> {
    let chunk = buf.chunk();
    let mut reader = Reader::new(chunk);
    let value = parse(&mut reader)?;
    let used = chunk.len() - reader.left().len();
    buf.advance(used);
    Ok(value)
}

fn put_epoch(out: &mut Vec<u8>, epoch: Epoch) {
    out.put_u64(epoch.boot);
    out.put_u32(epoch.renewal);
}

fn read_epoch(reader: &mut Reader<'_>) -> Result<Epoch, WireError> {
    let epoch = Epoch { boot: reader.u64()?, renewal: reader.u32()? };
    if epoch.boot > BOOT_MAX {
        return Err(WireError::TooLong { field: "boot", got: epoch.boot, limit: BOOT_MAX });
    }
    Ok(epoch)
}

/// An unknown address is `[::]:0`; IPv4 is mapped into IPv6.
fn put_addr(out: &mut Vec<u8>, addr: Option<SocketAddr>) {
    let known = addr.filter(|addr| !addr.ip().is_unspecified() && addr.port() != 0);
    let (ip, port) = match known.map(|addr| (addr.ip(), addr.port())) {
        None => (Ipv6Addr::UNSPECIFIED, 0),
        Some((IpAddr::V4(ip), port)) => (ip.to_ipv6_mapped(), port),
        Some((IpAddr::V6(ip), port)) => (ip, port),
    };
    out.put_slice(&ip.octets());
    out.put_u16(port);
}

fn read_addr(reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, WireError> {
    let mut octets = [0; 16];
    octets.copy_from_slice(reader.take(16)?);
    let (ip, port) = (Ipv6Addr::from(octets), reader.u16()?);
    let ip = IpAddr::V6(ip).to_canonical();
    match (ip.is_unspecified(), port) {
        (true, 0) if ip.is_ipv6() => Ok(None),
        (false, 1..) => Ok(Some(SocketAddr::new(ip, port))),
        _ => Err(WireError::Invalid { field: "address", got: port.into() }),
    }
}

fn put_identity(out: &mut Vec<u8>, id: &MemberId) {
    out.put_u64(id.node.0);
    put_epoch(out, id.epoch);
    out.put_u8(id.left.into());
    put_addr(out, id.addr);
}

fn read_identity(reader: &mut Reader<'_>) -> Result<MemberId, WireError> {
    let node = NodeId(reader.u64()?);
    let epoch = read_epoch(reader)?;
    let left = match reader.u8()? {
        0 => false,
        1 => true,
        flags => return Err(WireError::Invalid { field: "flags", got: flags.into() }),
    };
    Ok(MemberId { node, epoch, left, addr: read_addr(reader)? })
}

fn state_code(state: State) -> u8 {
    match state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    }
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member<MemberId>, WireError> {
    let id = read_identity(reader)?;
    let incarnation = reader.u16()?;
    let state = match reader.u8()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        state => return Err(WireError::Invalid { field: "state", got: state.into() }),
    };
    Ok(Member::new(id, incarnation, state))
}

fn put_header(out: &mut Vec<u8>, header: &Header<MemberId>) {
    put_identity(out, &header.src);
    out.put_u16(header.src_incarnation);
    put_identity(out, &header.dst);
    let (code, id, probe) = match &header.message {
        Message::Ping(probe) => (0, None, Some(probe)),
        Message::Ack(probe) => (1, None, Some(probe)),
        Message::PingReq { target, probe_number } => (2, Some(target), Some(probe_number)),
        Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(probe_number)),
        Message::IndirectAck { target, probe_number } => (4, Some(target), Some(probe_number)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(probe_number)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::TurnUndead => (9, None, None),
        Message::Broadcast => (10, None, None),
    };
    out.put_u8(code);
    if let Some(id) = id {
        put_identity(out, id);
    }
    if let Some(probe) = probe {
        out.put_u8(*probe);
    }
}

fn read_header(reader: &mut Reader<'_>) -> Result<Header<MemberId>, WireError> {
    let src = read_identity(reader)?;
    let src_incarnation = reader.u16()?;
    let dst = read_identity(reader)?;
    let code = reader.u8()?;
    let id = matches!(code, 2..=5).then(|| read_identity(reader)).transpose()?;
    let probe = matches!(code, 0..=5).then(|| reader.u8()).transpose()?;
    let invalid = WireError::Invalid { field: "message", got: code.into() };
    let message = match (code, id, probe) {
        (0, None, Some(probe)) => Message::Ping(probe),
        (1, None, Some(probe)) => Message::Ack(probe),
        (2, Some(target), Some(probe_number)) => Message::PingReq { target, probe_number },
        (3, Some(origin), Some(probe_number)) => Message::IndirectPing { origin, probe_number },
        (4, Some(target), Some(probe_number)) => Message::IndirectAck { target, probe_number },
        (5, Some(origin), Some(probe_number)) => Message::ForwardedAck { origin, probe_number },
        (6, None, None) => Message::Announce,
        (7, None, None) => Message::Feed,
        (8, None, None) => Message::Gossip,
        (9, None, None) => Message::TurnUndead,
        // Broadcasts of foca's are not used here.
        _ => return Err(invalid),
    };
    Ok(Header { src, src_incarnation, dst, message })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(node: u64) -> MemberId {
        let addr = Some(SocketAddr::from(([10, 0, 0, node as u8], 7400)));
        let epoch = Epoch { boot: node * 3, renewal: 1 };
        MemberId { node: NodeId(node), epoch, addr, left: false }
    }

    fn encoded(packet: &Packet) -> Vec<u8> {
        let mut out = Vec::new();
        put_header(&mut out, &packet.header);
        if !packet.updates.is_empty() {
            out.put_u16(packet.updates.len() as u16);
        }
        for update in &packet.updates {
            put_identity(&mut out, update.id());
            out.put_u16(update.incarnation());
            out.put_u8(state_code(update.state()));
        }
        out
    }

    /// Goal: every message survives the way, also what equality of identities leaves out. Method: one
    /// packet of each kind; compare as text.
    #[test]
    fn packets_round_trip() {
        let (target, origin, probe_number) = (id(7), id(8), 5);
        let messages = [
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq { target, probe_number },
            Message::IndirectPing { origin, probe_number },
            Message::IndirectAck { target, probe_number },
            Message::ForwardedAck { origin, probe_number },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ];
        for message in messages {
            let header = Header { src: id(1), src_incarnation: 9, dst: id(2), message };
            let gone = MemberId { left: true, addr: None, ..id(3) };
            let updates =
                vec![Member::new(gone, 4, State::Down), Member::new(id(4), 0, State::Suspect)];
            let packet = Packet { header, updates };
            let bytes = encoded(&packet);
            let back = Packet::decode(&bytes).unwrap();
            assert_eq!(format!("{packet:?}"), format!("{back:?}"));
            for len in 0..bytes.len() {
                let cut = Packet::decode(&bytes[..len]);
                assert!(cut.is_err() || cut.unwrap().updates.is_empty(), "cut at {len}");
            }
        }
    }

    /// Goal: where a sender was heard from takes the place of what it says, and nothing else changes.
    #[test]
    fn the_senders_address_is_written_over() {
        let header = Header {
            src: MemberId { addr: None, ..id(1) },
            src_incarnation: 3,
            dst: id(2),
            message: Message::Gossip,
        };
        let packet = Packet { header, updates: vec![Member::new(id(5), 1, State::Alive)] };
        let mut bytes = encoded(&packet);
        let addr: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        set_sender_addr(&mut bytes, addr);
        let back = Packet::decode(&bytes).unwrap();
        assert_eq!(back.header.src.addr, Some(addr));
        assert_eq!(back, packet);
        assert_eq!(back.updates[0].id().addr, id(5).addr);
    }

    proptest! {
        /// Goal: any bytes give a datagram or an error, and a datagram has one encoding (I8).
        #[test]
        fn any_bytes_are_read(mut noise: Vec<u8>, kind in 0u8..5) {
            noise.insert(0, kind);
            if let Ok(datagram) = Datagram::decode(&noise) {
                prop_assert_eq!(datagram.encode(), noise.clone());
            }
            if let Ok(packet) = Packet::decode(&noise[1..]) {
                let bytes = encoded(&packet);
                prop_assert!(noise[1..].starts_with(&bytes));
            }
        }
    }
}
