//! The table of models in `tla/README.md`: written by `cargo xtask tla --record`, from the models'
//! heads and from what TLC counted. Rows of models that were not run keep their figures.

use std::collections::BTreeMap;
use std::path::Path;

use super::models::{self, Model};
use super::{Row, read_text, told};
use crate::run::Failure;

const BEGIN: &str = "<!-- models: written by `cargo xtask tla --record` -->";
const END: &str = "<!-- end of models -->";
const HEAD: &str = "| model | kind | result | states | depth | seconds | shows | bounds, and what they could hide |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- |\n";
/// What stands for the figures of a model that was never run to its end.
const NO_FIGURES: &str = "- | - | -";
/// Its result: what is expected of it has not been seen.
const NOT_RUN: &str = "not run to its end yet";

/// Writes the table anew.
///
/// # Errors
/// The document has no table, or cannot be written.
pub(super) fn record(readme: &Path, models: &[Model], rows: &[Row]) -> Result<(), Failure> {
    let text = read_text(readme)?;
    let Some(text) = with_table(&text, models, rows) else {
        let what = format!("{} has no table of models", readme.display());
        return Err(Failure::new(what, format!("put it between `{BEGIN}` and `{END}`")));
    };
    models::write(readme, &text)
}

fn with_table(text: &str, models: &[Model], rows: &[Row]) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (old, after) = rest.split_once(END)?;
    let old: BTreeMap<&str, String> = old.lines().filter_map(figures).collect();
    let mut table = String::new();
    for model in models {
        let ran = rows.iter().find(|row| row.name == model.name && row.verdict.is_ok());
        let figures = ran.map(in_figures).or_else(|| old.get(&*model.name).cloned());
        let figures = figures.unwrap_or_else(|| NO_FIGURES.to_owned());
        let Model { name, kind, shows, hides, .. } = model;
        let result = match &*figures {
            NO_FIGURES => NOT_RUN.to_owned(),
            _ => told(&model.expect),
        };
        let row = format!("| `{name}` | {kind} | {result} | {figures} | {shows} | {hides} |\n");
        table.push_str(&row);
    }
    Some(format!("{before}{BEGIN}\n\n{HEAD}{table}\n{END}{after}"))
}

/// A model's name and its figures, from its row.
fn figures(line: &str) -> Option<(&str, String)> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
    Some((name, cells.get(4..7)?.join(" | ")))
}

fn in_figures(row: &Row) -> String {
    let number = |it: Option<u64>| it.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let seconds = row.took.as_secs_f64();
    format!("{} | {} | {seconds:.0}", number(row.states), number(row.depth))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tla::models::Kind;
    use crate::tla::output::Ending;

    fn model(name: &str) -> Model {
        Model {
            name: name.to_owned(),
            spec: "A".to_owned(),
            kind: Kind { must_fail: false, is_long: false },
            expect: Ending::Passed,
            shows: "s".to_owned(),
            hides: "h".to_owned(),
            simulate: None,
            path: "x".into(),
        }
    }

    /// Goal: what was run has new figures, what was not keeps them, what is gone goes.
    #[test]
    fn figures_are_kept_and_renewed() {
        let old = format!(
            "a\n{BEGIN}\n| `A-x` | small | passed | 1 | 2 | 3 | s | h |\n| `A-z` | small | passed | 1 | 1 | 1 | s | h |\n{END}\nb"
        );
        let row = Row {
            name: "A-y".to_owned(),
            kind: String::new(),
            states: Some(7),
            depth: None,
            took: Duration::from_secs(4),
            verdict: Ok(String::new()),
            story: None,
        };
        let new = with_table(&old, &[model("A-w"), model("A-x"), model("A-y")], &[row]).unwrap();
        let rows: Vec<&str> = new.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                "| `A-w` | small | not run to its end yet | - | - | - | s | h |",
                "| `A-x` | small | passed | 1 | 2 | 3 | s | h |",
                "| `A-y` | small | passed | 7 | - | 4 | s | h |"
            ]
        );
        assert!(new.starts_with("a\n") && new.ends_with("\nb"));
        assert_eq!(with_table("no table", &[], &[]), None);
    }
}
