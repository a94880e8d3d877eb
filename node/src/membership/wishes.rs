//! What foca wants done, gathered for the driver.

use std::time::Duration;

use bytes::Bytes;
use foca::{Notification, Timer};
use holm_protocol::ids::NodeId;

use super::identity::MemberId;
use super::wire::Datagram;

/// Sends, timers and notifications, until the driver takes them.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) sends: Vec<(NodeId, Bytes)>,
    pub(super) timers: Vec<(Duration, Timer<MemberId>)>,
    pub(super) probes_failed: u64,
    pub(super) renewed: bool,
    pub(super) incarnation: u16,
}

impl foca::Runtime<MemberId> for Wishes {
    fn notify(&mut self, notification: Notification<'_, MemberId>) {
        match notification {
            Notification::ProbeFailed(..) => self.probes_failed += 1,
            Notification::Rejoin(_) => self.renewed = true,
            Notification::DataSent(header) => self.incarnation = header.src_incarnation,
            _ => {}
        }
    }

    fn send_to(&mut self, to: MemberId, packet: &[u8]) {
        self.sends.push((to.node, Datagram::Swim(packet).encode().into()));
    }

    fn submit_after(&mut self, timer: Timer<MemberId>, after: Duration) {
        self.timers.push((after, timer));
    }
}
