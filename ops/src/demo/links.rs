//! Distances and cuts, as the rules that each node's socket applies to what it sends.
//!
//! A rule is about one direction. Every node is told about every other, so both directions between
//! two regions carry the delay, half the round trip each, and a cut drops packets at both ends.

use std::collections::BTreeSet;

use holm_protocol::admin::LinkRule;
use holm_protocol::ids::NodeId;

use super::plan::Plan;
use crate::failure::Failure;

/// The links of a demo: the plan's distances and the cuts in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// Pairs of region names, the smaller first.
    cuts: BTreeSet<(String, String)>,
}

impl Links {
    /// Cuts one region off from another, or from all others; says which pairs are cut now that were
    /// not before.
    ///
    /// # Errors
    /// A region is not in the plan, or there is nobody to cut it off from.
    pub(super) fn cut(
        &mut self,
        plan: &Plan,
        a: &str,
        b: Option<&str>,
    ) -> Result<Vec<(String, String)>, Failure> {
        let unknown = [Some(a), b]
            .into_iter()
            .flatten()
            .find(|name| !plan.regions.iter().any(|region| region == name));
        if let Some(unknown) = unknown {
            return Err(Failure::usage(
                format!("the demo has no region `{unknown}`"),
                format!("its regions are {}", plan.regions.join(", ")),
            ));
        }
        let others = plan.regions.iter().map(String::as_str);
        let others: Vec<&str> =
            others.filter(|other| *other != a && b.is_none_or(|b| *other == b)).collect();
        if others.is_empty() {
            return Err(Failure::usage(
                format!("there is nothing to cut `{a}` off from"),
                "name two different regions",
            ));
        }
        let pairs = others.into_iter().map(|other| {
            let (small, large) = if a < other { (a, other) } else { (other, a) };
            (small.to_owned(), large.to_owned())
        });
        Ok(pairs.filter(|pair| self.cuts.insert(pair.clone())).collect())
    }

    /// Undoes all cuts; says how many pairs of regions were cut.
    pub(super) fn heal(&mut self) -> usize {
        std::mem::take(&mut self.cuts).len()
    }

    /// The rules of one node: one for every other node.
    pub(super) fn rules(&self, plan: &Plan, node: NodeId) -> Vec<LinkRule> {
        let Some(from) = plan.nodes.iter().find(|known| known.id == node) else {
            return Vec::new();
        };
        let others = plan.nodes.iter().filter(|other| other.id != node);
        let rules = others.map(|other| LinkRule {
            to: other.id,
            delay_us: plan.one_way_us(&from.region, &other.region),
            cut: self.is_cut(&from.region, &other.region),
        });
        rules.collect()
    }

    fn is_cut(&self, a: &str, b: &str) -> bool {
        self.cuts
            .iter()
            .any(|(small, large)| (small == a && large == b) || (small == b && large == a))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::tests::plan;

    fn cut_links(links: &Links, plan: &Plan) -> BTreeSet<(u64, u64)> {
        let mut cut = BTreeSet::new();
        for node in &plan.nodes {
            for rule in links.rules(plan, node.id).iter().filter(|rule| rule.cut) {
                cut.insert((node.id.0, rule.to.0));
            }
        }
        cut
    }

    /// Goal: distances hold both ways and only between regions. Method: all rules of a small plan.
    #[test]
    fn distances_hold_both_ways() {
        let plan = plan(&["us", "eu", "ap"], 2);
        let links = Links::default();
        for node in &plan.nodes {
            let rules = links.rules(&plan, node.id);
            assert_eq!(rules.len(), plan.nodes.len() - 1);
            for rule in rules {
                let back = links.rules(&plan, rule.to).into_iter().find(|back| back.to == node.id);
                assert_eq!(back.unwrap().delay_us, rule.delay_us);
                let same = plan.node(rule.to).unwrap().region == node.region;
                assert_eq!(rule.delay_us == 0, same);
                assert!(!rule.cut);
            }
        }
    }

    /// Goal: a cut separates exactly the nodes of the two regions, and heals. Method: one pair,
    /// then all, then none.
    #[test]
    fn cuts_separate_and_heal() {
        let plan = plan(&["us", "eu", "ap"], 1);
        let mut links = Links::default();
        assert_eq!(links.cut(&plan, "us", Some("eu")).unwrap().len(), 1);
        assert_eq!(cut_links(&links, &plan), [(1, 2), (2, 1)].into());
        let more = links.cut(&plan, "us", None).unwrap();
        assert_eq!(more, [("ap".to_owned(), "us".to_owned())]);
        assert_eq!(cut_links(&links, &plan), [(1, 2), (2, 1), (1, 3), (3, 1)].into());
        assert_eq!(links.rules(&plan, NodeId(1))[0].delay_us, 40_000, "a cut keeps the distance");
        assert_eq!(links.heal(), 2);
        assert_eq!(cut_links(&links, &plan), BTreeSet::new());
    }

    /// Goal: a cut names regions of the demo. Method: a stranger, and a region with itself.
    #[test]
    fn strange_cuts_are_refused() {
        let plan = plan(&["us", "eu"], 1);
        let mut links = Links::default();
        assert!(links.cut(&plan, "mars", None).is_err());
        assert!(links.cut(&plan, "us", Some("mars")).is_err());
        assert!(links.cut(&plan, "us", Some("us")).is_err());
        assert_eq!(links, Links::default());
    }
}
