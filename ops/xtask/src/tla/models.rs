//! The models: files of `tla/models` whose first comments say what TLC is to do with them and what
//! must come of it.
//!
//! ```text
//! \* kind: small | long | must fail | must fail long
//! \* expect: passes | NAME is violated | action property NAME is violated
//!            | temporal properties are violated
//! \* shows: a sentence
//! \* simulate: BEHAVIOURS DEPTH    (random behaviours instead of all states)
//! \* hides: a sentence about what bounds, constraints and symmetry could hide
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::output::Ending;
use crate::place::entries;
use crate::run::Failure;

/// When a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) must_fail: bool,
    pub(super) is_long: bool,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match (self.must_fail, self.is_long) {
            (false, false) => "small",
            (false, true) => "long",
            (true, false) => "must fail",
            (true, true) => "must fail long",
        })
    }
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    /// The file's name without `.cfg`: `Spec-name`.
    pub(super) name: String,
    pub(super) spec: String,
    pub(super) kind: Kind,
    pub(super) expect: Ending,
    pub(super) shows: String,
    /// What its bounds could hide.
    pub(super) hides: String,
    /// How many random behaviours of how many steps, if not all states.
    pub(super) simulate: Option<(u64, u64)>,
    pub(super) path: PathBuf,
}

impl Model {
    /// Reads a model's head.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(path: &Path, text: &str) -> Result<Model, String> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some((spec, _)) = name.split_once('-') else {
            return Err("its name must be SPEC-NAME.cfg".to_owned());
        };
        let (mut kind, mut expect, mut shows, mut simulate) = (None, None, None, None);
        let mut hides = String::new();
        for line in text.lines() {
            let Some(line) = line.strip_prefix("\\* ") else { continue };
            let Some((key, value)) = line.split_once(": ") else { continue };
            let value = value.trim();
            match key {
                "kind" => kind = Some(read_kind(value)?),
                "expect" => expect = Some(read_expectation(value)?),
                "shows" => shows = Some(value.to_owned()),
                "hides" => hides = value.to_owned(),
                "simulate" => simulate = Some(read_simulation(value)?),
                _ => {}
            }
        }
        let missing = |what: &str| format!("its head has no line `\\* {what}: ...`");
        let kind = kind.ok_or_else(|| missing("kind"))?;
        let expect = expect.ok_or_else(|| missing("expect"))?;
        if kind.must_fail == (expect == Ending::Passed) {
            return Err(format!("its kind `{kind}` does not go with what it expects"));
        }
        Ok(Model {
            spec: spec.to_owned(),
            kind,
            expect,
            shows: shows.ok_or_else(|| missing("shows"))?,
            hides,
            simulate,
            path: path.to_owned(),
            name,
        })
    }
}

fn read_kind(text: &str) -> Result<Kind, String> {
    let (must_fail, is_long) = match text {
        "small" => (false, false),
        "long" => (false, true),
        "must fail" => (true, false),
        "must fail long" => (true, true),
        other => return Err(format!("there is no kind `{other}`")),
    };
    Ok(Kind { must_fail, is_long })
}

fn read_expectation(text: &str) -> Result<Ending, String> {
    let text = text.trim_end_matches('.');
    if text == "passes" {
        return Ok(Ending::Passed);
    }
    let what = text.strip_suffix(" is violated").or_else(|| text.strip_suffix(" are violated"));
    what.and_then(read_property).ok_or_else(|| format!("`expect: {text}` is not understood"))
}

/// What a violation is of: `NAME`, `action property NAME`, `temporal properties`.
pub(super) fn read_property(text: &str) -> Option<Ending> {
    let is_name =
        |it: &str| !it.is_empty() && it.chars().all(|it| it.is_alphanumeric() || it == '_');
    if text == "temporal properties" {
        return Some(Ending::Temporal);
    }
    if let Some(name) = text.strip_prefix("action property ").filter(|it| is_name(it)) {
        return Some(Ending::Action(name.to_owned()));
    }
    is_name(text).then(|| Ending::Invariant(text.to_owned()))
}

fn read_simulation(text: &str) -> Result<(u64, u64), String> {
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    match numbers[..] {
        [behaviours, depth] if behaviours > 0 && depth > 0 => Ok((behaviours, depth)),
        _ => Err(format!("`simulate: {text}` is not two numbers")),
    }
}

