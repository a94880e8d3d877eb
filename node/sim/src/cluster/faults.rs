//! What can be done to a cluster, and how often it had an effect.

use holm_core::store::Table;
use holm_protocol::ids::NodeId;
use rand::RngExt;

use super::Cluster;
use super::queue::Event;
use crate::net::{NetTally, Weather};
use crate::store::{StoreFaults, StoreTally};

/// How often each fault had an effect: a knob that turns nothing is a bug of the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultTally {
    /// Messages that vanished.
    pub lost: u64,
    /// Messages that came twice.
    pub duplicated: u64,
    /// Messages that were held up.
    pub reordered: u64,
    /// Messages that a cut dropped.
    pub cut: u64,
    /// Answers to clients that vanished.
    pub replies_lost: u64,
    /// Processes killed.
    pub kills: u64,
    /// Processes killed between a commit and its acknowledgements.
    pub died_in_commit: u64,
    /// Batches lost in power cuts.
    pub batches_lost: u64,
    /// Disks replaced by empty ones.
    pub wipes: u64,
    /// Batches put off because the process was stopped.
    pub put_off: u64,
    /// Times that a disk became slow.
    pub slow_disks: u64,
    /// Writes refused for lack of space.
    pub full: u64,
    /// Shards that took up writing again after a full disk.
    pub resumed: u64,
    /// Commits that failed with an I/O error.
    pub commits_failed: u64,
    /// Reads that failed with an I/O error.
    pub reads_failed: u64,
    /// Damaged values that were read.
    pub damaged_reads: u64,
    /// Wall clocks that jumped.
    pub clock_jumps: u64,
}

impl FaultTally {
    /// Names and numbers, in one order.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, u64); 17] {
        [
            ("messages lost", self.lost),
            ("messages doubled", self.duplicated),
            ("messages held up", self.reordered),
            ("messages cut off", self.cut),
            ("answers lost", self.replies_lost),
            ("kills", self.kills),
            ("deaths in a commit", self.died_in_commit),
            ("batches lost in power cuts", self.batches_lost),
            ("disks wiped", self.wipes),
            ("batches put off by pauses", self.put_off),
            ("slow disks", self.slow_disks),
            ("refusals of full disks", self.full),
            ("resumptions after full disks", self.resumed),
            ("commits failed", self.commits_failed),
            ("reads failed", self.reads_failed),
            ("damaged values read", self.damaged_reads),
            ("clock jumps", self.clock_jumps),
        ]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &FaultTally) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.cut += other.cut;
        self.replies_lost += other.replies_lost;
        self.kills += other.kills;
        self.died_in_commit += other.died_in_commit;
        self.batches_lost += other.batches_lost;
        self.wipes += other.wipes;
        self.put_off += other.put_off;
        self.slow_disks += other.slow_disks;
        self.full += other.full;
        self.resumed += other.resumed;
        self.commits_failed += other.commits_failed;
        self.reads_failed += other.reads_failed;
        self.damaged_reads += other.damaged_reads;
        self.clock_jumps += other.clock_jumps;
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
        self.reads_failed += store.reads_failed;
        self.damaged_reads += store.damaged_reads;
    }
}

impl Cluster {
    /// Changes what happens to messages between nodes.
    pub fn set_weather(&mut self, change: impl FnOnce(&mut Weather)) {
        let mut weather = self.net.weather();
        change(&mut weather);
        self.net.set_weather(weather);
    }

    /// Loses this many thousandths of the answers to clients.
    pub fn lose_replies(&mut self, per_mille: u32) {
        self.replies_lost = per_mille;
    }

    /// Cuts or mends a link, in one direction or in both.
    pub fn set_cut(&mut self, one: NodeId, other: NodeId, (cut, both): (bool, bool)) {
        let what = if cut { "cut" } else { "mended" };
        let arrow = if both { "<->" } else { "->" };
        self.note(format!("{one} {arrow} {other} {what}"));
        self.net.set_cut(one, other, cut);
        if both {
            self.net.set_cut(other, one, cut);
        }
        self.link_changes(one, other);
    }

    /// Cuts a region off from the others, or connects it again.
    pub fn set_region_cut(&mut self, region: usize, cut: bool) {
        let (inside, outside): (Vec<NodeId>, Vec<NodeId>) =
            self.node_ids().partition(|&id| self.region_of(id) == region);
        for &inside in &inside {
            for &outside in &outside {
                self.net.set_cut(inside, outside, cut);
                self.net.set_cut(outside, inside, cut);
                self.link_changes(inside, outside);
            }
        }
        self.note(format!(
            "region {region} is {}",
            if cut { "cut off" } else { "connected again" }
        ));
    }

