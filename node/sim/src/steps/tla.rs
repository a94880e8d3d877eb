//! Recorded steps as TLA+: a module `TraceData` with a sequence of traces, for the modules
//! `TraceCausality` and `TraceReplication`. Those for `TraceStability` are of other steps
//! ([`super::stability`]), in a module of the same form.
//!
//! Runs of nodes are numbered from 1 in the order in which they began; a run is what `Causality`
//! calls a replica, for it is its own actor, and a restarted node is one more replica, which begins
//! with a state that another one had. A context is the tuple of its counters, run by run.
//!
//! `Replication` knows no contexts: a node has the set of writes that its object covers. Joining an
//! object is to take in each write that is new, and a commit makes durable, and votes for, all that
//! there is.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::version_vector::VersionVector;

use super::{Shown, Step, Trace};

/// Runs that a trace may have: `Causality` keeps a context as a function of all of them.
pub const RUNS_MAX: usize = 8;

/// Steps for one specification, each a TLA+ record.
pub type Records = Vec<String>;

impl Trace {
    /// Whether it can be written, and has enough in it to be worth it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let writes = self.steps.iter().filter(|step| matches!(step, Step::Write { .. })).count();
        self.runs.len() <= RUNS_MAX && writes >= 2
    }

    /// For `TraceCausality`.
    #[must_use]
    pub fn causality(&self) -> Records {
        self.steps.iter().map(|step| self.causality_step(step)).collect()
    }

    fn causality_step(&self, step: &Step) -> String {
        match step {
            Step::Write { at, delete, under, after } => format!(
                "[k |-> \"write\", at |-> {}, del |-> {}, under |-> {}, {}]",
                self.run(*at),
                if *delete { "TRUE" } else { "FALSE" },
                self.context(under),
                self.object("", after)
            ),
            Step::Join { at, got, after } => format!(
                "[k |-> \"join\", at |-> {}, {}, {}]",
                self.run(*at),
                self.object("got", got),
                self.object("", after)
            ),
            Step::Commit { at, object } => {
                format!("[k |-> \"commit\", at |-> {}, {}]", self.run(*at), self.object("", object))
            }
            Step::Start { was, at, object, .. } => format!(
                "[k |-> \"start\", was |-> {}, at |-> {}, {}]",
                self.run(*was),
                self.run(*at),
                self.object("", object)
            ),
            Step::Told { at, dot, context, .. } => format!(
                "[k |-> \"told\", at |-> {}, dot |-> {}, ctx |-> {}]",
                self.run(*at),
                self.dot(*dot),
                self.context(context)
            ),
            Step::Read { answer } => {
                format!("[k |-> \"read\", {}]", self.object("", answer))
            }
        }
    }

    /// For `TraceReplication`.
    #[must_use]
    pub fn replication(&self) -> Records {
        let mut nodes = Nodes { trace: self, has: Vec::new(), issued: Vec::new() };
        let mut records = Records::new();
        for step in &self.steps {
            nodes.step(step, &mut records);
        }
        records
    }

    fn run(&self, actor: Actor) -> usize {
        self.runs.iter().position(|(_, it)| *it == actor).map_or(0, |at| at + 1)
    }

    fn node(&self, actor: Actor) -> NodeId {
        self.runs.iter().find(|(_, it)| *it == actor).map_or(NodeId(0), |(node, _)| *node)
    }

    fn dot(&self, dot: Dot) -> String {
        format!("<<{}, {}>>", self.run(dot.actor), dot.counter)
    }

    fn context(&self, context: &VersionVector) -> String {
        let counters: Vec<String> = (0..RUNS_MAX)
            .map(|at| self.runs.get(at).map_or(0, |(_, actor)| context.get(*actor)).to_string())
            .collect();
        format!("<<{}>>", counters.join(","))
    }

    fn object(&self, prefix: &str, object: &Shown) -> String {
        let live: Vec<String> = object.live.iter().map(|dot| self.dot(*dot)).collect();
        let context = self.context(&object.context);
        format!("{prefix}sib |-> {{{}}}, {prefix}ctx |-> {context}", live.join(","))
    }
}

/// What nodes have taken in, as `Replication` sees it.
struct Nodes<'a> {
    trace: &'a Trace,
    /// Per node the writes it has, in memory.
    has: Vec<(NodeId, BTreeSet<Dot>)>,
    issued: Vec<Dot>,
}

