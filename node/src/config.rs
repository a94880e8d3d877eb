//! holmd's configuration.
//!
//! One TOML file, no key of which is unknown; every key can be overridden by `HOLM_<SECTION>_<KEY>`
//! and by `--<section>-<key>`. [`keys`] is the table of all keys, with ranges and defaults. Ranges
//! are checked as the sources are merged, relations between keys in [`relations`], both once, at
//! start. No value is a secret: certificates and keys are paths.
//!
//! A node's region, zone and capacity are not here: they belong to the layout. Of all keys only
//! `limits.max_clock_skew_ms` must be equal on all nodes ([`Config::settings_fingerprint`]).

pub mod cli;
pub mod keys;
pub mod merge;
mod rules;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holm_protocol::handshake;
use holm_protocol::ids::NodeId;
use serde::{Deserialize, Deserializer};

use cli::Invocation;
use keys::{KEYS, Kind, Names};
use merge::{Merged, Source};
use rules::REPLY_BYTES_MIN;
pub use rules::relations;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this node is.
    pub node: NodeConfig,
    /// Which cluster it is in.
    pub cluster: ClusterConfig,
    /// Where it listens.
    pub listen: ListenConfig,
    /// How it proves who it is.
    pub tls: TlsConfig,
    /// How it stores.
    pub store: StoreConfig,
    /// How it verifies what it holds.
    pub repair: RepairConfig,
    /// From when on consistency is worth an alarm.
    pub health: HealthConfig,
    /// What it refuses.
    pub limits: LimitsConfig,
    /// How it talks.
    pub net: NetConfig,
    /// How it finds out who can be reached.
    pub membership: MembershipConfig,
    /// What it logs.
    pub log: LogConfig,
    /// Development switches.
    pub dev: DevConfig,
}

/// `[node]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// This node.
    pub id: NodeId,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Threads that own partitions.
    pub shards: usize,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The cluster's name.
    pub id: String,
    /// Nodes to meet whatever the layout.
    #[serde(deserialize_with = "seeds")]
    pub seeds: Vec<(NodeId, SocketAddr)>,
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// UDP, for clients and nodes.
    pub quic: SocketAddr,
    /// TCP, for health and metrics.
    pub http: SocketAddr,
}

/// `[tls]`: paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The cluster's CA certificates.
    pub ca: PathBuf,
    /// This node's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// When a write is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// After an fsync.
    Always,
    /// At once; an fsync follows within [`StoreConfig::sync_interval`].
    Interval,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// When a write is durable.
    pub sync: Sync,
    /// Between fsyncs with [`Sync::Interval`].
    #[serde(rename = "sync_interval_ms", deserialize_with = "millis")]
    pub sync_interval: Duration,
    /// RocksDB's block cache.
    pub cache_bytes: usize,
    /// RocksDB's write buffers.
    pub write_buffer_bytes: usize,
    /// Free space below which writes are refused.
    pub min_free_bytes: u64,
}

/// `[repair]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairConfig {
    /// How often a partition is verified with each other replica, milliseconds; 0: never.
    pub verify_every_ms: u64,
}

/// `[health]`: what `/health/consistency` answers 503 for; 0: never.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// Lag behind any region, milliseconds.
    pub lag_max_ms: u64,
    /// Time since a partition was verified with another replica, seconds.
    pub verified_age_max_s: u64,
    /// Age of the oldest hint, seconds.
    pub hint_age_max_s: u64,
    /// How long a violation counts, seconds.
    pub violation_s: u64,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Client requests in flight in the node.
    pub in_flight_max: usize,
    /// Client requests in flight on one connection.
    pub in_flight_per_connection_max: u32,
    /// Messages waiting in one shard's inbox.
    pub inbox_max: usize,
    /// How far another node's clock may be ahead, milliseconds.
    pub max_clock_skew_ms: u64,
    /// Decoded hot objects in memory.
    pub cache_objects_bytes: usize,
    /// Open connections.
    pub connections_max: usize,
    /// Connections in their handshake.
    pub handshakes_max: usize,
    /// Answers waiting for all clients.
    pub reply_bytes_max: usize,
    /// Answers waiting on one client lane.
    pub reply_bytes_per_lane_max: usize,
    /// Messages waiting for one node on one lane.
    pub peer_queue_bytes_max: usize,
    /// What the node keeps for others.
    pub hint_bytes_max: usize,
    /// After how long a silent replica is replaced by another node.
    pub hint_after_ms: u64,
    /// What others may have on its way to this node of what they kept for it.
    pub handoff_window_bytes: usize,
}

