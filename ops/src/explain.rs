//! `holm explain`: where a key lives, and what each of its replicas holds.
//!
//! Replicas that hold the same object have the same digest. A clock line says, per run of a node,
//! up to which of its writes to the partition the replica has seen everything, and how many beyond.

use holm_protocol::admin::{
    ClusterView, ExplainedMember, Explanation, ReplicaState, ViolationState,
};
use holm_protocol::ids::Hlc;
use serde_json::{Value, json};

use crate::cli::{Global, KeyArgs};
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::session::{Session, region_name};
use crate::text;

/// Runs `holm explain`.
///
/// # Errors
/// There is no such bucket, or no node answers.
pub(crate) async fn run(global: &Global, output: &Output, args: KeyArgs) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let bucket = session.bucket(&args.bucket).await?;
    let explanation = session.client.admin().explain(&bucket, args.key_bytes()).await?;
    let view = session.view().await?;
    output.result(
        || for_scripts(&args, &view, &explanation),
        || for_people(&args, &view, &explanation),
    )
}

/// Whether the replicas agree, and how many of them said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Replicas of the partition.
    pub(crate) replicas: usize,
    /// Those that said what they hold.
    pub(crate) answered: usize,
    /// Different states among those.
    pub(crate) states: usize,
}

impl Agreement {
    /// Counts the replicas (not the fallbacks) of an explanation.
    pub(crate) fn of(explanation: &Explanation) -> Agreement {
        let replicas = explanation.members.iter().filter(|member| member.replica);
        let answers = replicas.clone().filter_map(|member| member.state.as_ref());
        let answers = answers.filter(|state| state.fault.is_none());
        let mut digests: Vec<u64> = answers.map(|state| state.digest).collect();
        let answered = digests.len();
        digests.sort_unstable();
        digests.dedup();
        Agreement { replicas: replicas.count(), answered, states: digests.len() }
    }

    /// Whether every replica answered, and all hold the same.
    pub(crate) fn is_whole(self) -> bool {
        self.answered == self.replicas && self.states <= 1
    }

    fn verdict(self) -> String {
        let silent = self.replicas - self.answered;
        let said = match self.states {
            0 => "no replica answered".to_owned(),
            1 if self.answered == 1 => "one replica answered".to_owned(),
            1 => format!("{} hold the same", text::count(self.answered, "replica")),
            states => {
                format!("{} hold {states} different states", text::count(self.answered, "replica"))
            }
        };
        if silent == 0 { said } else { format!("{said}; {silent} did not answer") }
    }
}

fn for_scripts(args: &KeyArgs, view: &ClusterView, explanation: &Explanation) -> Value {
    let agreement = Agreement::of(explanation);
    let members = explanation.members.iter().map(|member| {
        json!({
            "node": member.node.0,
            "region": region_name(view, member.region),
            "role": role(member),
            "state": member.state.as_ref().map(state_for_scripts),
        })
    });
    let mut json = args.for_scripts();
    json["partition"] = json!(explanation.partition.to_string());
    json["asked_by"] = json!(explanation.asked_by.0);
    json["members"] = members.collect();
    json["agree"] = json!(agreement.is_whole());
    json
}

