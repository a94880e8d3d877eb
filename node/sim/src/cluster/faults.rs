//! What can be done to a cluster.

use holm_core::shard::event::Input;
use holm_core::store::Table;
use holm_protocol::ids::NodeId;
use rand::RngExt;

use super::Cluster;
use super::queue::Event;
use crate::net::Weather;
use crate::store::StoreFaults;

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

    /// Cuts these nodes off from those, in one direction or in both, or connects them again.
    pub fn set_partial_cut(
        &mut self,
        (from, to): (&[NodeId], &[NodeId]),
        (cut, both): (bool, bool),
    ) {
        for &one in from {
            for &other in to {
                self.net.set_cut(one, other, cut);
                if both {
                    self.net.set_cut(other, one, cut);
                }
                self.link_changes(one, other);
            }
        }
        let what = if cut { "cut" } else { "mended" };
        let arrow = if both { "<->" } else { "->" };
        self.note(format!("{} {arrow} {} {what}", names(from), names(to)));
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
        let mut rng = self.chance("power cut", id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let batches = node.store.volatile();
        let keep = if rng.random() { 0 } else { rng.random_range(0..=batches) };
        self.tally.kills += 1;
        self.lose_batches(id, keep);
    }

    fn lose_batches(&mut self, id: NodeId, keep: usize) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let batches = node.store.volatile();
        let lost = node.store.power_cut(keep);
        let is_allowed = !node.store.faults().syncs_lie;
        self.tally.batches_lost += (batches - keep) as u64;
        if is_allowed {
            self.referee.lost(id, &lost, &node.store);
        }
        self.note(format!("{id} loses power and {} batches", batches - keep));
    }

    /// A node loses power in the middle of its next commit.
    pub fn tear_next_commit(&mut self, id: NodeId) {
        let is_up = self.is_up(id);
        self.set_store_faults(id, |faults| faults.tears = is_up);
    }

    /// Power failed in the middle of a commit. If synced batches are all that is left behind a
    /// torn one, that is where the log ends. If not, what lies behind proves that something is
    /// missing, and the store says so.
    pub(super) fn torn(&mut self, id: NodeId) {
        self.kill(id);
        self.tally.kills += 1;
        self.tally.torn += 1;
        self.note(format!("power of {id} fails in the middle of a commit"));
        let mut rng = self.chance("torn", id);
        let batches = self.nodes.get(&id).map_or(0, |node| node.store.volatile());
        let keep = rng.random_range(0..=batches);
        self.lose_batches(id, keep);
        if keep < batches && rng.random() && self.may_forget(id) {
            self.tally.holes += 1;
            self.forget(id);
            self.note(format!("records in the log of {id} are missing"));
        }
    }

    /// Whether somebody is left who remembers, if this node does not: what the only replica forgets is lost.
    pub(super) fn may_forget(&self, id: NodeId) -> bool {
        let others = self.nodes.values().filter(|node| node.id != id);
        self.setup.shape.replicas() > 1
            && others.into_iter().all(|node| !node.amnesia && !node.is_older)
    }

    fn forget(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.amnesia = true;
            self.referee.forgets(id, self.now_us);
        }
    }

    /// A node dies at its next commit: the disk has it and nobody hears of it.
    pub fn die_in_commit(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.dies_in_commit = node.is_up;
        }
    }

    /// A dead node's disk is replaced by an empty one. It knows that it has lost its memory.
    pub fn wipe(&mut self, id: NodeId) {
        let is_safe = self.may_forget(id);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.is_up && is_safe) else {
            return;
        };
        let lost = node.store.replace(None);
        self.referee.lost(id, &lost, &node.store);
        self.forget(id);
        self.tally.wipes += 1;
        self.watch_disk(id, None);
        self.note(format!("{id} gets an empty disk"));
    }

    /// Copies a node's disk, to be put back later.
    pub fn copy_disk(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.copy = Some((node.store.copy(), node.amnesia));
            self.note(format!("disk of {id} is copied"));
            self.watch_copy(id);
        }
    }

    /// A dead node's disk is replaced by its copy, if there is one. The node cannot tell: nothing
    /// on the disk says that there was more. Not while another has an older disk: one peer can tell of one
    /// at a time.
    pub fn restore_disk(&mut self, id: NodeId) {
        let is_safe = self.may_forget(id);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.is_up && is_safe) else {
            return;
        };
        let Some((copy, amnesia)) = &node.copy else { return };
        let (lost, amnesia) = (node.store.replace(Some(copy)), *amnesia);
        (node.amnesia, node.is_older) = (amnesia, true);
        node.disk_actor = Some(node.actor);
        self.tally.restored += u64::from(!lost.is_empty());
        self.referee.lost(id, &lost, &node.store);
        self.referee.comes_back(id, amnesia, self.now_us);
        self.watch_disk(id, Some(id));
        self.note(format!("disk of {id} is set back, {} rows are gone", lost.len()));
    }

    /// A dead node's disk is replaced by a copy of what another's holds now. The node cannot tell:
    /// whoever did it has written its name on the copy. As with older disks, one at a time.
    pub fn clone_disk(&mut self, id: NodeId, from: NodeId) {
        let is_safe = self.may_forget(id);
        let Some(original) = self.nodes.get(&from).filter(|_| from != id) else { return };
        let (copy, amnesia) = (original.store.copy(), original.amnesia);
        let actor = original.actor;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.is_up && is_safe) else {
            return;
        };
        let lost = node.store.replace(Some(&copy));
        (node.amnesia, node.is_older) = (amnesia, true);
        node.disk_actor = Some(actor);
        self.tally.cloned += u64::from(!lost.is_empty());
        self.referee.lost(id, &lost, &node.store);
        self.referee.comes_back(id, amnesia, self.now_us);
        self.watch_copy(from);
        self.watch_disk(id, Some(from));
        self.note(format!(
            "disk of {id} is a copy of that of {from}, {} rows are gone",
            lost.len()
        ));
    }

    /// Starts a dead node.
    pub fn restart(&mut self, id: NodeId) {
        if !self.is_up(id) && !self.buried.contains(&id) {
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
            node.note_slowness(now_us);
            self.note(format!("disk of {id} takes {slowness} times as long"));
        }
    }

    /// Makes a process wait this long before it looks at what has come in; 0 is usual.
    pub fn slow_node(&mut self, id: NodeId, lag_us: u64) {
        let now_us = self.now_us;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lag_us = lag_us;
            node.note_slowness(now_us);
            self.note(format!("{id} is slow by {lag_us} us"));
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
        let mut rng = self.chance("damage", id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let keys: Vec<Vec<u8>> =
            node.store.rows(Table::Objects).map(|(key, _)| key.to_vec()).collect();
        for key in &keys {
            if rng.random() {
                node.store.damage(Table::Objects, key);
            }
        }
        self.note(format!("objects of {id} are damaged"));
    }

    /// A node's membership takes another for dead, or for alive again. What it thought ends with a run.
    pub fn set_doubted(&mut self, by: NodeId, node: NodeId, doubted: bool) {
        if !self.is_up(by) {
            return;
        }
        self.tally.doubted += u64::from(doubted);
        self.note(format!("{by} {} {node}", if doubted { "doubts" } else { "trusts" }));
        self.tell_shards(by, || Input::PeerDoubted(node, doubted));
    }

    /// Sets a node's wall clock this far from the truth.
    pub fn set_skew(&mut self, id: NodeId, skew_ms: i64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            self.tally.clock_jumps += u64::from(node.clock.skew_ms != skew_ms);
            node.clock.skew_ms = skew_ms;
            self.note(format!("clock of {id} is off by {skew_ms} ms"));
        }
    }

    /// Makes a node's wall clock run this many percent fast, or slow. With 0 it goes right again,
    /// and is set right.
    pub fn set_drift(&mut self, id: NodeId, percent: i64) {
        let now_us = self.now_us;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.clock.set_drift(percent, now_us);
            self.note(format!("clock of {id} runs {percent} percent fast"));
        }
    }

    /// Lets everybody's wall clock go on, with nothing else happening, until it has passed what the
    /// fastest one ever showed.
    pub fn outwait_fast_clocks(&mut self) {
        let ahead = self.nodes.values().map(|node| node.clock.ahead_max_ms).max().unwrap_or(0);
        if ahead > 0 {
            self.note(format!("{ahead} ms pass on all clocks"));
        }
        self.nodes.values_mut().for_each(|node| node.clock.skew_ms += ahead);
    }

    /// Ends all faults: links are mended, disks healed, clocks set, dead nodes started.
    pub fn heal(&mut self) {
        self.note("all faults end".to_owned());
        self.net.heal();
        self.replies_lost = 0;
        let ids: Vec<NodeId> = self.node_ids().collect();
        for id in ids {
            let now_us = self.now_us;
            if let Some(node) = self.nodes.get_mut(&id) {
                node.store.heal();
                node.clock.skew_ms = 0;
                node.clock.set_drift(0, now_us);
                node.dies_in_commit = false;
                node.paused_until_us = node.paused_until_us.min(now_us);
                if node.slowness > 1 || node.lag_us > 0 {
                    (node.slowness, node.lag_us) = (1, 0);
                    node.note_slowness(now_us);
                }
            }
            self.restart(id);
            self.links_change(id);
        }
    }
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
