//! `holm repair`: replicas verify that they hold the same, at once and not within the hour, and mend what
//! differs.
//!
//! Nodes do the work; this asks them, watches, and reports. A *range* is a partition with one pair of its
//! replicas, of which the lower node begins. So every node of the layout is asked for its share, and
//! what a node that does not answer was to begin stays as it is, and is told.

use std::collections::BTreeMap;
use std::time::Duration;

use holm_client::Client;
use holm_protocol::admin::{ClusterView, RepairProgress, RepairScope};
use holm_protocol::ids::{NodeId, RegionId};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cli::{Global, RepairArgs};
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::session::Session;
use crate::text;

/// What `--help` says beside the flags.
pub(crate) const HELP: &str = "\
Every partition is compared between each two of its replicas, by Merkle trees over what their disks
hold; keys that differ are exchanged. Without --now, what was verified within the last ten minutes is
left out. --region (or HOLM_REGION) restricts it to pairs with a replica in that region; --bucket to
the partitions of the bucket's placement, which other buckets share.

A violation is a difference that no write on its way explains: a value that a replica had lost. It is
counted where it is found, mended, logged with both states, and shown by `holm explain` for its key.

Exits with 0 if everything was verified and there was no violation, with 1 if not, with 5 if no node
answers.";

/// What was verified more recently than this is left out, seconds, unless it is wanted.
const RECENT_S: u64 = 600;

/// Between two looks at how far nodes have come.
const LOOK: Duration = Duration::from_millis(200);

/// Looks without an answer after which a node is given up.
const SILENT_MAX: u32 = 10;

/// One node's share.
#[derive(Debug, Clone)]
struct Share {
    before: RepairProgress,
    now: RepairProgress,
    silent: u32,
}

impl Share {
    fn is_done(&self) -> bool {
        self.now.demand >= self.before.demand && self.now.pending == 0
    }

