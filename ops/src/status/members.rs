//! What each node thinks of each other one, and where they disagree.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::admin::{BreakerState, MemberState, MembershipStatus, PeerOpinion};
use holm_protocol::ids::NodeId;
use serde_json::{Value, json};

use crate::output::Table;
use crate::text;

/// A node that has just started has not heard of everybody yet, milliseconds.
const INTRODUCED_WITHIN_MS: u64 = 5_000;

/// What the nodes that answered think of one node.
#[derive(Debug)]
struct Seen<'a> {
    node: NodeId,
    by: BTreeMap<NodeId, &'a PeerOpinion>,
}

impl Seen<'_> {
    /// Who thinks what.
    fn states(&self) -> BTreeMap<MemberState, Vec<NodeId>> {
        let mut states: BTreeMap<MemberState, Vec<NodeId>> = BTreeMap::new();
        for (by, opinion) in &self.by {
            states.entry(opinion.state).or_default().push(*by);
        }
        states
    }

    /// Whether some can reach it in their opinion, and others think something else.
    fn is_disputed(&self) -> bool {
        let settled = |opinion: &&&PeerOpinion| {
            opinion.state != MemberState::Unknown || opinion.since_ms > INTRODUCED_WITHIN_MS
        };
        let states: BTreeSet<_> = self.by.values().filter(settled).map(|o| o.state).collect();
        states.len() > 1
    }

    /// `alive for n1, n2; down for n3`.
    fn in_words(&self) -> String {
        let states = self.states();
        let words = states.iter().map(|(state, by)| match states.len() {
            1 => format!("{} for all {}", state.name(), by.len()),
            _ => format!("{} for {}", state.name(), text::list(by)),
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

fn seen(answers: &[MembershipStatus]) -> Vec<Seen<'_>> {
    let mut all: BTreeMap<NodeId, Seen<'_>> = BTreeMap::new();
    for answer in answers {
        for opinion in &answer.peers {
            let node = opinion.node;
            let seen = all.entry(node).or_insert_with(|| Seen { node, by: BTreeMap::new() });
            seen.by.insert(answer.node, opinion);
        }
    }
    all.into_values().collect()
}

/// What is not as it should be, a sentence each.
pub(super) fn concerns(answers: &[MembershipStatus]) -> Vec<String> {
    let mut concerns = Vec::new();
    for seen in seen(answers).iter().filter(|seen| seen.is_disputed()) {
        concerns.push(format!("nodes disagree about {}: {}", seen.node, seen.in_words()));
    }
    // Both ends of a pair measure; one sentence is enough.
    let mut apart = BTreeSet::new();
    for answer in answers {
        let me = answer.node;
        for opinion in &answer.peers {
            let node = opinion.node;
            if opinion.breaker != BreakerState::Closed {
                concerns.push(format!("{me} asks {node} last: it leaves requests unanswered"));
            }
            let Some(clock) = opinion.clock else { continue };
            let apart_us = clock.offset_us.unsigned_abs().saturating_sub(clock.error_us);
            let (ahead, behind) = if clock.offset_us > 0 { (node, me) } else { (me, node) };
            let is_apart = apart_us > answer.max_clock_skew_ms.saturating_mul(1000);
            if is_apart && apart.insert((ahead, behind)) {
                let ms = apart_us / 1000;
                concerns.push(format!("the clock of {ahead} is {ms} ms ahead of that of {behind}"));
            }
        }
    }
    concerns
}

/// Milliseconds with one decimal.
fn ms(us: i64) -> String {
    format!("{:.1}", us as f64 / 1000.0)
}

fn range(values: impl Iterator<Item = i64> + Clone) -> String {
    match (values.clone().min(), values.max()) {
        (Some(least), Some(most)) if ms(least) == ms(most) => ms(least),
        (Some(least), Some(most)) => format!("{}..{}", ms(least), ms(most)),
        _ => "-".to_owned(),
    }
}

/// One line for each node: what all think of it.
pub(super) fn summary(answers: &[MembershipStatus]) -> String {
    let mut table = Table::new(["NODE", "SEEN AS", "START", "RTT MS", "CLOCK MS", "LAST FOR"]);
    for seen in seen(answers) {
        let opinions = || seen.by.values();
        let epoch = opinions().map(|opinion| opinion.epoch).max().unwrap_or_default();
        let connected = opinions().filter(|opinion| opinion.connected);
        let open = seen.by.iter().filter(|(_, o)| o.breaker != BreakerState::Closed);
        table.row([
            seen.node.to_string(),
            seen.in_words(),
            epoch.to_string(),
            range(connected.map(|opinion| opinion.rtt_us as i64)),
            range(opinions().filter_map(|opinion| Some(opinion.clock?.offset_us))),
            text::list(open.map(|(by, _)| by)),
        ]);
    }
    table.render()
}

/// One line for each pair of nodes.
pub(super) fn pairs(answers: &[MembershipStatus]) -> String {
    let mut table = Table::new([
        "NODE", "OF", "STATE", "SINCE", "START", "LINK", "RTT MS", "CLOCK MS", "BREAKER",
    ]);
    for answer in answers {
        for opinion in &answer.peers {
            let clock = opinion
                .clock
                .map(|clock| format!("{} (± {})", ms(clock.offset_us), ms(clock.error_us as i64)));
            table.row([
                answer.node.to_string(),
                opinion.node.to_string(),
                opinion.state.name().to_owned(),
                text::seconds(opinion.since_ms / 1000),
                opinion.epoch.to_string(),
                if opinion.connected { "up" } else { "down" }.to_owned(),
                if opinion.connected { ms(opinion.rtt_us as i64) } else { "-".to_owned() },
                clock.unwrap_or_else(|| "-".to_owned()),
                opinion.breaker.name().to_owned(),
            ]);
        }
    }
    table.render()
}

/// What is thought of each node, by whom.
pub(super) fn for_scripts(answers: &[MembershipStatus]) -> Value {
    let members = seen(answers).into_iter().map(|seen| {
        let states = seen.states().into_iter();
        let states = states.map(|(state, by)| {
            let by: Vec<u64> = by.into_iter().map(|node| node.0).collect();
            (state.name().to_owned(), json!(by))
        });
        json!({
            "node": seen.node.0,
            "seen_as": states.collect::<serde_json::Map<_, _>>(),
            "disputed": seen.is_disputed(),
        })
    });
    members.collect()
}

/// What one node thinks of another, added to what is said of the pair already.
pub(super) fn add_opinion(json: &mut Value, opinion: &PeerOpinion) {
    json["state"] = json!(opinion.state.name());
    json["boot"] = json!(opinion.epoch.boot);
    json["renewal"] = json!(opinion.epoch.renewal);
    json["incarnation"] = json!(opinion.incarnation);
    json["since_ms"] = json!(opinion.since_ms);
    json["addr"] = json!(opinion.addr.map(|addr| addr.to_string()));
    json["clock_offset_us"] = json!(opinion.clock.map(|clock| clock.offset_us));
    json["clock_error_us"] = json!(opinion.clock.map(|clock| clock.error_us));
    json["breaker"] = json!(opinion.breaker.name());
}

#[cfg(test)]
mod tests {
    use holm_protocol::admin::{ClockOffset, Epoch};

    use super::*;

    fn opinion(node: u64, state: MemberState) -> PeerOpinion {
        PeerOpinion {
            node: NodeId(node),
            state,
            epoch: Epoch { boot: 4, renewal: 0 },
            incarnation: 0,
            since_ms: 60_000,
            addr: None,
            connected: true,
            rtt_us: 80_100,
            clock: Some(ClockOffset { offset_us: -1_200, error_us: 40_000, age_ms: 5 }),
            breaker: BreakerState::Closed,
        }
    }

    fn answer(node: u64, peers: Vec<PeerOpinion>) -> MembershipStatus {
        let epoch = Epoch { boot: 2, renewal: 1 };
        let node = NodeId(node);
        MembershipStatus { node, epoch, incarnation: 3, max_clock_skew_ms: 500, peers }
    }

    /// Goal: agreement is no concern; a disagreement names who thinks what, in table and JSON.
    #[test]
    fn disagreements_are_said_in_words() {
        use MemberState::{Alive, Down};
        let mut answers = vec![
            answer(1, vec![opinion(2, Alive), opinion(3, Alive)]),
            answer(2, vec![opinion(1, Alive), opinion(3, Alive)]),
        ];
        assert_eq!(concerns(&answers), [] as [String; 0]);
        assert!(summary(&answers).contains("n3    alive for all 2  4      80.1    -1.2"));
        answers[1].peers[1].state = Down;
        let words = "nodes disagree about n3: alive for n1; down for n2";
        assert_eq!(concerns(&answers), [words]);
        assert!(summary(&answers).contains("alive for n1; down for n2"));
        let json = for_scripts(&answers);
        assert_eq!(json[2]["seen_as"], json!({ "alive": [1], "down": [2] }));
        assert_eq!((&json[2]["disputed"], &json[0]["disputed"]), (&json!(true), &json!(false)));
        assert!(
            pairs(&answers).contains("n2    n3  down   60 s   4      up    80.1    -1.2 (± 40.0)")
        );
    }

    /// Goal: who has just started and not heard of somebody yet disputes nothing; who has not after a
    /// while does.
    #[test]
    fn newcomers_are_given_time() {
        let mut answers = vec![
            answer(1, vec![opinion(3, MemberState::Alive)]),
            answer(2, vec![opinion(3, MemberState::Unknown)]),
        ];
        answers[1].peers[0].since_ms = 1_000;
        assert!(concerns(&answers).is_empty());
        answers[1].peers[0].since_ms = 10_000;
        assert_eq!(concerns(&answers), ["nodes disagree about n3: alive for n1; unknown for n2"]);
    }

    /// Goal: a clock that is off by more than the limit for certain is named once; one that may be right
    /// is not. Method: both ends measure.
    #[test]
    fn clocks_that_are_off_are_named() {
        let mut answers = vec![
            answer(1, vec![opinion(2, MemberState::Alive)]),
            answer(2, vec![opinion(1, MemberState::Alive)]),
        ];
        let mut measured = |one: i64, two: i64| {
            for (answer, offset_us) in answers.iter_mut().zip([one, two]) {
                let clock = ClockOffset { offset_us, error_us: 40_000, age_ms: 5 };
                answer.peers[0].clock = Some(clock);
            }
            concerns(&answers)
        };
        assert!(measured(530_000, -530_000).is_empty());
        let found = measured(840_000, -840_000);
        assert!(found.contains(&"the clock of n2 is 800 ms ahead of that of n1".to_owned()));
        assert!(found.len() == 1, "{found:?}");
    }

    /// Goal: a breaker is a concern, and shown.
    #[test]
    fn breakers_are_shown() {
        let mut answers = vec![answer(1, vec![opinion(2, MemberState::Alive)])];
        answers[0].peers[0].breaker = BreakerState::Open;
        assert_eq!(concerns(&answers), ["n1 asks n2 last: it leaves requests unanswered"]);
        let mut json = json!({ "node": 2 });
        add_opinion(&mut json, &answers[0].peers[0]);
        assert_eq!((&json["breaker"], &json["state"]), (&json!("open"), &json!("alive")));
    }
}
