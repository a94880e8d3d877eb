//! Every metric there is, by subject. Nothing is computed here: figures are read and named.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holm_core::shard::event::Counters;
use holm_protocol::admin::{NodeStatus, PeerStatus};
use holm_protocol::ids::NodeId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use quinn::PathStats;

use super::consistency::{consistency_figures, violation_figures};
use super::membership::membership_figures;
use super::page::{Labels, Page, bytes, plain, seconds};
use super::{KINDS, LEVELS, OUTCOMES, RequestMetrics, Sources, place, process};
use crate::inbox::Inbox;
use crate::net::counters::NetCounters;
use crate::store::RocksStore;

/// Microseconds in a second, as latencies are observed and shown.
const US_PER_SECOND: f64 = 1e6;

/// One thing a shard counts: name, meaning, and where it is.
type ShardFigure = (&'static str, &'static str, fn(&Counters) -> u64);

/// What only grows.
const SHARD_COUNTERS: [ShardFigure; 51] = [
    ("writes_coordinated", "Dots assigned to client writes.", |c| c.writes_coordinated),
    ("reads_coordinated", "Reads coordinated.", |c| c.reads_coordinated),
    ("objects_joined", "Objects of other nodes joined.", |c| c.objects_joined),
    ("late_siblings_dropped", "Siblings that arrived after they were overwritten.", |c| {
        c.late_siblings_dropped
    }),
    ("read_repairs", "Objects sent to stale replicas after a read.", |c| c.read_repairs),
    ("reads_hedged", "Reads that asked further replicas because of a late answer.", |c| {
        c.reads_hedged
    }),
    ("writes_resent", "Writes sent again to replicas that were silent.", |c| c.writes_resent),
    ("overloads", "Requests refused because too many were in flight.", |c| c.overloads),
    ("proxied", "Requests passed on to another node.", |c| c.proxied),
    ("peer_rejections", "Messages of nodes that make no sense.", |c| c.peer_rejections),
    ("repeated_requests", "Writes answered from the idempotence window.", |c| c.repeated_requests),
    ("lingering_dropped", "Answered writes let go before all replicas had them.", |c| {
        c.lingering_dropped
    }),
    ("hints_kept", "Objects taken for other nodes, as hints.", |c| c.hints_kept),
    ("hints_moved", "Hints for nodes that a layout took out, kept for others instead.", |c| {
        c.hints_moved
    }),
    ("hints_refused", "Hints refused, for lack of room or another reason.", |c| c.hints_refused),
    ("hints_handed_off", "Hints that are home and were deleted here.", |c| c.hints_handed_off),
    ("hints_received", "Hints of other nodes for this one, joined here.", |c| c.hints_received),
    ("handoffs_refused", "Hints that their replicas did not take.", |c| c.handoffs_refused),
    ("handoffs_lost", "Hints that were sent and not answered in time.", |c| c.handoffs_lost),
    ("writes_unhinted", "Writes acknowledged that a replica lacks without a hint: repair.", |c| {
        c.writes_unhinted
    }),
    ("writes_as_fallback", "Writes taken because the region had no replica in reach.", |c| {
        c.writes_as_fallback
    }),
    ("reads_from_hints", "Reads answered from hints.", |c| c.reads_from_hints),
    ("commits_failed", "Commits that failed.", |c| c.commits_failed),
    ("corrupt_objects", "Objects that did not match their checksum.", |c| c.corrupt_objects),
    ("pulses_sent", "Pulses: how far this run has written.", |c| c.pulses_sent),
    ("claims_sent", "Claims of what was seen, repeated ones too.", |c| c.claims_sent),
    ("gap_asks", "Questions to other replicas for writes that are lacking here.", |c| c.gap_asks),
    ("gap_objects_sent", "Objects sent to close gaps of other replicas.", |c| c.gap_objects_sent),
    ("gap_objects_joined", "Objects of other replicas that closed gaps here.", |c| {
        c.gap_objects_joined
    }),
    ("gap_bytes_joined", "Bytes of objects that closed gaps here.", |c| c.gap_bytes_joined),
    (
        "gap_dots_cut",
        "Lacking writes of which a replica's log did not know the keys any more.",
        |c| c.gap_dots_cut,
    ),
    ("tombstones_removed", "Tombstones deleted because every replica has them.", |c| {
        c.tombstones_removed
    }),
    ("contexts_reduced", "Contexts cut to what is alive, in writes of their own.", |c| {
        c.contexts_reduced
    }),
    ("log_entries_forgotten", "Log entries let go because every replica has them.", |c| {
        c.log_entries_forgotten
    }),
    ("runs_frozen", "Ended runs of which this node says what it has.", |c| c.runs_frozen),
    ("runs_closed", "Ended runs of which it is decided what they wrote.", |c| c.runs_closed),
    ("runs_folded", "Ended runs that left the clocks.", |c| c.runs_folded),
    ("ends_refused", "Decisions about ended runs that contradict this disk.", |c| c.ends_refused),
    ("resyncs", "Partitions taken whole from another replica.", |c| c.resyncs),
    ("fell_behind", "Partitions found here to lack what all replicas once had.", |c| c.fell_behind),
    ("compared", "Answers of other replicas that said where they stand.", |c| c.compared),
    ("dead_siblings_dropped", "Objects cut down to what a replica taken whole has.", |c| {
        c.dead_siblings_dropped
    }),
    ("resync_objects", "Objects of such partitions that came.", |c| c.resync_objects),
    ("objects_refetched", "Damaged objects replaced by another replica's.", |c| {
        c.objects_refetched
    }),
    ("verifications_begun", "Partitions that this node began to verify with a replica.", |c| {
        c.verifications_begun
    }),
    ("verifications_done", "Of these, those that found both equal or made them so.", |c| {
        c.verifications_done
    }),
    ("verified_rows", "Rows digested to verify partitions.", |c| c.verified_rows),
    ("verified_keys_differing", "Keys whose digests differed from a replica's.", |c| {
        c.verified_keys_differing
    }),
    ("scans_failed", "Scans for verification that the store could not do.", |c| c.scans_failed),
    ("breaker_trips", "Times that a node was put last for not answering, or kept there.", |c| {
        c.breaker_trips
    }),
    ("breaker_probes", "Requests that tried whether such a node answers again.", |c| {
        c.breaker_probes
    }),
];

