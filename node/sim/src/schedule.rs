//! Plans as text: a run can be kept in a file, sent to somebody, changed by hand and played again.
//!
//! ```text
//! holm-sim-schedule 3
//! # Anything after a # is for people.
//! plan seed=7 mode=nemesis:Kill sync=always keys=2 strict=false faults_until_us=2500000 tamper=none
//! shape regions=3:2,1:1 zones=0 bits=1 shards=2
//! client id=1 region=0 workload=Set operations=12 think_us=1000 levels=quorum:one ...
//! fault at_us=90000 for_us=500000 kind=Kill node=n1 other=n2 strength=40
//! ```
//! The first line names the format and its version. Every other line is a word that says what the
//! line describes, and `name=value` words, in any order, each exactly once. `plan`, `shape`,
//! `shard` and `timing` come once, `client` and `fault` as often as there are. A list is joined by
//! commas, a list of lists by semicolons, a pair by a colon, a delay is `least+jitter`.
//!
//! Nothing has a default: a file that lacks a field was written for another simulator and would be
//! another run. Fields are listed once, in the [`line!`] calls below; what is missing there does
//! not compile.

mod sense;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use holm_core::shard::config::ShardConfig;

use crate::plan::{ClientPlan, Fault, Plan, Shape, Timing};
use sense::Nonsense;
use values::Value;

/// Raised whenever a file of before would be understood in another way.
pub const VERSION: u32 = 3;

const MAGIC: &str = "holm-sim-schedule";

/// Why a file is no plan. Nothing was run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}\n what to do: {todo}")]
pub struct ScheduleError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

/// The text of a plan.
#[must_use]
pub fn encode(plan: &Plan) -> String {
    with_comment(plan, "")
}

/// The text of a plan, with lines that begin with `#` before it.
#[must_use]
pub fn with_comment(plan: &Plan, comment: &str) -> String {
    let mut text = format!("{comment}{MAGIC} {VERSION}\n");
    plan.write(&mut text);
    text
}

/// The plan of a text.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn decode(text: &str) -> Result<Plan, ScheduleError> {
    let mut sheet = Sheet::read(text)?;
    let places = sheet.clone();
    let plan = Plan::read(&mut sheet)?;
    sheet.finish()?;
    sense::check(&plan)
        .map_err(|Nonsense { kind, at, what, todo }| wrong(places.place(kind, at), what, todo))?;
    Ok(plan)
}

/// Whether a plan can be played: what a seed never does, a file or a change may.
#[must_use]
pub fn is_sensible(plan: &Plan) -> bool {
    sense::check(plan).is_ok()
}

/// A line of `name=value` words, taken one by one.
#[derive(Clone)]
struct Words<'a> {
    line: usize,
    kind: &'a str,
    words: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn read(line: usize, text: &'a str) -> Result<Words<'a>, ScheduleError> {
        let mut parts = text.split_whitespace();
        let kind = parts.next().unwrap_or_default();
        let mut words = BTreeMap::new();
        for part in parts {
            let Some((name, value)) = part.split_once('=') else {
                let what = format!("`{part}` is not of the form name=value");
                return Err(wrong(line, what, "write spaces between words only"));
            };
            if words.insert(name, value).is_some() {
                let what = format!("`{name}` stands there twice");
                return Err(wrong(line, what, "leave one of them"));
            }
        }
        Ok(Words { line, kind, words })
    }

    fn take<T: Value>(&mut self, name: &str) -> Result<T, ScheduleError> {
        let Some(word) = self.words.remove(name) else {
            let what = format!("`{}` has no {name}=", self.kind);
            return Err(wrong(self.line, what, "add it, or record the run again"));
        };
        T::read(word).map_err(|expected| {
            wrong(self.line, format!("{name}={word}"), format!("give {name} {expected}"))
        })
    }

    fn finish(self) -> Result<(), ScheduleError> {
        let Some(name) = self.words.keys().next() else { return Ok(()) };
        let what = format!("`{}` knows no `{name}`", self.kind);
        Err(wrong(self.line, what, "take it out, or play the file with the holm-sim that wrote it"))
    }
}

