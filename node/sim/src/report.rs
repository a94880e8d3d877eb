//! What a person is told about a run.
//!
//! A violation: the last steps, the rule, the plan in words, and the command that plays it again.

use std::fmt;

use crate::check::Property;
use crate::plan::{ClientPlan, Fault, Mode, Plan};
use crate::sim::Report;
use crate::store::SyncMode;
use crate::trace::LEGEND;

/// Steps shown of a run that broke a rule. A screenful; `--trace` shows all.
const STEPS_SHOWN: usize = 60;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { plan, violation, trace, steps, digest, .. } = self;
        let Some(violation) = violation else {
            return write!(f, "seed {}: {steps} steps, digest {digest:016x}, clean", plan.seed);
        };
        let shown = &trace[trace.len().saturating_sub(STEPS_SHOWN)..];
        writeln!(f, "the last {} of {steps} steps:\n{LEGEND}", shown.len())?;
        shown.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let Property { name, invariant, statement, source, .. } = violation.property;
        writeln!(f, "seed {} broke a rule: {name} ({invariant})", plan.seed)?;
        writeln!(f, "  rule: {statement}\n  from: {source}\n  seen: {}", violation.how)?;
        write!(f, "{}", InWords(plan))?;
        if *plan == Plan::from_seed(plan.seed) {
            write!(f, "\n  repeat: cargo xtask sim --seed {} --trace", plan.seed)?;
        }
        Ok(())
    }
}

/// A plan in words.
#[derive(Debug, Clone, Copy)]
pub struct InWords<'a>(pub &'a Plan);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        match plan.mode {
            Mode::Calm => write!(f, "plan: calm, "),
            Mode::Nemesis(kind) => write!(f, "plan: nemesis {kind:?}, "),
            Mode::Pair(one, other) => write!(f, "plan: {one:?} and {other:?}, "),
            Mode::Swarm => write!(f, "plan: swarm, "),
        }?;
        let mut first = 1;
        for (region, &(nodes, replicas)) in plan.shape.regions.iter().enumerate() {
            let last = first + nodes - 1;
            let copies =
                if replicas == 1 { "1 replica".to_owned() } else { format!("{replicas} replicas") };
            let names =
                if first == last { format!("n{first}") } else { format!("n{first}..n{last}") };
            write!(f, "r{region} = {names} with {copies}, ")?;
            first = last + 1;
        }
        let (partitions, shards) = (1_u32 << plan.shape.bits, plan.shape.shards);
        write!(f, "{partitions} partitions, {shards} shards a node, ")?;
        match plan.sync {
            SyncMode::Always => write!(f, "sync always"),
            SyncMode::Interval { ms } => write!(f, "sync every {ms} ms"),
        }?;
        if let Some(tamper) = plan.tamper {
            write!(f, ",\n  bug put back: {tamper:?}: {}", tamper.facts().statement)?;
        }
        for client in &plan.clients {
            write!(f, "\n  {}", client_in_words(client))?;
        }
        for fault in &plan.faults {
            write!(f, "\n  {}", fault_in_words(fault))?;
        }
        if plan.faults.is_empty() { write!(f, "\n  no faults") } else { Ok(()) }
    }
}

fn client_in_words(client: &ClientPlan) -> String {
    let ClientPlan { id, region, workload, operations, levels, timeout_ms, repeats, .. } = client;
    let levels = match levels {
        Some((read, write)) => format!("reads at {read}, writes at {write}"),
        None => "levels drawn anew each time".to_owned(),
    };
    format!(
        "c{id} in r{region}: {operations} of {workload:?}, {levels}, within {timeout_ms} ms, repeats \
         {repeats:?}"
    )
}

fn fault_in_words(fault: &Fault) -> String {
    let Fault { at_us, for_us, kind, node, other, strength } = fault;
    let ms = |us: u64| us as f64 / 1000.0;
    let (from, to) = (ms(*at_us), ms(at_us + for_us));
    let with = if kind.takes_two() { format!(" and {other}") } else { String::new() };
    format!("{from:.1} ms to {to:.1} ms: {kind:?} of {node}{with}, strength {strength}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Sim;
    use crate::tamper::Tamper;

    /// Goal: who reads a violation for the first time finds the rule, what was seen, the plan, the
    /// last steps and how to repeat it. Method: a bug put back, with and without the plan of its seed.
    #[test]
    fn a_violation_tells_all() {
        let plans = (0..200)
            .map(|seed| Plan { tamper: Some(Tamper::ChecksumTooLate), ..Plan::from_seed(seed) });
        let mut reports = plans.map(|plan| Sim::new(plan, false).run());
        let mut report = reports.find(|report| report.violation.is_some()).unwrap();
        let told = report.to_string();
        let property = report.violation.clone().unwrap().property;
        for part in [
            property.name,
            property.invariant,
            property.statement,
            property.source,
            "bug put back: ChecksumTooLate",
            "c1 in r",
            "the last ",
            " -> ",
            " r0 ",
            LEGEND,
        ] {
            assert!(told.contains(part), "{part} is not in:\n{told}");
        }
        assert!(!told.contains("--seed"), "that seed alone would not repeat it");
        report.plan = Plan::from_seed(7);
        assert!(report.to_string().ends_with("repeat: cargo xtask sim --seed 7 --trace"));
    }
}
