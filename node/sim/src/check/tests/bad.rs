//! Every rule finds what it is there for, and nothing else.
//!
//! Each property has a way to break it: a good case is changed in the one way that the rule
//! forbids, where it offers the chance.

use bytes::Bytes;
use holm_core::object::{Object, ObjectKind, Sibling};
use holm_core::shard::config::{ShardConfig, Standing};
use holm_protocol::dot::Dot;
use holm_protocol::error::{ContextFault, RequestError};
use holm_protocol::ids::{Actor, Hlc, NodeId, Partition};
use holm_protocol::message::Reply;
use holm_protocol::version_vector::VersionVector;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::model::{Case, Standings, good, live_dots};
use crate::check::durable::Copy;
use crate::check::{
    PROPERTIES, Property, Verdict, answers, bounds, claims, closed, converged, deadline, dots,
    durable, elements, ends, equal_clocks, forged, gone, hints, kept, latest, logged, names,
    panics, quarantine, quorum_reads, receipts, replica, same_run, values,
};
use crate::cluster::CallResult;
use crate::history::{EventId, Outcome};
use crate::rng::stream;

/// Good cases, none of which may be flagged (TESTING 4).
const GOOD: u64 = 10_000;
/// Bad cases of each rule, all of which must be.
const BAD: usize = 200;

/// All rules that a case breaks.
fn broken(case: &Case) -> Vec<&'static Property> {
    let mut verdicts = told(case);
    verdicts.extend(stored(case));
    verdicts.into_iter().filter_map(Result::err).map(|violation| violation.property).collect()
}

/// What is said of answers.
fn told(case: &Case) -> Vec<Verdict> {
    let mut history = case.history.clone();
    let mut out: Vec<Verdict> =
        case.learned.iter().map(|&(id, dot)| dots::learn(&mut history, id, dot)).collect();
    let history = &case.history;
    let written = case.values.iter().filter(|(key, value)| {
        history.by_value(*key, value).is_none_or(|id| history.event(id).dot.is_some())
    });
    out.extend(written.map(|(key, v)| values::writer_of(history, *key, v, "n1").map(|_| ())));
    out.push(values::nothing_undone_was_seen(history));
    for answer in &case.answers {
        out.push(answers::check(history, answer));
        out.push(names::check(history, answer.key, &answer.covers));
    }
    let none = VersionVector::new();
    let writers = case.writers.iter();
    out.extend(writers.map(|(id, c)| answers::check_writer(history, *id, c, &none)));
    out.extend(case.forged.iter().map(|(id, result)| forged::check(history, *id, result)));
    let partition = Partition::from_u32(0);
    let levels = case.receipts.iter();
    out.extend(
        levels.map(|(level, r)| receipts::check(&case.layout, partition, (*level, false), r)),
    );
    for (read, receipt) in &case.reads {
        out.push(quorum_reads::check(history, &case.layout, read));
        out.push(quarantine::check(&case.forgot, read.asked_us, receipt, true));
    }
    let Standings { has_asked, lacks_and_goes_on, left } = &case.standings;
    out.push(quarantine::check_asked(NodeId(1), partition, *has_asked));
    out.push(quarantine::check_lacking(NodeId(1), partition, *lacks_and_goes_on));
    out.push(quarantine::check_left(left));
    let calls = case.calls.iter();
    out.extend(calls.map(|&(asked, now, allowed)| deadline::check(asked, now, allowed, "n1")));
    out.push(ends::check(case.progress));
    out.extend(case.last_reads.iter().map(|r| ends::check_read("k", "n1", r.as_ref())));
    out.extend(case.panic.iter().map(|text| Err(panics::violation(text))));
    out.push(same_run::check(&case.runs.0, &case.runs.1));
    out
}

