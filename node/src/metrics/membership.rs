//! What the node thinks of the others, as metrics.

use std::fmt;

use holm_protocol::admin::{BreakerState, MemberState, MembershipStatus, PeerOpinion};

use super::page::{Labels, Page, plain, seconds};
use crate::membership::driver::Counts;

/// Microseconds in a second.
const US_PER_SECOND: f64 = 1e6;

fn peer(opinion: &PeerOpinion) -> Labels {
    vec![("peer", opinion.node.0.to_string())]
}

fn state(state: MemberState) -> Labels {
    vec![("state", state.name().to_owned())]
}

pub(super) fn membership_figures(
    page: &mut Page<'_>,
    status: &MembershipStatus,
    counts: &Counts,
) -> fmt::Result {
    let peers = &status.peers;
    let members = MemberState::ALL.map(|of| {
        let count = peers.iter().filter(|opinion| opinion.state == of).count();
        (state(of), count as u64)
    });
    page.gauges(&plain("members", "Other nodes by what this one thinks of them."), members)?;
    let alive =
        peers.iter().map(|opinion| (peer(opinion), u64::from(opinion.state == MemberState::Alive)));
    page.gauges(&plain("peer_alive", "1 if the node is thought to be alive."), alive)?;
    let open = peers
        .iter()
        .map(|opinion| (peer(opinion), u64::from(opinion.breaker != BreakerState::Closed)));
    let help = "1 if the node is asked last because it did not answer.";
    page.gauges(&plain("peer_breaker_open", help), open)?;
    let clocks = || peers.iter().filter_map(|opinion| Some((peer(opinion), opinion.clock?)));
    let offset = clocks().map(|(peer, clock)| (peer, clock.offset_us as f64 / US_PER_SECOND));
    page.gauges(&seconds("peer_clock_offset", "The node's clock minus this one's."), offset)?;
    let error = clocks().map(|(peer, clock)| (peer, clock.error_us as f64 / US_PER_SECOND));
    page.gauges(&seconds("peer_clock_error", "By how much that may be wrong."), error)?;
    let help = "Which start of the node this is, by its count.";
    page.gauge(&plain("membership_boot", help), status.epoch.boot)?;
    let help = "Suspicions contradicted since the start, or since the last renewal.";
    page.gauge(&plain("membership_incarnation", help), u64::from(status.incarnation))?;
    let changes = MemberState::ALL.into_iter().zip(counts.changes);
    let changes = changes.map(|(to, count)| (state(to), count));
    page.counters(&plain("membership_changes", "Opinions changed, by what to."), changes)?;
    let help = "Probes of nodes that were not answered, neither directly nor through others.";
    page.counter(&plain("membership_probes_failed", help), counts.probes_failed)?;
    let help = "Times that this node outranked what others thought of it.";
    page.counter(&plain("membership_renewals", help), counts.renewals)?;
    let refused =
        [("malformed", counts.malformed), ("forged", counts.forged), ("crowded", counts.crowded)];
    let refused = refused.map(|(why, count)| (vec![("reason", why.to_owned())], count));
    page.counters(&plain("membership_refused", "Datagrams of nodes that were refused."), refused)
}
