//! What the program is asked to do. Understood or refused, never guessed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use holm_sim::tamper::Tamper;

pub(crate) const USAGE: &str = "\
usage: holm-sim [--seeds N] [--minutes M] [--from S]
       holm-sim --seed S [--tamper BUG] [--trace] [--record FILE]
       holm-sim --replay FILE [--trace]
       holm-sim --self-test
       holm-sim --load [--seconds T]
       holm-sim --tla DIR [--seeds N] [--from S]

  --seeds N      play until N runs count (default 200; no limit with --minutes alone)
  --minutes M    stop after M minutes, 0.5 for half of one
  --from S       begin with seed S (default 0)
  --seed S       play one seed
  --tamper BUG   put this bug back
  --trace        print every step
  --record FILE  write the plan to FILE
  --replay FILE  play the plan in FILE
  --self-test    put each bug back and count the seeds that it takes to find it
  --load         nine nodes in three regions under load: how much faster than real time
  --tla DIR      play short runs and write what the protocol did, N traces of each kind, into DIR as
                 modules for the specifications, and traces with a mistake in them
  --seconds T    of load, simulated (default 60)
  --schedules D  where plans that broke a rule are written, shrunk (default: holm-schedules
                 in the directory for temporary files)

A run counts if half of its calls were ok and, where it was to have faults, one had an effect.
Exit code: 0 no rule was broken; 1 one was, or too few runs counted, a bug was not found, the load
was too slow; 2 wrong arguments, or a file that cannot be read or written.";

/// Runs if nobody says how many.
const SEEDS: u64 = 200;
/// Seconds of load if nobody says how many: a moment's hiccup does not show.
const SECONDS: u64 = 60;

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    Help,
    Many(Many),
    One(One),
    SelfTest,
    Load { seconds: u64 },
    Tla { directory: PathBuf, from: u64, count: u64 },
}

/// Many seeds.
#[derive(Debug, PartialEq)]
pub(crate) struct Many {
    pub(crate) from: u64,
    /// Runs that count; no limit if there is none.
    pub(crate) count: Option<u64>,
    pub(crate) minutes: Option<f64>,
    pub(crate) schedules: PathBuf,
}

/// One run.
#[derive(Debug, PartialEq)]
pub(crate) struct One {
    pub(crate) source: Source,
    pub(crate) trace: bool,
    pub(crate) record: Option<PathBuf>,
    pub(crate) schedules: PathBuf,
}

/// Where a plan comes from.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    Seed { seed: u64, tamper: Option<Tamper> },
    File(PathBuf),
}

/// Arguments that take a value, and those that do not.
const WITH_VALUE: [&str; 10] = [
    "--seeds",
    "--minutes",
    "--from",
    "--seed",
    "--tamper",
    "--record",
    "--replay",
    "--seconds",
    "--schedules",
    "--tla",
];
const ALONE: [&str; 5] = ["--trace", "--self-test", "--load", "--help", "-h"];

/// # Errors
/// What is wrong, for the person who typed it.
pub(crate) fn parse(args: &[String]) -> Result<Task, String> {
    let mut given = Given::read(args)?;
    let task = given.task()?;
    match given.0.keys().next() {
        None => Ok(task),
        Some(left) => Err(format!("`{left}` does not go with the others")),
    }
}

/// Arguments and their values, taken one by one.
struct Given<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Given<'a> {
    fn read(args: &'a [String]) -> Result<Given<'a>, String> {
        let mut given = BTreeMap::new();
        let mut args = args.iter().map(String::as_str);
        while let Some(name) = args.next() {
            let value = match name {
                _ if WITH_VALUE.contains(&name) => {
                    args.next().ok_or_else(|| format!("`{name}` needs a value"))?
                }
                _ if ALONE.contains(&name) => "",
                _ => return Err(format!("what is `{name}`?")),
            };
            // Later ones win: `cargo xtask sim` gives a directory before what people type.
            if given.insert(name, value).is_some() && name != "--schedules" {
                return Err(format!("`{name}` stands there twice"));
            }
        }
        Ok(Given(given))
    }

    fn has(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| format!("`{name} {value}`: that is no such number"))
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.0.remove(name).map(PathBuf::from)
    }

    fn tamper(&mut self) -> Result<Option<Tamper>, String> {
        let Some(name) = self.0.remove("--tamper") else { return Ok(None) };
        let names = || Tamper::ALL.map(|tamper| format!("{tamper:?}")).join(", ");
        let tamper = Tamper::ALL.into_iter().find(|tamper| format!("{tamper:?}") == name);
        tamper.map(Some).ok_or_else(|| format!("there is no bug `{name}`; there are {}", names()))
    }

    fn task(&mut self) -> Result<Task, String> {
        if self.has("--help") || self.has("-h") {
            self.0.clear();
            return Ok(Task::Help);
        }
        let schedules = self.path("--schedules").unwrap_or_else(default_schedules);
        if self.has("--self-test") {
            return Ok(Task::SelfTest);
        }
        if let Some(directory) = self.path("--tla") {
            let count = self.number("--seeds")?.unwrap_or(SEEDS);
            let from = self.number("--from")?.unwrap_or(0);
            return Ok(Task::Tla { directory, from, count });
        }
        if self.has("--load") {
            let seconds = self.number("--seconds")?.unwrap_or(SECONDS);
            let fits = (1..=3_600).contains(&seconds);
            return match fits {
                true => Ok(Task::Load { seconds }),
                false => Err("`--seconds` takes 1 to 3600".to_owned()),
            };
        }
        let source = match (self.number("--seed")?, self.path("--replay")) {
            (Some(seed), None) => Some(Source::Seed { seed, tamper: self.tamper()? }),
            (None, Some(file)) => Some(Source::File(file)),
            (Some(_), Some(_)) => return Err("give `--seed` or `--replay`, not both".to_owned()),
            (None, None) => None,
        };
        if let Some(source) = source {
            let trace = self.has("--trace");
            let record = match &source {
                Source::Seed { .. } => self.path("--record"),
                Source::File(_) => None,
            };
            return Ok(Task::One(One { source, trace, record, schedules }));
        }
        let minutes: Option<f64> = self.number("--minutes")?;
        if minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes < 1e6)) {
            return Err("`--minutes` takes a number above 0".to_owned());
        }
        let count = self.number("--seeds")?;
        let count = count.or(if minutes.is_none() { Some(SEEDS) } else { None });
        let from = self.number("--from")?.unwrap_or(0);
        Ok(Task::Many(Many { from, count, minutes, schedules }))
    }
}

