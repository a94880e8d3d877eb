//! The one table of configuration keys: name, meaning, kind, range and default of each.
//!
//! File, environment, flags, range checks, `holmd config init` and the help text are all generated
//! from it, so a key exists in all of them or in none. Relations between keys are in
//! [`super::relations`].

use std::net::SocketAddr;
use std::sync::OnceLock;

use holm_protocol::ids::NodeId;

/// Most seeds. One that can be reached is enough.
const SEEDS_MAX: usize = 16;

/// What a key's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within these bounds, both included.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A name as [`holm_protocol::limits::is_name`] wants it.
    Name,
    /// An IP address and port.
    Address,
    /// A path; a relative one counts from the file that names it, or from the working directory.
    Path,
    /// Any text that is not empty.
    Text,
    /// Nodes with their addresses, as [`parse_seeds`] reads them.
    Seeds,
}

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The TOML table.
    pub section: &'static str,
    /// The name within it, with its unit.
    pub name: &'static str,
    /// What it must be.
    pub kind: Kind,
    /// The default as TOML, or `None` if it must be set.
    pub default: Option<&'static str>,
    /// What it means, in one or a few sentences.
    pub doc: &'static str,
}

/// A key's names outside the file.
#[derive(Debug)]
pub struct Names {
    /// As errors call it: `section.name`.
    pub dotted: String,
    /// The environment variable: `HOLM_SECTION_NAME`.
    pub env: String,
    /// The flag without its dashes: `section-name`.
    pub flag: String,
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    doc: &'static str,
) -> Key {
    Key { section, name, kind, default, doc }
}

