//! A counterexample in words: for each step the sentence that the module says about its action, and
//! what it changed.
//!
//! TLC 2.15 does not say with which parameters an action was taken. Where the action changes a
//! variable at a parameter's place (`v' = [v EXCEPT ![n] = ...]`), the parameter is read off what
//! changed.

use std::collections::BTreeMap;
use std::path::Path;

use super::module::{Definition, Module};
use super::output::{Output, Span, State, Tail};
use crate::place::entries;
use crate::run::Failure;

/// The modules of `tla/`, by name.
#[derive(Debug)]
pub(super) struct Modules(BTreeMap<String, Module>);

impl Modules {
    /// Reads all modules of a directory.
    ///
    /// # Errors
    /// One cannot be read.
    pub(super) fn load(directory: &Path) -> Result<Modules, Failure> {
        let mut modules = BTreeMap::new();
        for path in entries(directory) {
            if path.extension().is_some_and(|it| it == "tla") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                modules.insert(name, Module::new(&super::read_text(&path)?));
            }
        }
        Ok(Modules(modules))
    }

    /// The name of a property that TLC calls by its place: `line 3, col 1 to ... of module M`.
    pub(super) fn property(&self, said: &str) -> String {
        let named = || {
            let (place, module) = said.strip_prefix("line ")?.split_once(" of module ")?;
            let line = place.split(',').next()?.parse().ok()?;
            Some(self.0.get(module)?.at_line(line)?.name.clone())
        };
        named().unwrap_or_else(|| said.to_owned())
    }

    fn action(&self, name: &str, span: &Span) -> Option<&Definition> {
        self.0.get(&span.module)?.action(name, span)
    }

    /// The counterexample of a run; with `whole`, its first and last states too.
    pub(super) fn tell(&self, output: &Output, whole: bool) -> String {
        let mut lines = Vec::new();
        let mut before: Option<&State> = None;
        for (at, state) in output.trace.iter().enumerate() {
            let number = at + 1;
            match (&state.step, before) {
                (Some((name, span)), Some(before)) => {
                    lines.push(format!("{number:>5}. {}", self.step(name, span, before, state)));
                    let changes = changes(before, state);
                    lines.extend(changes.iter().map(|change| format!("         {change}")));
                }
                _ => {
                    lines.push(format!("{number:>5}. The beginning."));
                    if whole {
                        lines.extend(variables(state));
                    }
                }
            }
            before = Some(state);
        }
        if let (true, Some(last)) = (whole && output.trace.len() > 1, before) {
            lines.push("       In the end:".to_owned());
            lines.extend(variables(last));
        }
        match output.tail {
            Tail::Ends => {}
            Tail::Stutters => lines.push("       Then nothing happens any more.".to_owned()),
            Tail::BackTo(state) => {
                lines.push(format!("       Then it goes on for ever as from {state}."));
            }
        }
        lines.join("\n")
    }

    /// One step: `Crash (n = n1): node n loses power.`
    fn step(&self, name: &str, span: &Span, before: &State, state: &State) -> String {
        let Some(action) = self.action(name, span) else { return name.to_owned() };
        let mut given: BTreeMap<usize, String> = BTreeMap::new();
        for (parameter, variable) in action.indexed() {
            let of = |state: &State| {
                state
                    .variables
                    .iter()
                    .find(|(it, _)| *it == variable)
                    .map(|(_, value)| value.clone())
            };
            if let (Some(old), Some(new)) = (of(before), of(state))
                && let [key] = &old.changed_keys(&new)[..]
            {
                given.insert(parameter, key.clone());
            }
        }
        let given: Vec<String> =
            given.iter().map(|(at, key)| format!("{} = {key}", action.parameters[*at])).collect();
        let given =
            if given.is_empty() { String::new() } else { format!(" ({})", given.join(", ")) };
        let sentence = action.sentence();
        let told = match sentence.split_once(": ") {
            Some((head, told)) if is_name(head, &action.name) => told,
            _ => sentence.as_str(),
        };
        match told {
            told if *told == action.name => format!("{told}{given}"),
            told => format!("{}{given}: {told}", action.name),
        }
    }
}

/// Whether a comment's head is the action's name in words: "Try again" for `TryAgain`.
fn is_name(head: &str, name: &str) -> bool {
    head.split(' ').collect::<String>().eq_ignore_ascii_case(name)
}

fn changes(before: &State, state: &State) -> Vec<String> {
    let changed = state.variables.iter().flat_map(|(name, new)| {
        let old = before.variables.iter().find(|(it, _)| it == name);
        old.map_or_else(Vec::new, |(_, old)| old.changes(name, new))
    });
    changed.collect()
}

fn variables(state: &State) -> impl Iterator<Item = String> {
    let shown = state.variables.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("         {name} = {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tla::output;

    fn modules() -> Modules {
        let text = "\
---- MODULE A ----


x

(* Up: x goes up by n. And y too. *)
Up(n) == x < 5 /\\ x' = x + n /\\ y' = [y EXCEPT ![n] = 1]
Reset == x = 5 /\\ x' = 0

Grows == [][x' > x]_x";
        Modules([("A".to_owned(), Module::new(text))].into())
    }

    /// Goal: a recorded counterexample reads as sentences, with what each step changed.
    #[test]
    fn a_counterexample_is_told() {
        let recorded = output::read(include_str!("output/recorded/action.txt"));
        let told = modules().tell(&recorded, false);
        let lines: Vec<&str> = told.lines().map(str::trim).collect();
        assert_eq!(
            lines[..4],
            [
                "1. The beginning.",
                "2. Up (n = 1): x goes up by n.",
                "x: 0 -> 1",
                "y gains at its end [a: \"s\", b: TRUE]"
            ]
        );
        assert!(lines.contains(&"5. Reset"), "{told}");
        assert!(modules().tell(&recorded, true).contains("In the end:\n         x = 0"));
        let endless = output::read(include_str!("output/recorded/loops.txt"));
        assert!(modules().tell(&endless, false).ends_with("as from 1."));
    }

    /// Goal: a parameter is read off the place that changed.
    #[test]
    fn parameters_are_read_off() {
        let state = |x: &str, y: &str, step: bool| State {
            step: step.then(|| {
                let module = "A".to_owned();
                ("Up".to_owned(), Span { module, line: 7, column: 1, last_line: 7, last_column: 9 })
            }),
            variables: [("x", x), ("y", y)]
                .map(|(name, value)| (name.to_owned(), crate::tla::value::Value::parse(value)))
                .into(),
        };
        let (old, new) =
            (state("1", "(a :> 0 @@ b :> 0)", false), state("2", "(a :> 0 @@ b :> 1)", true));
        let (name, span) = new.step.clone().unwrap();
        assert_eq!(modules().step(&name, &span, &old, &new), "Up (n = b): x goes up by n.");
    }

    /// Goal: a property that TLC knows by its place has its name.
    #[test]
    fn properties_have_names() {
        let said = "line 10, col 10 to line 10, col 21 of module A";
        assert_eq!(modules().property(said), "Grows");
        assert_eq!(modules().property("Grows"), "Grows");
    }
}