    /// What a count has grown by.
    fn of(&self, read: fn(&RepairProgress) -> u64) -> u64 {
        read(&self.now).saturating_sub(read(&self.before))
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Report {
    shares: BTreeMap<NodeId, Share>,
    /// Nodes that did not answer, or not to the end, and why.
    lost: BTreeMap<NodeId, String>,
}

impl Report {
    fn sum(&self, read: fn(&RepairProgress) -> u64) -> u64 {
        self.shares.values().map(|share| share.of(read)).sum()
    }

    fn pending(&self) -> u64 {
        self.shares.values().map(|share| share.now.pending).sum()
    }

    /// What is not as it should be, if anything.
    fn trouble(&self) -> Option<String> {
        let mut troubles = Vec::new();
        let failed = self.sum(|it| it.failed);
        if failed > 0 {
            troubles.push(format!("{} could not be verified", ranges(failed)));
        }
        if !self.lost.is_empty() {
            troubles.push(format!("no answer from {}", text::list(self.lost.keys())));
        }
        let violations = self.sum(|it| it.violations);
        if violations > 0 {
            troubles.push(format!(
                "{} found and mended",
                text::count(violations as usize, "violation")
            ));
        }
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }
}

/// Runs `holm repair`.
///
/// # Errors
/// There is no such bucket or region, no node answers, something could not be verified, or a violation
/// was found. What was done is printed first.
pub(crate) async fn run(
    global: &Global,
    output: &Output,
    args: &RepairArgs,
) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let view = session.view().await?;
    let scope = scope(&session, &view, global, args).await?;
    let spinner = output.spinner("asking every node");
    let mut report = begin(&session.client, &view, &scope, global.timeout()).await;
    while !report.shares.values().all(Share::is_done) {
        sleep(LOOK).await;
        look(&session.client, &mut report, global.timeout()).await;
        let (done, differing) = (report.sum(|it| it.verified), report.sum(|it| it.keys_differing));
        spinner.say(format!(
            "verified {done} of {}, {differing} keys differed",
            ranges(done + report.pending())
        ));
    }
    drop(spinner);
    if report.shares.is_empty() {
        return Err(Failure::unavailable("no node answers", "see `holm status`"));
    }
    output.result(|| for_scripts(&report), || for_people(&report))?;
    match report.trouble() {
        None => Ok(()),
        Some(trouble) => Err(Failure::failed(
            trouble,
            "see `holm status` and the logs of the nodes; `holm explain` shows a key's violations",
        )),
    }
}

async fn scope(
    session: &Session,
    view: &ClusterView,
    global: &Global,
    args: &RepairArgs,
) -> Result<RepairScope, Failure> {
    let placement = match &args.bucket {
        None => None,
        Some(name) => {
            let id = session.bucket(name).await?.id();
            view.buckets.iter().find(|it| it.id == id).map(|it| it.policy.placement)
        }
    };
    let region = match &global.region {
        None => None,
        Some(name) => {
            let known = view.regions.iter().position(|region| region == name);
            let unknown = || {
                let regions = text::list(&view.regions);
                Failure::usage(
                    format!("there is no region {name} in the layout"),
                    format!("it has {regions}"),
                )
            };
            Some(RegionId(known.ok_or_else(unknown)? as u16))
        }
    };
    let older_than_s = if args.now { 0 } else { RECENT_S };
    Ok(RepairScope { placement, region, older_than_s })
}

/// Asks every node of the layout for its share.
async fn begin(
    client: &Client,
    view: &ClusterView,
    scope: &RepairScope,
    patience: Duration,
) -> Report {
    let mut asked = JoinSet::new();
    for node in view.nodes.iter().map(|node| node.id) {
        let (client, scope) = (client.clone(), scope.clone());
        asked.spawn(
            async move { (node, timeout(patience, client.admin().repair(node, scope)).await) },
        );
    }
    let mut report = Report::default();
    while let Some(Ok((node, answer))) = asked.join_next().await {
        match answer {
            Ok(Ok(before)) => {
                // Not done before it has said so.
                let now = RepairProgress { demand: 0, ..before };
                report.shares.insert(node, Share { before, now, silent: 0 });
            }
            Ok(Err(error)) => _ = report.lost.insert(node, error.to_string()),
            Err(_) => _ = report.lost.insert(node, "no answer in time".to_owned()),
        }
    }
    report
}

/// Asks those that are not done how far they are.
async fn look(client: &Client, report: &mut Report, patience: Duration) {
    let mut asked = JoinSet::new();
    for (&node, _) in report.shares.iter().filter(|(_, share)| !share.is_done()) {
        let client = client.clone();
        asked.spawn(async move {
            (node, timeout(patience, client.admin().repair_progress(node)).await)
        });
    }
    while let Some(Ok((node, answer))) = asked.join_next().await {
        let Some(share) = report.shares.get_mut(&node) else { continue };
        let gone = match answer {
            Ok(Ok(now)) if now.run == share.before.run => {
                (share.now, share.silent) = (now, 0);
                None
            }
            Ok(Ok(_)) => Some("it was restarted meanwhile".to_owned()),
            _ if share.silent < SILENT_MAX => {
                share.silent += 1;
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(why) = gone {
            report.shares.remove(&node);
            report.lost.insert(node, why);
        }
    }
}

fn ranges(count: u64) -> String {
    text::count(count as usize, "range")
}

/// The figures of a report, by their names.
type Figure = (&'static str, fn(&RepairProgress) -> u64);

const FIGURES: [Figure; 6] = [
    ("ranges_verified", |it| it.verified),
    ("ranges_mended", |it| it.mended),
    ("ranges_failed", |it| it.failed),
    ("keys_differing", |it| it.keys_differing),
    ("violations", |it| it.violations),
    ("objects_refetched", |it| it.refetched),
];

fn for_scripts(report: &Report) -> Value {
    let mut all = json!({ "ok": report.trouble().is_none() });
    FIGURES.iter().for_each(|(name, read)| all[*name] = json!(report.sum(*read)));
    let node = |(node, share): (&NodeId, &Share)| {
        let mut it = json!({ "node": node.0 });
        FIGURES.iter().for_each(|(name, read)| it[*name] = json!(share.of(*read)));
        it
    };
    all["nodes"] = report.shares.iter().map(node).collect();
    let lost = |(node, why): (&NodeId, &String)| json!({ "node": node.0, "why": why });
    all["unreachable"] = report.lost.iter().map(lost).collect();
    all
}

fn for_people(report: &Report) -> String {
    let mut table = Table::new([
        "NODE",
        "VERIFIED",
        "MENDED",
        "FAILED",
        "KEYS DIFFERING",
        "VIOLATIONS",
        "REFETCHED",
    ]);
    let cells = |name: String, read: &dyn Fn(fn(&RepairProgress) -> u64) -> u64| {
        let [a, b, c, d, e, f] = FIGURES.map(|(_, figure)| read(figure).to_string());
        [name, a, b, c, d, e, f]
    };
    for (node, share) in &report.shares {
        table.row(cells(node.to_string(), &|figure| share.of(figure)));
    }
    for (node, why) in &report.lost {
        let [a, b, c, d, e] = [(); 5].map(|()| "-".to_owned());
        table.row([node.to_string(), why.clone(), a, b, c, d, e]);
    }
    table.row(cells("all".to_owned(), &|figure| report.sum(figure)));
    table.render()
}

#[cfg(test)]
mod tests {
    use holm_protocol::ids::Actor;

    use super::*;

    fn progress(node: u64, demand: u64, counts: [u64; 3]) -> RepairProgress {
        let [verified, failed, violations] = counts;
        RepairProgress {
            node: NodeId(node),
            run: Actor(1),
            demand,
            pending: 0,
            verified,
            mended: 0,
            failed,
            keys_differing: 0,
            violations,
            refetched: 0,
        }
    }

    fn report(before: [u64; 3], now: [u64; 3]) -> Report {
        let share = Share { before: progress(4, 2, before), now: progress(4, 2, now), silent: 0 };
        Report { shares: [(NodeId(4), share)].into(), lost: BTreeMap::new() }
    }

    /// Goal: a report tells what was done since it was asked for, and what went wrong. Method: figures
    /// of a node that had verified before.
    #[test]
    fn reports_are_differences() {
        let well = report([7, 2, 1], [10, 2, 1]);
        assert_eq!(well.trouble(), None);
        let json = for_scripts(&well);
        assert_eq!((&json["ok"], &json["ranges_verified"]), (&true.into(), &3.into()));
        assert_eq!(json["nodes"][0]["ranges_failed"], 0);
        assert!(for_people(&well).contains("n4"));
        let mut ill = report([7, 2, 1], [10, 3, 2]);
        ill.lost.insert(NodeId(5), "no answer in time".to_owned());
        let trouble = ill.trouble().unwrap();
        for part in ["1 range could not", "no answer from n5", "1 violation found"] {
            assert!(trouble.contains(part), "{trouble}");
        }
        let json = for_scripts(&ill);
        assert_eq!((&json["ok"], &json["violations"]), (&false.into(), &1.into()));
        assert_eq!(json["unreachable"][0]["node"], 5);
        assert!(for_people(&ill).contains("no answer in time"));
    }

    /// Goal: a node is done when all its shards know of this demand, and nothing is pending.
    #[test]
    fn nodes_are_done_when_they_say_so() {
        let before = progress(4, 2, [0; 3]);
        let share = |demand, pending| {
            let now = RepairProgress { demand, pending, ..before };
            Share { before, now, silent: 0 }
        };
        assert!(share(2, 0).is_done() && share(3, 0).is_done());
        assert!(!share(1, 0).is_done() && !share(2, 1).is_done());
    }
}