fn state_for_scripts(state: &ReplicaState) -> Value {
    let siblings = state.siblings.iter().map(|(dot, hlc, bytes)| {
        json!({ "dot": dot.to_string(), "time": text::utc(*hlc), "bytes": bytes })
    });
    let clock = state.clock.iter().map(|(prefix, beyond)| {
        json!({
            "run": prefix.actor.to_string(),
            "prefix": prefix.counter,
            "beyond": beyond,
        })
    });
    let hints = state.hints.iter().map(|hint| {
        json!({
            "for": hint.replica.0,
            "bytes": hint.bytes,
            "since": text::utc(Hlc::new(hint.since_ms, 0)),
        })
    });
    let violations = state.violations.iter().map(|it| {
        json!({
            "found": text::utc(Hlc::new(it.found_ms, 0)),
            "with": it.with.0,
            "damaged": it.damaged,
            "lost": it.lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    json!({
        "digest": format!("{:016x}", state.digest),
        "siblings": siblings.collect::<Vec<_>>(),
        "context": state.context.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "clock": clock.collect::<Vec<_>>(),
        "fault": state.fault,
        "hints": hints.collect::<Vec<_>>(),
        "violations": violations.collect::<Vec<_>>(),
    })
}

fn role(member: &ExplainedMember) -> &'static str {
    if member.replica { "replica" } else { "fallback" }
}

fn for_people(args: &KeyArgs, view: &ClusterView, explanation: &Explanation) -> String {
    let mut table = Table::new([
        "NODE",
        "REGION",
        "ROLE",
        "DIGEST",
        "SIBLINGS",
        "CONTEXT",
        "PARTITION CLOCK",
        "HINTS",
    ]);
    for member in &explanation.members {
        let cells = match &member.state {
            None if member.replica => ["no answer", "-", "-", "-"].map(str::to_owned),
            None => ["-", "-", "-", "-"].map(str::to_owned),
            Some(_) if !member.replica => ["-", "-", "-", "-"].map(str::to_owned),
            Some(ReplicaState { fault: Some(fault), .. }) => {
                [text::bytes_for_people(fault.as_bytes()), "-".into(), "-".into(), "-".into()]
            }
            Some(state) => state_cells(state),
        };
        let [digest, siblings, context, clock] = cells;
        let hints = member.state.iter().flat_map(|state| &state.hints);
        let hints = hints.map(|hint| format!("for {} ({} B)", hint.replica, hint.bytes));
        table.row([
            member.node.to_string(),
            region_name(view, member.region),
            role(member).to_owned(),
            digest,
            siblings,
            context,
            clock,
            text::list(hints),
        ]);
    }
    let violations: String = explanation.members.iter().flat_map(violation_lines).collect();
    format!(
        "bucket {}, key {}, partition {}, asked by {}\n{}{}\n{violations}",
        args.bucket,
        text::bytes_for_people(std::os::unix::ffi::OsStrExt::as_bytes(args.key.as_os_str())),
        explanation.partition,
        explanation.asked_by,
        table.render(),
        Agreement::of(explanation).verdict(),
    )
}

/// What verification found at a replica, a line each.
fn violation_lines(member: &ExplainedMember) -> Vec<String> {
    let violations = member.state.iter().flat_map(|state| &state.violations);
    let line = |it: &ViolationState| {
        let (at, with) = (text::utc(Hlc::new(it.found_ms, 0)), it.with);
        let what = match it.damaged {
            true => format!("its object was damaged, and was replaced by that of {with}"),
            false => format!("{} had been lost, and came back from {with}", text::list(&it.lost)),
        };
        format!("violation at {}, {at}: {what}\n", member.node)
    };
    violations.map(line).collect()
}

fn state_cells(state: &ReplicaState) -> [String; 4] {
    let digest = match state.digest {
        0 => "absent".to_owned(),
        digest => format!("{digest:016x}"),
    };
    let siblings = state.siblings.iter().map(|(dot, _, bytes)| format!("{dot} ({bytes} B)"));
    let clock = state.clock.iter().map(|(prefix, beyond)| match beyond {
        0 => prefix.to_string(),
        beyond => format!("{prefix}+{beyond}"),
    });
    [digest, text::list(siblings), text::list(&state.context), text::list(clock)]
}

#[cfg(test)]
mod tests {
    use holm_protocol::admin::HintState;
    use holm_protocol::dot::Dot;
    use holm_protocol::ids::{Actor, NodeId, Partition, RegionId};

    use super::*;

    fn member(node: u64, replica: bool, digest: Option<u64>) -> ExplainedMember {
        let dot = Dot::new(Actor(1), 2);
        let state = digest.map(|digest| ReplicaState {
            digest,
            siblings: vec![(dot, Hlc::new(0, 0), 5)],
            context: vec![dot],
            clock: vec![(Dot::new(Actor(1), 9), 3)],
            fault: None,
            hints: vec![HintState { replica: NodeId(9), bytes: 77, since_ms: 0 }],
            violations: vec![ViolationState {
                found_ms: 0,
                with: NodeId(5),
                damaged: false,
                lost: vec![dot],
            }],
        });
        ExplainedMember { node: NodeId(node), region: RegionId(0), replica, state }
    }

    fn explanation(members: Vec<ExplainedMember>) -> Explanation {
        Explanation { partition: Partition::from_u32(17), asked_by: NodeId(1), members }
    }

    /// Goal: agreement is about replicas only, and silence is not agreement. Method: each case.
    #[test]
    fn agreement_counts_replicas() {
        let of = |members| Agreement::of(&explanation(members));
        let same = of(vec![
            member(1, true, Some(7)),
            member(2, true, Some(7)),
            member(3, false, None),
            member(4, false, Some(8)),
        ]);
        assert!(same.is_whole());
        assert_eq!(same.verdict(), "2 replicas hold the same");
        let differ = of(vec![member(1, true, Some(7)), member(2, true, Some(8))]);
        assert!(!differ.is_whole());
        assert_eq!(differ.verdict(), "2 replicas hold 2 different states");
        let silent = of(vec![member(1, true, Some(7)), member(2, true, None)]);
        assert!(!silent.is_whole());
        assert_eq!(silent.verdict(), "one replica answered; 1 did not answer");
    }

    /// Goal: every member's state and clock can be read off. Method: one that answered, one that
    /// did not.
    #[test]
    fn states_are_shown() {
        let args = KeyArgs { bucket: "carts".into(), key: "alice".into() };
        let view = ClusterView {
            cluster: "demo".into(),
            layout_version: 1,
            regions: vec!["eu".into()],
            nodes: vec![],
            placements: vec![],
            buckets: vec![],
        };
        let explanation = explanation(vec![member(1, true, Some(7)), member(2, true, None)]);
        let shown = for_people(&args, &view, &explanation);
        assert!(shown.contains("0000000000000001:2 (5 B)"), "{shown}");
        assert!(shown.contains("0000000000000001:9+3"), "{shown}");
        assert!(shown.contains("no answer"), "{shown}");
        assert!(shown.contains("for n9 (77 B)"), "{shown}");
        assert!(
            shown.contains("0000000000000001:2 had been lost, and came back from n5"),
            "{shown}"
        );
        let json = for_scripts(&args, &view, &explanation);
        assert_eq!(json["agree"], false);
        assert_eq!(json["members"][0]["state"]["clock"][0]["prefix"], 9);
        assert_eq!(json["members"][1]["state"], Value::Null);
        assert_eq!(json["members"][0]["state"]["hints"][0]["for"], 9);
    }
}
