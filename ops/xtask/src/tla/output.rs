//! What TLC says in its `-tool` mode, read: how a run ended, how many states it saw, and the steps
//! of a counterexample.
//!
//! In this mode every message has a number and stands between two marks; the numbers are those of
//! TLC 2.15 (`tlc2.output.EC`). What is not recognized as an end of a known kind is an error, so a
//! run whose output cannot be read never counts as passed.

use super::value::Value;

/// How a run of TLC ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// Every state (or, when simulating, every behaviour tried) has what it must have.
    Passed,
    /// A state breaks this invariant.
    Invariant(String),
    /// A step breaks this property: its name, or where it is if it has none.
    Action(String),
    /// A behaviour breaks a temporal property: TLC does not say which.
    Temporal,
    /// A behaviour comes to a state from which no step leads on, where that is not allowed.
    Deadlock,
    /// The specification cannot be read or evaluated, or TLC ended by itself.
    Error(String),
}

/// A place in a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// The module.
    pub(super) module: String,
    /// The first line, from 1.
    pub(super) line: usize,
    /// Where it begins in its first line, from 1.
    pub(super) column: usize,
    /// The last line.
    pub(super) last_line: usize,
    /// The last character in its last line.
    pub(super) last_column: usize,
}

/// One state of a counterexample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// The name TLC gives to the step that led here, and where it is; `None` for the first state.
    pub(super) step: Option<(String, Span)>,
    /// The variables, as printed.
    pub(super) variables: Vec<(String, Value)>,
}

/// How a counterexample goes on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// It ends with the last state.
    Ends,
    /// Nothing happens any more.
    Stutters,
    /// It repeats from this state on, counted from 1.
    BackTo(usize),
}

/// A run of TLC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) ending: Ending,
    /// Distinct states; when simulating, states generated.
    pub(super) states: Option<u64>,
    /// Steps from an initial state to the farthest one.
    pub(super) depth: Option<u64>,
    pub(super) trace: Vec<State>,
    pub(super) tail: Tail,
}

/// Reads what TLC said.
pub(super) fn read(text: &str) -> Output {
    let mut output = Output {
        ending: Ending::Error("TLC did not say how it ended".to_owned()),
        states: None,
        depth: None,
        trace: Vec::new(),
        tail: Tail::Ends,
    };
    let mut is_decided = false;
    let mut is_finished = false;
    for message in messages(text) {
        if let Some(ending) = ending(&message) {
            // The first says what happened; later ones are about its consequences.
            if !is_decided {
                output.ending = ending;
                is_decided = true;
            }
        }
        is_finished |= message.number == 2186;
        output.take(&message);
    }
    if !is_decided {
        // Simulation says nothing when it found nothing; it must have come to its end.
        let simulated = text.contains("\nProgress(-1) at ") && is_finished;
        output.ending = if simulated { Ending::Passed } else { Ending::Error(outside(text)) };
    } else if let Ending::Error(what) = &mut output.ending {
        let more = outside(text);
        if !more.is_empty() {
            *what = format!("{what}\n{more}");
        }
    }
    output
}

struct Message<'a> {
    number: u32,
    /// TLC's severity: 1 is an error, 4 a state.
    class: u32,
    body: Vec<&'a str>,
}

impl Message<'_> {
    fn text(&self) -> String {
        self.body.join("\n").trim().to_owned()
    }
}

fn messages(text: &str) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    let mut open: Option<Message<'_>> = None;
    for line in text.lines() {
        // After a crash of the JVM the mark stands behind other text.
        if let Some((_, head)) = line.split_once("@!@!@STARTMSG ") {
            let head = head.trim_end_matches(" @!@!@");
            let (number, class) = head.split_once(':').unwrap_or((head, "0"));
            open = Some(Message {
                number: number.parse().unwrap_or(0),
                class: class.parse().unwrap_or(0),
                body: Vec::new(),
            });
        } else if line.starts_with("@!@!@ENDMSG ") {
            found.extend(open.take());
        } else if let Some(message) = &mut open {
            message.body.push(line);
        }
    }
    found.extend(open);
    found
}

