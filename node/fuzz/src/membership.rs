//! Membership datagrams, and the driver that takes them in.
//!
//! Promises: decoders are total and what they accept has one encoding; a node that gets any datagrams,
//! at any time, on any connections goes on: it keeps to the limit of members, sends no datagram that
//! is too long, and never goes back to an earlier epoch (I8, I10).

use std::net::SocketAddr;
use std::time::Duration;

use foca::Codec as _;
use foca::{Header, Member, Message, State};
use holm_core::time::Mono;
use holm_protocol::admin::Epoch;
use holm_protocol::ids::NodeId;
use holm_protocol::limits::NODES_MAX;

use crate::input::Input;
use crate::node::membership::driver::{Driver, Effect, Now, Settings};
use crate::node::membership::identity::MemberId;
use crate::node::membership::wire::{Codec, DATAGRAM_LEN_MAX, Datagram, Packet};

/// The node that is fuzzed.
const ME: NodeId = NodeId(1);

/// Steps of one run: more try nothing else.
const STEPS_MAX: usize = 200;

const SETTINGS: Settings = Settings {
    probe_interval: Duration::from_millis(1500),
    probe_timeout: Duration::from_millis(500),
    suspicion: Duration::from_millis(4500),
    forget: Duration::from_secs(60),
};

/// The first byte chooses: bytes as a datagram, or steps of a driver.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 2 {
        0 => decoded(input.rest()),
        _ => driven(&mut input),
    }
}

fn decoded(bytes: &[u8]) {
    match Datagram::decode(bytes) {
        Ok(datagram) => assert_eq!(datagram.encode(), bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(packet) = Packet::decode(bytes) {
        assert!(packet.updates.len() <= bytes.len());
    }
}

/// An identity of one of few nodes.
fn identity(input: &mut Input<'_>) -> MemberId {
    let node = NodeId(input.byte().into());
    let boot = match input.byte() % 4 {
        0 => u64::MAX >> 16,
        low => low.into(),
    };
    let left = input.below(4) == 0;
    let epoch = Epoch { boot, renewal: (input.byte() % 3).into() };
    MemberId { left, ..MemberId::new(node, epoch) }
}

fn member(input: &mut Input<'_>) -> Member<MemberId> {
    let state = match input.byte() % 3 {
        0 => State::Alive,
        1 => State::Suspect,
        _ => State::Down,
    };
    let incarnation = if input.below(8) == 0 { u16::MAX } else { input.byte().into() };
    Member::new(identity(input), incarnation, state)
}

/// A packet as another node might send it, true or not.
fn packet(input: &mut Input<'_>, from: NodeId, to: Epoch) -> Vec<u8> {
    let src = MemberId { node: from, ..identity(input) };
    let dst = if input.below(8) == 0 { identity(input) } else { MemberId::new(ME, to) };
    let probe_number = input.byte();
    let other = identity(input);
    let message = match input.byte() % 10 {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq { target: other, probe_number },
        3 => Message::IndirectPing { origin: other, probe_number },
        4 => Message::IndirectAck { target: other, probe_number },
        5 => Message::ForwardedAck { origin: other, probe_number },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        _ => Message::TurnUndead,
    };
    let mut codec = Codec::new(from, Default::default());
    let mut out = Vec::new();
    let header = Header { src, src_incarnation: input.byte().into(), dst, message };
    assert!(codec.encode_header(&header, &mut out).is_ok());
    let count = input.below(4) as u16;
    out.extend_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        assert!(codec.encode_member(&member(input), &mut out).is_ok());
    }
    out
}

fn driven(input: &mut Input<'_>) {
    let mut driver = Driver::new(ME, 1, SETTINGS, 7);
    let mut mono = Mono(0);
    let mut epoch = driver.epoch();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            return;
        }
        let now = Now { mono, wall_us: mono.0.wrapping_mul(3) };
        let from = NodeId(u64::from(input.byte() % 6));
        match input.byte() % 8 {
            0 => driver.on_up(now, from, SocketAddr::from(([10, 0, 0, 1], 1))),
            1 => driver.on_down(now, from, input.below(2) == 0),
            2 => {
                mono = mono.max(driver.next_wakeup());
                driver.tick(Now { mono, ..now });
            }
            3 => {
                mono = mono.plus_ms(input.byte().into());
                driver.tick(Now { mono, ..now });
            }
            4 => {
                let bytes: Vec<u8> = (0..input.byte()).map(|_| input.byte()).collect();
                let _ = driver.on_datagram(now, from, &bytes);
            }
            5 => {
                let known = Epoch { boot: input.byte().into(), renewal: 0 };
                let told = Datagram::Tell { nonce: 0, wall_us: u64::MAX, known };
                let _ = driver.on_datagram(now, from, &told.encode());
            }
            _ => {
                let swim = packet(input, from, driver.epoch());
                let _ = driver.on_datagram(now, from, &Datagram::Swim(&swim).encode());
            }
        }
        sound(&mut driver, mono);
        assert!(driver.epoch() >= epoch, "an epoch went back");
        epoch = driver.epoch();
    }
    let now = Now { mono, wall_us: 0 };
    driver.leave(now);
    sound(&mut driver, mono);
}

/// What holds after every step.
fn sound(driver: &mut Driver, now: Mono) {
    assert!(driver.opinions().count() <= NODES_MAX);
    for (node, opinion) in driver.opinions() {
        assert!(node != ME && opinion.since <= now, "an opinion about itself, or of the future");
    }
    for effect in driver.take_effects() {
        match effect {
            Effect::Send { datagram, .. } => {
                assert!(datagram.len() <= DATAGRAM_LEN_MAX);
                decoded(&datagram);
            }
            Effect::Changed { node, from, to } => assert!(node != ME && from != to),
            Effect::Met(node) => assert_ne!(node, ME),
            Effect::Outranked { known, boot } => assert!(boot > known.boot),
            Effect::Trouble(what) => panic!("{what}"),
        }
    }
}
