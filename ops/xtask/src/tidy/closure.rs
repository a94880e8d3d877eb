//! What the crates link, as `cargo tree` tells it.
//!
//! - The core links only the crates named here. None of them hands a clock, a file, a socket or a
//!   random number to its caller.
//! - Protocol, core, client, simulator and fuzz targets build without RocksDB and without a C++ compiler.

use super::Finding;
use crate::place::Place;
use crate::run::{Failure, cargo};

/// Everything in the program of `holm-core`. A new crate is a decision: look at what it can reach.
const CORE_LINKS: [&str; 30] = [
    "holm-core",
    "holm-protocol",
    // Checksums and hashes.
    "arrayvec",
    "blake3",
    "constant_time_eq",
    "cpufeatures",
    "crc32c",
    "xxhash-rust",
    // Blocks of bytes, shorter.
    "lz4_flex",
    // Merkle trees and their proofs; the digests that come with them are not used.
    "rs_merkle",
    "block-buffer",
    "crypto-common",
    "digest",
    "generic-array",
    "sha2",
    "typenum",
    // Asked by cpufeatures for the processor's features on ARM, nothing else.
    "libc",
    // Buffers and rare messages.
    "bytes",
    "cobs",
    "postcard",
    "serde",
    "serde_core",
    // Errors.
    "thiserror",
    // Run at build time only: derive macros and what they are made of, and compiler probing.
    "cfg-if",
    "proc-macro2",
    "quote",
    "serde_derive",
    "syn",
    "thiserror-impl",
    "unicode-ident",
];

/// Crates that come with RocksDB or with C++.
const CXX: [&str; 9] = [
    "bindgen",
    "clang-sys",
    "cmake",
    "cxx",
    "librocksdb-sys",
    "link-cplusplus",
    "lz4-sys",
    "rocksdb",
    "tikv-jemalloc-sys",
];
const PURE: [&str; 5] = ["holm-protocol", "holm-core", "holm-client", "holm-sim", "holm-fuzz"];

/// Asks cargo for the closures and checks them.
///
/// # Errors
/// `cargo tree` fails, for instance because `Cargo.lock` does not match the manifests.
pub(super) fn check(place: &Place) -> Result<Vec<Finding>, Failure> {
    let mut findings = core(&tree(place, "holm-core", "normal")?);
    for package in PURE {
        findings.extend(pure(package, &tree(place, package, "normal,build")?));
    }
    Ok(findings)
}

fn tree(place: &Place, package: &str, edges: &str) -> Result<String, Failure> {
    let args = ["tree", "--locked", "--package", package, "--edges", edges, "--prefix", "none"];
    cargo(place, &args).output()
}

/// The names in the output of `cargo tree --prefix none`, each once, sorted.
fn names(tree: &str) -> Vec<&str> {
    let mut names: Vec<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn core(tree: &str) -> Vec<Finding> {
    let strangers = names(tree).into_iter().filter(|name| !CORE_LINKS.contains(name));
    strangers
        .map(|name| {
            let what = format!(
                "links `{name}`: the core links nothing that reaches a clock, a file, a socket or \
                 a random number; if this does not, name it in ops/xtask/src/tidy/closure.rs"
            );
            Finding::new("holm-core", None, what)
        })
        .collect()
}

fn pure(package: &str, tree: &str) -> Vec<Finding> {
    let cxx = names(tree).into_iter().filter(|name| CXX.contains(name));
    cxx.map(|name| Finding::new(package, None, format!("builds `{name}`: must not need C++")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{core, pure};

    /// Goal: a crate that the core was never meant to link is found, wherever it hangs.
    #[test]
    fn strangers_in_the_core_are_found() {
        let good = "holm-core v0.1.0 (/x/node/core)\nbytes v1.12.1\nserde v1.0.229 (*)\n";
        assert!(core(good).is_empty());
        for stranger in ["getrandom v0.4.3", "tokio v1.54.1", "rand v0.10.3", "mio v1.2.4 (*)"] {
            assert_eq!(core(&format!("{good}{stranger}\n{stranger}\n")).len(), 1, "{stranger}");
        }
    }

    /// Goal: RocksDB below a crate that must build without it is found.
    #[test]
    fn rocksdb_is_found() {
        assert!(pure("holm-client", "holm-client v0.1.0\nring v0.17.14\ncc v1.11.1\n").is_empty());
        assert_eq!(pure("holm-sim", "holm-sim v0.1.0\nlibrocksdb-sys v0.19.0\n").len(), 1);
    }
}