/// `[net]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// Lanes on one connection.
    pub lanes_max: u32,
    /// Kernel buffers of the UDP socket.
    pub udp_buffer_bytes: usize,
    /// UDP segmentation offload.
    pub gso: bool,
    /// Largest UDP payload that MTU discovery tries.
    pub mtu_max: u16,
    /// Silence after which a connection is dead.
    #[serde(rename = "idle_timeout_ms", deserialize_with = "millis")]
    pub idle_timeout: Duration,
    /// Interval of keepalives.
    #[serde(rename = "keepalive_ms", deserialize_with = "millis")]
    pub keepalive: Duration,
    /// Unread bytes a node may have sent.
    pub receive_window_bytes: u32,
    /// Unread bytes a client may have sent, and unacknowledged bytes sent to it.
    pub client_window_bytes: u32,
    /// For the TLS handshake, and again for the first frame.
    #[serde(rename = "handshake_timeout_ms", deserialize_with = "millis")]
    pub handshake_timeout: Duration,
    /// For a client to finish a frame, or to take answers.
    #[serde(rename = "stall_timeout_ms", deserialize_with = "millis")]
    pub stall_timeout: Duration,
    /// First pause before reaching for a node again.
    #[serde(rename = "reconnect_min_ms", deserialize_with = "millis")]
    pub reconnect_min: Duration,
    /// Longest pause before reaching for a node again.
    #[serde(rename = "reconnect_max_ms", deserialize_with = "millis")]
    pub reconnect_max: Duration,
    /// The same for one that has been away for long.
    #[serde(rename = "reconnect_away_max_ms", deserialize_with = "millis")]
    pub reconnect_away_max: Duration,
}

/// `[membership]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MembershipConfig {
    /// Between two probes.
    #[serde(rename = "probe_interval_ms", deserialize_with = "millis")]
    pub probe_interval: Duration,
    /// For a direct answer.
    #[serde(rename = "probe_timeout_ms", deserialize_with = "millis")]
    pub probe_timeout: Duration,
    /// For a suspect to object.
    #[serde(rename = "suspicion_ms", deserialize_with = "millis")]
    pub suspicion: Duration,
    /// Until a node that is down is forgotten.
    #[serde(rename = "forget_ms", deserialize_with = "millis")]
    pub forget: Duration,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Form of log lines.
    pub format: LogFormat,
    /// Which of them, as tracing's `EnvFilter` reads it.
    pub filter: String,
}

/// `[dev]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevConfig {
    /// Whether development commands are obeyed.
    pub enabled: bool,
}

