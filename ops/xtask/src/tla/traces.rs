//! Traces of the code, held against the specifications.
//!
//! The simulator plays short runs with faults and writes what the core did to a key as sequences of
//! TLA+ records. `TraceCausality`, `TraceReplication` and `TraceStability` let TLC take a step of their
//! specification for each record: where there is none, TLC stands still before the end of the trace, and the
//! trace is refused. Traces with a mistake in them must all be refused: those with one step altered at
//! just that step, those of a bug that was put back somewhere.

use std::path::{Path, PathBuf};

use super::models::{self, checking_only};
use super::output::Ending;
use super::tlc::{Scratch, Task};
use super::value::Value;
use super::{Bench, LIMIT, Row, read_text};
use crate::place::{Place, entries};
use crate::run::{self, Child, Failure};
use crate::suite::SIM_BUILD;

/// Good traces of each kind of runs, of one seed each.
const COUNT: &str = "250";
/// The invariant that traces with a mistake in them are held to.
const REFUSED: &str = "MistakesAreRefused";

/// Traces of one kind for one specification.
#[derive(Debug, Clone)]
pub(super) struct Traces {
    /// `TraceCausality`, for one.
    pub(super) spec: String,
    /// What the table calls them.
    pub(super) name: String,
    /// Whether each has a mistake in it.
    is_bad: bool,
    /// The directory with their `TraceData.tla`.
    data: PathBuf,
}

/// Has the simulator write traces. Returns them with the directory that they are in.
///
/// # Errors
/// The simulator cannot be built, or found a rule broken.
pub(super) fn record(place: &Place, scratch: &Scratch) -> Result<Vec<Traces>, Failure> {
    run::cargo(place, &SIM_BUILD).run("fix the errors above")?;
    let directory = scratch.0.display().to_string();
    Child::new(place.sim_binary(), &["--tla", &directory, "--seeds", COUNT])
        .directory(&place.root)
        .run("`cargo xtask sim` finds the reason: a rule of the simulator is broken")?;
    let mut all = Vec::new();
    for path in entries(&scratch.0) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (is_bad, spec) = name.strip_prefix("bad-").map_or((false, &*name), |it| (true, it));
        let spec = match spec {
            "causality" => "TraceCausality",
            "replication" => "TraceReplication",
            "stability" => "TraceStability",
            _ => continue,
        };
        let kind = if is_bad { "with a mistake" } else { "of the code" };
        let (name, data) = (format!("{spec}: traces {kind}"), path.clone());
        all.push(Traces { spec: spec.to_owned(), name, is_bad, data });
    }
    Ok(all)
}

impl Bench {
    /// Checks all traces of one kind.
    pub(super) fn run_traces(&self, traces: &Traces) -> Result<Row, Failure> {
        let scratch = self.tlc.scratch()?;
        self.copy_modules(&scratch)?;
        let data = read_text(&traces.data.join("TraceData.tla"))?;
        models::write(&scratch.0.join("TraceData.tla"), &data)?;
        let config = read_text(&self.tla.join("traces").join(format!("{}.cfg", traces.spec)))?;
        let config = match traces.is_bad {
            true => checking_only(&config, &Ending::Invariant(REFUSED.to_owned())),
            false => config,
        };
        let file = scratch.0.join("traces.cfg");
        models::write(&file, &config)?;
        let done = self.tlc.run(&Task {
            modules: &scratch.0,
            module: &traces.spec,
            config: &file,
            simulate: None,
            stands_still: traces.is_bad,
            is_short: false,
            limit: LIMIT,
        })?;
        let kind = if traces.is_bad { "must fail" } else { "traces" };
        let mut row = self.row(&traces.name, kind, &Ending::Passed, &done)?;
        row.verdict = match row.verdict {
            Ok(_) if traces.is_bad => Ok(format!("all {} are refused", count(&data))),
            Ok(_) => Ok(format!("all {} are accepted", count(&data))),
            Err(verdict) => Err(match done.output.trace.last() {
                Some(state) => format!("{verdict}\n       {}", place_of(&state.variables, &data)),
                None => verdict,
            }),
        };
        Ok(row)
    }

    /// Copies the modules to where they may be changed or added to.
    pub(super) fn copy_modules(&self, scratch: &Scratch) -> Result<(), Failure> {
        for path in entries(&self.tla) {
            let is_module = path.extension().is_some_and(|it| it == "tla");
            if let Some(file) = path.file_name().filter(|_| is_module) {
                models::write(&scratch.0.join(Path::new(file)), &read_text(&path)?)?;
            }
        }
        Ok(())
    }
}

fn origins(data: &str) -> impl Iterator<Item = &str> {
    let list = data.split("Origins == <<").nth(1).and_then(|rest| rest.split(">>").next());
    list.unwrap_or_default().split('"').skip(1).step_by(2)
}

fn count(data: &str) -> usize {
    origins(data).count()
}

/// Which trace a state of a module of traces is in, and at which step.
fn place_of(variables: &[(String, Value)], data: &str) -> String {
    let number = |name: &str| {
        let value = variables.iter().find(|(it, _)| it == name).map(|(_, value)| value);
        value.and_then(|value| value.to_string().parse::<usize>().ok()).unwrap_or(0)
    };
    let (trace, at) = (number("trace"), number("at"));
    let origin = origins(data).nth(trace.saturating_sub(1)).unwrap_or("?");
    let steps = data.split(&format!("\nT{trace} == <<\n")).nth(1).unwrap_or_default();
    let step = steps.split("\n>>").next().and_then(|it| it.lines().nth(at.saturating_sub(1)));
    match step {
        Some(step) => format!("{origin}: at step {at}: {}", step.trim()),
        None => format!("{origin}: accepted to its end, step {}", at.saturating_sub(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "---- MODULE TraceData ----\nOrigins == <<\n  \"seed 3\",\n  \"seed 5, bug: X\">>\n\
                        T1 == <<\n  [k |-> \"a\"],\n  [k |-> \"b\"]\n>>\nT2 == <<\n  [k |-> \"c\"]\n>>\n";

    /// Goal: a refused step is named by its seed and its record, and a trace that should have been
    /// refused by its seed.
    #[test]
    fn refused_steps_have_names() {
        let at = |trace: &str, at: &str| {
            let state = [("trace", trace), ("at", at)];
            let state = state.map(|(name, value)| (name.to_owned(), Value::parse(value)));
            place_of(&state, DATA)
        };
        assert_eq!(count(DATA), 2);
        assert_eq!(at("1", "2"), "seed 3: at step 2: [k |-> \"b\"]");
        assert_eq!(at("2", "2"), "seed 5, bug: X: accepted to its end, step 1");
    }
}
