//! `cargo xtask tla`: the specifications in `tla/`, checked by TLC.
//!
//! Each model ([`models`]) says what must come of it: that it passes, or which property breaks, for
//! a model of a mistake. Mutations ([`mutations`]) change one line of a module each and must break
//! the property that they name. Two runs of TLC go side by side, each on one core; a line of a table
//! tells of each. A counterexample is told in words ([`words`]).

mod models;
mod module;
mod mutations;
mod output;
mod table;
mod tlc;
mod traces;
mod value;
mod words;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use models::Model;
use mutations::Mutation;
use output::Ending;
use tlc::{Done, Task, Tlc};
use traces::Traces;
use words::Modules;

use crate::place::Place;
use crate::run::Failure;

/// Runs of TLC at a time, each with one worker.
const AT_ONCE: usize = 2;
/// A model that takes longer hangs: small ones take a minute, long ones a quarter of an hour, on a
/// quiet machine.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const LONG_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// Lines of an error of TLC that are shown.
const ERROR_LINES_MAX: usize = 12;

/// What the command line asks for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Wanted {
    /// A specification or a model.
    only: Option<String>,
    long: bool,
    mutations: bool,
    /// Whether the figures go into the table of models.
    record: bool,
    /// A model whose counterexample is to be told.
    show: Option<String>,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Wanted, Failure> {
        let usage = |what: String| Failure::new(what, "see `cargo xtask help`");
        let mut wanted = Wanted::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--long" => wanted.long = true,
                "--mutations" => wanted.mutations = true,
                "--record" => wanted.record = true,
                "--show" => {
                    let model = args.next().ok_or_else(|| usage("--show needs a model".into()))?;
                    wanted.show = Some(model.clone());
                }
                flag if flag.starts_with('-') => return Err(usage(format!("no flag `{flag}`"))),
                name if wanted.only.is_none() => wanted.only = Some(name.to_owned()),
                more => return Err(usage(format!("`{more}` is one argument too many"))),
            }
        }
        Ok(wanted)
    }

    fn takes(&self, spec: &str, model: &str) -> bool {
        let only = self.show.as_deref().or(self.only.as_deref());
        only.is_none_or(|only| only == spec || only == model)
    }

    /// Whether traces of the code are wanted: with everything, or by their specification's name.
    fn traces(&self) -> bool {
        let names = self.only.as_deref().is_none_or(|only| only.starts_with("Trace"));
        names && !self.mutations && self.show.is_none()
    }

    /// Whether the mutations of a specification, or some of them, are wanted.
    fn mutates(&self, spec: &str) -> bool {
        let only = self.only.as_deref();
        self.mutations && only.is_none_or(|only| only.split('-').next() == Some(spec))
    }
}

/// Something TLC is to do.
#[derive(Debug, Clone)]
enum Job {
    Model(Model),
    Mutation(Mutation),
    Traces(Traces),
}

/// What came of it.
#[derive(Debug)]
struct Row {
    name: String,
    kind: String,
    states: Option<u64>,
    depth: Option<u64>,
    took: Duration,
    /// In words; `Err` is not as it must be.
    verdict: Result<String, String>,
    /// The counterexample, if it is to be told.
    story: Option<String>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |it: Option<u64>| it.map_or_else(|| "-".to_owned(), |it| it.to_string());
        let verdict = match &self.verdict {
            Ok(verdict) => verdict.clone(),
            Err(verdict) => format!("FAILED: {verdict}"),
        };
        let (states, depth) = (number(self.states), number(self.depth));
        let seconds = self.took.as_secs_f64();
        let Row { name, kind, .. } = self;
        write!(
            formatter,
            "{name:<44} {kind:<14} {states:>9} {depth:>5} {seconds:>7.1}  {verdict}"
        )?;
        match &self.story {
            Some(story) => write!(formatter, "\n{story}"),
            None => Ok(()),
        }
    }
}

/// Where the specifications are, and what checks them.
struct Bench {
    tla: PathBuf,
    modules: Modules,
    tlc: Tlc,
    /// Where what TLC said of a failure is kept.
    logs: PathBuf,
    shows: bool,
}

/// Runs what the arguments ask for.
///
/// # Errors
/// A model or a mutation does not end as it must, or TLC cannot be run.
pub(crate) fn run(place: &Place, args: &[String]) -> Result<(), Failure> {
    check(place, &Wanted::parse(args)?).map(drop)
}