/// Why there is no configuration. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line is not one, or asks for help.
    #[error(transparent)]
    Usage(clap::Error),
    /// The file cannot be read.
    #[error("cannot read {}: {source}; make one with `holm config init`", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: {source}", file.display())]
    NotToml {
        /// The file.
        file: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("{}: unknown key {key}; `holm config init` prints all keys", file.display())]
    UnknownKey {
        /// The key.
        key: String,
        /// The file.
        file: PathBuf,
    },
    /// A key that has no default.
    #[error("{} is not set: set it in the file, as {} or with --{}", key.dotted, key.env, key.flag)]
    Missing {
        /// The key.
        key: &'static Names,
    },
    /// A value of the wrong kind or out of range.
    #[error("{} is {got} ({source_of}), must be {}", key.dotted, kind.describe())]
    OutOfRange {
        /// The key.
        key: &'static Names,
        /// The value, as TOML.
        got: String,
        /// What it must be.
        kind: Kind,
        /// Where it came from.
        source_of: Source,
    },
    /// Two values that do not go together.
    #[error("{key} is {got}, must be {must}")]
    Relation {
        /// The key.
        key: &'static str,
        /// Its value.
        got: u128,
        /// What it must be, with the other key.
        must: String,
    },
    /// Table and structs disagree: a bug in holmd.
    #[error("configuration table does not fit its structs: {source}")]
    Shape {
        /// Where.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads command line, environment and file, and expects to run a node.
    ///
    /// # Errors
    /// As [`Invocation::parse`], which also understands `config init|check|show`.
    pub fn load<A: Into<OsString> + Clone>(
        args: impl IntoIterator<Item = A>,
    ) -> Result<Invocation, ConfigError> {
        Invocation::parse(args, &|name| std::env::var(name).ok())
    }

    /// Merges the sources, checks everything, and keeps where each value came from.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn from_sources(
        file: Option<&Path>,
        env: &dyn Fn(usize) -> Option<String>,
        flags: &dyn Fn(usize) -> Option<String>,
    ) -> Result<(Config, Merged), ConfigError> {
        let file = file.map(|path| read_table(path).map(|table| (path, table))).transpose()?;
        let merged = Merged::new(file, env, flags)?;
        let shape = |source| ConfigError::Shape { source: Box::new(source) };
        let config: Config = merged.table().try_into().map_err(shape)?;
        relations(&config)?;
        Ok((config, merged))
    }

    /// The fingerprint of what must be equal on all nodes, compared when two of them meet.
    #[must_use]
    pub fn settings_fingerprint(&self) -> u64 {
        handshake::settings_fingerprint(self.limits.max_clock_skew_ms)
    }

    /// Every limit so low that ordinary tests run into it. Listens on loopback, any port.
    #[must_use]
    pub fn test_min(id: NodeId, dir: &Path) -> Config {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let ms = Duration::from_millis;
        Config {
            repair: RepairConfig { verify_every_ms: 0 },
            health: HealthConfig {
                lag_max_ms: 100,
                verified_age_max_s: 0,
                hint_age_max_s: 1,
                violation_s: 1,
            },
            node: NodeConfig { id, data_dir: dir.join("data"), shards: 1 },
            cluster: ClusterConfig { id: "test".to_owned(), seeds: Vec::new() },
            listen: ListenConfig { quic: loopback, http: loopback },
            tls: TlsConfig {
                ca: dir.join("ca.pem"),
                cert: dir.join("node.pem"),
                key: dir.join("node.key"),
            },
            store: StoreConfig {
                sync: Sync::Interval,
                sync_interval: ms(1),
                cache_bytes: 4 << 20,
                write_buffer_bytes: 1 << 20,
                min_free_bytes: 0,
            },
            limits: LimitsConfig {
                in_flight_max: 4,
                in_flight_per_connection_max: 2,
                inbox_max: 8,
                max_clock_skew_ms: 100,
                cache_objects_bytes: 16 << 10,
                connections_max: 4,
                handshakes_max: 2,
                reply_bytes_max: 2 * REPLY_BYTES_MIN,
                reply_bytes_per_lane_max: REPLY_BYTES_MIN,
                peer_queue_bytes_max: 64 << 10,
                hint_bytes_max: 64 << 10,
                hint_after_ms: 50,
                handoff_window_bytes: 1 << 10,
            },
            net: NetConfig {
                lanes_max: 2,
                udp_buffer_bytes: 64 << 10,
                gso: true,
                mtu_max: 1200,
                idle_timeout: ms(1000),
                keepalive: ms(100),
                receive_window_bytes: 64 << 10,
                client_window_bytes: 64 << 10,
                handshake_timeout: ms(500),
                stall_timeout: ms(500),
                reconnect_min: ms(5),
                reconnect_max: ms(50),
                reconnect_away_max: ms(500),
            },
            membership: MembershipConfig {
                probe_interval: ms(200),
                probe_timeout: ms(50),
                suspicion: ms(400),
                forget: ms(10_000),
            },
            log: LogConfig { format: LogFormat::Text, filter: "warn".to_owned() },
            dev: DevConfig { enabled: true },
        }
    }
}

/// A file with every key, its meaning and default; keys without a default are to be filled in.
#[must_use]
pub fn annotated_default() -> String {
    let mut out = String::from(
        "# holmd's configuration. Every key can be overridden by the environment variable\n# HOLM_<SECTION>_<KEY> and by the flag --<section>-<key>. Relative paths count from this file.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            out.push_str(&format!("\n[{}]\n", key.section));
            section = key.section;
        }
        for line in key.doc.lines() {
            out.push_str(&format!("# {line}\n"));
        }
        match key.default {
            Some(default) => {
                out.push_str(&format!("# ({})\n{} = {default}\n", key.kind.describe(), key.name));
            }
            None => {
                out.push_str(&format!(
                    "# ({}; must be set)\n# {} =\n",
                    key.kind.describe(),
                    key.name
                ));
            }
        }
    }
    out
}

fn read_table(path: &Path) -> Result<toml::Table, ConfigError> {
    let file = path.to_owned();
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { file: file.clone(), source })?;
    text.parse().map_err(|source| ConfigError::NotToml { file, source: Box::new(source) })
}

fn seeds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(NodeId, SocketAddr)>, D::Error> {
    let text = String::deserialize(deserializer)?;
    keys::parse_seeds(&text).ok_or_else(|| serde::de::Error::custom("not a list of seeds"))
}

fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}