/// All lines, taken kind by kind.
#[derive(Clone)]
struct Sheet<'a> {
    lines: Vec<Words<'a>>,
    /// How many lines the text has.
    end: usize,
}

impl<'a> Sheet<'a> {
    fn read(text: &'a str) -> Result<Sheet<'a>, ScheduleError> {
        let mut lines = text.lines().enumerate().filter_map(|(at, line)| {
            let line = line.split('#').next().unwrap_or_default().trim();
            (!line.is_empty()).then_some((at + 1, line))
        });
        let (at, head) = lines.next().unwrap_or((1, ""));
        let Some(version) = head.strip_prefix(MAGIC).map(str::trim) else {
            let what = format!("no schedule: it does not begin with `{MAGIC} {VERSION}`");
            return Err(wrong(at, what, "give a file that `holm-sim --record` wrote"));
        };
        if version != VERSION.to_string() {
            let what = format!("format {version}, and this holm-sim reads format {VERSION}");
            return Err(wrong(at, what, "play it with the holm-sim of the commit that wrote it"));
        }
        let lines = lines.map(|(at, line)| Words::read(at, line)).collect::<Result<_, _>>()?;
        Ok(Sheet { lines, end: text.lines().count() })
    }

    /// The lines of a kind, in their order.
    fn take(&mut self, kind: &str) -> Vec<Words<'a>> {
        let lines = std::mem::take(&mut self.lines);
        let (these, others) = lines.into_iter().partition(|line| line.kind == kind);
        self.lines = others;
        these
    }

    /// The only line of a kind.
    fn take_one(&mut self, kind: &str) -> Result<Words<'a>, ScheduleError> {
        let mut these = self.take(kind).into_iter();
        match (these.next(), these.next()) {
            (Some(line), None) => Ok(line),
            (_, Some(second)) => {
                let what = format!("a second `{kind}` line");
                Err(wrong(second.line, what, "leave one of them"))
            }
            (None, None) => {
                let what = format!("there is no `{kind}` line");
                Err(wrong(self.end, what, "add it, or record the run again"))
            }
        }
    }

    fn one<T: Line>(&mut self) -> Result<T, ScheduleError> {
        whole(self.take_one(T::KIND)?)
    }

    fn all<T: Line>(&mut self) -> Result<Vec<T>, ScheduleError> {
        self.take(T::KIND).into_iter().map(whole).collect()
    }

    /// The line on which the how-manieth of a kind stands, from 0.
    fn place(&self, kind: &str, at: usize) -> usize {
        self.lines.iter().filter(|line| line.kind == kind).nth(at).map_or(self.end, |l| l.line)
    }

    fn finish(self) -> Result<(), ScheduleError> {
        let Some(line) = self.lines.first() else { return Ok(()) };
        let what = format!("what is `{}`?", line.kind);
        Err(wrong(line.line, what, "take the line out, or correct its first word"))
    }
}

fn whole<T: Line>(mut words: Words<'_>) -> Result<T, ScheduleError> {
    let value = T::take(&mut words)?;
    words.finish()?;
    Ok(value)
}

fn wrong(line: usize, what: impl Into<String>, todo: impl Into<String>) -> ScheduleError {
    ScheduleError { line, what: what.into(), todo: todo.into() }
}

