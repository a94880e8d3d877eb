//! Drivers of several nodes under virtual time: what they come to think of each other.
//!
//! Links deliver after a fixed delay or are cut, one way or both. Time goes from one event to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use foca::{Codec as _, Header, Member, Message, State};
use holm_core::time::Mono;
use holm_protocol::admin::{Epoch, MemberState};
use holm_protocol::ids::NodeId;
use holm_protocol::limits::NODES_MAX;

use super::driver::{Driver, Effect, Now, Refused, Settings};
use super::identity::MemberId;
use super::wire::{Codec, DATAGRAM_LEN_MAX, Datagram, PACKET_LEN_MAX, Packet};

const SETTINGS: Settings = Settings {
    probe_interval: Duration::from_millis(1500),
    probe_timeout: Duration::from_millis(500),
    suspicion: Duration::from_millis(4500),
    forget: Duration::from_secs(600),
};

/// One way, microseconds.
const DELAY_US: u64 = 40_000;

/// From a node's death until all others call it down: every other node probes one of the others each
/// interval, and so each of few nodes is soon probed by somebody; then comes the suspicion.
const DOWN_WITHIN_MS: u64 = 12_000;

fn addr(id: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, id as u8], 7400))
}

/// See the module's head.
#[derive(Default)]
struct World {
    now: Mono,
    drivers: BTreeMap<u64, Driver>,
    /// Connections, smaller id first.
    links: BTreeSet<(u64, u64)>,
    /// Ways on which everything is lost.
    cut: BTreeSet<(u64, u64)>,
    /// Nodes that do not run for now, and what waits for them.
    paused: BTreeSet<u64>,
    waiting: Vec<(u64, u64, Bytes)>,
    clock_ahead_us: BTreeMap<u64, u64>,
    under_way: BTreeMap<(Mono, u64), (u64, u64, Bytes)>,
    sequence: u64,
    changes: Vec<(u64, u64, MemberState)>,
    outranked: Vec<(u64, u64)>,
    met: Vec<(u64, u64)>,
}

impl World {
    /// Nodes 1 to `count`, all connected, and all known to all.
    fn new(count: u64) -> World {
        let mut world = World::default();
        for id in 1..=count {
            world.start(id, 1);
            (1..id).for_each(|other| world.connect(other, id));
        }
        world.pass_ms(3_000);
        world.assert_all(MemberState::Alive);
        world.changes.clear();
        world.met.clear();
        world
    }

    fn start(&mut self, id: u64, boot: u64) {
        self.drivers.insert(id, Driver::new(NodeId(id), boot, SETTINGS, id * 1000 + boot));
    }

    fn time(&self, id: u64) -> Now {
        let ahead_us = self.clock_ahead_us.get(&id).copied().unwrap_or(0);
        Now { mono: self.now, wall_us: 1_700_000_000_000_000 + self.now.0 + ahead_us }
    }

    fn act(&mut self, id: u64, act: impl FnOnce(&mut Driver, Now)) {
        let now = self.time(id);
        let Some(driver) = self.drivers.get_mut(&id) else { return };
        act(driver, now);
        for effect in driver.take_effects() {
            match effect {
                Effect::Send { to: NodeId(to), datagram } => {
                    assert!(datagram.len() <= DATAGRAM_LEN_MAX);
                    let link = (id.min(to), id.max(to));
                    if self.links.contains(&link) && !self.cut.contains(&(id, to)) {
                        self.sequence += 1;
                        let due = Mono(self.now.0 + DELAY_US);
                        self.under_way.insert((due, self.sequence), (id, to, datagram));
                    }
                }
                Effect::Changed { node, from, to } => {
                    assert_ne!(from, to);
                    self.changes.push((id, node.0, to));
                }
                Effect::Met(node) => self.met.push((id, node.0)),
                Effect::Outranked { boot, .. } => self.outranked.push((id, boot)),
                Effect::Trouble(what) => panic!("{id}: {what}"),
            }
        }
    }

    fn connect(&mut self, one: u64, two: u64) {
        self.links.insert((one.min(two), one.max(two)));
        self.act(one, |driver, now| driver.on_up(now, NodeId(two), addr(two)));
        self.act(two, |driver, now| driver.on_up(now, NodeId(one), addr(one)));
    }

    fn disconnect(&mut self, one: u64, two: u64) {
        self.links.remove(&(one.min(two), one.max(two)));
        self.act(one, |driver, now| driver.on_down(now, NodeId(two), false));
        self.act(two, |driver, now| driver.on_down(now, NodeId(one), false));
    }