/// What is said of disks and clocks.
fn stored(case: &Case) -> Vec<Verdict> {
    let (history, key) = (&case.history, case.key);
    let mut out: Vec<Verdict> =
        case.copies.iter().map(|(id, copies)| durable::check(history, *id, copies)).collect();
    let nodes = (NodeId(4), NodeId(1));
    for (before, after, copy) in &case.hints {
        out.push(hints::check_change(nodes, (before, after), |_| *copy));
    }
    out.push(hints::check_left(&vec![nodes; case.hints_left]));
    for change in &case.changes {
        let (before, after) = (&change.before, &change.after);
        let known = &VersionVector::new();
        let change = replica::Change { key, before, after, known, place: "n1" };
        out.push(replica::check(history, change));
    }
    for (node, clock, object) in &case.clocks {
        out.push(replica::check_clock(clock, object, "n1"));
        out.push(logged::check_clock(history, key, (*node, clock), &object.context));
        let others = case.clocks.iter().filter(|(other, ..)| other != node);
        for (other, theirs, object_there) in others {
            let live = |id| live_dots(if id == *node { object } else { object_there });
            let pair = ((*node, clock), (*other, theirs));
            out.push(equal_clocks::check(Partition::from_u32(0), pair.0, pair.1, live));
        }
    }
    out.extend(case.logs.iter().map(|(entry, c)| logged::check(entry, Some(c), "n1")));
    out.push(bounds::check(&ShardConfig::test_min(), &case.counters, "n1"));
    out.push(converged::check("k", &case.replicas));
    out.push(converged::check_clocks(Partition::from_u32(0), &case.final_clocks));
    out.extend(case.found.iter().map(|(node, found)| equal_clocks::check_found(*node, found)));
    out.push(claims::check_known(NodeId(1), &case.know, &case.claimed));
    out.extend(case.claims.iter().map(|(dot, safe)| claims::check(NodeId(1), *dot, safe)));
    for (node, object) in &case.replicas {
        out.push(converged::check_forgotten((*node, "k"), object, &case.stable));
        let live: Vec<Dot> = object.live_dots().collect();
        let siblings: Vec<Bytes> = object.siblings().iter().map(|s| s.value.clone()).collect();
        out.push(durable::check_restart(history, key, *node, &object.context));
        out.push(kept::check(history, key, &live, &object.context));
        out.push(gone::check(history, key, &live));
        if case.only_adds {
            out.push(elements::check(history, key, &siblings));
        }
    }
    out.push(latest::check(history, case.latest, case.winner));
    out.extend(decided(case));
    out
}

/// What is said of runs that ended.
fn decided(case: &Case) -> Vec<Verdict> {
    let mut out = Vec::new();
    for (at, (actor, dots)) in case.decisions.iter().enumerate() {
        let known = case.decisions[..at].iter().find(|(known, _)| known == actor);
        out.push(closed::check(*actor, known.map(|(_, dots)| dots), dots, "n1"));
        for (_, clock) in &case.final_clocks {
            out.push(closed::check_folded(clock, |actor| case.ended.contains(&actor), "n1"));
        }
        for (_, object) in &case.replicas {
            out.push(closed::check_held(*actor, dots, object.named_dots(), "n1"));
        }
    }
    out
}

type Rng = ChaCha8Rng;
/// Breaks one rule, if the case offers a chance.
type Break = fn(&mut Case, &mut Rng) -> Option<()>;