/// What one line describes.
trait Line: Sized {
    const KIND: &'static str;
    fn put(&self, out: &mut String);
    fn take(words: &mut Words<'_>) -> Result<Self, ScheduleError>;
}

fn put(out: &mut String, name: &str, value: &impl Value) {
    // Writing to a string cannot fail.
    let _ = write!(out, " {name}={}", value.word());
}

/// Ties a struct to a kind of line. All its fields must be named.
macro_rules! line {
    ($kind:literal $name:ident { $($field:ident),+ $(,)? }) => {
        impl Line for $name {
            const KIND: &'static str = $kind;

            fn put(&self, out: &mut String) {
                let $name { $($field),+ } = self;
                out.push_str($kind);
                $(put(out, stringify!($field), $field);)+
                out.push('\n');
            }

            fn take(words: &mut Words<'_>) -> Result<Self, ScheduleError> {
                Ok($name { $($field: words.take(stringify!($field))?),+ })
            }
        }
    };
}

/// Ties a plan to its lines: fields of the `plan` line, fields with a line of their own, fields
/// with many. All fields must be named.
macro_rules! plan {
    (words { $($word:ident),+ } lines { $($line:ident),+ } lists { $($list:ident),+ }) => {
        impl Plan {
            fn write(&self, out: &mut String) {
                let Plan { $($word,)+ $($line,)+ $($list),+ } = self;
                out.push_str("plan");
                $(put(out, stringify!($word), $word);)+
                out.push('\n');
                $($line.put(out);)+
                $($list.iter().for_each(|one| one.put(out));)+
            }

            fn read(sheet: &mut Sheet<'_>) -> Result<Plan, ScheduleError> {
                let mut head = sheet.take_one("plan")?;
                let plan = Plan {
                    $($word: head.take(stringify!($word))?,)+
                    $($line: sheet.one()?,)+
                    $($list: sheet.all()?),+
                };
                head.finish()?;
                Ok(plan)
            }
        }
    };
}

plan! {
    words { seed, mode, sync, keys, strict, faults_until_us, tamper }
    lines { shape, shard, timing }
    lists { clients, faults }
}
line!("shape" Shape { regions, zones, bits, shards });
line!("shard" ShardConfig {
    in_flight_max,
    lingering_max,
    relays_max,
    held_bytes_max,
    cache_bytes_max,
    requests_max,
    requests_window_ms,
    timeout_ms,
    resend_ms,
    hedge_ms_min,
    hedge_ms_max,
    max_clock_skew_ms,
    checkpoint_every,
    hint_after_ms,
    hint_bytes_max,
    handoff_window_bytes,
    log_memory_bytes_max,
    log_segment_bytes_max,
    pulse_ms,
    pulse_wan_ms,
    seen_ms,
    stable_ms,
    context_slack,
    gap_asks_max,
    gap_bytes_max,
    verify_every_ms,
    verify_rows,
    retire_ms,
});
line!("timing" Timing { delays, link_spread, disk, detect_us });
line!("client" ClientPlan {
    id,
    region,
    workload,
    operations,
    think_us,
    levels,
    timeout_ms,
    repeats,
});
line!("fault" Fault { at_us, for_us, kind, node, other, strength });

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every plan there is has a text, and the text gives it back. Method: thousands of seeds.
    #[test]
    fn plans_come_back() {
        for seed in 0..4_000 {
            let plan = Plan::from_seed(seed);
            assert_eq!(decode(&encode(&plan)), Ok(plan), "seed {seed}");
        }
        let plan =
            Plan { tamper: Some(crate::tamper::Tamper::ALL[0]), ..Plan::from_seed(u64::MAX) };
        assert_eq!(decode(&encode(&plan)), Ok(plan));
    }

    /// Goal: a plan that was read plays as the plan that was written. Method: digests of whole runs.
    #[test]
    fn plans_that_come_back_play_the_same() {
        for seed in 0..60 {
            let plan = Plan::from_seed(seed);
            let again = decode(&encode(&plan)).unwrap();
            let digest = |plan: Plan| crate::sim::Sim::new(plan, false).run().digest;
            assert_eq!(digest(again), digest(plan), "seed {seed}");
        }
    }

