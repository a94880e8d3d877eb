//! Kinds of faults, single faults, and which of them a plan has.

use holm_protocol::ids::NodeId;

use crate::trace::Digest;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Messages vanish.
    Loss,
    /// Messages come twice.
    Duplicate,
    /// Messages overtake each other.
    Reorder,
    /// Answers to clients vanish.
    ReplyLoss,
    /// A link is cut in both directions.
    Cut,
    /// A link is cut in one direction.
    OneWayCut,
    /// A region is cut off.
    RegionCut,
    /// A process is killed.
    Kill,
    /// A process dies between commit and acknowledgement.
    DieInCommit,
    /// A node loses power.
    PowerCut,
    /// A node's disk is replaced by an empty one.
    Wipe,
    /// A process is stopped for a while.
    Pause,
    /// A disk is slow.
    SlowDisk,
    /// A disk is full.
    FullDisk,
    /// Commits fail.
    CommitError,
    /// Reads fail.
    ReadError,
    /// Objects are damaged.
    Damage,
    /// A wall clock is off by up to two seconds.
    Skew,
    /// Some nodes are cut off from some others, while the rest reaches both: in both directions,
    /// or in one.
    PartialCut,
    /// A process is slow: whatever comes in waits.
    SlowNode,
    /// All nodes lose power at once.
    Blackout,
    /// Power fails while a batch is being written: half of it is on the disk.
    TornWrite,
    /// A disk is replaced by an older copy of itself.
    Restore,
    /// A disk is replaced by a copy of another node's.
    Clone,
    /// A wall clock jumps by up to an hour, to one side, to the other, and back.
    ClockJump,
    /// A wall clock runs fast or slow.
    Drift,
    /// Membership takes a node that lives for dead: at all others, or at one.
    Doubt,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 27] = [
        FaultKind::Loss,
        FaultKind::Duplicate,
        FaultKind::Reorder,
        FaultKind::ReplyLoss,
        FaultKind::Cut,
        FaultKind::OneWayCut,
        FaultKind::RegionCut,
        FaultKind::Kill,
        FaultKind::DieInCommit,
        FaultKind::PowerCut,
        FaultKind::Wipe,
        FaultKind::Pause,
        FaultKind::SlowDisk,
        FaultKind::FullDisk,
        FaultKind::CommitError,
        FaultKind::ReadError,
        FaultKind::Damage,
        FaultKind::Skew,
        FaultKind::PartialCut,
        FaultKind::SlowNode,
        FaultKind::Blackout,
        FaultKind::TornWrite,
        FaultKind::Restore,
        FaultKind::Clone,
        FaultKind::ClockJump,
        FaultKind::Drift,
        FaultKind::Doubt,
    ];

    /// How many pairs of different kinds there are.
    pub const PAIRS: usize = FaultKind::ALL.len() * (FaultKind::ALL.len() - 1) / 2;

    /// The pairs, numbered round and round.
    #[must_use]
    pub fn pair(number: u64) -> (FaultKind, FaultKind) {
        let mut left = number as usize % FaultKind::PAIRS;
        let mut first = 0;
        // Row by row: the first kind has a partner in each later one.
        while left >= FaultKind::ALL.len() - 1 - first {
            left -= FaultKind::ALL.len() - 1 - first;
            first += 1;
        }
        (FaultKind::ALL[first], FaultKind::ALL[first + 1 + left])
    }

    /// Whether it takes two nodes.
    #[must_use]
    pub fn takes_two(self) -> bool {
        use FaultKind as K;
        matches!(self, K::Cut | K::OneWayCut | K::PartialCut | K::Clone | K::Doubt)
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, simulated microseconds.
    pub at_us: u64,
    /// How long it lasts.
    pub for_us: u64,
    /// What it is.
    pub kind: FaultKind,
    /// Whom it strikes.
    pub node: NodeId,
    /// Whom else, where it takes two.
    pub other: NodeId,
    /// How bad it is, 1 to 100.
    pub strength: u32,
}

impl Fault {
    /// Who cannot reach whom in a partial cut: `node` is on one side, `other` on the other, the
    /// rest on either or on none, as the strength decides.
    #[must_use]
    pub fn sides(&self, nodes: impl Iterator<Item = NodeId>) -> (Vec<NodeId>, Vec<NodeId>) {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for node in nodes {
            let mut digest = Digest::new();
            [node.0, self.strength.into()].into_iter().for_each(|word| digest.word(word));
            match (node == self.node, node == self.other, (digest.value() >> 32) % 3) {
                (true, ..) | (false, false, 0) => one.push(node),
                (_, true, _) | (_, _, 1) => two.push(node),
                _ => {}
            }
        }
        (one, two)
    }

