//! The rules of the source tree, as tests: who may import whom, what the core must not touch, file
//! heads and sizes, words that must not stay, links that must lead somewhere.
//!
//! A rule is a pure function from a [`Tree`] (or from the output of `cargo tree`) to findings, so
//! that its own test can show it a bad sample. Clippy checks from its side what is called; these
//! rules check what is written and what is linked.

mod closure;
mod code;
mod documents;
mod manifests;
mod sources;
mod specs;
mod tree;

use std::fmt;

use crate::place::Place;
use crate::run::Failure;
use tree::Tree;

/// Something that breaks a rule, or, as a warning, comes near it.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// The file, relative to the root, or the package.
    place: String,
    /// The line, counted from 1; `None` for the whole.
    line: Option<usize>,
    what: String,
    is_warning: bool,
}

impl Finding {
    fn new(place: &str, line: impl Into<Option<usize>>, what: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line: line.into(), what: what.into(), is_warning: false }
    }

    fn warning(place: &str, what: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::new(place, None, what) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_warning { "warning" } else { "error" };
        match self.line {
            Some(line) => write!(formatter, "{kind}: {}:{line}: {}", self.place, self.what),
            None => write!(formatter, "{kind}: {}: {}", self.place, self.what),
        }
    }
}

/// Checks every rule and prints what it found.
///
/// # Errors
/// A rule is broken, or the tree cannot be read. Warnings do not fail.
pub(crate) fn run(place: &Place) -> Result<(), Failure> {
    let tree = Tree::load(&place.root)?;
    let mut findings = manifests::check(&tree);
    findings.extend(sources::check(&tree));
    findings.extend(documents::check(&tree));
    findings.extend(specs::check(&tree));
    findings.extend(closure::check(place)?);
    for finding in &findings {
        println!("{finding}");
    }
    let broken = findings.iter().filter(|finding| !finding.is_warning).count();
    if broken == 0 {
        println!("tidy: {} files keep the rules", tree.len());
        return Ok(());
    }
    Err(Failure::new(
        format!("{broken} rules of the source tree broken"),
        "mend what is listed above; the rules and their reasons are in ops/xtask/src/tidy",
    ))
}