const BREAKS: [(&Property, Break); 48] = [
    (&dots::UNIQUE, |case, rng| {
        let (one, other) = (any(rng, &case.learned)?, any(rng, &case.learned)?);
        (one.0 != other.0).then(|| case.learned.push((one.0, other.1)))
    }),
    (&dots::RETRY_ONCE, |case, rng| {
        let (id, _) = any(rng, &case.learned)?;
        case.learned.push((id, Dot { actor: Actor(9), counter: rng.random_range(1..9) }));
        Some(())
    }),
    (&values::GENUINE, |case, rng| {
        let (key, value) = any(rng, &case.values)?;
        let mut value = value.to_vec();
        let at = rng.random_range(0..value.len());
        value[at] ^= 0x80;
        case.values.push((key, value.into()));
        Some(())
    }),
    (&values::NOT_DONE, |case, rng| {
        let (id, _) = any(rng, &case.learned)?;
        case.history.event_mut(id).outcome = Outcome::NotDone;
        Some(())
    }),
    (&answers::VISIBLE_OR_OVERWRITTEN, |case, rng| {
        let at = index(rng, case.answers.len())?;
        let shown = index(rng, case.answers[at].shown.len())?;
        let dot = case.answers[at].shown[shown];
        certain(case, dot).then(|| _ = case.answers[at].shown.remove(shown))
    }),
    (&answers::NOTHING_DOMINATED, |case, rng| {
        let at = index(rng, case.answers.len())?;
        let dot = dead(case, &case.answers[at].covers, rng)?;
        case.answers[at].shown.push(dot);
        Some(())
    }),
    (&answers::CONTEXT_GENUINE, |case, rng| {
        let at = index(rng, case.answers.len())?;
        let (_, dot) = any(rng, &case.learned)?;
        let answer = &mut case.answers[at];
        (!answer.covers.covers(dot)).then(|| answer.shown.push(dot))
    }),
    (&answers::CONTEXT_CLOSED, |case, rng| {
        let at = index(rng, case.answers.len())?;
        let shown = any(rng, &case.answers[at].shown)?;
        let id = case.history.by_dot(Partition::from_u32(0), shown)?;
        let seen: Vec<Dot> =
            case.history.seen_by(id).filter_map(|id| case.history.event(id).dot).collect();
        let seen = any(rng, &seen)?;
        let without = below(&case.answers[at].covers, seen);
        let answer = &mut case.answers[at];
        answer.shown.iter().all(|&dot| without.covers(dot)).then(|| answer.covers = without)
    }),
    // A writer's context covers what somebody else wrote ...
    (&answers::WRITERS_CONTEXT, |case, rng| {
        let at = index(rng, case.writers.len())?;
        let (id, dot) = any(rng, &case.learned)?;
        let (by, covers) = case.writers[at].clone();
        let unseen = id != by && !case.history.saw(by, id) && !covers.covers(dot);
        let has_value = case.history.event(id).value.is_some();
        // An entry covers all smaller counters too: only the one after the covered ones is exact.
        let next = dot.counter == covers.get(dot.actor) + 1;
        let nobody = case.history.events().all(|(by, _)| !case.history.saw(by, id));
        (unseen && has_value && next && nobody).then(|| case.writers[at].1.insert(dot))
    }),
    // ... or does not cover what the writer saw.
    (&answers::WRITERS_CONTEXT, |case, rng| {
        let at = index(rng, case.writers.len())?;
        let seen: Vec<EventId> = case.history.seen_by(case.writers[at].0).collect();
        let dot = case.history.event(any(rng, &seen)?).dot?;
        case.writers[at].1 = below(&case.writers[at].1, dot);
        Some(())
    }),
    (&names::CONTEXT_NAMES_WRITES, |case, rng| {
        let at = index(rng, case.answers.len())?;
        let unknown = case.history.events_of(case.key);
        let unknown = unknown.filter(|(_, e)| e.dot.is_none() && e.may_have_happened()).count();
        for actor in 0..=unknown as u64 {
            case.answers[at].covers.insert(Dot { actor: Actor(90 + actor), counter: 1 });
        }
        Some(())
    }),
    (&forged::REFUSED, |case, rng| {
        let at = index(rng, case.forged.len())?;
        let durable = rng.random_range(1..3);
        let unknown = RequestError::WriteUnknown { needed: 2, durable };
        case.forged[at].1 = CallResult::Reply(Reply::Error(unknown));
        Some(())
    }),
    (&receipts::LEVEL_MET, |case, rng| {
        let at = index(rng, case.receipts.len())?;
        let receipt = &mut case.receipts[at].1;
        let first = *receipt.replicas.first()?;
        match rng.random_range(0..3) {
            0 => _ = receipt.replicas.pop(),
            1 => receipt.replicas.push(first),
            _ => receipt.replicas[0].node = NodeId(77),
        }
        Some(())
    }),
    (&durable::ON_DISK, |case, rng| {
        let at = index(rng, case.copies.len())?;
        let copy = index(rng, case.copies[at].1.len())?;
        case.copies[at].1[copy].1 = if rng.random() { Copy::Missing } else { Copy::Unsynced };
        Some(())
    }),
    (&durable::OUTLIVES_CRASHES, |case, rng| {
        let (id, dot) = any(rng, &case.learned)?;
        let node = *case.history.event(id).durable.first()?;
        let (_, object) = case.replicas.iter_mut().find(|(replica, _)| *replica == node)?;
        object.context = below(&object.context, dot);
        Some(())
    }),
    (&quarantine::STEPS_ASIDE, |case, rng| {
        let (read, receipt) = any(rng, &case.reads)?;
        let node = receipt.replicas.first()?.node;
        case.forgot.insert(node, read.asked_us - 1);
        Some(())
    }),
    (&quarantine::ASKS_FIRST, |case, _| {
        case.standings.has_asked = false;
        Some(())
    }),
    (&quarantine::BEHIND_STEPS_ASIDE, |case, _| {
        case.standings.lacks_and_goes_on = true;
        Some(())
    }),
    (&quarantine::COMES_BACK, |case, rng| {
        let standing = if rng.random() { Standing::Doubt } else { Standing::Behind };
        case.standings.left.push((NodeId(1), Partition::from_u32(0), standing));
        Some(())
    }),
    (&quorum_reads::INTERSECTION, |case, rng| {
        let at = index(rng, case.reads.len())?;
        let (id, dot) = any(rng, &case.learned)?;
        let (read, event) = (&mut case.reads[at].0, case.history.event(id));
        let before = event.acknowledged_us.is_some_and(|acked| acked < read.asked_us);
        let meets = !event.durable.is_disjoint(&read.included);
        let nobody = case.history.events().all(|(by, _)| !case.history.saw(by, id));
        let is_last = event.value.is_some() && nobody;
        (before && meets && is_last).then(|| read.covers = below(&read.covers, dot))
    }),
    (&deadline::IN_TIME, |case, rng| {
        let at = index(rng, case.calls.len())?;
        let (asked, _, allowed) = case.calls[at];
        case.calls[at].1 = asked + allowed + deadline::SLACK_US + rng.random_range(1..1_000_000);
        Some(())
    }),
    (&ends::ENDS, |case, rng| {
        match rng.random() {
            true => case.progress.steps = case.progress.steps_max + rng.random_range(0..9),
            false => case.progress.busy = rng.random_range(1..9),
        }
        Some(())
    }),
    (&ends::READABLE, |case, rng| {
        let at = index(rng, case.last_reads.len())?;
        let refused = RequestError::Context { fault: ContextFault::Forged };
        case.last_reads[at] = match rng.random_range(0..4) {
            0 => None,
            1 => Some(CallResult::NotSent),
            2 => Some(CallResult::Disconnected),
            _ => Some(CallResult::Reply(Reply::Error(refused))),
        };
        Some(())
    }),
    (&replica::NOTHING_RETURNS, |case, rng| {
        let at = index(rng, case.changes.len())?;
        let dot = dead(case, &case.changes[at].before.context, rng)?;
        case.changes[at].after = with(&case.changes[at].after, dot);
        Some(())
    }),
    (&replica::FORGOTTEN_IS_KNOWN, |case, rng| {
        let at = index(rng, case.changes.len())?;
        let known: Vec<Dot> = case.changes[at].before.context.iter().collect();
        let gone = any(rng, &known)?;
        let after = &mut case.changes[at].after;
        after.context = below(&after.context, gone);
        let kept = after.context.clone();
        after.retain_dots(|dot| kept.covers(dot));
        Some(())
    }),
    (&replica::NOTHING_VANISHES, |case, rng| {
        let at = index(rng, case.changes.len())?;
        let live: Vec<Dot> = case.changes[at].before.live_dots().collect();
        let dot = any(rng, &live)?;
        let lives = case.changes[at].after.live_dots().any(|live| live == dot);
        let after = &mut case.changes[at].after;
        lives.then(|| after.retain_dots(|live| live != dot))?;
        certain(case, dot).then_some(())
    }),
    (&replica::CLOCK_NAMES_ALL, |case, rng| {
        let at = index(rng, case.clocks.len())?;
        case.clocks[at].2.context.insert(Dot { actor: Actor(99), counter: 1 });
        Some(())
    }),
    (&logged::LOG_HAS_OBJECT, |case, rng| {
        let at = index(rng, case.logs.len())?;
        let (entry, covers) = &mut case.logs[at];
        *covers = below(covers, entry.dot);
        Some(())
    }),
    (&logged::CLOCK_HONEST, |case, rng| {
        let at = index(rng, case.clocks.len())?;
        let (_, dot) = any(rng, &case.learned)?;
        let (_, clock, object) = &mut case.clocks[at];
        object.context = below(&object.context, dot);
        clock.insert(dot);
        Some(())
    }),
    (&equal_clocks::EQUAL_STATES, |case, rng| {
        let at = index(rng, case.clocks.len())?;
        let (node, clock, object) = &case.clocks[at];
        let equal = case.clocks.iter().any(|(other, theirs, there)| {
            other != node && theirs == clock && live_dots(there) == live_dots(object)
        });
        let live: Vec<Dot> = object.live_dots().collect();
        let gone = any(rng, &live).filter(|_| equal)?;
        case.clocks[at].2.retain_dots(|dot| dot != gone);
        Some(())
    }),
    (&hints::HOME_FIRST, |case, rng| {
        let at = index(rng, case.hints.len())?;
        case.hints[at].2 = any(rng, &[Copy::Missing, Copy::Unsynced])?;
        Some(())
    }),
    (&hints::GO_HOME, |case, rng| {
        case.hints_left = rng.random_range(1..9);
        Some(())
    }),
    (&bounds::BOUNDED, |case, rng| {
        let (config, more) = (ShardConfig::test_min(), rng.random_range(1..1_000));
        match rng.random_range(0..4) {
            3 => case.counters.hint_bytes = config.hint_bytes_max as u64 + more,
            0 => case.counters.relays = config.relays_max as u64 + more,
            1 => case.counters.in_flight = config.in_flight_max as u64 + more,
            _ => case.counters.lingering = config.lingering_max as u64 + more,
        }
        Some(())
    }),
    (&converged::SAME_EVERYWHERE, |case, rng| {
        let at = index(rng, case.replicas.len())?;
        let live: Vec<Dot> = case.replicas[at].1.live_dots().collect();
        let gone = any(rng, &live)?;
        case.replicas[at].1.retain_dots(|dot| dot != gone);
        Some(())
    }),
    (&converged::ALL_FORGOTTEN, |case, rng| {
        let at = index(rng, case.replicas.len())?;
        let object = &mut case.replicas[at].1;
        object.retain_dots(|_| false);
        case.stable = object.context.clone();
        (!object.context.is_empty()).then_some(())
    }),
    (&claims::STABLE_IS_SEEN, |case, rng| {
        let at = index(rng, case.claimed.len())?;
        let known: Vec<Dot> = case.know.iter().collect();
        let dot = any(rng, &known)?;
        case.claimed[at].1 = below(&case.claimed[at].1, dot);
        Some(())
    }),
    (&converged::SAME_CLOCKS, |case, rng| {
        let at = index(rng, case.final_clocks.len())?;
        let counter = rng.random_range(1..9);
        case.final_clocks[at].1.insert(Dot { actor: Actor(99), counter });
        Some(())
    }),
    (&claims::DURABLE, |case, rng| {
        let at = index(rng, case.claims.len())?;
        let (dot, safe) = &mut case.claims[at];
        *safe = below(safe, *dot);
        Some(())
    }),
    (&equal_clocks::NOTHING_UNEXPLAINED, |case, rng| {
        let at = index(rng, case.found.len())?;
        case.found[at].1.is_damaged = false;
        (!case.found[at].1.lost.is_empty()).then_some(())
    }),
    (&kept::ACKNOWLEDGED_KEPT, |case, rng| {
        let at = index(rng, case.replicas.len())?;
        let live: Vec<Dot> = case.replicas[at].1.live_dots().collect();
        let gone = any(rng, &live)?;
        let id = case.history.by_dot(Partition::from_u32(0), gone)?;
        let is_owed = case.history.event(id).is_owed() && certain(case, gone);
        is_owed.then(|| case.replicas[at].1.retain_dots(|dot| dot != gone))
    }),
    (&gone::OVERWRITTEN_GONE, |case, rng| {
        let at = index(rng, case.replicas.len())?;
        let dot = dead(case, &case.replicas[at].1.context, rng)?;
        let id = case.history.by_dot(Partition::from_u32(0), dot)?;
        let by = case.history.events().any(|(by, e)| e.is_owed() && case.history.saw(by, id));
        by.then(|| case.replicas[at].1 = with(&case.replicas[at].1, dot))
    }),
    (&latest::LATEST_WINS, |case, rng| {
        let (hlc, _) = case.winner?;
        let less = Hlc(hlc.0 - rng.random_range(1..=hlc.0));
        case.winner = rng.random::<bool>().then_some((less, None));
        Some(())
    }),
    (&panics::NEVER, |case, rng| {
        case.panic = Some(format!("index {} is out of bounds", rng.random_range(0..9)));
        Some(())
    }),
    (&same_run::SAME, |case, rng| {
        match rng.random() {
            true => case.runs.1.digest ^= 1 << rng.random_range(0..64),
            false => case.runs.1.steps += rng.random_range(1..9),
        }
        Some(())
    }),
    (&closed::ONE_DECISION, |case, rng| {
        let (actor, mut dots) = any(rng, &case.decisions)?;
        dots.insert(dots.max() + rng.random_range(1..5));
        case.decisions.push((actor, dots));
        Some(())
    }),
    (&closed::NOTHING_HELD_IS_VOID, |case, rng| {
        let named = case.replicas.first()?.1.named_dots().collect::<Vec<_>>();
        let void = any(rng, &named)?;
        for (_, dots) in case.decisions.iter_mut().filter(|(actor, _)| *actor == void.actor) {
            let others = dots.difference(&std::iter::once(void.counter).collect());
            *dots = others.into_iter().flat_map(|(first, last)| first..=last).collect();
        }
        Some(())
    }),
    (&closed::ALL_FOLDED, |case, rng| {
        let (actor, _) = any(rng, &case.decisions)?;
        let at = index(rng, case.final_clocks.len())?;
        case.final_clocks[at].1.get(actor).is_some().then(|| case.ended.push(actor))
    }),
    (&elements::ELEMENTS_KEPT, |case, rng| {
        let at = index(rng, case.replicas.len())?;
        let shown = case.replicas[at].1.siblings().iter();
        let union: Vec<usize> = shown.flat_map(|s| elements::decode(&s.value)).collect();
        let lost = any(rng, &union)?;
        let is_owed = case.history.event(EventId(lost)).is_owed();
        (is_owed && case.only_adds)
            .then(|| case.replicas[at].1 = without_element(&case.replicas[at].1, lost))
    }),
];

