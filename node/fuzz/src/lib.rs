//! What is fuzzed: every decoder that reads bytes from elsewhere, and the shard itself.
//!
//! A [`Target`] is a function from any bytes to nothing that panics when a promise is broken. The
//! promises are stated where they are checked: a decoder is total, what it accepts it would write
//! the same way again, joins keep their laws, the shard keeps its bounds and announces nothing that
//! is not durable (I2, I8, I10).
//!
//! The same functions run twice:
//! - under libFuzzer, in `libfuzzer/`, a workspace of its own so that this one stays free of it:
//!   `cargo xtask fuzz [TARGET]`;
//! - over `corpus/TARGET/`, as a plain test: the inputs that libFuzzer found worth keeping, and one
//!   for each failure that was found and mended.
//!
//! Nothing here links RocksDB. The node's configuration, certificate reader and membership are included
//! from its sources by path, because their crate does.
//!
//! What is left out: session tokens do not exist yet; the files beside RocksDB (`store/highwater`,
//! `store/wal`) and the layout file of the command line are read through the file system and have
//! tests of their own.

pub mod causality;
pub mod certificates;
pub mod config;
pub mod disk;
pub mod input;
pub mod membership;
pub mod messages;
pub mod metadata;
pub mod objects;
pub mod shard;

/// Sources of `holm-node` that need neither RocksDB nor a socket.
#[path = "../../src"]
pub mod node {
    pub mod config;
    #[path = "net/tls/identity.rs"]
    pub mod identity;
    /// Membership without its task and its clocks.
    pub mod membership {
        pub mod clock;
        pub mod driver;
        pub mod event;
        pub mod identity;
        pub mod wire;
        mod wishes;
    }
}

/// One thing that is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the program in `libfuzzer/`, and of its directory in `corpus/`.
    pub name: &'static str,
    /// Takes any bytes; panics if a promise is broken.
    pub run: fn(&[u8]),
}

/// Everything that is fuzzed.
pub const TARGETS: [Target; 9] = [
    Target { name: "causality", run: causality::run },
    Target { name: "certificates", run: certificates::run },
    Target { name: "config", run: config::run },
    Target { name: "disk", run: disk::run },
    Target { name: "membership", run: membership::run },
    Target { name: "messages", run: messages::run },
    Target { name: "metadata", run: metadata::run },
    Target { name: "objects", run: objects::run },
    Target { name: "shard", run: shard::run },
];