const fn int(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const DAY_S: i64 = 24 * 3_600;

/// Every key, in the order of the annotated file.
pub const KEYS: &[Key] = &[
    key(
        "node",
        "id",
        int(1, i64::MAX),
        None,
        "This node's number, unique in the cluster and never reused for another machine.",
    ),
    key(
        "node",
        "data_dir",
        Kind::Path,
        Some("\"/var/lib/holm\""),
        "Where the node keeps its data. One node per directory.",
    ),
    key(
        "node",
        "shards",
        int(1, 64),
        Some("1"),
        "Threads that own partitions. One for every two cores is a good start.",
    ),
    key(
        "cluster",
        "id",
        Kind::Name,
        None,
        "The cluster's name. A store or a peer of another cluster is refused.",
    ),
    key(
        "cluster",
        "seeds",
        Kind::Seeds,
        Some("\"\""),
        "Nodes to connect with before any layout names them, such as \"1@10.0.0.1:7400, 2@10.0.0.2:7400\".\nA node that is to join a running cluster learns everything else from one of them.",
    ),
    key(
        "listen",
        "quic",
        Kind::Address,
        Some("\"0.0.0.0:7400\""),
        "UDP address for clients and other nodes.",
    ),
    key(
        "listen",
        "http",
        Kind::Address,
        Some("\"127.0.0.1:7480\""),
        "TCP address of health, metrics and console. Clear text: keep it on loopback.",
    ),
    key("tls", "ca", Kind::Path, None, "The cluster's CA certificates, PEM."),
    key("tls", "cert", Kind::Path, None, "This node's certificate chain, PEM (`holm cert node`)."),
    key(
        "tls",
        "key",
        Kind::Path,
        None,
        "The private key of `tls.cert`, PEM. Only holmd should be able to read it.",
    ),
    key(
        "store",
        "sync",
        Kind::OneOf(&["always", "interval"]),
        Some("\"always\""),
        "When a write counts as durable. `always`: after an fsync. `interval`: at once, with an fsync every\n`sync_interval_ms`; an acknowledged write can then be lost if all its replicas lose power together.",
    ),
    key(
        "store",
        "sync_interval_ms",
        int(1, 60_000),
        Some("100"),
        "Milliseconds between fsyncs with `sync = \"interval\"`.",
    ),
    key(
        "store",
        "cache_bytes",
        int(MIB, 1024 * GIB),
        Some("134217728"),
        "RocksDB's block cache for all column families; write buffers are charged to it.",
    ),
    key(
        "store",
        "write_buffer_bytes",
        int(MIB, 256 * GIB),
        Some("67108864"),
        "RocksDB's write buffers for all column families together.",
    ),
    key(
        "store",
        "min_free_bytes",
        int(0, 1024 * GIB),
        Some("268435456"),
        "Free disk space below which writes are refused (reads go on).",
    ),
    key(
        "repair",
        "verify_every_ms",
        int(0, 30 * 24 * 3_600_000),
        Some("3600000"),
        "How often each partition is verified with every other replica (Merkle trees over what the disks hold),\n\
         milliseconds; 0: never.",
    ),
    key(
        "health",
        "lag_max_ms",
        int(0, DAY_S * 1000),
        Some("10000"),
        "/health/consistency answers 503 while this node is further behind a region than this, milliseconds;\n\
         0: whatever it is.",
    ),
    key(
        "health",
        "verified_age_max_s",
        int(0, 365 * DAY_S),
        Some("10800"),
        "... while a partition was not verified with another replica for so long, seconds; 0: however long.\n\
         Three times repair.verify_every_ms is a good measure.",
    ),
    key(
        "health",
        "hint_age_max_s",
        int(0, 365 * DAY_S),
        Some("3600"),
        "... while a hint for another node has waited for so long, seconds; 0: however long.",
    ),
    key(
        "health",
        "violation_s",
        int(0, 365 * DAY_S),
        Some("86400"),
        "... for so long after replicas were found to hold what no clock explains, seconds; 0: never for that.",
    ),
    key(
        "limits",
        "in_flight_max",
        int(1, 1 << 20),
        Some("8192"),
        "Client requests that the node works on at a time; more are answered `Overloaded`.",
    ),
    key(
        "limits",
        "in_flight_per_connection_max",
        int(1, 1 << 20),
        Some("2048"),
        "Client requests in flight on one connection; more are answered `Overloaded`.",
    ),
    key(
        "limits",
        "inbox_max",
        int(1, 1 << 20),
        Some("16384"),
        "Messages waiting in a shard's inbox; more are answered `Overloaded` or dropped (peers repeat).",
    ),
    key(
        "limits",
        "max_clock_skew_ms",
        int(1, 3_600_000),
        Some("1000"),
        "How far another node's clock may be ahead, milliseconds. Must be equal on all nodes.",
    ),
    key(
        "limits",
        "cache_objects_bytes",
        int(0, 256 * GIB),
        Some("134217728"),
        "Decoded hot objects kept in memory, all shards together. An object of 100 bytes takes about\n\
         450 here, and saves a read of the store at each write.",
    ),
    key(
        "limits",
        "connections_max",
        int(1, 1 << 20),
        Some("1024"),
        "Open connections of clients; more are refused.",
    ),
    key(
        "limits",
        "handshakes_max",
        int(1, 65_536),
        Some("128"),
        "Connections in their handshake; more are refused. Above half of it, addresses are validated first.",
    ),
    key(
        "limits",
        "reply_bytes_max",
        int(64 << 10, 64 * GIB),
        Some("134217728"),
        "Answers waiting to be taken by clients, all together. A client that would exceed it is closed.",
    ),
    key(
        "limits",
        "reply_bytes_per_lane_max",
        int(64 << 10, GIB),
        Some("16777216"),
        "Answers waiting on one client lane. A client that does not read is closed when it is full.",
    ),
    key(
        "limits",
        "peer_queue_bytes_max",
        int(64 << 10, GIB),
        Some("16777216"),
        "Messages waiting for one node on one lane; more are dropped and counted (the protocol repeats them).",
    ),
    key(
        "limits",
        "hint_bytes_max",
        int(0, 1024 * GIB),
        Some("1073741824"),
        "What is kept on this node's disk for other nodes of its region that are down (hints). Above it hints\nare refused, and writes need real replicas.",
    ),
    key(
        "limits",
        "hint_after_ms",
        int(1, 60_000),
        Some("200"),
        "A replica of the own region that has not acknowledged a write for so many milliseconds is replaced by\nanother node, which keeps a hint for it.",
    ),
    key(
        "limits",
        "handoff_window_bytes",
        int(1 << 10, GIB),
        Some("4194304"),
        "Hints that may be on their way to this node, from all others together.",
    ),
    key(
        "net",
        "lanes_max",
        int(1, 256),
        Some("16"),
        "Lanes (streams) that one connection may have open.",
    ),
    key(
        "net",
        "udp_buffer_bytes",
        int(64 << 10, GIB),
        Some("4194304"),
        "Kernel buffers of the UDP socket, each way. With the usual 208 KiB, load loses packets; raise\nnet.core.rmem_max and wmem_max if the log says that the kernel gave less.",
    ),
    key(
        "net",
        "gso",
        Kind::Switch,
        Some("true"),
        "UDP segmentation offload. Turn it off if the log shows EIO or EINVAL from sendmsg.",
    ),
    key(
        "net",
        "mtu_max",
        int(1200, 6550),
        Some("6500"),
        "Largest UDP payload that path MTU discovery tries, bytes. Ten segments must fit one offloaded send.",
    ),
    key(
        "net",
        "idle_timeout_ms",
        int(100, 600_000),
        Some("10000"),
        "Silence after which a connection is dead, milliseconds. An idle client stays as long as its QUIC\nkeeps the connection alive; `limits.connections_max` bounds how many there are.",
    ),
    key(
        "net",
        "keepalive_ms",
        int(10, 300_000),
        Some("2000"),
        "Interval of keepalives, milliseconds; at most a third of `idle_timeout_ms`.",
    ),
    key(
        "net",
        "receive_window_bytes",
        int(64 << 10, GIB),
        Some("20971520"),
        "Unread bytes a node may have sent: bandwidth times round trip (1 Gbit/s x 150 ms = 19 MB).",
    ),
    key(
        "net",
        "client_window_bytes",
        int(64 << 10, GIB),
        Some("2097152"),
        "The same for a client, each way.",
    ),
    key(
        "net",
        "handshake_timeout_ms",
        int(10, 60_000),
        Some("10000"),
        "Time for the TLS handshake, and again for the first lane and its first frame, milliseconds; then the\nconnection is closed, however slowly it sends.",
    ),
    key(
        "net",
        "stall_timeout_ms",
        int(10, 600_000),
        Some("20000"),
        "Time to finish a frame once begun, or to take 64 KiB of waiting answers, milliseconds; then the\nclient is closed, also one that sends or takes a byte at a time.",
    ),
    key(
        "net",
        "reconnect_min_ms",
        int(1, 60_000),
        Some("50"),
        "Pause before the first attempt to reach a node again, milliseconds; doubled each time, jittered.",
    ),
    key(
        "net",
        "reconnect_max_ms",
        int(1, 600_000),
        Some("2000"),
        "The longest such pause, milliseconds.",
    ),
    key(
        "net",
        "reconnect_away_max_ms",
        int(1, 3_600_000),
        Some("60000"),
        "The longest pause for a node that has been away for long, milliseconds: pauses grow to a sixteenth of\nthe time it has been away. A node that comes back dials the others itself.",
    ),
    key(
        "membership",
        "probe_interval_ms",
        int(10, 60_000),
        Some("1500"),
        "Every so often one other node is probed, milliseconds. Equal on all nodes, as the next three should be.",
    ),
    key(
        "membership",
        "probe_timeout_ms",
        int(1, 30_000),
        Some("500"),
        "Time for its direct answer, milliseconds: more than any round trip between regions. Then other nodes\nare asked to probe it, for the rest of the interval.",
    ),
    key(
        "membership",
        "suspicion_ms",
        int(10, 600_000),
        Some("4500"),
        "Time for a node that did not answer to object before it is called down, milliseconds.",
    ),
    key(
        "membership",
        "forget_ms",
        int(1_000, 604_800_000),
        Some("86400000"),
        "Time after which a node that is down is forgotten, milliseconds. If it is in the layout it is still\ndialled, ever less often.",
    ),
    key(
        "log",
        "format",
        Kind::OneOf(&["json", "text"]),
        Some("\"json\""),
        "Form of log lines on standard error.",
    ),
    key(
        "log",
        "filter",
        Kind::Text,
        Some("\"info\""),
        "Which log lines: a level, or `target=level` parts separated by commas.",
    ),
    key(
        "dev",
        "enabled",
        Kind::Switch,
        Some("false"),
        "Development commands: delays and cuts at the UDP socket. Never in production.",
    ),
];

/// The names of each of [`KEYS`], in the same order.
pub fn names() -> &'static [Names] {
    static NAMES: OnceLock<Vec<Names>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let names = |key: &Key| Names {
            dotted: format!("{}.{}", key.section, key.name),
            env: format!("HOLM_{}_{}", key.section, key.name).to_uppercase(),
            flag: format!("{}-{}", key.section, key.name).replace('_', "-"),
        };
        KEYS.iter().map(names).collect()
    })
}

impl Kind {
    /// The range or choice, in words.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Kind::Integer { min, max: i64::MAX } => format!("a whole number from {min}"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Switch => "true or false".to_owned(),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Name => "1 to 64 of a-z, 0-9, `-`, `_`, `.`, a letter or digit first".to_owned(),
            Kind::Address => "an IP address and port, such as 127.0.0.1:7400".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Text => "a text".to_owned(),
            Kind::Seeds => {
                "a list of nodes ID@ADDRESS:PORT with commas between them, or empty".to_owned()
            }
        }
    }
}

/// Reads a list such as `1@10.0.0.1:7400, 2@10.0.0.2:7400`; `None` if it is none, or names a node twice.
#[must_use]
pub fn parse_seeds(text: &str) -> Option<Vec<(NodeId, SocketAddr)>> {
    let mut seeds: Vec<(NodeId, SocketAddr)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let (id, addr) = part.split_once('@')?;
        let seed = (NodeId(id.parse().ok().filter(|&id| id > 0)?), addr.parse().ok()?);
        if seeds.len() == SEEDS_MAX || seeds.iter().any(|(known, _)| *known == seed.0) {
            return None;
        }
        seeds.push(seed);
    }
    Some(seeds)
}
