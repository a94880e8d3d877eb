//! Hard limits that every node and client agree on. A bucket's policy can only be stricter.
//!
//! They are part of the settings fingerprint that peers compare in the handshake.

/// Longest key, bytes. RocksDB and the log repeat keys, so they should stay small; 1 KiB is what
/// comparable stores allow (DynamoDB: 2 KiB for both key parts).
pub const KEY_LEN_MAX: usize = 1024;

/// Longest value, bytes. A put holds its value in memory on every replica until it is committed.
pub const VALUE_LEN_MAX: usize = 1 << 20;

/// Most siblings that an object may hold on the wire or on disk. Coordinators refuse puts far
/// below it ([`MAX_SIBLINGS_MAX`] each), so that what sixteen of them wrote during a partition can
/// still be joined: a join is never refused for what puts were allowed to do.
pub const SIBLINGS_HARD_MAX: usize = 1024;

/// The highest `max_siblings` a bucket can have. Riak warns at 25 and errors at 100.
pub const MAX_SIBLINGS_MAX: usize = SIBLINGS_HARD_MAX / 16;

/// Most entries of one key's context: one for each actor that ever coordinated a write to the key
/// and is not yet folded away.
pub const CONTEXT_ENTRIES_MAX: usize = 1024;

/// Longest opaque context a client may hand back, bytes: [`CONTEXT_ENTRIES_MAX`] entries of an
/// actor (8) and a counter (at most 10), and the header with its MAC.
pub const CONTEXT_LEN_MAX: usize = CONTEXT_ENTRIES_MAX * 18 + 64;

/// Longest encoded object, bytes: what sixteen coordinators wrote to one key during a partition.
pub const OBJECT_LEN_MAX: usize = 16 * PUT_OBJECT_LEN_MAX;

/// Longest encoded object, bytes, that a put may leave behind with more than one sibling. Above it
/// the put is refused until someone resolves the siblings.
pub const PUT_OBJECT_LEN_MAX: usize = 2 * VALUE_LEN_MAX;

/// Longest frame after its length prefix, bytes: an object, a key and room for headers.
pub const FRAME_LEN_MAX: usize = OBJECT_LEN_MAX + (64 << 10);

/// Longest bucket, region, zone, placement and cluster name, bytes.
pub const NAME_LEN_MAX: usize = 64;

/// Most nodes in a layout. Bounds what a decoder allocates.
pub const NODES_MAX: usize = 4096;

/// Most nodes that one receipt names: more replicas than any sane replication factor has.
pub const RECEIPT_NODES_MAX: usize = 255;

/// Longest time a request may take, milliseconds. Longer deadlines are cut to this.
pub const TIMEOUT_MS_MAX: u32 = 60_000;

/// Whether a name is fit for a bucket, region, zone, placement or cluster: 1 to
/// [`NAME_LEN_MAX`] bytes of `a-z`, `0-9`, `-`, `_`, `.`, starting with a letter or digit.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(fit)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}
