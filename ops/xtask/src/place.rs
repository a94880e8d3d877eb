//! Where things are: the root of the clone, the cache outside it and the programs built there.

use std::env;
use std::path::{Path, PathBuf};

use crate::run::Failure;

/// The directories that every command works with. All absolute.
#[derive(Debug)]
pub(crate) struct Place {
    /// The root of the clone: where the workspace's `Cargo.toml` is.
    pub(crate) root: PathBuf,
    /// What outlives a clone: tools, advisory databases and, by default, the builds.
    pub(crate) cache: PathBuf,
    /// `CARGO_TARGET_DIR` of every child.
    pub(crate) target: PathBuf,
}

impl Place {
    /// Finds the clone this program was built from and the cache directory of this user.
    ///
    /// # Errors
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set, or the clone was moved after the build.
    pub(crate) fn find() -> Result<Self, Failure> {
        // `cargo run` sets it at run time; the compiled-in value serves a binary started by hand.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.join("../..").canonicalize().map_err(|error| {
            Failure::new(
                format!("no workspace above {}: {error}", manifest.display()),
                "run it as `cargo xtask` inside the clone",
            )
        })?;
        let cache = match (absolute("XDG_CACHE_HOME"), absolute("HOME")) {
            (Some(cache), _) => cache,
            (None, Some(home)) => home.join(".cache"),
            (None, None) => {
                return Err(Failure::new(
                    "neither XDG_CACHE_HOME nor HOME is an absolute path",
                    "set HOME",
                ));
            }
        }
        .join("holm");
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(given) if !given.is_empty() => {
                std::path::absolute(PathBuf::from(given)).map_err(|error| {
                    Failure::new(format!("CARGO_TARGET_DIR: {error}"), "give a usable directory")
                })?
            }
            _ => cache.join("target"),
        };
        Ok(Self { root, cache, target })
    }

    /// A program of the release build.
    pub(crate) fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    /// The simulator, which has a profile of its own (see `.cargo/config.toml`).
    pub(crate) fn sim_binary(&self) -> PathBuf {
        self.target.join("sim/holm-sim")
    }

    /// Where the simulator writes plans that broke a rule.
    pub(crate) fn schedules(&self) -> PathBuf {
        self.target.join("schedules")
    }

    /// Whether some release build of RocksDB is in the cache, to warn of the wait otherwise.
    pub(crate) fn has_rocksdb(&self) -> bool {
        entries(&self.target.join("release/build")).iter().any(|entry| {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("librocksdb-sys-") && entry.join("out/librocksdb.a").exists()
        })
    }
}

/// The paths in a directory, sorted; none when it cannot be read.
pub(crate) fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}
