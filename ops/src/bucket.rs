//! `holm bucket`: create, change, show and list buckets.

use holm_protocol::admin::ClusterView;
use holm_protocol::bucket::{BucketInfo, BucketPolicy};
use holm_protocol::ids::PlacementId;
use serde_json::{Value, json};

use crate::cli::{BucketChanges, BucketCommand, BucketFixed, Global, kind_name};
use crate::failure::{Failure, Status};
use crate::output::{Output, Table};
use crate::session::Session;
use crate::text;

/// Runs `holm bucket`.
///
/// # Errors
/// The bucket or placement does not exist (or exists already), the policy is impossible, or no
/// node answers.
pub(crate) async fn run(
    global: &Global,
    output: &Output,
    command: BucketCommand,
) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let view = session.view().await?;
    match command {
        BucketCommand::Create { name, fixed, policy } => {
            let policy = changed(new_policy(&view, &fixed)?, &policy);
            check(&policy, &name)?;
            let bucket = session.client.admin().create_bucket(&name, policy).await?;
            print(output, &view, &[bucket])
        }
        BucketCommand::Set { name, policy } => {
            let policy = changed(find(&view, &name)?.policy.clone(), &policy);
            check(&policy, &name)?;
            let bucket = session.client.admin().set_bucket(&name, policy).await?;
            print(output, &view, &[bucket])
        }
        BucketCommand::Show { name } => print(output, &view, &[find(&view, &name)?.clone()]),
        BucketCommand::List => output.result(
            || view.buckets.iter().map(|bucket| for_scripts(&view, bucket)).collect(),
            || for_people(&view, &view.buckets),
        ),
    }
}

fn print(output: &Output, view: &ClusterView, buckets: &[BucketInfo]) -> Result<(), Failure> {
    output.result(
        || buckets.first().map_or(Value::Null, |bucket| for_scripts(view, bucket)),
        || for_people(view, buckets),
    )
}

fn new_policy(view: &ClusterView, fixed: &BucketFixed) -> Result<BucketPolicy, Failure> {
    let placement = view.placements.iter().find(|known| known.info.name == fixed.placement);
    let Some(placement) = placement else {
        let known = text::list(view.placements.iter().map(|known| &known.info.name));
        return Err(Failure::new(
            Status::NotFound,
            format!("no placement `{}`; there are: {known}", fixed.placement),
            "see `holm layout show`; an empty cluster needs `holm layout apply` first",
        ));
    };
    let placement = placement.info.id;
    Ok(BucketPolicy { kind: fixed.kind, placement, ..BucketPolicy::default() })
}

fn changed(policy: BucketPolicy, changes: &BucketChanges) -> BucketPolicy {
    BucketPolicy {
        read_level: changes.read_consistency.unwrap_or(policy.read_level),
        write_level: changes.write_consistency.unwrap_or(policy.write_level),
        max_siblings: changes.max_siblings.unwrap_or(policy.max_siblings),
        max_value: changes.max_value.unwrap_or(policy.max_value),
        strict: changes.strict.unwrap_or(policy.strict),
        ..policy
    }
}

fn check(policy: &BucketPolicy, name: &str) -> Result<(), Failure> {
    policy
        .check(name)
        .map_err(|error| Failure::usage(error.to_string(), "see `holm bucket create --help`"))
}

fn find<'a>(view: &'a ClusterView, name: &str) -> Result<&'a BucketInfo, Failure> {
    view.buckets.iter().find(|bucket| bucket.name == name).ok_or_else(|| {
        Failure::new(
            Status::NotFound,
            format!("no bucket `{name}`"),
            "see `holm bucket list`, or create it with `holm bucket create`",
        )
    })
}

fn placement_name(view: &ClusterView, id: PlacementId) -> String {
    let placement = view.placements.iter().find(|known| known.info.id == id);
    placement.map_or_else(|| id.0.to_string(), |known| known.info.name.clone())
}

fn for_scripts(view: &ClusterView, bucket: &BucketInfo) -> Value {
    let policy = &bucket.policy;
    json!({
        "name": bucket.name,
        "id": bucket.id.0,
        "kind": kind_name(policy.kind),
        "placement": placement_name(view, policy.placement),
        "read_consistency": policy.read_level.to_string(),
        "write_consistency": policy.write_level.to_string(),
        "max_siblings": policy.max_siblings,
        "max_value_bytes": policy.max_value,
        "strict": policy.strict,
    })
}

fn for_people(view: &ClusterView, buckets: &[BucketInfo]) -> String {
    let mut table = Table::new([
        "BUCKET",
        "KIND",
        "PLACEMENT",
        "READ",
        "WRITE",
        "MAX SIBLINGS",
        "MAX VALUE",
        "STRICT",
    ]);
    for bucket in buckets {
        let policy = &bucket.policy;
        table.row([
            bucket.name.clone(),
            kind_name(policy.kind).to_owned(),
            placement_name(view, policy.placement),
            policy.read_level.to_string(),
            policy.write_level.to_string(),
            policy.max_siblings.to_string(),
            format!("{} B", policy.max_value),
            if policy.strict { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use holm_protocol::admin::{PlacementInfo, PlacementView};
    use holm_protocol::bucket::BucketKind;
    use holm_protocol::ids::BucketId;
    use holm_protocol::level::Level;

    use super::*;

    fn view() -> ClusterView {
        let info =
            PlacementInfo { id: PlacementId(2), name: "eu".into(), bits: 8, replication: vec![] };
        ClusterView {
            cluster: "demo".into(),
            layout_version: 1,
            regions: vec![],
            nodes: vec![],
            placements: vec![PlacementView { info, replicas: vec![] }],
            buckets: vec![],
        }
    }

    /// Goal: a change touches what it names and nothing else. Method: one field.
    #[test]
    fn changes_touch_what_they_name() {
        let changes = BucketChanges { read_consistency: Some(Level::All), ..Default::default() };
        let policy = changed(BucketPolicy::default(), &changes);
        assert_eq!(policy, BucketPolicy { read_level: Level::All, ..BucketPolicy::default() });
    }

    /// Goal: placements go by name. Method: one that exists, one that does not.
    #[test]
    fn placements_go_by_name() {
        let fixed = |placement: &str| BucketFixed {
            kind: BucketKind::Lww,
            placement: placement.to_owned(),
        };
        assert_eq!(new_policy(&view(), &fixed("eu")).unwrap().placement, PlacementId(2));
        let refused = new_policy(&view(), &fixed("default")).unwrap_err();
        assert_eq!(refused.status, Status::NotFound);
    }

    /// Goal: table and JSON say the same, by name. Method: one bucket, in full.
    #[test]
    fn buckets_are_shown_by_name() {
        let policy = BucketPolicy { placement: PlacementId(2), ..BucketPolicy::default() };
        let bucket = BucketInfo { id: BucketId(5), name: "carts".into(), policy };
        let want = "\
BUCKET  KIND      PLACEMENT  READ          WRITE         MAX SIBLINGS  MAX VALUE  STRICT
carts   siblings  eu         local_quorum  local_quorum  64            1048576 B  no
";
        assert_eq!(for_people(&view(), std::slice::from_ref(&bucket)), want);
        let json = for_scripts(&view(), &bucket);
        assert_eq!(json["placement"], "eu");
        assert_eq!(json["max_value_bytes"], 1_048_576);
    }
}
