//! The text of a module: its definitions, the comments above them, and what is at a place that TLC
//! names.
//!
//! A definition begins at the left margin with its name; the comment that ends on the line above it
//! is its own. That is how the modules of `tla/` are written, and all that is understood here.

use super::output::Span;

/// The operator that all steps are part of.
const NEXT: &str = "Next";

/// A module's text.
#[derive(Debug, Clone)]
pub(super) struct Module {
    lines: Vec<String>,
    definitions: Vec<Definition>,
}

/// One definition at the left margin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) name: String,
    /// The names of its parameters.
    pub(super) parameters: Vec<String>,
    /// The line it begins on, from 1, and the last before the next one.
    line: usize,
    last_line: usize,
    /// The comment above it, on one line; empty without one.
    pub(super) comment: String,
    /// Its text, without comments that stand on lines of their own.
    pub(super) body: String,
}

impl Module {
    /// Reads a module's text.
    pub(super) fn new(text: &str) -> Module {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let heads: Vec<(usize, String, Vec<String>)> = lines
            .iter()
            .enumerate()
            .filter_map(|(at, line)| head(line).map(|(name, args)| (at, name, args)))
            .collect();
        let mut definitions = Vec::new();
        for (index, (at, name, parameters)) in heads.iter().enumerate() {
            let next = heads.get(index + 1).map_or(lines.len(), |(next, ..)| *next);
            let body: Vec<&str> = lines[*at..next]
                .iter()
                .map(String::as_str)
                .filter(|line| !line.trim_start().starts_with("(*") && !line.starts_with("---"))
                .collect();
            definitions.push(Definition {
                name: name.clone(),
                parameters: parameters.clone(),
                line: at + 1,
                last_line: next,
                comment: comment_above(&lines[..*at]),
                body: body.join("\n"),
            });
        }
        Module { lines, definitions }
    }

    /// The definition of a name.
    pub(super) fn named(&self, name: &str) -> Option<&Definition> {
        self.definitions.iter().find(|it| it.name == name)
    }

    /// The definition that a line belongs to.
    pub(super) fn at_line(&self, line: usize) -> Option<&Definition> {
        self.definitions.iter().find(|it| (it.line..=it.last_line).contains(&line))
    }

    /// The action that a step is: TLC names the operator that it split into steps, which may be
    /// `Next`. Then it is the first operator in the step's own text that has a comment, or changes a
    /// variable.
    pub(super) fn action(&self, name: &str, span: &Span) -> Option<&Definition> {
        let own = self.named(name);
        if own.is_some_and(|it| !it.comment.is_empty() && it.name != NEXT) {
            return own;
        }
        let text = self.text(span);
        let is_part = |it: char| it.is_alphanumeric() || it == '_';
        let words = text.split(|it| !is_part(it));
        let called: Vec<&Definition> = words.filter_map(|word| self.named(word)).collect();
        let is_told = |it: &&&Definition| !it.comment.is_empty() && !it.parameters.is_empty();
        let changes = |it: &&&Definition| it.body.contains('\'') && it.name != name;
        let action = called.iter().find(is_told).or_else(|| called.iter().find(changes));
        action.copied().or(own)
    }

    /// The text at a place.
    fn text(&self, span: &Span) -> String {
        let Some(lines) = self.lines.get(span.line - 1..span.last_line) else {
            return String::new();
        };
        let mut text = lines.join("\n");
        let last = lines.last().map_or(0, |line| line.chars().count());
        let cut = last.saturating_sub(span.last_column);
        let kept = text.chars().count().saturating_sub(cut);
        text = text.chars().take(kept).skip(span.column - 1).collect();
        text
    }
}

/// The name and parameters that a definition at the left margin begins with.
fn head(line: &str) -> Option<(String, Vec<String>)> {
    let (left, _) = line.split_once("==")?;
    let left = left.trim_end();
    let (name, parameters) = match left.split_once('(') {
        Some((name, parameters)) => (name, parameters.strip_suffix(')')?),
        None => (left, ""),
    };
    let is_name = |it: &str| {
        it.chars().next().is_some_and(char::is_alphabetic)
            && it.chars().all(|it| it.is_alphanumeric() || it == '_')
    };
    let parameters: Vec<String> = parameters
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(String::from)
        .collect();
    is_name(name).then(|| (name.to_owned(), parameters))
}

