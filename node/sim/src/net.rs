//! Links between nodes: how long messages take, and what becomes of them.
//!
//! In fair weather a link is what a QUIC lane is: in order, without loss, with a base delay and
//! jitter. Delays are those between the regions of the two ends, one way each, and may be longer on
//! a link by a share of its own. The weather adds loss, doubles and messages that overtake others, which is more than
//! QUIC does to a lane, and all of what reconnecting does to it. A cut link drops what is sent
//! over it and what is on its way. Links are directed: a cut can be one-way.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::ids::NodeId;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::rng::stream;

/// A delay: its least, and how much is added at random, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// Every message takes at least this long.
    pub base_us: u64,
    /// Up to this much more.
    pub jitter_us: u64,
}

impl Delay {
    /// One message's delay. The square makes long ones rare, as on real links.
    pub fn draw(self, rng: &mut ChaCha8Rng) -> u64 {
        if self.jitter_us == 0 {
            return self.base_us;
        }
        let part: f64 = rng.random();
        self.base_us + (part * part * self.jitter_us as f64) as u64
    }
}

/// What happens to messages between nodes, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Messages that vanish.
    pub loss: u32,
    /// Messages that arrive twice.
    pub duplicate: u32,
    /// Messages that are held up and may be overtaken.
    pub reorder: u32,
    /// How long these, and second copies, are held up at most, microseconds.
    pub hold_us: u64,
}

/// How often each thing happened to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetTally {
    /// Messages sent.
    pub sent: u64,
    /// Lost to the weather.
    pub lost: u64,
    /// Doubled.
    pub duplicated: u64,
    /// Held up.
    pub reordered: u64,
    /// Dropped by a cut.
    pub cut: u64,
}

/// One direction of a link.
#[derive(Debug)]
struct Link {
    delay: Delay,
    /// When the last message that kept its place arrives.
    last_arrival_us: u64,
    rng: ChaCha8Rng,
}

impl Link {
    fn strikes(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.random_range(0..1000) < per_mille
    }
}

/// Links, each drawn from its own stream when it is first used.
#[derive(Debug)]
struct Links {
    regions: BTreeMap<NodeId, usize>,
    /// Delay between regions, one way; the diagonal is within a region.
    delays: Vec<Vec<Delay>>,
    /// Links are up to this many percent longer than that.
    spread: u32,
    seed: u64,
    known: BTreeMap<(NodeId, NodeId), Link>,
}

impl Links {
    fn get(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        self.known.entry((from, to)).or_insert_with(|| {
            let mut rng = stream(self.seed, &format!("link {from} {to}"));
            let Delay { base_us, jitter_us } = self.delays[self.regions[&from]][self.regions[&to]];
            let longer = if self.spread > 0 { rng.random_range(0..=self.spread) } else { 0 };
            let percent = 100 + u64::from(longer);
            let delay =
                Delay { base_us: base_us * percent / 100, jitter_us: jitter_us * percent / 100 };
            Link { delay, last_arrival_us: 0, rng }
        })
    }
}

/// All links.
#[derive(Debug)]
pub struct Net {
    links: Links,
    weather: Weather,
    cuts: BTreeSet<(NodeId, NodeId)>,
    tally: NetTally,
}

impl Net {
    /// Fair weather over all links. Each draws from a stream of its own, and is up to `spread`
    /// percent longer than its regions are apart.
    #[must_use]
    pub fn new(
        regions: BTreeMap<NodeId, usize>,
        delays: Vec<Vec<Delay>>,
        spread: u32,
        seed: u64,
    ) -> Net {
        Net {
            links: Links { regions, delays, spread, seed, known: BTreeMap::new() },
            weather: Weather::default(),
            cuts: BTreeSet::new(),
            tally: NetTally::default(),
        }
    }

    /// Changes the weather.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// The weather.
    #[must_use]
    pub fn weather(&self) -> Weather {
        self.weather
    }