/// What `cargo xtask test` runs; returns how many checks there were.
///
/// # Errors
/// As [`run`].
pub(crate) fn all_short(place: &Place) -> Result<u64, Failure> {
    let models = check(place, &Wanted::default())?;
    let mutations = check(place, &Wanted { mutations: true, ..Wanted::default() })?;
    Ok(models + mutations)
}

fn check(place: &Place, wanted: &Wanted) -> Result<u64, Failure> {
    let tla = place.root.join("tla");
    // A mutation may be tried on any model of its specification.
    let takes = |spec: &str, model: &str| wanted.takes(spec, model) || wanted.mutates(spec);
    let models = models::load(&tla.join("models"), takes)?;
    let mutations = mutations::load(&tla.join("mutations"), &models, |spec| wanted.mutates(spec))?;
    let tlc = Tlc::get(place)?;
    let data = tlc.scratch()?;
    let mut jobs = choose(wanted, models, mutations);
    if wanted.traces() {
        let recorded = traces::record(place, &data)?;
        let chosen = recorded.into_iter().filter(|it| wanted.takes(&it.spec, &it.spec));
        jobs.extend(chosen.map(Job::Traces));
    }
    if jobs.is_empty() {
        return Err(Failure::new(
            "nothing to do: no model or mutation is called that",
            "specifications are tla/*.tla, models tla/models/*.cfg, mutations tla/mutations/*.txt",
        ));
    }
    let bench = Bench {
        modules: Modules::load(&tla)?,
        tla,
        tlc,
        logs: place.target.join("tla/logs"),
        shows: wanted.show.is_some(),
    };
    println!("{:<44} {:<14} {:>9} {:>5} {:>7}", "model", "kind", "states", "depth", "seconds");
    let began = Instant::now();
    let count = jobs.len() as u64;
    let rows = bench.run_all(jobs)?;
    if wanted.record {
        let all = models::load(&bench.tla.join("models"), |_, _| true)?;
        table::record(&bench.tla.join("README.md"), &all, &rows)?;
    }
    let failed: Vec<&str> =
        rows.iter().filter(|row| row.verdict.is_err()).map(|row| row.name.as_str()).collect();
    let seconds = began.elapsed().as_secs_f64();
    if failed.is_empty() {
        println!("tla: {count} checks ended as they must, in {seconds:.0} s");
        return Ok(count);
    }
    Err(Failure::new(
        format!(
            "{} of {count} checks did not end as they must: {}",
            failed.len(),
            failed.join(", ")
        ),
        "read the counterexample above (how: tla/README.md), then mend the specification or the head \
         of the model; what TLC said is in tla/logs of the target directory",
    ))
}

/// The jobs that are wanted, long ones first, so that both cores are busy to the end.
fn choose(wanted: &Wanted, models: Vec<Model>, mutations: Vec<Mutation>) -> VecDeque<Job> {
    let mut jobs: VecDeque<Job> = VecDeque::new();
    if wanted.mutations {
        let is_wanted = |it: &Mutation| wanted.takes(&it.model.spec, &it.model.name);
        jobs.extend(mutations.into_iter().filter(is_wanted).map(Job::Mutation));
    } else {
        let mut chosen: Vec<Model> = models
            .into_iter()
            .filter(|it| {
                // A model that is asked for by its name is run whatever its kind.
                let names = [wanted.only.as_ref(), wanted.show.as_ref()];
                wanted.long || !it.kind.is_long || names.contains(&Some(&it.name))
            })
            .collect();
        chosen.sort_by_key(|it| (!it.kind.is_long, it.kind.must_fail));
        jobs.extend(chosen.into_iter().map(Job::Model));
    }
    jobs
}