fn index(rng: &mut Rng, len: usize) -> Option<usize> {
    (len > 0).then(|| rng.random_range(0..len))
}

fn any<T: Clone>(rng: &mut Rng, of: &[T]) -> Option<T> {
    Some(of[index(rng, of.len())?].clone())
}

/// Whether nobody of whom nothing is known could have overwritten this.
fn certain(case: &Case, dot: Dot) -> bool {
    let Some(id) = case.history.by_dot(Partition::from_u32(0), dot) else { return false };
    case.history.events().all(|(by, event)| {
        event.dot.is_some() || !event.may_have_happened() || !case.history.saw(by, id)
    })
}

/// The vector without a dot, and so without all greater counters of its actor.
fn below(covers: &VersionVector, gone: Dot) -> VersionVector {
    let less = |dot: Dot| match dot.actor == gone.actor {
        true => Dot { counter: dot.counter.min(gone.counter - 1), ..dot },
        false => dot,
    };
    covers.iter().map(less).filter(|dot| dot.counter > 0).collect()
}

/// A put value that is covered and was overwritten by something that is covered too.
fn dead(case: &Case, covers: &VersionVector, rng: &mut Rng) -> Option<Dot> {
    let history = &case.history;
    let is_dead = |id: EventId| {
        history.events_of(case.key).any(|(by, event)| {
            history.saw(by, id) && event.dot.is_some_and(|dot| covers.covers(dot))
        })
    };
    let dead = history.events_of(case.key).filter(|(id, event)| {
        let is_covered = event.dot.is_some_and(|dot| covers.covers(dot));
        event.value.is_some() && is_covered && is_dead(*id)
    });
    let dead: Vec<Dot> = dead.filter_map(|(_, event)| event.dot).collect();
    any(rng, &dead)
}

