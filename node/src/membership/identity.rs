//! Who a member is.
//!
//! A node is its id. Which of its starts is meant is the [`Epoch`]: a node that restarts takes the
//! next one and so outranks whatever is still being said of the one before. A node that is called
//! down and is not renews within its start, because nobody takes back a "down" (SWIM).
//!
//! Where a node listens is no part of who it is: it does not know that itself, behind a wildcard
//! address. Whoever hears it on a connection does, and passes it on. Its region is what the layout
//! says.

use std::net::SocketAddr;

use holm_protocol::admin::Epoch;
use holm_protocol::ids::NodeId;

/// The highest boot number that is taken from others: beyond any count of starts, and far enough
/// from the end that a node which outranks it has room.
pub const BOOT_MAX: u64 = 1 << 48;

/// See the module's head. Two are equal if they are the same start of the same node.
#[derive(Debug, Clone, Copy)]
pub struct MemberId {
    /// The node.
    pub node: NodeId,
    /// Which start of it.
    pub epoch: Epoch,
    /// Where it was heard from, if anybody knows.
    pub addr: Option<SocketAddr>,
    /// Whether it has said that it stops. Only ever passed on together with "down".
    pub left: bool,
}

impl MemberId {
    /// A start of a node of which nothing else is known.
    #[must_use]
    pub fn new(node: NodeId, epoch: Epoch) -> MemberId {
        MemberId { node, epoch, addr: None, left: false }
    }
}

impl PartialEq for MemberId {
    fn eq(&self, other: &MemberId) -> bool {
        (self.node, self.epoch) == (other.node, other.epoch)
    }
}

impl Eq for MemberId {}

impl foca::Identity for MemberId {
    type Addr = NodeId;

    fn renew(&self) -> Option<MemberId> {
        let Epoch { boot, renewal } = self.epoch;
        Some(MemberId::new(self.node, Epoch { boot, renewal: renewal.checked_add(1)? }))
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &MemberId) -> bool {
        self.epoch > adversary.epoch
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity;

    use super::*;

    /// Goal: a renewed identity outranks the one before, and the next start outranks both, however
    /// often that one was renewed; otherwise nobody would notice a restart.
    #[test]
    fn later_starts_and_renewals_win() {
        let first = MemberId::new(NodeId(1), Epoch { boot: 4, renewal: 0 });
        let renewed = first.renew().unwrap();
        let restarted = MemberId::new(NodeId(1), Epoch { boot: 5, renewal: 0 });
        assert!(renewed.win_addr_conflict(&first) && !first.win_addr_conflict(&renewed));
        assert!(restarted.win_addr_conflict(&renewed) && !first.win_addr_conflict(&first));
        assert_ne!(first, renewed);
        let elsewhere = MemberId { addr: Some("10.0.0.1:7400".parse().unwrap()), ..first };
        assert_eq!(first, elsewhere, "the address is no part of who it is");
    }
}
