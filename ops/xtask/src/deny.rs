//! cargo-deny: what may be depended upon, by licence, by name, by source, and against the published
//! advisories where a copy of the database is at hand.
//!
//! Nothing here needs the network once the tool is installed and the crates are downloaded.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::place::Place;
use crate::run::{self, Child, Failure};
use crate::tool::Tool;

/// The version whose configuration `deny.toml` is written for; its patch releases read the same.
const TOOL: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    version_args: &["--version"],
    compatible: "cargo-deny 0.20.",
};
/// How cargo-deny names the directory of `https://github.com/RustSec/advisory-db`: the last part of
/// the address and a hash of the whole.
const DATABASE: &str = "advisory-db-3157b0e258782691";
/// The platform in `deny.toml`: what cargo-deny sees must be downloaded on any other one as well.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs all checks of `deny.toml`; advisories only where `HOLM_ADVISORY_DB` names a database.
///
/// # Errors
/// The tool cannot be installed, the database is not one, or a check does not pass.
pub(crate) fn check(place: &Place) -> Result<(), Failure> {
    let tool = TOOL.install(place)?;
    run::cargo(place, &["fetch", "--locked", "--quiet", "--target", TARGET])
        .run("the crates of Cargo.lock could not be downloaded: is the network there?")?;
    let mut args = vec!["--locked", "--offline", "check", "--allow", "duplicate"];
    args.extend(["bans", "licenses", "sources"]);
    let databases = place.cache.join("advisories");
    match env::var_os("HOLM_ADVISORY_DB").filter(|path| !path.is_empty()) {
        Some(path) => {
            lay_out(&PathBuf::from(path), &databases)?;
            args.push("advisories");
        }
        None => println!("advisories: skipped, HOLM_ADVISORY_DB names no database"),
    }
    Child::new(tool, &args)
        .directory(&place.root)
        .env("HOLM_DENY_DATABASES", &databases)
        .run("replace the dependency it names, or decide and write the reason into deny.toml")
}

/// Shows a plain copy of the advisory database to cargo-deny as the clone that it expects.
///
/// It reads `DATABASE/crates` and takes the time of the last fetch from `DATABASE/.git/FETCH_HEAD`.
/// How old a copy may be is the business of whoever keeps it, so that file is always new.
fn lay_out(source: &Path, databases: &Path) -> Result<(), Failure> {
    let crates = source.join("crates");
    let crates = crates.canonicalize().map_err(|error| {
        Failure::new(
            format!("HOLM_ADVISORY_DB: {}: {error}", crates.display()),
            "name a copy of https://github.com/RustSec/advisory-db, or unset it",
        )
    })?;
    let database = databases.join(DATABASE);
    let link = database.join("crates");
    let laid_out = fs::create_dir_all(database.join(".git"))
        .and_then(|()| fs::write(database.join(".git/FETCH_HEAD"), ""))
        .and_then(|()| {
            if fs::read_link(&link).is_ok_and(|target| target == crates) {
                return Ok(());
            }
            if link.symlink_metadata().is_ok() {
                fs::remove_file(&link)?;
            }
            std::os::unix::fs::symlink(&crates, &link)
        });
    laid_out.map_err(|error| {
        Failure::new(format!("{}: {error}", database.display()), "remove that directory")
    })
}