    /// Kills a process. What it committed stays.
    pub fn crash(&mut self, node: NodeId) {
        if self.is_up(node) {
            self.tally.kills += 1;
            self.note(format!("{node} is killed"));
            self.kill(node);
        }
    }

    /// A node loses power: what was not synced is gone, all of it or its newest part.
    pub fn power_cut(&mut self, id: NodeId) {
        if !self.is_up(id) {
            return;
        }
        self.kill(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let batches = node.store.volatile();
        let keep = if self.rng.random() { 0 } else { self.rng.random_range(0..=batches) };
        let lost = node.store.power_cut(keep);
        let is_allowed = !node.store.faults().syncs_lie;
        self.tally.kills += 1;
        self.tally.batches_lost += (batches - keep) as u64;
        if is_allowed {
            self.referee.lost(id, &lost);
        }
        self.note(format!("{id} loses power and {} batches", batches - keep));
    }

    /// A node dies at its next commit: the disk has it and nobody hears of it.
    pub fn die_in_commit(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.dies_in_commit = node.is_up;
        }
    }

    /// A dead node's disk is replaced by an empty one. It knows that it has lost its memory.
    pub fn wipe(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.is_up) else { return };
        let lost = node.store.wipe();
        node.amnesia = true;
        self.tally.wipes += 1;
        self.referee.lost(id, &lost);
        self.referee.forgets(id, self.now_us);
        self.note(format!("{id} gets an empty disk"));
    }

    /// Starts a dead node.
    pub fn restart(&mut self, id: NodeId) {
        if !self.is_up(id) {
            self.queue.plan(self.now_us, Event::Boot { node: id });
        }
    }

    /// Stops a process, as SIGSTOP does.
    pub fn pause(&mut self, id: NodeId, until_us: u64) {
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_up) {
            node.paused_until_us = node.paused_until_us.max(until_us);
            node.disturbed_us = node.disturbed_us.max(until_us);
            self.note(format!("{id} is paused"));
        }
    }

    /// Makes a disk this many times slower; 1 is usual.
    pub fn slow_disk(&mut self, id: NodeId, slowness: u64) {
        let now_us = self.now_us;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.slowness = slowness;
            node.disturbed_us = match slowness {
                0 | 1 => now_us.max(node.paused_until_us),
                _ => u64::MAX,
            };
            self.tally.slow_disks += u64::from(slowness > 1);
            self.note(format!("disk of {id} takes {slowness} times as long"));
        }
    }

    /// Leaves this much room on a disk, or all there will be.
    pub fn set_free(&mut self, id: NodeId, free_bytes: Option<usize>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.store.set_free(free_bytes);
            let room = if free_bytes.is_some() { "fills up" } else { "has room again" };
            self.note(format!("disk of {id} {room}"));
        }
    }

    /// Changes what is wrong with a disk.
    pub fn set_store_faults(&mut self, id: NodeId, change: impl FnOnce(&mut StoreFaults)) {
        if let Some(node) = self.nodes.get_mut(&id) {
            let mut faults = node.store.faults();
            change(&mut faults);
            node.store.set_faults(faults);
            if self.now_us > 0 {
                self.note(format!("disk of {id}: {faults:?}"));
            }
        }
    }

    /// Damages some of a disk's objects.
    pub fn damage(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let keys: Vec<Vec<u8>> =
            node.store.rows(Table::Objects).map(|(key, _)| key.to_vec()).collect();
        for key in &keys {
            if self.rng.random() {
                node.store.damage(Table::Objects, key);
            }
        }
        self.note(format!("objects of {id} are damaged"));
    }

    /// Sets a node's wall clock this far from the truth.
    pub fn set_skew(&mut self, id: NodeId, skew_ms: i64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            self.tally.clock_jumps += u64::from(node.skew_ms != skew_ms);
            node.skew_ms = skew_ms;
            self.note(format!("clock of {id} is off by {skew_ms} ms"));
        }
    }

    /// Ends all faults: links are mended, disks healed, clocks set, dead nodes started.
    pub fn heal(&mut self) {
        self.note("all faults end".to_owned());
        self.net.heal();
        self.replies_lost = 0;
        let ids: Vec<NodeId> = self.node_ids().collect();
        for &id in &ids {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.store.heal();
                node.skew_ms = 0;
                node.dies_in_commit = false;
                node.paused_until_us = node.paused_until_us.min(self.now_us);
                if node.slowness > 1 {
                    node.slowness = 1;
                    node.disturbed_us = self.now_us;
                }
            }
            self.restart(id);
            self.links_change(id);
        }
    }
}