    /// Whether a partial cut is one in both directions.
    #[must_use]
    pub fn is_both_ways(&self) -> bool {
        self.strength.is_multiple_of(2)
    }

    /// Who doubts the node, of these.
    #[must_use]
    pub fn doubters(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let is_one = self.strength.is_multiple_of(2);
        nodes.filter(|&id| id != self.node && (!is_one || id == self.other)).collect()
    }

    /// How far a clock jumps, milliseconds: up to an hour, mostly much less, to either side.
    #[must_use]
    pub fn jump_ms(&self) -> i64 {
        let far = i64::from(self.strength).pow(3) * 3_600 / 1_000;
        if self.is_both_ways() { far } else { -far }
    }

    /// When a disk's copy was made that is put back at `at_us`.
    #[must_use]
    pub fn copied_us(&self) -> u64 {
        self.at_us - self.at_us * u64::from(self.strength) / 100
    }

    /// Whether two faults last at the same time at some moment.
    #[must_use]
    pub fn overlaps(&self, other: &Fault) -> bool {
        self.at_us < other.at_us + other.for_us && other.at_us < self.at_us + self.for_us
    }
}

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// None.
    Calm,
    /// A random subset.
    Swarm,
    /// One kind.
    Nemesis(FaultKind),
    /// Two kinds, one while the other lasts.
    Pair(FaultKind, FaultKind),
}

impl Mode {
    /// The mode of a seed. The kinds are dealt out in turn, so that few seeds have them all: each
    /// pair meets within [`Mode::ROUND`] seeds from anywhere.
    #[must_use]
    pub fn of_seed(seed: u64) -> Mode {
        let (round, turn) = (seed / Mode::TURNS, seed % Mode::TURNS);
        match turn {
            0 => Mode::Calm,
            1..=3 => {
                let (one, other) = FaultKind::pair(round * 3 + turn - 1);
                Mode::Pair(one, other)
            }
            4..=5 => {
                let number = (round * 2 + turn - 4) as usize;
                Mode::Nemesis(FaultKind::ALL[number % FaultKind::ALL.len()])
            }
            _ => Mode::Swarm,
        }
    }

    /// Seeds of one deal.
    const TURNS: u64 = 8;
    /// Seeds in a row that have every pair of kinds, and so every kind.
    pub const ROUND: u64 = (FaultKind::PAIRS as u64).div_ceil(3) * Mode::TURNS + Mode::TURNS;

    /// The kinds that a plan of this mode must have; a swarm decides for itself.
    #[must_use]
    pub fn kinds(self) -> Vec<FaultKind> {
        match self {
            Mode::Calm | Mode::Swarm => Vec::new(),
            Mode::Nemesis(kind) => vec![kind],
            Mode::Pair(one, other) => vec![one, other],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: numbers give each pair of different kinds once in a round. Method: all numbers.
    #[test]
    fn pairs_are_all_pairs() {
        let pairs: BTreeSet<_> = (0..FaultKind::PAIRS as u64).map(FaultKind::pair).collect();
        assert_eq!(pairs.len(), FaultKind::PAIRS);
        assert!(pairs.iter().all(|(one, other)| one < other));
        assert_eq!(FaultKind::pair(FaultKind::PAIRS as u64), FaultKind::pair(0));
    }

    /// Goal: a partial cut has two sides that share nobody, and leaves somebody who reaches both in
    /// some cuts. Method: all strengths over nine nodes.
    #[test]
    fn sides_are_apart() {
        let mut bridges = 0;
        for strength in 1..=100 {
            let (node, other, kind) = (NodeId(2), NodeId(7), FaultKind::PartialCut);
            let fault = Fault { at_us: 0, for_us: 1, kind, node, other, strength };
            let (one, two) = fault.sides((1..=9).map(NodeId));
            assert!(one.contains(&node) && two.contains(&other));
            assert!(one.iter().all(|node| !two.contains(node)));
            bridges += usize::from(one.len() + two.len() < 9);
        }
        assert!(bridges > 50, "{bridges}");
    }

    /// Goal: clocks jump by up to an hour, both ways.
    #[test]
    fn jumps_reach_an_hour() {
        let jump = |strength| {
            let (node, other, kind) = (NodeId(1), NodeId(1), FaultKind::ClockJump);
            Fault { at_us: 0, for_us: 1, kind, node, other, strength }.jump_ms()
        };
        assert_eq!((jump(100), jump(99)), (3_600_000, -3_493_076));
        assert!((1..=100).all(|strength| jump(strength) != 0));
    }
}