/// Where plans are written if nobody says where: not into the sources that people work in.
fn default_schedules() -> PathBuf {
    std::env::temp_dir().join("holm-schedules")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn many(from: u64, count: Option<u64>, minutes: Option<f64>) -> Result<Task, String> {
        Ok(Task::Many(Many { from, count, minutes, schedules: default_schedules() }))
    }

    /// Goal: what may be asked is understood.
    #[test]
    fn tasks() {
        assert_eq!(parsed(""), many(0, Some(200), None));
        assert_eq!(parsed("--seeds 5 --from 7"), many(7, Some(5), None));
        assert_eq!(parsed("--minutes 0.5"), many(0, None, Some(0.5)));
        assert_eq!(parsed("--minutes 5 --seeds 9"), many(0, Some(9), Some(5.0)));
        assert_eq!(parsed("--self-test"), Ok(Task::SelfTest));
        assert_eq!(parsed("--load"), Ok(Task::Load { seconds: 60 }));
        assert_eq!(parsed("--load --seconds 9"), Ok(Task::Load { seconds: 9 }));
        assert_eq!(
            parsed("--tla d --seeds 3 --from 4"),
            Ok(Task::Tla { directory: "d".into(), from: 4, count: 3 })
        );
        assert_eq!(parsed("--seed 3 --help"), Ok(Task::Help));
        let tamper = Some(Tamper::RepairOverwrites);
        assert_eq!(
            parsed(
                "--schedules /a --seed 3 --tamper RepairOverwrites --trace --record f --schedules b"
            ),
            Ok(Task::One(One {
                source: Source::Seed { seed: 3, tamper },
                trace: true,
                record: Some("f".into()),
                schedules: "b".into(),
            }))
        );
        assert_eq!(
            parsed("--replay f"),
            Ok(Task::One(One {
                source: Source::File("f".into()),
                trace: false,
                record: None,
                schedules: default_schedules(),
            }))
        );
    }

    /// Goal: what makes no sense is refused, with the word that is wrong.
    #[test]
    fn refusals() {
        for (line, word) in [
            ("--seed", "--seed"),
            ("--seed x", "x"),
            ("--seed -1", "-1"),
            ("--seeds 1 --seeds 2", "twice"),
            ("--sede 1", "--sede"),
            ("--trace", "--trace"),
            ("--seed 1 --seeds 2", "--seeds"),
            ("--seed 1 --replay f", "not both"),
            ("--replay f --record g", "--record"),
            ("--replay f --tamper RepairOverwrites", "--tamper"),
            ("--tamper RepairOverwrites", "--tamper"),
            ("--seed 1 --tamper Sabotage", "there are AcknowledgedBeforeSync"),
            ("--self-test --seeds 1", "--seeds"),
            ("--seconds 3", "--seconds"),
            ("--load --seconds 0", "3600"),
            ("--minutes 0", "above 0"),
            ("--minutes NaN", "above 0"),
        ] {
            let refused = parsed(line).expect_err(line);
            assert!(refused.contains(word), "{line}: {refused}");
        }
    }

    /// Goal: the usage names every argument there is.
    #[test]
    fn usage_is_complete() {
        let all = WITH_VALUE.iter().chain(&ALONE).filter(|name| !["-h", "--help"].contains(name));
        all.for_each(|name| assert!(USAGE.contains(name), "{name}"));
    }
}