    /// Goal: comments, empty lines and the order of lines and words mean nothing.
    #[test]
    fn people_may_write_in_it() {
        let plan = Plan::from_seed(3);
        let text = encode(&plan);
        let (head, rest) = text.split_once('\n').unwrap();
        let mut turned: Vec<&str> =
            rest.lines().filter(|line| !line.starts_with("fault")).collect();
        turned.reverse();
        turned.sort_by_key(|line| line.starts_with("client"));
        let mut clients: Vec<&str> = rest.lines().filter(|l| l.starts_with("client")).collect();
        turned.retain(|line| !line.starts_with("client"));
        clients.extend(rest.lines().filter(|line| line.starts_with("fault")));
        let turned: Vec<String> = turned
            .into_iter()
            .map(|line| {
                let mut words: Vec<&str> = line.split(' ').collect();
                words[1..].reverse();
                words.join("   ")
            })
            .collect();
        let text = format!("# mine\n{head}\n\n{} # yes\n{}", turned.join("\n"), clients.join("\n"));
        assert_eq!(decode(&text), Ok(plan));
    }

    /// Goal: what is wrong is named with its line and with what to do. Method: one mistake at a time
    /// in a good file, whose lines are: format, plan, shape, shard, timing, clients.
    #[test]
    fn mistakes_are_named() {
        let mut plan = Plan::with_mode(1, crate::plan::Mode::Nemesis(crate::plan::FaultKind::Kill));
        plan.sync = crate::store::SyncMode::Always;
        let good = encode(&plan);
        for (from, to, line, what) in [
            (MAGIC, "toml", 1, "no schedule"),
            (&format!("schedule {VERSION}"), "schedule 99", 1, "format 99"),
            ("plan seed=1", "plan seed=one", 2, "seed=one"),
            ("plan seed=1", "plan", 2, "`plan` has no seed="),
            ("plan seed=1", "plan seed=1 seed=1", 2, "twice"),
            ("plan seed=1", "plan seed=1 colour=red", 2, "knows no `colour`"),
            ("plan seed=1", "plan seed=1 red", 2, "not of the form"),
            ("nemesis:Kill", "nemesis:Joy", 2, "mode=nemesis:Joy"),
            ("sync=always", "sync=maybe", 2, "sync=maybe"),
            ("\nshape ", "\nform ", 6 + plan.clients.len() + plan.faults.len() - 1, "no `shape`"),
            ("\nshard ", "\nholiday x=1\nshard ", 4, "what is `holiday`?"),
            ("\nshard ", "\nshape regions=1:1 bits=0 shards=1\nshard ", 4, "a second `shape`"),
            ("bits=", "bits=7", 3, "partitions"),
            ("client id=1 ", "client id=2 ", 7, "two clients"),
            ("client id=1 region=", "client id=1 region=9", 6, "no region 9"),
            ("kind=Kill node=n", "kind=Kill node=n9", 6 + plan.clients.len(), "no node n9"),
        ] {
            assert!(good.contains(from), "{from}: {good}");
            let error = decode(&good.replacen(from, to, 1)).expect_err(to);
            assert!(error.what.contains(what), "{to}: {error}");
            assert_eq!(error.line, line, "{error}");
            assert!(!error.todo.is_empty());
        }
    }

    proptest::proptest! {
        /// Goal: no text makes the reader panic, and what it takes for a plan can be played. Method:
        /// good files with a piece replaced by other characters.
        #[test]
        fn damaged_files_are_refused_or_good(seed in 0..500_u64, at in 0.0..1.0_f64, junk in "[0-9a-z=:,;+ \n-]{0,6}", len in 0..6_usize) {
            let text = encode(&Plan::from_seed(seed));
            let from = ((text.len() as f64) * at) as usize;
            let damaged = format!("{}{junk}{}", &text[..from], &text[(from + len).min(text.len())..]);
            if let Ok(plan) = decode(&damaged) {
                proptest::prop_assert_eq!(decode(&encode(&plan)), Ok(plan.clone()));
                let _ = plan.shape.layout();
            }
        }
    }
}