    /// Cuts or mends one direction of a link.
    pub fn set_cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        if cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
    }

    /// Mends everything and clears the sky.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.weather = Weather::default();
    }

    /// Whether messages get through in this direction.
    #[must_use]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&(from, to))
    }

    /// The delay between two regions, one way.
    #[must_use]
    pub fn delay(&self, from: usize, to: usize) -> Delay {
        self.links.delays[from][to]
    }

    /// The delay of a link, one way.
    pub fn link_delay(&mut self, from: NodeId, to: NodeId) -> Delay {
        self.links.get(from, to).delay
    }

    /// The least time of a round trip between two nodes, microseconds.
    pub fn round_trip_us(&mut self, a: NodeId, b: NodeId) -> u64 {
        self.link_delay(a, b).base_us + self.link_delay(b, a).base_us
    }

    /// When copies of a message sent now arrive. None, one or two.
    pub fn send(&mut self, now_us: u64, from: NodeId, to: NodeId) -> [Option<u64>; 2] {
        self.tally.sent += 1;
        if self.is_cut(from, to) {
            self.tally.cut += 1;
            return [None, None];
        }
        let Weather { loss, duplicate, reorder, hold_us } = self.weather;
        let link = self.links.get(from, to);
        let direct_us = now_us + link.delay.draw(&mut link.rng);
        if link.strikes(loss) {
            self.tally.lost += 1;
            return [None, None];
        }
        let first = if link.strikes(reorder) {
            self.tally.reordered += 1;
            direct_us + link.rng.random_range(0..=hold_us)
        } else {
            link.last_arrival_us = link.last_arrival_us.max(direct_us);
            link.last_arrival_us
        };
        let second = link.strikes(duplicate).then(|| {
            self.tally.duplicated += 1;
            first + link.rng.random_range(0..=hold_us)
        });
        [Some(first), second]
    }

    /// Counts a message that a cut caught on its way.
    pub fn caught_by_cut(&mut self) {
        self.tally.cut += 1;
    }

    /// How often each thing happened.
    #[must_use]
    pub fn tally(&self) -> NetTally {
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn net(spread: u32) -> Net {
        let delay = Delay { base_us: 100, jitter_us: 1000 };
        Net::new([(A, 0), (B, 0)].into(), vec![vec![delay]], spread, 1)
    }

    /// Goal: in fair weather messages keep their order and none is lost.
    #[test]
    fn fair_links_keep_order() {
        let mut net = net(0);
        let arrivals: Vec<u64> = (0..100).filter_map(|at| net.send(at, A, B)[0]).collect();
        assert_eq!(arrivals.len(), 100);
        assert!(arrivals.is_sorted());
    }

    /// Goal: each kind of bad weather does what it says. Method: all of it at once.
    #[test]
    fn bad_weather_strikes() {
        let mut net = net(0);
        net.set_weather(Weather { loss: 200, duplicate: 200, reorder: 200, hold_us: 50_000 });
        let arrivals: Vec<u64> = (0..1000).filter_map(|at| net.send(at, A, B)[0]).collect();
        let tally = net.tally();
        assert!(!arrivals.is_sorted());
        assert!(tally.lost > 100 && tally.duplicated > 100 && tally.reordered > 100);
        assert_eq!(arrivals.len() as u64, tally.sent - tally.lost);
    }

    /// Goal: links differ from each other and in their two directions, never below what their
    /// regions are apart.
    #[test]
    fn links_have_delays_of_their_own() {
        let mut net = net(50);
        let (there, back) = (net.link_delay(A, B), net.link_delay(B, A));
        assert_ne!(there, back);
        for delay in [there, back] {
            assert!((100..=150).contains(&delay.base_us), "{delay:?}");
            assert!((1000..=1500).contains(&delay.jitter_us), "{delay:?}");
        }
        assert_eq!(net.round_trip_us(A, B), there.base_us + back.base_us);
    }

    /// Goal: a cut has a direction.
    #[test]
    fn cuts_are_one_way() {
        let mut net = net(0);
        net.set_cut(A, B, true);
        assert_eq!(net.send(0, A, B), [None, None]);
        assert!(net.send(0, B, A)[0].is_some());
        net.heal();
        assert!(net.send(0, A, B)[0].is_some());
    }
}
