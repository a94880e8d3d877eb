//! `holm completions` and `holm man`, made from the definitions in [`crate::cli`].

use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::files;
use crate::output::Output;

/// Prints completions.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn completions(output: &Output, shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "holm", &mut script);
    output.raw(&script)
}

/// Prints the manual page, or writes one per verb into a directory.
///
/// # Errors
/// The directory or standard output cannot be written.
pub(crate) fn man(output: &Output, out: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = out else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|error| {
            Failure::failed(format!("cannot make the page: {error}"), "this is a bug in holm")
        })?;
        return output.raw(&page);
    };
    files::create_dir(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)
        .map_err(|error| Failure::file("write into", directory, &error))?;
    output.note(&format!("manual pages written to {}", directory.display()));
    Ok(())
}
