//! What clients act on: the simulated cluster, or real processes.
//!
//! The workload generator ([`crate::client`]) and the referee ([`crate::referee`]) know nothing of
//! how a call travels. Here it goes through the simulated network; the tests of `holm-node`
//! implement the same trait over real connections to real processes, so that one generator and one
//! referee serve both.

use holm_core::layout::Layout;
use holm_protocol::ids::NodeId;
use holm_protocol::message::Request;

use crate::cluster::{CallId, Cluster, LWW, SIBLINGS};
use crate::history::KeyId;
use crate::referee::Referee;

/// A running cluster as its clients see it, and the referee that hears what they are told.
pub trait World {
    /// The time, microseconds since the run began.
    fn now_us(&self) -> u64;

    /// The layout.
    fn layout(&self) -> &Layout;

    /// The referee.
    fn referee(&self) -> &Referee;

    /// The referee, to be told what clients do.
    fn referee_mut(&mut self) -> &mut Referee;

    /// Names a key of a workload, in the bucket that keeps siblings or in the one in which the last
    /// writer wins.
    fn add_key(&mut self, name: String, is_lww: bool) -> KeyId;

    /// How often a node was started: a request is remembered by one run of one node.
    fn run_of(&self, node: NodeId) -> u32;

    /// Whether a node runs and holds what it has promised, as far as is known.
    fn is_whole(&self, node: NodeId) -> bool;

    /// The most that a client's message takes one way, microseconds.
    fn longest_client_delay(&self) -> u64;

    /// Calls a node for a client in a region. `repeated` counts earlier tries of the same request.
    /// The call's end is told to [`crate::client::Client::on_answer`].
    fn call(&mut self, who: (u64, usize), node: NodeId, request: Request, repeated: u32) -> CallId;

    /// A client stops waiting for a call.
    fn give_up(&mut self, call: CallId);
}

impl World for Cluster {
    fn now_us(&self) -> u64 {
        Cluster::now_us(self)
    }

    fn layout(&self) -> &Layout {
        Cluster::layout(self)
    }

    fn referee(&self) -> &Referee {
        Cluster::referee(self)
    }

    fn referee_mut(&mut self) -> &mut Referee {
        Cluster::referee_mut(self)
    }

    fn add_key(&mut self, name: String, is_lww: bool) -> KeyId {
        let bucket = if is_lww { LWW } else { SIBLINGS };
        Cluster::referee_mut(self).add_key(bucket, name.into(), is_lww)
    }

    fn run_of(&self, node: NodeId) -> u32 {
        Cluster::run_of(self, node)
    }

    fn is_whole(&self, node: NodeId) -> bool {
        Cluster::is_whole(self, node)
    }

    fn longest_client_delay(&self) -> u64 {
        Cluster::longest_client_delay(self)
    }

    fn call(&mut self, who: (u64, usize), node: NodeId, request: Request, repeated: u32) -> CallId {
        Cluster::call(self, who, node, request, repeated)
    }

    fn give_up(&mut self, call: CallId) {
        Cluster::give_up(self, call);
    }
}
