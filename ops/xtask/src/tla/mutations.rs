//! Mutations: changes of one line of a module that must break a property, so that each property is
//! seen to be able to fail.
//!
//! They are in `tla/mutations/SPEC.txt`, in blocks with an empty line between them:
//!
//! ```text
//! name: a short name
//! model: the model that it is tried on
//! line: the line of the module, or of one that it extends, as it is; it occurs once
//! becomes: the line in its place
//! breaks: NAME | action property NAME | temporal properties
//! shows: a sentence
//! ```
//!
//! Only the named property is checked: another one may break sooner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::models::{Model, read_property};
use super::output::Ending;
use crate::place::entries;
use crate::run::Failure;

/// One mutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mutation {
    pub(super) name: String,
    /// The model it is tried on.
    pub(super) model: Model,
    pub(super) line: String,
    pub(super) becomes: String,
    pub(super) breaks: Ending,
    pub(super) shows: String,
}

impl Mutation {
    fn read(block: &str, models: &[Model]) -> Result<Mutation, String> {
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        for line in block.lines() {
            let Some((key, value)) = line.split_once(": ") else {
                return Err(format!("`{line}` is not `key: value`"));
            };
            if fields.insert(key.trim(), value.trim()).is_some() {
                return Err(format!("`{key}` twice in one block"));
            }
        }
        let take = |key: &str| {
            fields.get(key).copied().ok_or_else(|| format!("no `{key}` in the block of `{block}`"))
        };
        let model = take("model")?;
        let breaks = take("breaks")?;
        Ok(Mutation {
            name: take("name")?.to_owned(),
            model: models
                .iter()
                .find(|it| it.name == model)
                .cloned()
                .ok_or_else(|| format!("there is no model `{model}`"))?,
            line: take("line")?.to_owned(),
            becomes: take("becomes")?.to_owned(),
            breaks: read_property(breaks).ok_or_else(|| format!("what is `{breaks}`?"))?,
            shows: take("shows")?.to_owned(),
        })
    }

    /// The module with the line changed.
    ///
    /// # Errors
    /// The line is not there, or there more than once.
    pub(super) fn apply(&self, module: &str) -> Result<String, String> {
        let found = module.lines().filter(|line| line.trim() == self.line).count();
        if found != 1 {
            return Err(format!("the line `{}` occurs {found} times, not once", self.line));
        }
        let mut text = String::with_capacity(module.len());
        for line in module.lines() {
            if line.trim() == self.line {
                text.push_str(&line.replace(&self.line, &self.becomes));
            } else {
                text.push_str(line);
            }
            text.push('\n');
        }
        Ok(text)
    }
}

/// The file and the text of the module with a line: the specification's own, or one of ours that it
/// extends. The specification's own where none has it.
///
/// # Errors
/// A module cannot be read.
pub(super) fn find(directory: &Path, spec: &str, line: &str) -> Result<(PathBuf, String), Failure> {
    let of = |module: &str| directory.join(format!("{module}.tla"));
    let own = (of(spec), super::read_text(&of(spec))?);
    let mut waiting: Vec<String> = extended(&own.1);
    if own.1.lines().any(|it| it.trim() == line) {
        return Ok(own);
    }
    while let Some(module) = waiting.pop() {
        let path = of(&module);
        // The others are TLC's own.
        if path.exists() {
            let text = super::read_text(&path)?;
            if text.lines().any(|it| it.trim() == line) {
                return Ok((path, text));
            }
            waiting.extend(extended(&text));
        }
    }
    Ok(own)
}

/// The modules that a module extends.
fn extended(text: &str) -> Vec<String> {
    let names = text.lines().find_map(|line| line.strip_prefix("EXTENDS "));
    names.map_or(vec![], |names| names.split(',').map(|it| it.trim().to_owned()).collect())
}

/// The mutations of the specifications that `takes` takes by their names.
///
/// # Errors
/// A file cannot be read or understood.
pub(super) fn load(
    directory: &Path,
    models: &[Model],
    takes: impl Fn(&str) -> bool,
) -> Result<Vec<Mutation>, Failure> {
    let mut mutations = Vec::new();
    for path in entries(directory) {
        let spec = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_none_or(|it| it != "txt") || !takes(&spec) {
            continue;
        }
        let text = super::read_text(&path)?;
        let blocks = text.split("\n\n").map(str::trim).filter(|block| !block.is_empty());
        for block in blocks {
            let mutation = Mutation::read(block, models).map_err(|what| {
                let path = path.display();
                Failure::new(
                    format!("{path}: {what}"),
                    "see the comment at the head of mutations.rs",
                )
            })?;
            mutations.push(mutation);
        }
    }
    Ok(mutations)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a line is found in the module itself, in one that it extends, and in one that this one
    /// extends. Method: three modules, of which the last is extended by the second.
    #[test]
    fn a_line_is_found_where_it_is() {
        let directory = std::env::temp_dir().join(format!("holm-mutations-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for (name, text) in [
            ("A", "EXTENDS Naturals, B\n  x == 1\n"),
            ("B", "EXTENDS C\n  y == 1\n"),
            ("C", "z == 1\n"),
        ] {
            std::fs::write(directory.join(format!("{name}.tla")), text).unwrap();
        }
        let found = |line: &str| {
            let path = find(&directory, "A", line).unwrap().0;
            path.file_stem().unwrap().to_string_lossy().into_owned()
        };
        let all = [found("x == 1"), found("y == 1"), found("z == 1"), found("nowhere")];
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(all, ["A", "B", "C", "A"]);
    }
    use crate::tla::models::Kind;

    fn model() -> Model {
        Model {
            name: "A-b".to_owned(),
            spec: "A".to_owned(),
            kind: Kind { must_fail: false, is_long: false },
            expect: Ending::Passed,
            shows: String::new(),
            hides: String::new(),
            simulate: None,
            path: "A-b.cfg".into(),
        }
    }

    const BLOCK: &str =
        "name: n\nmodel: A-b\nline: x = 1\nbecomes: x = 2\nbreaks: I\nshows: it: so";

    /// Goal: a block is read, and one with a mistake is refused.
    #[test]
    fn blocks() {
        let mutation = Mutation::read(BLOCK, &[model()]).unwrap();
        assert_eq!(mutation.breaks, Ending::Invariant("I".to_owned()));
        assert_eq!(mutation.shows, "it: so");
        for (from, to) in [("A-b", "A-c"), ("line: ", "lin: "), ("breaks: I", "breaks: what is")] {
            assert!(Mutation::read(&BLOCK.replace(from, to), &[model()]).is_err(), "{to}");
        }
    }

    /// Goal: just the one line changes; a line that is not there, or twice, is refused.
    #[test]
    fn one_line_changes() {
        let mutation = Mutation::read(BLOCK, &[model()]).unwrap();
        assert_eq!(mutation.apply("a\n  x = 1\nb\n").unwrap(), "a\n  x = 2\nb\n");
        assert!(mutation.apply("a\n").is_err());
        assert!(mutation.apply("x = 1\nx = 1\n").is_err());
    }
}
