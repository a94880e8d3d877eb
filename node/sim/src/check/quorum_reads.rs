//! A read that must meet a write's replicas, sees the write.

use std::collections::BTreeSet;

use holm_core::layout::Layout;
use holm_protocol::dot::Dot;
use holm_protocol::ids::{NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{Event, EventId, History, KeyId, Outcome};

/// R + W > N.
pub const INTERSECTION: Property = Property {
    name: "a read sees every write whose quorum it meets",
    invariant: "I2",
    statement: "a read covers every write that was acknowledged before it began, by a replica that it includes, or at a level whose quorums meet its own, or shows what came after that write",
    source: "Gifford, SOSP 1979; Dynamo (SOSP 2007) 4.5: R + W > N",
    tla: Some("tla/Layout.tla!ReadsAreComplete"),
    file: file!(),
};

/// A read as its client knows it.
#[derive(Debug, Clone)]
pub struct Read {
    /// The key.
    pub key: KeyId,
    /// When it was asked for, simulated microseconds.
    pub asked_us: u64,
    /// Its level.
    pub level: Level,
    /// The region of its coordinator.
    pub region: RegionId,
    /// The replicas whose state it includes.
    pub included: BTreeSet<NodeId>,
    /// The dots of the values that it shows.
    pub shown: Vec<Dot>,
    /// What its context covers.
    pub covers: VersionVector,
}

/// Checks one read against all writes acknowledged before it was asked for. A write that a disk has
/// lost, by a fault that may do that, is owed by the other replicas only; a disk that has it again
/// owes it to reads asked for from then on.
///
/// # Errors
/// A write that it should have seen.
pub fn check(history: &History, layout: &Layout, read: &Read) -> Verdict {
    let partition = history.key(read.key).partition;
    let with = history.with_forgotten(read.key, &read.covers);
    for (id, event) in history.events_of(read.key) {
        let before = event.acknowledged_us.is_some_and(|at| at < read.asked_us);
        if event.outcome != Outcome::Acknowledged || !before {
            continue;
        }
        let Some(dot) = event.dot else { continue };
        let witness = event.had_since(read.asked_us).find(|node| read.included.contains(node));
        let must_meet = quorums_meet(layout, partition, event, read);
        let is_there = with.covers(dot) || is_superseded(history, id, &read.shown);
        if (witness.is_some() || must_meet) && !is_there {
            let who = witness.map_or("by its level".to_owned(), |node| format!("by {node}"));
            let how = format!(
                "a read at {} that includes {:?} misses, though it must know {who}: {}",
                read.level,
                read.included,
                history.describe(id)
            );
            return Err(Violation::new(&INTERSECTION, how));
        }
    }
    Ok(())
}

/// Whether what is shown has the effect of a write that no context names: replicas that show the same
/// count as one, though one of them may know of a write, and of its end, that another never saw.
fn is_superseded(history: &History, id: EventId, shown: &[Dot]) -> bool {
    let event = history.event(id);
    let partition = history.key(event.key).partition;
    let mut ids = shown.iter().filter_map(|&dot| history.by_dot(partition, dot));
    if event.value.is_none() {
        return !ids.any(|other| history.saw(id, other));
    }
    let rank = |event: &Event| event.hlc.zip(event.dot);
    history.events_of(event.key).any(|(other, by)| {
        let is_later = match history.key(event.key).is_lww {
            true => rank(by).zip(rank(event)).is_none_or(|(by, event)| by > event),
            false => by.saw.contains(event.place),
        };
        other != id && by.may_have_happened() && is_later
    })
}

/// Whether the replicas that have the write and any that meet the read's level have one in common:
/// in a region or in all, they are more than there are. As long as no disk has lost the write, the
/// fewest that its own level takes have it, whatever its receipt says.
fn quorums_meet(layout: &Layout, partition: Partition, event: &Event, read: &Read) -> bool {
    let all = layout.replicas(partition);
    let total = |level: Level| match level {
        Level::Quorum => all.len() / 2 + 1,
        Level::All => all.len(),
        Level::Count(n) => usize::from(n),
        // At least one replica answers at every level.
        _ => 1,
    };
    let in_region = |level: Level, region: RegionId, home: Option<RegionId>| {
        let members = layout.replicas_in(partition, region).len();
        match level {
            Level::All => members,
            Level::EachQuorum if members > 0 => members / 2 + 1,
            Level::LocalQuorum if members > 0 && home == Some(region) => members / 2 + 1,
            _ => 0,
        }
    };
    // What a fallback keeps for a replica is at no replica.
    let is_intact = !event.is_sloppy
        && event.lost.is_empty()
        && event.regained.values().all(|&at| at < read.asked_us);
    let have = |members: &[NodeId]| {
        event.had_since(read.asked_us).filter(|node| members.contains(node)).count()
    };
    let somewhere = (0..layout.regions().len()).map(|index| RegionId(index as u16)).any(|region| {
        let members = layout.replicas_in(partition, region);
        let write = match is_intact {
            true => in_region(event.level, region, event.region),
            false => have(members),
        };
        let read = in_region(read.level, region, Some(read.region));
        !members.is_empty() && write + read > members.len()
    });
    let write = if is_intact { total(event.level) } else { have(all) };
    somewhere || write + total(read.level) > all.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, covers, dot};
    use crate::plan::Shape;

    fn read(told: &Told, level: Level, region: u16, covered: bool) -> Read {
        let covers = if covered { covers(&[(1, 1)]) } else { VersionVector::new() };
        let (region, included) = (RegionId(region), BTreeSet::new());
        let shown = Vec::new();
        Read { key: told.key, asked_us: 100, level, region, included, shown, covers }
    }

    /// Goal: exactly the pairs of levels whose quorums always meet are held to it. Method: two
    /// regions of three; a write in region 0 that the read does not see.
    #[test]
    fn levels_that_meet() {
        let layout = Shape { regions: vec![(3, 3), (3, 3)], zones: 0, bits: 0, shards: 1 }.layout();
        let meets = |write: Level, read_level: Level, region: u16| {
            let mut told = Told::default();
            let a = told.put("a", &[]);
            told.history.event_mut(a).level = write;
            told.acknowledge(a, dot(1, 1), &[]);
            told.history.event_mut(a).region = Some(RegionId(0));
            assert_eq!(
                check(&told.history, &layout, &read(&told, read_level, region, true)),
                Ok(())
            );
            check(&told.history, &layout, &read(&told, read_level, region, false)).is_err()
        };
        assert!(meets(Level::Quorum, Level::Quorum, 1));
        assert!(meets(Level::LocalQuorum, Level::LocalQuorum, 0));
        assert!(!meets(Level::LocalQuorum, Level::LocalQuorum, 1));
        assert!(meets(Level::EachQuorum, Level::LocalQuorum, 1));
        assert!(meets(Level::All, Level::One, 1));
        assert!(meets(Level::Count(4), Level::Count(3), 1));
        assert!(!meets(Level::Count(3), Level::Count(3), 1));
        assert!(!meets(Level::One, Level::Quorum, 0));
        assert!(!meets(Level::EachQuorum, Level::One, 0));
    }

    /// Goal: a replica that had it must show it, unless its disk lost it or it answered before.
    #[test]
    fn replicas_that_had_it() {
        let layout = Shape { regions: vec![(3, 3)], zones: 0, bits: 0, shards: 1 }.layout();
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.acknowledge(a, dot(1, 1), &[1, 2]);
        let mut stale = read(&told, Level::One, 0, false);
        stale.included = [NodeId(3)].into();
        assert_eq!(check(&told.history, &layout, &stale), Ok(()));
        stale.included = [NodeId(2)].into();
        assert!(check(&told.history, &layout, &stale).is_err());
        stale.asked_us = 1;
        assert_eq!(check(&told.history, &layout, &stale), Ok(()));
        stale.asked_us = 100;
        told.history.lose(NodeId(2), Partition::from_u32(0), dot(1, 1));
        assert_eq!(check(&told.history, &layout, &stale), Ok(()));
    }

    /// Goal: a fallback's vote makes no quorum of replicas, until the hint is home. Method: a write
    /// by one replica and a fallback; a read of two of three.
    #[test]
    fn a_sloppy_quorum_is_no_quorum() {
        let layout = Shape { regions: vec![(4, 3)], zones: 0, bits: 0, shards: 1 }.layout();
        let list = layout.preference_list(Partition::from_u32(0), RegionId(0));
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.history.event_mut(a).level = Level::LocalQuorum;
        told.acknowledge(a, dot(1, 1), &[list[0].0]);
        let stale = read(&told, Level::LocalQuorum, 0, false);
        assert!(check(&told.history, &layout, &stale).is_err());
        told.history.acknowledged_by_fallback(a, list[3]);
        assert_eq!(check(&told.history, &layout, &stale), Ok(()));
        let covers = covers(&[(1, 1)]);
        told.history.went_home((list[3], list[1]), told.key, (&covers, &[]), 50);
        assert!(check(&told.history, &layout, &stale).is_err());
    }

    /// Goal: what a disk has lost, it owes again once it has it again, to reads asked for later.
    #[test]
    fn regained_is_owed() {
        let layout = Shape { regions: vec![(3, 3)], zones: 0, bits: 0, shards: 1 }.layout();
        let mut told = Told::default();
        let (a, partition) = (told.put("a", &[]), Partition::from_u32(0));
        told.acknowledge(a, dot(1, 1), &[1, 2]);
        told.history.lose(NodeId(2), partition, dot(1, 1));
        told.history.regain(NodeId(2), told.key, &covers(&[]), 40);
        assert!(told.history.is_lost(NodeId(2), partition, dot(1, 1)), "it has not come back yet");
        told.history.regain(NodeId(2), told.key, &covers(&[(1, 1)]), 50);
        assert!(!told.history.is_lost(NodeId(2), partition, dot(1, 1)));
        let mut stale = read(&told, Level::One, 0, false);
        stale.included = [NodeId(2)].into();
        assert!(check(&told.history, &layout, &stale).is_err());
        stale.asked_us = 50;
        assert_eq!(check(&told.history, &layout, &stale), Ok(()));
        told.history.lose(NodeId(2), partition, dot(1, 1));
        stale.asked_us = 100;
        assert_eq!(check(&told.history, &layout, &stale), Ok(()));
    }

    /// Goal: a disk's loss takes its node out of the count and no other. Method: a write at all of
    /// three replicas; a read of two meets it after one loss, and need not after two.
    #[test]
    fn losses_are_counted_by_node() {
        let layout = Shape { regions: vec![(3, 3)], zones: 0, bits: 0, shards: 1 }.layout();
        let mut told = Told::default();
        let a = told.put("a", &[]);
        told.history.event_mut(a).level = Level::All;
        told.acknowledge(a, dot(1, 1), &[1, 2, 3]);
        for (node, level) in [(1, Level::Quorum), (2, Level::All)] {
            told.history.lose(NodeId(node), Partition::from_u32(0), dot(1, 1));
            assert!(check(&told.history, &layout, &read(&told, level, 0, false)).is_err());
        }
        let stale = read(&told, Level::Quorum, 0, false);
        assert_eq!(check(&told.history, &layout, &stale), Ok(()));
    }
}