/// What is so much now.
const SHARD_GAUGES: [ShardFigure; 14] = [
    ("siblings_max", "Most siblings in one answer since the start.", |c| c.siblings_max),
    ("in_flight", "Client requests in flight.", |c| c.in_flight),
    ("lingering", "Answered writes whose other replicas are awaited.", |c| c.lingering),
    ("hints", "Hints kept for other nodes.", |c| c.hints),
    ("hint_bytes", "Bytes of hints on the disk.", |c| c.hint_bytes),
    ("relays", "Writes being passed on to other replicas of the region.", |c| c.relays),
    ("breakers_open", "Nodes that are put last for not answering.", |c| c.breakers_open),
    ("held_bytes", "Bytes that requests and lingering writes hold.", |c| c.held_bytes),
    ("log_memory_bytes", "Bytes of the dot log's entries in memory.", |c| c.log_bytes),
    ("log_segment_bytes", "Bytes of the dot log's segments on disk.", |c| c.log_segment_bytes),
    ("partitions_in_doubt", "Partitions not answered for: not compared since the start.", |c| {
        c.in_doubt
    }),
    ("partitions_behind", "Partitions not answered for until taken whole.", |c| c.behind),
    ("runs_undecided", "Ended runs of which it is not decided yet what they wrote.", |c| {
        c.runs_undecided
    }),
    ("gap_asks_open", "Questions for lacking writes that are under way.", |c| c.gap_asks_open),
];

/// What a node says of itself, under the prefix `holm`.
#[derive(Debug)]
pub(super) struct NodeCollector {
    pub(super) sources: Sources,
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        let Sources { state, requests, net, inboxes } = &self.sources;
        let status = state.status();
        node(&mut page, &status)?;
        request_figures(&mut page, requests)?;
        let counters = state.counters();
        shard_figures(&mut page, &counters)?;
        violation_figures(&mut page, &counters)?;
        consistency_figures(&mut page, &state.consistency(), requests)?;
        inbox_figures(&mut page, inboxes)?;
        // A handle of its own: a probe that asks for the store must not wait for RocksDB's figures.
        let store = state.store().for_shard();
        store_figures(&mut page, &store)?;
        net_figures(&mut page, net)?;
        peer_figures(&mut page, &status.peers)?;
        path_figures(&mut page, &state.pool.paths())?;
        let counts = state.members.lock().counts();
        membership_figures(&mut page, &state.membership(), &counts)?;
        page.gauge(
            &bytes("peer_queued", "Messages waiting for all other nodes."),
            state.pool.queued_bytes() as u64,
        )
    }
}

