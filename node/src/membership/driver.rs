//! The membership of one node as a pure state machine around foca.
//!
//! Datagrams, connections and time go in; datagrams to send and changes of opinion come out as data.
//! It has no clock, no socket and no task; random numbers come from a seed.
//!
//! What is added to foca's SWIM:
//! - **A node speaks only as itself**: the sender of a packet must be the node whose certificate the
//!   connection has shown. Of others it may say what it likes; SWIM rests on hearsay.
//! - **Connections introduce**: whoever is connected and not known to be alive is announced to, again
//!   and again until it is. So a cluster that was cut in two finds itself as soon as connections do.
//! - **Leaving is told** to everyone at once, and is remembered as `left`, not `down`.
//! - **A node that is known with a later start than its own** (its disk is older than what it told, or
//!   new) takes the start after that one, because until then nobody would listen to it.
//! - **Time in which the process did not run does not count**: after a pause, suspicions get the time
//!   they were meant to have, and the packets that wait are read first.
//! - Members are bounded by [`NODES_MAX`], whatever is gossiped.
//!
//! Membership says who can be reached. It moves no data: the layout says who owns what.
//!
//! Source: SWIM (DSN 2002) by way of foca; the pause rule is a small part of Lifeguard (DSN-W 2018).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foca::{Foca, Member, NoCustomBroadcast, PeriodicParams, State, Timer};
use holm_core::time::Mono;
use holm_protocol::admin::{ClockOffset, Epoch, MemberState};
use holm_protocol::ids::NodeId;
use holm_protocol::limits::NODES_MAX;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clock::ClockFilter;
pub use super::event::{Counts, Effect, Now, Opinion, Refused, Settings};
use super::identity::{BOOT_MAX, MemberId};
use super::wire::{Codec, Datagram, PACKET_LEN_MAX, Packet, set_sender_addr};
use super::wishes::Wishes;

/// Nodes asked to probe one that does not answer. Three, as in the paper's experiments: one is
/// enough but for losses.
const INDIRECT: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// How often one piece of news is passed on: reaches a thousand nodes with room to spare, and costs
/// nothing when there is no news.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(10).unwrap();

/// News are passed on this often, besides what travels with probes.
const GOSSIP: PeriodicParams =
    PeriodicParams { frequency: Duration::from_millis(500), num_members: INDIRECT };

/// Members are asked for whom else they know this often: what was lost on all ways is found so.
const EXCHANGE: PeriodicParams = PeriodicParams {
    frequency: Duration::from_secs(30),
    num_members: NonZeroUsize::new(1).unwrap(),
};

/// Time between two questions for a connected node's clock, on average. Quartz drifts by less than
/// 50 ppm: half a millisecond in that time.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// A connection to a node.
#[derive(Debug)]
struct Link {
    remote: SocketAddr,
    ask_at: Mono,
    /// The question under way: its nonce, when it was asked, and by this node's clock.
    asked: Option<(u64, Mono, u64)>,
}

#[derive(Debug, Default)]
struct Peer {
    opinion: Option<Opinion>,
    /// The start that has said that it stops.
    left: Option<Epoch>,
    link: Option<Link>,
    clock: ClockFilter,
}

/// See the [module](self).
pub struct Driver {
    settings: Settings,
    foca: Foca<MemberId, Codec, StdRng, NoCustomBroadcast>,
    chance: StdRng,
    wishes: Wishes,
    /// By when they are due, then in the order in which foca wished for them.
    timers: BTreeMap<(Mono, u64), Timer<MemberId>>,
    sequence: u64,
    /// Time in which the process did not run.
    paused_us: u64,
    round_at: Mono,
    peers: BTreeMap<NodeId, Peer>,
    leaving: Arc<AtomicBool>,
    counts: Counts,
    effects: Vec<Effect>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("me", self.foca.identity()).finish_non_exhaustive()
    }
}

impl Driver {
    /// A node at its start number `boot`, that knows nobody.
    #[must_use]
    pub fn new(node: NodeId, boot: u64, settings: Settings, seed: u64) -> Driver {
        let config = foca::Config {
            probe_period: settings.probe_interval,
            probe_rtt: settings.probe_timeout,
            num_indirect_probes: INDIRECT,
            max_transmissions: TRANSMISSIONS,
            suspect_to_down_after: settings.suspicion,
            remove_down_after: Some(settings.forget),
            max_packet_size: NonZeroUsize::new(PACKET_LEN_MAX).unwrap_or(NonZeroUsize::MIN),
            notify_down_members: true,
            periodic_announce: Some(EXCHANGE),
            // Done here instead, to whom there is a connection.
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(GOSSIP),
        };
        let leaving = Arc::<AtomicBool>::default();
        let codec = Codec::new(node, leaving.clone());
        let me = MemberId::new(node, Epoch { boot, renewal: 0 });
        let mut chance = StdRng::seed_from_u64(seed);
        let rng = StdRng::seed_from_u64(chance.random());
        Driver {
            settings,
            foca: Foca::new(me, config, rng, codec),
            chance,
            wishes: Wishes::default(),
            timers: BTreeMap::new(),
            sequence: 0,
            paused_us: 0,
            round_at: Mono(0),
            peers: BTreeMap::new(),
            leaving,
            counts: Counts::default(),
            effects: Vec::new(),
        }
    }

