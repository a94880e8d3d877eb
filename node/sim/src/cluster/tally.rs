//! How often each fault had an effect: a knob that turns nothing is a bug of the simulator.

use crate::net::NetTally;
use crate::plan::FaultKind;
use crate::store::StoreTally;

/// Declares the tally: its fields, the words for them, sums.
macro_rules! tally {
    ($($(#[doc = $doc:literal])* $field:ident: $words:literal,)*) => {
        /// How often each fault had an effect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct FaultTally {
            $($(#[doc = $doc])* pub $field: u64,)*
        }

        impl FaultTally {
            /// Words and numbers, always in the same order.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$(($words, self.$field)),*]
            }

            /// Adds another run's.
            pub fn add(&mut self, other: &FaultTally) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

tally! {
    /// Messages that vanished.
    lost: "messages lost",
    /// Messages that came twice.
    duplicated: "messages doubled",
    /// Messages that were held up.
    reordered: "messages held up",
    /// Messages that a cut dropped.
    cut: "messages cut off",
    /// Ends of connections that were given up because of a cut.
    links_lost: "connections cut off",
    /// Answers to clients that vanished.
    replies_lost: "answers lost",
    /// Processes killed, power cuts included.
    kills: "kills",
    /// Processes killed between a commit and its acknowledgements.
    died_in_commit: "deaths in a commit",
    /// Batches lost in power cuts.
    batches_lost: "batches lost in power cuts",
    /// Batches that were half on the disk when power failed.
    torn: "batches torn",
    /// Stores that found records missing after a power cut, and said so.
    holes: "stores with holes",
    /// Disks replaced by empty ones.
    wipes: "disks wiped",
    /// Nodes that had lost something and took it from others.
    healed: "nodes healed",
    /// Disks that lost something by being replaced with an older copy of themselves.
    restored: "disks set back",
    /// Disks replaced by a copy of another node's that differed.
    cloned: "disks cloned",
    /// Batches put off because the process was stopped.
    put_off: "batches put off by pauses",
    /// Inputs that waited because the process was slow.
    slow_inputs: "inputs slowed",
    /// Commits that took longer because the disk was slow.
    slow_commits: "commits slowed",
    /// Writes refused for lack of space.
    full: "refusals of full disks",
    /// Shards that took up writing again after a full disk.
    resumed: "resumptions after full disks",
    /// Commits that failed with an I/O error.
    commits_failed: "commits failed",
    /// Those of them whose batch could be read all the same.
    failed_shown: "failed commits that could be read",
    /// Reads that failed with an I/O error.
    reads_failed: "reads failed",
    /// Damaged values that were read.
    damaged_reads: "damaged values read",
    /// Wall clocks that jumped.
    clock_jumps: "clock jumps",
    /// Batches handled by a wall clock that was off.
    skewed: "batches under wrong clocks",
    /// Batches handled by a wall clock that was more than a minute off.
    far_skewed: "batches under clocks far off",
    /// Batches handled by a wall clock that ran fast or slow.
    drifted: "batches under drifting clocks",
    /// Times that a running node was told to doubt another.
    doubted: "nodes doubted",
}

impl FaultTally {
    /// How often faults of this kind had their effect, if no other kind struck.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> u64 {
        match kind {
            FaultKind::Loss => self.lost,
            FaultKind::Duplicate => self.duplicated,
            FaultKind::Reorder => self.reordered,
            FaultKind::ReplyLoss => self.replies_lost,
            FaultKind::Cut
            | FaultKind::OneWayCut
            | FaultKind::RegionCut
            | FaultKind::PartialCut => self.cut + self.links_lost,
            FaultKind::Kill => self.kills,
            FaultKind::DieInCommit => self.died_in_commit,
            FaultKind::PowerCut | FaultKind::Blackout => self.batches_lost,
            FaultKind::TornWrite => self.torn,
            FaultKind::Wipe => self.wipes,
            FaultKind::Restore => self.restored,
            FaultKind::Clone => self.cloned,
            FaultKind::Pause => self.put_off,
            FaultKind::SlowNode => self.slow_inputs,
            FaultKind::SlowDisk => self.slow_commits,
            FaultKind::FullDisk => self.full.min(self.resumed),
            FaultKind::CommitError => self.commits_failed,
            FaultKind::ReadError => self.reads_failed,
            FaultKind::Damage => self.damaged_reads,
            FaultKind::Skew => self.skewed,
            FaultKind::ClockJump => self.far_skewed,
            FaultKind::Drift => self.drifted,
            FaultKind::Doubt => self.doubted,
        }
    }

    /// Effects of all kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.entries().iter().map(|(_, count)| count).sum()
    }

    pub(super) fn net(&mut self, net: NetTally) {
        self.lost += net.lost;
        self.duplicated += net.duplicated;
        self.reordered += net.reordered;
        self.cut += net.cut;
    }

    pub(super) fn store(&mut self, store: StoreTally) {
        self.full += store.full;
        self.commits_failed += store.commits_failed;
        self.failed_shown += store.failed_shown;
        self.reads_failed += store.reads_failed;
        self.damaged_reads += store.damaged_reads;
    }
}