/// The object with these siblings and the same context.
fn rebuilt(object: &Object, mut siblings: Vec<Sibling>) -> Object {
    siblings.sort_by_key(|sibling| sibling.dot);
    let mut rebuilt = Object::new(ObjectKind::Siblings);
    siblings.into_iter().for_each(|sibling| rebuilt.put(&VersionVector::new(), sibling));
    rebuilt.context.merge(&object.context);
    rebuilt
}

/// The object with a dead dot alive again.
fn with(object: &Object, dot: Dot) -> Object {
    let mut siblings = object.siblings().to_vec();
    siblings.push(Sibling::new(dot, Hlc(1), Bytes::from_static(b"0:")));
    rebuilt(object, siblings)
}

/// The object whose values lack an element of their sets.
fn without_element(object: &Object, lost: usize) -> Object {
    let less = |sibling: &Sibling| {
        let mut elements = elements::decode(&sibling.value);
        elements.remove(&lost);
        Sibling::new(sibling.dot, sibling.hlc, elements::encode(EventId(0), &elements))
    };
    rebuilt(object, object.siblings().iter().map(less).collect())
}

/// Goal: no rule cries wolf. Method: 10,000 runs of a database that cannot fail.
#[test]
fn good_histories_pass() {
    let mut answers = 0;
    for seed in 0..GOOD {
        let case = good(seed);
        let broken: Vec<&str> = broken(&case).iter().map(|property| property.name).collect();
        assert_eq!(broken, [""; 0], "case {seed}");
        answers += case.answers.iter().filter(|answer| answer.shown.len() > 1).count() as u64;
    }
    assert!(answers > GOOD / 10, "hardly any siblings: {answers}");
}

/// Goal: each rule finds each breach of it. Method: 200 good cases for each way to break a rule, made
/// bad in that way.
#[test]
fn bad_histories_are_flagged() {
    for (property, break_it) in BREAKS {
        let mut bad = 0;
        for seed in 0.. {
            assert!(seed < 40 * BAD as u64, "too few chances to break: {}", property.name);
            let (mut case, rng) = (good(seed), &mut stream(seed, property.name));
            if break_it(&mut case, rng).is_none() {
                continue;
            }
            let broken = broken(&case);
            assert!(broken.contains(&property), "case {seed}: not found: {}", property.name);
            bad += 1;
            if bad == BAD {
                break;
            }
        }
    }
}

/// Goal: no rule is without its test.
#[test]
fn every_property_can_be_broken() {
    for property in PROPERTIES {
        let is_there = BREAKS.iter().any(|(broken, _)| *broken == property);
        assert!(is_there, "nothing breaks: {}", property.name);
    }
}