fn node(page: &mut Page<'_>, status: &NodeStatus) -> fmt::Result {
    let facts = vec![
        ("version", status.version.clone()),
        ("node", status.node.0.to_string()),
        ("run", status.run.to_string()),
    ];
    page.info(&plain("build", "The software, the node, and its run."), &facts)?;
    let ready = u64::from(status.ready.is_ok());
    page.gauge(&plain("node_ready", "1 if the node serves requests as it should."), ready)?;
    let amnesia = u64::from(status.amnesia);
    page.gauge(&plain("node_amnesia", "1 if the node lost state it once had."), amnesia)?;
    page.gauge(&seconds("node_uptime", "Time since the node started."), status.uptime_s)?;
    page.gauge(&plain("layout_version", "Version of the layout; 0: none."), status.layout_version)?;
    let partitions = u64::from(status.partitions);
    page.gauge(&plain("partitions", "Partitions the node holds a replica of."), partitions)
}

fn request_figures(page: &mut Page<'_>, requests: &RequestMetrics) -> fmt::Result {
    let mut rows = Vec::new();
    for (k, kind) in KINDS.iter().enumerate() {
        for (l, level) in LEVELS.iter().enumerate() {
            for (o, outcome) in OUTCOMES.iter().enumerate() {
                let count = requests.answered(place(k, l, o));
                // Of hundreds of combinations, those that happened, and one for each kind so that
                // there is a zero to start from.
                if count > 0 || (l, o) == (0, 0) {
                    let labels = [("kind", *kind), ("level", *level), ("outcome", *outcome)];
                    rows.push((labels.map(|(name, value)| (name, value.to_owned())).into(), count));
                }
            }
        }
    }
    page.counters(
        &plain("requests", "Requests answered by this node's shards, by the level they named."),
        rows,
    )?;
    let latency = KINDS.iter().zip(&requests.latency).map(|(kind, histogram)| {
        (vec![("kind", (*kind).to_owned())], histogram.snapshot(US_PER_SECOND))
    });
    page.histograms(
        &seconds("request_latency", "From a request's arrival at its shard to its answer."),
        US_PER_SECOND,
        latency,
    )?;
    let siblings = [(Labels::new(), requests.siblings.snapshot(1.0))];
    page.histograms(&plain("answer_siblings", "Siblings in answers to gets."), 1.0, siblings)
}

fn shard_figures(page: &mut Page<'_>, shards: &[Counters]) -> fmt::Result {
    let each = |read: fn(&Counters) -> u64| {
        shards.iter().enumerate().map(move |(shard, counters)| (label(shard), read(counters)))
    };
    for (name, help, read) in SHARD_COUNTERS {
        page.counters(&plain(&format!("shard_{name}"), help), each(read))?;
    }
    for (name, help, read) in SHARD_GAUGES {
        page.gauges(&plain(&format!("shard_{name}"), help), each(read))?;
    }
    let since_ms = shards.iter().map(|counters| counters.hints_since_ms).filter(|&ms| ms > 0).min();
    let help = "Age of the oldest hint, at most; 0: there is none.";
    let age_s = since_ms.map_or(0.0, |since_ms| wall_ms().saturating_sub(since_ms) as f64 / 1e3);
    page.gauge(&seconds("hint_oldest_age", help), age_s)?;
    let help = "Decoded objects kept in memory.";
    page.gauges(&bytes("shard_cache", help), each(|counters| counters.cache_bytes))
}

fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    wall.as_millis() as u64
}

fn inbox_figures(page: &mut Page<'_>, inboxes: &[Arc<Inbox>]) -> fmt::Result {
    let each = |read: fn(&Inbox) -> u64| {
        inboxes.iter().enumerate().map(move |(shard, inbox)| (label(shard), read(inbox)))
    };
    let depth = plain("inbox_depth", "Events waiting in a shard's inbox.");
    page.gauges(&depth, each(|inbox| inbox.depth() as u64))?;
    let limit = plain("inbox_limit", "Requests that may wait in a shard's inbox.");
    page.gauges(&limit, each(|inbox| inbox.requests_max() as u64))?;
    let dropped = plain("inbox_dropped", "Answers of other nodes dropped at a full inbox.");
    page.counters(&dropped, each(Inbox::dropped))
}