/// The models of a directory that `takes` a specification and a model by their names.
///
/// # Errors
/// There are none at all, or one that is taken has a bad head.
pub(super) fn load(
    directory: &Path,
    takes: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Model>, Failure> {
    let mut models = Vec::new();
    let files = entries(directory);
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let spec = name.split('-').next().unwrap_or_default();
        if path.extension().is_none_or(|it| it != "cfg") || !takes(spec, &name) {
            continue;
        }
        let text = super::read_text(path)?;
        let model = Model::read(path, &text).map_err(|what| {
            let path = path.display();
            Failure::new(format!("{path}: {what}"), "see the comment at the head of models.rs")
        })?;
        models.push(model);
    }
    if files.is_empty() {
        let what = format!("no models in {}", directory.display());
        return Err(Failure::new(what, "the clone is not whole: get it again"));
    }
    Ok(models)
}

/// A configuration that checks one thing only: the given invariant or action property, or, for
/// temporal properties, all properties and no invariant.
pub(super) fn checking_only(config: &str, what: &Ending) -> String {
    let keeps_properties = *what == Ending::Temporal;
    let mut is_kept = true;
    let mut text = String::new();
    for line in config.lines() {
        let line = line.split("\\*").next().unwrap_or_default();
        for word in line.split_whitespace() {
            match word {
                "INVARIANT" | "INVARIANTS" => is_kept = false,
                "PROPERTY" | "PROPERTIES" => is_kept = keeps_properties,
                "CONSTANT" | "CONSTANTS" | "INIT" | "NEXT" | "SPECIFICATION" | "SYMMETRY"
                | "VIEW" | "CONSTRAINT" | "CONSTRAINTS" | "ACTION_CONSTRAINT"
                | "ACTION_CONSTRAINTS" => is_kept = true,
                _ => {}
            }
            if is_kept {
                text.push_str(word);
                text.push(' ');
            }
        }
        text.push('\n');
    }
    match what {
        Ending::Invariant(name) => text.push_str(&format!("INVARIANT {name}\n")),
        Ending::Action(name) => text.push_str(&format!("PROPERTY {name}\n")),
        _ => {}
    }
    text
}

/// Writes a file.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| {
        Failure::new(format!("cannot write {}: {error}", path.display()), "make room or access")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Model, String> {
        Model::read(Path::new("models/A-b.cfg"), head)
    }

    /// Goal: a whole head is read.
    #[test]
    fn heads() {
        let head = "\\* kind: must fail long\n\\* expect: X is violated\n\\* shows: it.\n\
                    \\* simulate: 100 20\n\nSPECIFICATION Spec\n";
        let model = read(head).unwrap();
        assert_eq!((model.name.as_str(), model.spec.as_str()), ("A-b", "A"));
        assert_eq!(model.kind, Kind { must_fail: true, is_long: true });
        assert_eq!(model.expect, Ending::Invariant("X".to_owned()));
        assert_eq!(model.simulate, Some((100, 20)));
    }

    /// Goal: a head with a mistake is refused, so that no model passes for want of being run.
    #[test]
    fn bad_heads() {
        let good = "\\* kind: small\n\\* expect: passes\n\\* shows: it\n";
        assert!(read(good).is_ok());
        for (from, to) in [
            ("small", "tiny"),
            ("passes", "passed"),
            ("passes", "X is violated"),
            ("small", "must fail"),
            ("\\* shows", "\\* show"),
            ("\\* kind", "kind"),
            ("\\* shows", "\\* simulate: 3\n\\* shows"),
        ] {
            assert!(read(&good.replace(from, to)).is_err(), "{to}");
        }
    }

    /// Goal: what must come of a model is read in all its forms.
    #[test]
    fn expectations() {
        let expect = |text: &str| read_expectation(text).ok();
        assert_eq!(expect("temporal properties are violated"), Some(Ending::Temporal));
        assert_eq!(
            expect("action property Grows is violated"),
            Some(Ending::Action("Grows".to_owned()))
        );
        assert_eq!(expect("something else is violated"), None);
    }

    /// Goal: a configuration for one property has all else that the model has.
    #[test]
    fn one_property() {
        let config = "CONSTANTS\n  N = 2 \\* two\nINVARIANTS A B\n  C\nPROPERTY D\nVIEW v\n";
        let words = |what: &Ending| -> String {
            checking_only(config, what).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let invariant = Ending::Invariant("B".to_owned());
        assert_eq!(words(&invariant), "CONSTANTS N = 2 VIEW v INVARIANT B");
        assert_eq!(words(&Ending::Temporal), "CONSTANTS N = 2 PROPERTY D VIEW v");
    }
}