    /// This node's own epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.foca.identity().epoch
    }

    /// How often this node has contradicted suspicions in its epoch, as it last told.
    #[must_use]
    pub fn incarnation(&self) -> u16 {
        self.wishes.incarnation
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What is thought of whom. Nodes that were never heard of, or are forgotten, are left out.
    pub fn opinions(&self) -> impl Iterator<Item = (NodeId, Opinion)> {
        self.peers.iter().filter_map(|(node, peer)| Some((*node, peer.opinion?)))
    }

    /// What is thought of one node.
    #[must_use]
    pub fn state(&self, node: NodeId) -> MemberState {
        let opinion = self.peers.get(&node).and_then(|peer| peer.opinion);
        opinion.map_or(MemberState::Unknown, |opinion| opinion.state)
    }

    /// The clock of a node, if it has been measured.
    #[must_use]
    pub fn clock(&self, node: NodeId, now: Mono) -> Option<ClockOffset> {
        self.peers.get(&node)?.clock.offset(now)
    }

    /// Everything to be done since the last call, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Driver::tick`] has something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Mono {
        let timer = self.timers.keys().next().map(|(due, _)| Mono(due.0 + self.paused_us));
        timer.map_or(self.round_at, |timer| timer.min(self.round_at))
    }

    /// There is a connection to a node.
    pub fn on_up(&mut self, now: Now, node: NodeId, remote: SocketAddr) {
        let link = Link { remote, ask_at: now.mono, asked: None };
        self.peers.entry(node).or_default().link = Some(link);
        if !self.has_left() {
            self.introduce(now, node, false);
            self.ask(now, node);
        }
    }

    /// There is no connection to a node any more; if it `left`, because it said that it stops.
    pub fn on_down(&mut self, now: Now, node: NodeId, left: bool) {
        let has_left = self.has_left();
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.link = None;
        let Some(opinion) = peer.opinion else {
            self.peers.remove(&node);
            return;
        };
        if left && is_active(opinion.state) && !has_left {
            peer.left = Some(opinion.epoch);
            let gone = MemberId { node, epoch: opinion.epoch, addr: opinion.addr, left: true };
            let news = std::iter::once(Member::down(gone));
            let done = self.foca.apply_many(news, true, &mut self.wishes);
            self.settle(now, done.err());
        }
    }

    /// Takes in a datagram of the node at the other end of a connection.
    ///
    /// # Errors
    /// [`Refused`], counted; nothing has changed then, but by what is senseless.
    pub fn on_datagram(&mut self, now: Now, from: NodeId, bytes: &[u8]) -> Result<(), Refused> {
        if self.has_left() || from == self.me() {
            return Ok(());
        }
        let taken = self.take(now, from, bytes);
        match &taken {
            Ok(()) => {}
            Err(Refused::Forged { .. }) => self.counts.forged += 1,
            Err(Refused::Crowded) => self.counts.crowded += 1,
            Err(_) => self.counts.malformed += 1,
        }
        taken
    }

    fn take(&mut self, now: Now, from: NodeId, bytes: &[u8]) -> Result<(), Refused> {
        match Datagram::decode(bytes)? {
            Datagram::Swim(packet) => self.on_packet(now, from, packet),
            Datagram::Ask { nonce } => {
                let opinion = self.peers.get(&from).and_then(|peer| peer.opinion);
                let known = opinion.map(|opinion| opinion.epoch).unwrap_or_default();
                let told = Datagram::Tell { nonce, wall_us: now.wall_us, known };
                self.effects.push(Effect::Send { to: from, datagram: told.encode().into() });
                Ok(())
            }
            Datagram::Tell { nonce, wall_us, known } => {
                self.on_told(now, from, (nonce, wall_us));
                self.outranked_by(now, known);
                Ok(())
            }
        }
    }

    fn on_packet(&mut self, now: Now, from: NodeId, bytes: &[u8]) -> Result<(), Refused> {
        let packet = Packet::decode(bytes)?;
        let sender = packet.header.src.node;
        if sender != from {
            return Err(Refused::Forged { claimed: sender });
        }
        let known = self.foca.iter_membership_state().len();
        let is_new = |node: NodeId| self.peers.get(&node).is_none_or(|peer| peer.opinion.is_none());
        let named = packet.updates.iter().map(|update| update.id().node);
        let new = named.chain([sender]).filter(|&node| is_new(node)).count();
        // The sender may be among those it names, which then count twice: at the limit only.
        if new > 0 && known + new > NODES_MAX {
            return Err(Refused::Crowded);
        }
        let me = self.me();
        for update in packet.updates.iter().filter(|update| update.id().node == me) {
            self.outranked_by(now, update.id().epoch);
        }
        let mut bytes = bytes.to_vec();
        if let Some(link) = self.peers.get(&from).and_then(|peer| peer.link.as_ref()) {
            set_sender_addr(&mut bytes, link.remote);
        }
        let done = self.foca.handle_data(&bytes, &mut self.wishes);
        let refused = done.err().map(|error| error.to_string());
        for update in packet.updates.iter().filter(|update| update.state() == State::Down) {
            let MemberId { node, epoch, left, .. } = *update.id();
            // Of nodes that foca has refused to hear of nothing is kept.
            let is_member = || self.foca.iter_membership_state().any(|m| m.id().node == node);
            if left && is_member() {
                let peer = self.peers.entry(node).or_default();
                peer.left = peer.left.max(Some(epoch));
            }
        }
        self.settle(now, None);
        refused.map_or(Ok(()), |why| Err(Refused::Senseless(why)))
    }

    fn on_told(&mut self, now: Now, from: NodeId, (nonce, theirs_us): (u64, u64)) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(link) = &mut peer.link else { return };
        // An answer to nothing that was asked, or to what was asked before.
        let Some((_, asked, ours_us)) = link.asked.take_if(|(of, ..)| *of == nonce) else { return };
        peer.clock.measured((asked, now.mono), ours_us, theirs_us);
    }

    /// Somebody knows this node with that start. If it is later than this one, no one who knows it
    /// will listen.
    fn outranked_by(&mut self, now: Now, known: Epoch) {
        if known <= self.epoch() || known.boot >= BOOT_MAX {
            return;
        }
        let boot = known.boot + 1;
        let next = MemberId::new(self.me(), Epoch { boot, renewal: 0 });
        let done = self.foca.change_identity(next, &mut self.wishes);
        self.effects.push(Effect::Outranked { known, boot });
        self.wishes.renewed = true;
        self.settle(now, done.err());
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        if self.has_left() {
            self.timers.clear();
            self.round_at = Mono(u64::MAX);
            return;
        }
        if let Some(((due, _), _)) = self.timers.first_key_value() {
            let late_us = self.running(now.mono).0.saturating_sub(due.0);
            if late_us > self.settings.probe_timeout.as_micros() as u64 {
                self.paused_us += late_us;
            }
        }
        let running = self.running(now.mono);
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > running {
                break;
            }
            let done = self.foca.handle_timer(entry.remove(), &mut self.wishes);
            self.settle(now, done.err());
        }
        if self.round_at <= now.mono {
            self.round_at = plus(now.mono, self.settings.probe_interval);
            self.introduce_all(now, false);
            let due = |peer: &Peer| peer.link.as_ref().is_some_and(|l| l.ask_at <= now.mono);
            let due: Vec<NodeId> =
                self.peers.iter().filter(|(_, peer)| due(peer)).map(|(node, _)| *node).collect();
            due.into_iter().for_each(|node| self.ask(now, node));
        }
    }

    /// Tells everyone that this node stops. Nothing is said or heard after that.
    pub fn leave(&mut self, now: Now) {
        if self.has_left() {
            return;
        }
        self.leaving.store(true, Ordering::Relaxed);
        let everyone = NonZeroUsize::new(self.foca.num_members()).unwrap_or(INDIRECT);
        let done = self.foca.set_config(foca::Config {
            num_indirect_probes: everyone,
            probe_period: self.settings.probe_interval,
            probe_rtt: self.settings.probe_timeout,
            max_packet_size: NonZeroUsize::new(PACKET_LEN_MAX).unwrap_or(NonZeroUsize::MIN),
            ..foca::Config::simple()
        });
        let done = done.and_then(|()| self.foca.leave_cluster(&mut self.wishes));
        self.settle(now, done.err());
    }

    fn me(&self) -> NodeId {
        self.foca.identity().node
    }

    fn has_left(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Time without that in which the process did not run.
    fn running(&self, now: Mono) -> Mono {
        Mono(now.0.saturating_sub(self.paused_us))
    }

    /// Announces this node to a connected one that is not known to be alive, or to `any`.
    fn introduce(&mut self, now: Now, node: NodeId, any: bool) {
        let Some(peer) = self.peers.get(&node) else { return };
        let is_known = peer.opinion.is_some_and(|opinion| is_active(opinion.state));
        if peer.link.is_none() || (is_known && !any) {
            return;
        }
        let epoch = peer.opinion.map(|opinion| opinion.epoch).unwrap_or_default();
        let done = self.foca.announce(MemberId::new(node, epoch), &mut self.wishes);
        self.settle(now, done.err());
    }

    fn introduce_all(&mut self, now: Now, any: bool) {
        let all: Vec<NodeId> = self.peers.keys().copied().collect();
        all.into_iter().for_each(|node| self.introduce(now, node, any));
    }

    /// Asks a connected node for its time. Spread, so that a cluster that started at once does not ask
    /// at once for ever.
    fn ask(&mut self, now: Now, node: NodeId) {
        let (nonce, share): (u64, f64) = (self.chance.random(), self.chance.random());
        let Some(link) = self.peers.get_mut(&node).and_then(|peer| peer.link.as_mut()) else {
            return;
        };
        link.asked = Some((nonce, now.mono, now.wall_us));
        link.ask_at = plus(now.mono, ASK_EVERY.mul_f64(0.75 + share / 2.0));
        let datagram = Datagram::Ask { nonce }.encode().into();
        self.effects.push(Effect::Send { to: node, datagram });
    }

    /// Takes over what foca wishes, and looks at what it thinks now.
    fn settle(&mut self, now: Now, error: Option<foca::Error>) {
        self.effects.extend(error.map(|error| Effect::Trouble(error.to_string())));
        let renewed = std::mem::take(&mut self.wishes.renewed);
        self.counts.renewals += u64::from(renewed);
        self.counts.probes_failed += std::mem::take(&mut self.wishes.probes_failed);
        let running = self.running(now.mono);
        for (after, timer) in self.wishes.timers.drain(..) {
            self.sequence += 1;
            self.timers.insert((plus(running, after), self.sequence), timer);
        }
        let sends = self.wishes.sends.drain(..);
        self.effects.extend(sends.map(|(to, datagram)| Effect::Send { to, datagram }));
        self.look(now);
        if renewed {
            // Those who heard only of what is over must not take it for what is.
            self.introduce_all(now, true);
        }
    }

    /// Compares what foca thinks with what it thought before.
    fn look(&mut self, now: Now) {
        let me = self.me();
        let mut forgotten: Vec<NodeId> =
            self.opinions().map(|(node, _)| node).filter(|&node| node != me).collect();
        for member in self.foca.iter_membership_state() {
            let id = member.id();
            if id.node == me {
                continue;
            }
            if let Ok(at) = forgotten.binary_search(&id.node) {
                forgotten.remove(at);
            }
            let peer = self.peers.entry(id.node).or_default();
            let state = match member.state() {
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Down if peer.left >= Some(id.epoch) => MemberState::Left,
                State::Down => MemberState::Down,
            };
            let before = peer.opinion;
            let from = before.map_or(MemberState::Unknown, |opinion| opinion.state);
            let is_new = before.is_none_or(|opinion| opinion.epoch < id.epoch);
            let since = before.filter(|_| from == state && !is_new);
            let remote = peer.link.as_ref().map(|link| link.remote);
            peer.opinion = Some(Opinion {
                state,
                epoch: id.epoch,
                incarnation: member.incarnation(),
                since: since.map_or(now.mono, |opinion| opinion.since),
                addr: remote.or(id.addr).or_else(|| before?.addr),
            });
            if from != state {
                self.counts.changes[state as usize] += 1;
                self.effects.push(Effect::Changed { node: id.node, from, to: state });
            }
            if is_new && is_active(state) && peer.link.is_none() {
                self.effects.push(Effect::Met(id.node));
            }
        }
        for node in forgotten {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            let Some(Opinion { state: from, .. }) = peer.opinion.take() else { continue };
            peer.left = None;
            if peer.link.is_none() {
                self.peers.remove(&node);
            }
            let to = MemberState::Unknown;
            self.counts.changes[to as usize] += 1;
            self.effects.push(Effect::Changed { node, from, to });
        }
    }
}

fn is_active(state: MemberState) -> bool {
    matches!(state, MemberState::Alive | MemberState::Suspect)
}

fn plus(at: Mono, after: Duration) -> Mono {
    Mono(at.0.saturating_add(after.as_micros() as u64))
}