fn store_figures(page: &mut Page<'_>, store: &RocksStore) -> fmt::Result {
    let (stats, space, durable) = (store.stats(), store.space(), store.durable());
    let failed = u64::from(store.failure().is_some());
    page.gauge(&bytes("store_memtable", "RocksDB's write buffers."), stats.memtable_bytes)?;
    let help = "RocksDB's shared cache, write buffers included.";
    page.gauge(&bytes("store_cache", help), stats.cache_bytes)?;
    page.gauge(&bytes("store_table", "RocksDB's live tables on disk."), stats.table_bytes)?;
    let help = "What compaction has to rewrite, estimated.";
    page.gauge(&bytes("store_compaction_pending", help), stats.compaction_pending_bytes)?;
    let stopped = u64::from(stats.write_stopped);
    page.gauge(&plain("store_write_stopped", "1 if RocksDB holds all writes back."), stopped)?;
    let help = "Rate to which RocksDB slows writes down, bytes a second; 0: not slowed.";
    page.gauge(&plain("store_write_delayed_rate", help), stats.write_delayed_rate)?;
    let help = "RocksDB's background errors since it was opened.";
    page.gauge(&plain("store_background_errors", help), stats.background_errors)?;
    page.counter(&plain("store_commits", "Group commits acknowledged."), stats.commits)?;
    page.counter(&bytes("store_commit", "Sizes of these commits."), stats.commit_bytes)?;
    let commit_seconds = Duration::from_nanos(stats.commit_nanos).as_secs_f64();
    page.counter(&seconds("store_commit", "Time spent in these commits."), commit_seconds)?;
    page.gauge(&bytes("store_free", "Free space on the store's disk."), space.free_bytes)?;
    let full = u64::from(space.full);
    page.gauge(&plain("store_full", "1 if writes are refused for want of space."), full)?;
    page.gauge(&plain("store_failed", "1 if writes are refused after an I/O error."), failed)?;
    let help = "Sequence number of the last acknowledged commit.";
    page.gauge(&plain("store_written_sequence", help), durable.written)?;
    let help = "Sequence number up to which everything is fsynced.";
    page.gauge(&plain("store_synced_sequence", help), durable.synced)
}

fn net_figures(page: &mut Page<'_>, net: &NetCounters) -> fmt::Result {
    for (name, help, count) in net.each() {
        page.counter(&plain(&format!("net_{name}"), help), count)?;
    }
    Ok(())
}

fn peer_figures(page: &mut Page<'_>, peers: &[PeerStatus]) -> fmt::Result {
    let labels = |peer: &PeerStatus| vec![("peer", peer.node.0.to_string())];
    let connected = peers.iter().map(|peer| (labels(peer), u64::from(peer.connected)));
    page.gauges(&plain("peer_connected", "1 if there is a connection to the node."), connected)?;
    let rtt = peers.iter().filter(|peer| peer.connected);
    let rtt = rtt.map(|peer| (labels(peer), peer.rtt_us as f64 / US_PER_SECOND));
    page.gauges(&seconds("peer_rtt", "Smoothed round-trip time to the node."), rtt)
}

/// Counts begin anew with each connection, as after a restart of the node.
fn path_figures(page: &mut Page<'_>, paths: &[(NodeId, PathStats)]) -> fmt::Result {
    let each = |read: fn(&PathStats) -> u64| {
        let labels = |node: &NodeId| vec![("peer", node.0.to_string())];
        paths.iter().map(move |(node, path)| (labels(node), read(path)))
    };
    let help = "Congestion window towards the node.";
    page.gauges(&bytes("peer_congestion_window", help), each(|path| path.cwnd))?;
    let help = "Largest UDP payload that the path to the node takes.";
    page.gauges(&bytes("peer_mtu", help), each(|path| path.current_mtu.into()))?;
    let help = "Packets sent to the node on this connection.";
    page.counters(&plain("peer_sent_packets", help), each(|path| path.sent_packets))?;
    let help = "Packets to the node lost on this connection.";
    page.counters(&plain("peer_lost_packets", help), each(|path| path.lost_packets))?;
    let help = "Times that the way to the node was found congested on this connection.";
    page.counters(&plain("peer_congestion_events", help), each(|path| path.congestion_events))
}

fn label(shard: usize) -> Labels {
    vec![("shard", shard.to_string())]
}

/// What the operating system says of the process, under the names that all exporters use.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    /// Since 1970.
    pub(super) started: Duration,
}

impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        let started = seconds("process_start_time", "When the process started, since 1970.");
        page.gauge(&started, self.started.as_secs_f64())?;
        if let Some(resident) = process::resident_bytes() {
            page.gauge(&bytes("process_resident_memory", "Memory in RAM."), resident)?;
        }
        if let Some(cpu) = process::cpu_seconds() {
            page.counter(&seconds("process_cpu", "Processor time used."), cpu)?;
        }
        if let Some(files) = process::open_files() {
            page.gauge(&plain("process_open_fds", "Open files and sockets."), files)?;
        }
        if let Some(files) = process::open_files_max() {
            page.gauge(&plain("process_max_fds", "How many may be open."), files)?;
        }
        Ok(())
    }
}
