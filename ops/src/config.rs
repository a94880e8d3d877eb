//! `holm config`: hands over to `holmd config`, which knows every key of a node's configuration.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::cli::ConfigArgs;
use crate::failure::Failure;

/// The node's program: beside this one, as it is built and installed, or else on the `PATH`.
///
/// # Errors
/// It is in neither place.
pub(crate) fn find_holmd() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().map(|here| here.with_file_name("holmd"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("holmd"));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file()).ok_or_else(|| {
        Failure::failed(
            "cannot find `holmd` beside `holm` or on the PATH",
            "install both, or build both with `cargo build --release --workspace --bins`",
        )
    })
}

/// Becomes `holmd config ARGS`; returns only if that cannot be started.
///
/// # Errors
/// `holmd` is not there, or cannot be started.
pub(crate) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let holmd = find_holmd()?;
    let error = Command::new(&holmd).arg("config").args(args.args).exec();
    Err(Failure::file("run", &holmd, &error))
}