/// The comment that ends on the last of these lines, on one line.
fn comment_above(lines: &[String]) -> String {
    let is_comment = |line: &&String| line.starts_with("(*") || line.starts_with("\\*");
    // Lines of a comment that was opened further up begin with a blank.
    let mut first = lines.len();
    let mut is_open = lines.last().is_some_and(|line| line.trim_end().ends_with("*)"));
    while first > 0 {
        let line = &lines[first - 1];
        if is_comment(&line) {
            is_open = false;
        } else if !is_open {
            break;
        }
        first -= 1;
    }
    let strip = |line: &String| {
        let line = line.trim().trim_start_matches("\\*");
        let line = line.trim_start_matches(['(', '*']).trim_end_matches([')', '*']);
        // A bracket that the sentence itself ends with.
        let closed = line.matches('(').count() > line.matches(')').count();
        format!("{}{}", line.trim(), if closed { ")" } else { "" })
    };
    let words: Vec<String> =
        lines[first..].iter().map(strip).filter(|line| !line.is_empty()).collect();
    words.join(" ")
}

impl Definition {
    /// The comment's first sentence, or the name without one.
    pub(super) fn sentence(&self) -> String {
        let end = self.comment.find(". ").map_or(self.comment.len(), |at| at + 1);
        let sentence = &self.comment[..end];
        if sentence.is_empty() { self.name.clone() } else { sentence.to_owned() }
    }

    /// The variables that are changed at one of the parameters: `v' = [v EXCEPT ![p] ...` gives
    /// the parameter's place and `v`.
    pub(super) fn indexed(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.body.match_indices(" EXCEPT ![") {
            let rest = &self.body[at + " EXCEPT ![".len()..];
            let Some((index, _)) = rest.split_once(']') else { continue };
            let variable = self.body[..at].rsplit('[').next().unwrap_or_default().trim();
            let is_primed = self.body[..at].contains(&format!("{variable}' ="));
            let parameter = self.parameters.iter().position(|it| it == index);
            if let Some(parameter) = parameter.filter(|_| is_primed) {
                found.push((parameter, variable.to_owned()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
---- MODULE M ----
Init == x = 0

(***********)
(* Crash: node n (any)  *)
(* loses it all. More.  *)
(***********)
Crash(n) ==
    /\\ up' = [up EXCEPT ![n] = FALSE]
    (* A remark == of no matter. *)
    /\\ crashes' = crashes + 1

(* Step: one. *)
Step == x' = 1
Next ==
    \\/ \\E n \\in Some(x) : Crash(n)
    \\/ Step
====";

    fn span(line: usize, column: usize, last_column: usize) -> Span {
        Span { module: "M".to_owned(), line, column, last_line: line, last_column }
    }

    /// Goal: definitions have their parameters and the comment above them.
    #[test]
    fn definitions() {
        let module = Module::new(TEXT);
        let crash = module.named("Crash").unwrap();
        assert_eq!(crash.parameters, ["n"]);
        assert_eq!(crash.comment, "Crash: node n (any) loses it all. More.");
        assert_eq!(crash.sentence(), "Crash: node n (any) loses it all.");
        assert_eq!(crash.indexed(), [(0, "up".to_owned())]);
        assert_eq!(module.named("Init").unwrap().sentence(), "Init");
        assert_eq!(module.at_line(9), module.named("Crash"));
        assert_eq!(module.named("A remark"), None);
    }

    /// Goal: a step that TLC calls `Next` is known by the action in its text.
    #[test]
    fn steps_are_actions() {
        let module = Module::new(TEXT);
        let name = |called: &str, span: &Span| module.action(called, span).unwrap().name.clone();
        assert_eq!(name("Step", &span(14, 1, 14)), "Step");
        assert_eq!(name("Next", &span(16, 8, 35)), "Crash");
        assert_eq!(name("Next", &span(17, 8, 11)), "Step");
    }
}