/// What TLC and the JVM print outside of messages when something is wrong: errors of the parser.
fn outside(text: &str) -> String {
    let mut is_inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.contains("@!@!@STARTMSG ") {
            is_inside = true;
        } else if line.starts_with("@!@!@ENDMSG ") {
            is_inside = false;
        } else if !is_inside && !line.trim().is_empty() {
            let is_progress = ["Parsing file", "Semantic processing"];
            if !is_progress.iter().any(|it| line.starts_with(it)) {
                lines.push(line.trim_end());
            }
        }
    }
    lines.join("\n")
}

/// The ending that a message tells of, if it does.
fn ending(message: &Message<'_>) -> Option<Ending> {
    let text = message.text();
    let named = |before: &str| {
        let (name, _) = text.strip_prefix(before)?.split_once(" is violated")?;
        Some(name.to_owned())
    };
    match message.number {
        2193 => Some(Ending::Passed),
        2107 | 2110 => named("Invariant ").map(Ending::Invariant),
        2108 => named("Property ").map(Ending::Action),
        2112 => named("Action property ").map(Ending::Action),
        2116 => Some(Ending::Temporal),
        2114 => Some(Ending::Deadlock),
        // The trace's heading has the class of an error.
        2121 | 2264 => None,
        _ if message.class == 1 => Some(Ending::Error(text)),
        _ => None,
    }
}

impl Output {
    fn take(&mut self, message: &Message<'_>) {
        match message.number {
            2199 => {
                let body = message.text();
                self.states = number_before(&body, " distinct states found");
            }
            // Simulation counts no distinct states.
            2209 => {
                let body = message.text();
                if self.states.is_none() || body.contains("-1 distinct") {
                    self.states = number_before(&body, " states generated");
                }
            }
            2194 => {
                let body = message.text();
                let number = body.rsplit(' ').next().unwrap_or_default();
                self.depth = number.trim_end_matches('.').parse().ok();
            }
            2107 => {
                self.trace.push(State { step: None, variables: variables(&message.body[1..]) });
            }
            2217 => {
                let Some((head, rest)) = message.body.split_first() else { return };
                self.trace.push(State { step: step(head), variables: variables(rest) });
            }
            2218 => self.tail = Tail::Stutters,
            2122 => {
                let body = message.text();
                let number = body.split([':', ' ']).find_map(|word| word.parse().ok());
                self.tail = number.map_or(Tail::Stutters, Tail::BackTo);
            }
            _ => {}
        }
    }
}

/// `12,345 things` with `after` = " things".
fn number_before(text: &str, after: &str) -> Option<u64> {
    let (before, _) = text.split_once(after)?;
    let is_digit = |it: char| it.is_ascii_digit() || it == ',';
    let digits = before.rsplit(|it| !is_digit(it)).next()?;
    digits.replace(',', "").parse().ok()
}

/// The step in `3: <Name line 7, col 10 to line 7, col 71 of module A>`.
fn step(head: &str) -> Option<(String, Span)> {
    let inside = head.split_once('<')?.1.strip_suffix('>')?;
    let (name, place) = inside.split_once(" line ")?;
    let (range, module) = place.split_once(" of module ")?;
    let numbers: Vec<usize> =
        range.split(|it: char| !it.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [line, column, last_line, last_column] = numbers[..] else { return None };
    let module = module.to_owned();
    Some((name.to_owned(), Span { module, line, column, last_line, last_column }))
}

/// The variables of a state: `/\ name = value`, a value going on over lines that are indented.
fn variables(lines: &[&str]) -> Vec<(String, Value)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for line in lines {
        // A specification with one variable prints it without the conjunction.
        let plain = line.strip_prefix("/\\ ").or_else(|| texts.is_empty().then_some(*line));
        match plain.and_then(|it| it.split_once(" = ")) {
            Some((name, value)) => texts.push((name.to_owned(), value.to_owned())),
            None => {
                if let Some((_, value)) = texts.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            }
        }
    }
    texts.into_iter().map(|(name, text)| (name, Value::parse(&text))).collect()
}

#[cfg(test)]
mod tests;