impl Nodes<'_> {
    fn step(&mut self, step: &Step, records: &mut Records) {
        match step {
            Step::Write { at, under, after, .. } => {
                let node = self.trace.node(*at);
                let dot = Dot::new(*at, after.context.get(*at));
                // What the client's context brings is there with the write.
                self.take(node, under, records);
                self.take(node, &without(&after.context, *at, dot.counter - 1), records);
                self.issued.push(dot);
                self.of(node).insert(dot);
                let (node, dot) = (plain(node), self.dot(dot));
                records.push(format!("[k |-> \"put\", n |-> {node}, dot |-> {dot}]"));
            }
            Step::Join { at, after, .. } => {
                self.take(self.trace.node(*at), &after.context, records);
            }
            Step::Commit { at, object } => {
                let (node, has) =
                    (plain(self.trace.node(*at)), self.dots(&self.covered(&object.context)));
                records.push(format!("[k |-> \"sync\", n |-> {node}, has |-> {has}]"));
            }
            Step::Start { node, object, .. } => {
                let kept = self.covered(&object.context);
                let has = self.dots(&kept);
                *self.of(*node) = kept;
                let node = plain(*node);
                records.push(format!("[k |-> \"start\", n |-> {node}, has |-> {has}]"));
            }
            Step::Told { dot, by, .. } => {
                let nodes: Vec<String> = by.iter().map(|node| plain(*node)).collect();
                let (node, dot) = (plain(self.trace.node(dot.actor)), self.dot(*dot));
                let by = nodes.join(",");
                records.push(format!(
                    "[k |-> \"told\", n |-> {node}, dot |-> {dot}, by |-> {{{by}}}]"
                ));
            }
            Step::Read { .. } => {}
        }
    }

    fn take(&mut self, node: NodeId, context: &VersionVector, records: &mut Records) {
        let covered = self.covered(context);
        let new: Vec<Dot> = covered.difference(self.of(node)).copied().collect();
        for dot in new {
            self.of(node).insert(dot);
            let (node, dot) = (plain(node), self.dot(dot));
            records.push(format!("[k |-> \"take\", n |-> {node}, dot |-> {dot}]"));
        }
    }

    fn of(&mut self, node: NodeId) -> &mut BTreeSet<Dot> {
        let at = self.has.iter().position(|(it, _)| *it == node).unwrap_or_else(|| {
            self.has.push((node, BTreeSet::new()));
            self.has.len() - 1
        });
        &mut self.has[at].1
    }

    fn covered(&self, context: &VersionVector) -> BTreeSet<Dot> {
        self.issued.iter().copied().filter(|dot| context.covers(*dot)).collect()
    }

    /// Node, number of the run, counter.
    fn dot(&self, dot: Dot) -> String {
        let node = self.trace.node(dot.actor);
        let mut number = 0;
        for (other, actor) in &self.trace.runs {
            // A run that has drawn no dot has no name in the specification.
            let is_named = self.issued.iter().any(|it| it.actor == *actor);
            number += usize::from(*other == node && (is_named || *actor == dot.actor));
            if *actor == dot.actor {
                break;
            }
        }
        format!("<<{}, {number}, {}>>", plain(node), dot.counter)
    }

    fn dots(&self, dots: &BTreeSet<Dot>) -> String {
        let dots: Vec<String> = dots.iter().map(|dot| self.dot(*dot)).collect();
        format!("{{{}}}", dots.join(", "))
    }
}

fn plain(node: NodeId) -> String {
    node.0.to_string()
}

/// A context with one actor's counter set.
fn without(context: &VersionVector, actor: Actor, counter: u64) -> VersionVector {
    let mut less = VersionVector::new();
    for dot in context.iter() {
        let counter = if dot.actor == actor { counter } else { dot.counter };
        if counter > 0 {
            less.insert(Dot::new(dot.actor, counter));
        }
    }
    less
}

/// A trace for one specification.
#[derive(Debug, Clone)]
pub struct Told {
    /// What it is from, in words.
    pub origin: String,
    /// Its steps.
    pub records: Records,
    /// The number of the step, from 1, that must be refused at the latest; one more than there are
    /// if none is to be.
    pub mistake: usize,
}

impl Told {
    /// A trace without a mistake.
    #[must_use]
    pub fn good(origin: String, records: Records) -> Told {
        let mistake = records.len() + 1;
        Told { origin, records, mistake }
    }

    /// A trace with a mistake somewhere.
    #[must_use]
    pub fn bad(origin: String, records: Records) -> Told {
        let mistake = records.len();
        Told { origin, records, mistake }
    }

    /// A trace with one step changed: that is the one to be refused.
    #[must_use]
    pub fn altered(origin: String, good: &Records, records: Records) -> Told {
        let same = good.iter().zip(&records).take_while(|(good, bad)| good == bad).count();
        Told { origin, records, mistake: same + 1 }
    }
}

/// The module `TraceData`.
#[must_use]
pub fn module(traces: &[Told]) -> String {
    let list = |each: &dyn Fn(&Told) -> String| -> String {
        traces.iter().map(each).collect::<Vec<_>>().join(",\n  ")
    };
    let origins = list(&|told| format!("\"{}\"", told.origin));
    let mistakes = list(&|told| told.mistake.to_string());
    let mut text = String::from("---- MODULE TraceData ----\n(* Written by the simulator. *)\n");
    // Writing to a string cannot fail.
    let _ = write!(text, "Origins == <<\n  {origins}>>\nMistakes == <<\n  {mistakes}>>\n");
    for (at, told) in traces.iter().enumerate() {
        let records = told.records.join(",\n  ");
        let _ = write!(text, "T{} == <<\n  {records}\n>>\n", at + 1);
    }
    let names: Vec<String> = (1..=traces.len()).map(|at| format!("T{at}")).collect();
    let _ = write!(text, "Traces == <<{}>>\n====\n", names.join(", "));
    text
}