    /// Both ways between each of these and each of those.
    fn cut(&mut self, these: &[u64], those: &[u64]) {
        let pairs = these.iter().flat_map(|&a| those.iter().flat_map(move |&b| [(a, b), (b, a)]));
        self.cut.extend(pairs);
    }

    fn wakeup(&self, until: Mono) -> Option<(Mono, u64)> {
        let running = self.drivers.iter().filter(|(id, _)| !self.paused.contains(id));
        let next = running.map(|(&id, driver)| (driver.next_wakeup().max(self.now), id)).min();
        next.filter(|(at, _)| *at <= until)
    }

    fn pass_ms(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        loop {
            let packet = self.under_way.first_key_value().map(|(key, _)| *key);
            let packet = packet.filter(|(at, _)| *at <= until);
            match (packet, self.wakeup(until)) {
                (Some(key), wakeup) if wakeup.is_none_or(|(at, _)| key.0 <= at) => {
                    self.now = key.0;
                    let arrived = self.under_way.remove(&key).unwrap();
                    match self.paused.contains(&arrived.1) {
                        true => self.waiting.push(arrived),
                        false => self.deliver(arrived),
                    }
                }
                (_, Some((at, id))) => {
                    self.now = at;
                    self.act(id, Driver::tick);
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn deliver(&mut self, (from, to, datagram): (u64, u64, Bytes)) {
        self.act(to, |driver, now| driver.on_datagram(now, NodeId(from), &datagram).unwrap());
    }

    /// All that were paused go on, with what has waited for them.
    fn resume(&mut self) {
        self.paused.clear();
        std::mem::take(&mut self.waiting).into_iter().for_each(|arrived| self.deliver(arrived));
    }

    fn state(&self, of: u64, by: u64) -> MemberState {
        self.drivers[&by].state(NodeId(of))
    }

    fn epoch(&self, of: u64, by: u64) -> Epoch {
        let mut opinions = self.drivers[&by].opinions();
        opinions.find(|(node, _)| node.0 == of).unwrap().1.epoch
    }

    /// Every node thinks this of every other one that runs.
    fn assert_all(&self, state: MemberState) {
        for &by in self.drivers.keys() {
            for &of in self.drivers.keys().filter(|&&of| of != by) {
                assert_eq!(self.state(of, by), state, "{of} by {by}");
            }
        }
    }

    /// All other nodes think this of one.
    fn assert_of(&self, of: u64, state: MemberState) {
        for &by in self.drivers.keys().filter(|&&by| by != of) {
            assert_eq!(self.state(of, by), state, "{of} by {by}");
        }
    }

    /// Passes time until a condition holds; how long it took, milliseconds.
    fn until(&mut self, what: &str, limit_ms: u64, holds: impl Fn(&World) -> bool) -> u64 {
        for ms in 0..=limit_ms {
            if holds(self) {
                return ms;
            }
            self.pass_ms(1);
        }
        panic!("not within {limit_ms} ms: {what}");
    }
}

/// Goal: nodes that are connected in a chain only find each other, and where they listen, through those
/// in between. Method: a line of four; the first and the last never talk.
#[test]
fn members_are_found_through_others() {
    let mut world = World::default();
    (1..=4).for_each(|id| world.start(id, 1));
    (1..=3).for_each(|id| world.connect(id, id + 1));
    world.until("all are known", 40_000, |world| {
        (1..=4).all(|by| {
            (1..=4).filter(|&of| of != by).all(|of| world.state(of, by) != MemberState::Unknown)
        })
    });
    assert!(world.met.contains(&(1, 4)) && world.met.contains(&(4, 1)));
    let known = world.drivers[&1].opinions().find(|(node, _)| node.0 == 4).unwrap().1;
    assert_eq!(known.addr, Some(addr(4)));
}

/// Goal: a node that dies is suspected, then called down, by all, in time; those that live are never
/// called down. Method: nine nodes; one vanishes, its connections stay for long.
#[test]
fn the_dead_are_called_down() {
    let mut world = World::new(9);
    world.drivers.remove(&5);
    let took = world.until("5 is down", DOWN_WITHIN_MS, |world| {
        world.drivers.keys().all(|&by| world.state(5, by) == MemberState::Down)
    });
    assert!(took > 4_500, "{took} ms");
    assert!(world.changes.contains(&(1, 5, MemberState::Suspect)));
    assert!(world.changes.iter().all(|(_, of, _)| *of == 5), "{:?}", world.changes);
    let counts = world.drivers[&1].counts();
    assert_eq!(counts.changes[MemberState::Down as usize], 1);
    let failed: u64 = world.drivers.values().map(|driver| driver.counts().probes_failed).sum();
    assert!(failed > 0);
    // It is forgotten in the end.
    world.pass_ms(620_000);
    world.drivers.keys().for_each(|&by| assert_eq!(world.state(5, by), MemberState::Unknown));
}

/// Goal: a node that others still reach is not even suspected by one that does not. Method: one link of
/// five nodes is cut for a minute, first both ways, then one way, then the connection goes.
#[test]
fn probes_go_through_others() {
    let mut world = World::new(5);
    world.cut(&[1], &[2]);
    world.pass_ms(60_000);
    world.cut.remove(&(1, 2));
    world.pass_ms(60_000);
    world.disconnect(1, 2);
    world.pass_ms(60_000);
    assert_eq!(world.changes, []);
    world.assert_all(MemberState::Alive);
}

/// Goal: a suspect that hears of it objects, with a higher incarnation, and is alive again without ever
/// having been down. Method: cut a node off for long enough to be suspected and too short to be down.
#[test]
fn a_suspect_objects() {
    let mut world = World::new(5);
    world.cut(&[3], &[1, 2, 4, 5]);
    world.until("3 is suspected", 8_000, |world| world.state(3, 1) == MemberState::Suspect);
    world.cut.clear();
    world.pass_ms(4_400);
    world.assert_all(MemberState::Alive);
    assert!(world.changes.iter().all(|(_, _, state)| *state != MemberState::Down));
    let known = world.drivers[&1].opinions().find(|(node, _)| node.0 == 3).unwrap().1;
    assert!(known.incarnation > 0);
    assert_eq!(world.drivers[&3].incarnation(), known.incarnation);
}

/// Goal: who leaves is seen to have left, at once, by all, also by those without a connection to it;
/// nobody suspects it, and what it said stays true. Method: node 3 of five, not connected with 5.
#[test]
fn who_leaves_has_left() {
    let mut world = World::new(5);
    world.disconnect(3, 5);
    world.act(3, Driver::leave);
    world.pass_ms(50);
    for by in [1, 2, 4] {
        assert_eq!(world.state(3, by), MemberState::Left);
    }
    world.until("5 has heard", 1_000, |world| world.state(3, 5) == MemberState::Left);
    world.drivers.remove(&3);
    for other in [1, 2, 4] {
        world.disconnect(3, other);
    }
    world.pass_ms(60_000);
    assert!(world.changes.iter().all(|change| change.1 == 3 && change.2 == MemberState::Left));
    world.start(3, 2);
    world.connect(1, 3);
    world.until("3 is back", 1_000, |world| world.state(3, 1) == MemberState::Alive);
    assert_eq!(world.epoch(3, 1), Epoch { boot: 2, renewal: 0 });
}

/// Goal: the goodbye is lost, and the connection's end tells. Method: the other end closes because it
/// stops.
#[test]
fn a_closed_connection_can_say_goodbye() {
    let mut world = World::new(3);
    world.drivers.remove(&3);
    world.act(1, |driver, now| driver.on_down(now, NodeId(3), true));
    assert_eq!(world.state(3, 1), MemberState::Left);
    world.until("2 hears of it", 2_000, |world| world.state(3, 2) == MemberState::Left);
}

/// Goal: a restart is noticed by its epoch although it was never down; and a node that was called down
/// comes back at once.
#[test]
fn a_restart_is_another_epoch() {
    let mut world = World::new(4);
    for boot in [2, 3] {
        world.start(4, boot);
        if boot == 3 {
            world.drivers.remove(&4);
            world.pass_ms(30_000);
            world.assert_of(4, MemberState::Down);
            world.start(4, boot);
        }
        (1..=3).for_each(|other| world.connect(other, 4));
        world.until("the epoch is known", 200, |world| {
            (1..=3).all(|by| world.epoch(4, by) == Epoch { boot, renewal: 0 })
        });
        world.assert_of(4, MemberState::Alive);
    }
}

/// Goal: a node whose disk is older than what it has told, or new, is listened to all the same: it takes
/// a start after the one that others know, and says which to keep. Method: boot 7 dies, boot 1 comes.
#[test]
fn an_older_disk_outranks_what_is_known() {
    let mut world = World::new(3);
    world.start(4, 7);
    (1..=3).for_each(|other| world.connect(other, 4));
    world.pass_ms(3_000);
    world.assert_all(MemberState::Alive);
    world.start(4, 1);
    (1..=3).for_each(|other| world.connect(other, 4));
    world.until("4 is listened to", 2_000, |world| {
        (1..=3).all(|by| world.epoch(4, by).boot == 8 && world.state(4, by) == MemberState::Alive)
    });
    assert_eq!(world.outranked, [(4, 8)]);
}

/// Goal: two halves that were cut for long call each other down, and are one again soon after
/// connections are; nobody is left behind. Method: nine nodes in three and six, a minute.
#[test]
fn halves_become_one_again() {
    let mut world = World::new(9);
    let (few, many): (Vec<u64>, Vec<u64>) = (1..=9).partition(|id| *id <= 3);
    world.cut(&few, &many);
    world.pass_ms(30_000);
    assert_eq!(world.state(4, 1), MemberState::Down);
    assert_eq!(world.state(1, 9), MemberState::Down);
    assert_eq!(world.state(2, 1), MemberState::Alive);
    for (&one, &two) in few.iter().flat_map(|one| many.iter().map(move |two| (one, two))) {
        world.disconnect(one, two);
    }
    world.pass_ms(30_000);
    world.cut.clear();
    for (&one, &two) in few.iter().flat_map(|one| many.iter().map(move |two| (one, two))) {
        world.connect(one, two);
    }
    let all_alive = |world: &World| {
        (1..=9).all(|by| {
            (1..=9).filter(|&of| of != by).all(|of| world.state(of, by) == MemberState::Alive)
        })
    };
    let took = world.until("all are alive for all", 5_000, all_alive);
    world.pass_ms(60_000);
    world.assert_all(MemberState::Alive);
    assert!(took < 2_000, "{took} ms");
}

/// Goal: a process that did not run for a minute calls nobody down for that, although all its timers are
/// due at once when it goes on; the others do call it down, and have it back soon.
#[test]
fn a_pause_is_nobody_elses_death() {
    let mut world = World::new(5);
    world.paused.insert(2);
    world.pass_ms(60_000);
    world.assert_of(2, MemberState::Down);
    world.changes.clear();
    world.resume();
    world.pass_ms(10_000);
    let wrong =
        world.changes.iter().filter(|change| change.0 == 2 && change.2 == MemberState::Down);
    assert_eq!(wrong.count(), 0, "{:?}", world.changes);
    world.assert_all(MemberState::Alive);
    assert!(world.drivers[&2].counts().renewals > 0);
}

/// Goal: clocks are compared to within half a round trip, whoever asks. Method: node 2 is five seconds
/// ahead.
#[test]
fn clocks_are_compared() {
    let mut world = World::default();
    world.clock_ahead_us.insert(2, 5_000_000);
    (1..=2).for_each(|id| world.start(id, 1));
    world.connect(1, 2);
    world.pass_ms(100);
    for (by, of, ahead_us) in [(1, 2, 5_000_000), (2, 1, -5_000_000)] {
        let clock = world.drivers[&by].clock(NodeId(of), world.now).unwrap();
        assert_eq!((clock.offset_us, clock.error_us), (ahead_us, DELAY_US));
    }
    // It is set right, which is noticed.
    world.clock_ahead_us.clear();
    world.pass_ms(13_000);
    assert_eq!(world.drivers[&1].clock(NodeId(2), world.now).unwrap().offset_us, 0);
}

fn id(node: u64, boot: u64) -> MemberId {
    MemberId::new(NodeId(node), Epoch { boot, renewal: 0 })
}

/// A datagram from one node to another that says something of members.
fn gossip(from: MemberId, to: MemberId, updates: &[Member<MemberId>]) -> Vec<u8> {
    let mut codec = Codec::new(from.node, Default::default());
    let mut packet = Vec::new();
    let header = Header { src: from, src_incarnation: 0, dst: to, message: Message::Gossip };
    codec.encode_header(&header, &mut packet).unwrap();
    packet.extend_from_slice(&(updates.len() as u16).to_be_bytes());
    updates.iter().for_each(|update| codec.encode_member(update, &mut packet).unwrap());
    Datagram::Swim(&packet).encode()
}

/// Goal: nobody speaks as somebody else, and what is no datagram changes nothing (I8). Method: node 2's
/// connection carries a packet of node 3, of node 1 itself, and every cut of a good packet.
#[test]
fn only_the_sender_speaks_for_itself() {
    let mut world = World::new(3);
    let now = world.time(1);
    let from_2 = |driver: &mut Driver, bytes: &[u8]| driver.on_datagram(now, NodeId(2), bytes);
    let driver = world.drivers.get_mut(&1).unwrap();
    let death = [Member::new(id(3, 1), 9, State::Down)];
    let forged = from_2(driver, &gossip(id(3, 9), id(1, 1), &[]));
    assert_eq!(forged, Err(Refused::Forged { claimed: NodeId(3) }));
    let forged = from_2(driver, &gossip(id(1, 9), id(1, 1), &[]));
    assert_eq!(forged, Err(Refused::Forged { claimed: NodeId(1) }));
    let good = gossip(id(2, 1), id(1, 1), &death);
    for len in 0..good.len() {
        let cut = from_2(driver, &good[..len]);
        // Cut behind its header it is a packet without news.
        assert!(matches!(cut, Ok(()) | Err(Refused::Malformed(_))), "{len}: {cut:?}");
    }
    let long = vec![1; DATAGRAM_LEN_MAX + 1];
    assert!(matches!(from_2(driver, &long), Err(Refused::Malformed(_))));
    assert_eq!(driver.state(NodeId(3)), MemberState::Alive);
    assert_eq!((driver.counts().forged, driver.epoch()), (2, Epoch { boot: 1, renewal: 0 }));
    assert!(driver.counts().malformed > 80);
    // Of others a member may say what it likes: SWIM is hearsay. The accused contradicts.
    from_2(driver, &good).unwrap();
    assert_eq!(driver.state(NodeId(3)), MemberState::Down);
    world.pass_ms(10_000);
    world.assert_all(MemberState::Alive);
}

/// Goal: a member that makes nodes up fills no memory: there is a limit, and what is known already is
/// still heard. Method: as many made-up nodes as packets hold, again and again.
#[test]
fn made_up_members_are_bounded() {
    let mut world = World::new(2);
    let now = world.time(1);
    let driver = world.drivers.get_mut(&1).unwrap();
    let mut refused = 0;
    for first in (10..10_010).step_by(10) {
        let made_up = |of: u64| Member::alive(id(of, 1));
        let updates: Vec<_> = (first..first + 10).map(made_up).collect();
        let taken = driver.on_datagram(now, NodeId(2), &gossip(id(2, 1), id(1, 1), &updates));
        refused += usize::from(taken == Err(Refused::Crowded));
    }
    assert!(refused > 500, "{refused}");
    let members = driver.opinions().count();
    assert!((NODES_MAX - 10..=NODES_MAX).contains(&members), "{members}");
    let known = gossip(id(2, 1), id(1, 1), &[Member::new(id(10, 1), 0, State::Down)]);
    driver.on_datagram(now, NodeId(2), &known).unwrap();
    assert_eq!(driver.state(NodeId(10)), MemberState::Down);
}

/// Goal: somebody claims absurd starts and incarnations for this node; it goes on, and outranks what it
/// can. Method: the highest numbers that are read.
#[test]
fn absurd_claims_are_survived() {
    let mut world = World::new(3);
    let highest = super::identity::BOOT_MAX;
    for (boot, incarnation, state) in [
        (1, u16::MAX, State::Suspect),
        (highest - 1, u16::MAX, State::Alive),
        (highest, 0, State::Down),
    ] {
        let to = MemberId { epoch: world.drivers[&1].epoch(), ..id(1, 1) };
        let claim = [Member::new(id(1, boot), incarnation, state)];
        world.act(1, |driver, now| {
            driver.on_datagram(now, NodeId(2), &gossip(id(2, 1), to, &claim)).unwrap();
        });
        world.pass_ms(5_000);
    }
    assert_eq!(world.drivers[&1].epoch().boot, highest);
    world.assert_all(MemberState::Alive);
}

/// Goal: a packet of full length is made, sent and read. Method: the feed of a cluster that is larger
/// than one packet.
#[test]
fn full_packets_fit() {
    let mut world = World::new(40);
    world.start(41, 1);
    world.connect(1, 41);
    let longest =
        |world: &World| world.under_way.values().map(|(.., d)| d.len()).max().unwrap_or(0);
    world.until("a long feed", 200, |world| longest(world) > PACKET_LEN_MAX - 50);
    world.until("41 knows most", 60_000, |world| world.drivers[&41].opinions().count() > 35);
    let feed = Packet::decode(&[0; 3]);
    assert!(feed.is_err());
}

/// Goal: the same seeds and the same inputs give the same opinions in the same order (I12). Method: a
/// cluster with a death, twice.
#[test]
fn the_same_seed_gives_the_same_opinions() {
    let run = || {
        let mut world = World::new(6);
        world.drivers.remove(&2);
        world.pass_ms(20_000);
        (world.changes, world.sequence)
    };
    assert_eq!(run(), run());
}