impl Bench {
    /// Runs all jobs and prints a line for each as it is done.
    fn run_all(&self, jobs: VecDeque<Job>) -> Result<Vec<Row>, Failure> {
        let jobs = Mutex::new(jobs);
        let results = Mutex::new((Vec::new(), None));
        let work = || {
            loop {
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(job) = job else { break };
                let row = self.run(&job);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                match row {
                    Ok(row) => {
                        println!("{row}");
                        results.0.push(row);
                    }
                    Err(failure) => {
                        jobs.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        results.1 = Some(failure);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        let (rows, broken) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        broken.map_or(Ok(rows), Err)
    }

    fn run(&self, job: &Job) -> Result<Row, Failure> {
        match job {
            Job::Model(model) => self.run_model(model),
            Job::Mutation(mutation) => self.run_mutation(mutation),
            Job::Traces(traces) => self.run_traces(traces),
        }
    }

    fn run_model(&self, model: &Model) -> Result<Row, Failure> {
        let done = self.tlc.run(&Task {
            modules: &self.tla,
            module: &model.spec,
            config: &model.path,
            simulate: model.simulate,
            stands_still: true,
            is_short: model.kind.must_fail && !model.kind.is_long,
            limit: if model.kind.is_long { LONG_LIMIT } else { LIMIT },
        })?;
        let mut row = self.row(&model.name, &model.kind.to_string(), &model.expect, &done)?;
        if self.shows && row.story.is_none() {
            row.story =
                Some(format!("{}\n{}", model.shows, self.modules.tell(&done.output, false)));
        }
        Ok(row)
    }

    fn run_mutation(&self, mutation: &Mutation) -> Result<Row, Failure> {
        let spec = &mutation.model.spec;
        let name = format!("{spec}: {}", mutation.name);
        let scratch = self.tlc.scratch()?;
        self.copy_modules(&scratch)?;
        let (module, text) = mutations::find(&scratch.0, spec, &mutation.line)?;
        let changed = mutation.apply(&text).map_err(|what| {
            Failure::new(format!("mutation {name}: {what}"), "give the line as the module has it")
        })?;
        models::write(&module, &changed)?;
        let config = scratch.0.join("mutated.cfg");
        let text = models::checking_only(&read_text(&mutation.model.path)?, &mutation.breaks);
        models::write(&config, &text)?;
        let done = self.tlc.run(&Task {
            modules: &scratch.0,
            module: spec,
            config: &config,
            simulate: mutation.model.simulate,
            stands_still: true,
            is_short: true,
            limit: LIMIT,
        })?;
        self.row(&name, "mutation", &mutation.breaks, &done)
    }

    /// Compares what was expected with what came; keeps and tells what was not expected.
    fn row(&self, name: &str, kind: &str, expect: &Ending, done: &Done) -> Result<Row, Failure> {
        let found = match &done.output.ending {
            Ending::Action(said) => Ending::Action(self.modules.property(said)),
            other => other.clone(),
        };
        let verdict = if found == *expect {
            let word = if *expect == Ending::Passed { "passed" } else { "fails as told" };
            Ok(format!("{word}{}", in_words(&found, ": ")))
        } else {
            Err(format!("{}, expected: {}", told(&found), told(expect)))
        };
        let mut story = None;
        if verdict.is_err() {
            fs::create_dir_all(&self.logs).map_err(|error| {
                Failure::new(format!("{}: {error}", self.logs.display()), "make room or access")
            })?;
            let file = self.logs.join(format!("{}.txt", name.replace([':', ' '], "-")));
            models::write(&file, &done.text)?;
            let told = self.modules.tell(&done.output, true);
            story = Some(format!("{told}\n       TLC's words: {}", file.display()));
        }
        Ok(Row {
            name: name.to_owned(),
            kind: kind.to_owned(),
            states: done.output.states,
            depth: done.output.depth,
            took: done.took,
            verdict,
            story,
        })
    }
}

fn in_words(ending: &Ending, before: &str) -> String {
    match ending {
        Ending::Passed => String::new(),
        other => format!("{before}{}", told(other)),
    }
}

fn told(ending: &Ending) -> String {
    match ending {
        Ending::Passed => "passed".to_owned(),
        Ending::Invariant(name) => format!("{name} is violated"),
        Ending::Action(name) => format!("action property {name} is violated"),
        Ending::Deadlock => "no step leads on".to_owned(),
        Ending::Temporal => "temporal properties are violated".to_owned(),
        Ending::Error(what) => {
            // A stack of calls says nothing to who wrote the specification; the log has it.
            let lines = what.lines().filter(|line| !line.starts_with('\t'));
            lines.take(ERROR_LINES_MAX).collect::<Vec<_>>().join("\n       ")
        }
    }
}

/// Reads a file of the clone.
///
/// # Errors
/// It cannot be read.
fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = fs::read(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display()), "make it readable")
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is asked for is understood, and nothing else is.
    #[test]
    fn arguments() {
        let parse = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Wanted::parse(&args)
        };
        let wanted = parse("Causality --long").unwrap();
        assert!(wanted.long && !wanted.mutations);
        assert!(wanted.takes("Causality", "Causality-small"));
        assert!(!wanted.takes("Stability", "Stability-small"));
        assert_eq!(parse("--show A-b").unwrap().show.as_deref(), Some("A-b"));
        for bad in ["--what", "A B", "--show"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
