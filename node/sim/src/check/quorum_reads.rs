//! A read that must meet a write's replicas, sees the write.

use std::collections::BTreeSet;

use holm_core::layout::Layout;
use holm_protocol::ids::{NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::version_vector::VersionVector;

use crate::check::{Property, Verdict, Violation};
use crate::history::{Event, History, KeyId, Outcome};

/// R + W > N.
pub const INTERSECTION: Property = Property {
    name: "a read sees every write whose quorum it meets",
    invariant: "I2",
    statement: "a read covers every write that was acknowledged before it began, by a replica that it includes, or at a level whose quorums meet its own",
    source: "Gifford, SOSP 1979; Dynamo (SOSP 2007) 4.5: R + W > N",
    tla: Some("tla/Replication.tla!QuorumsIntersect"),
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
    /// What its context covers.
    pub covers: VersionVector,
}

/// Checks one read against all writes acknowledged before it was asked for. A write that a disk has
/// lost, by a fault that may do that, is owed by the other replicas only.
///
/// # Errors
/// A write that it should have seen.
pub fn check(history: &History, layout: &Layout, read: &Read) -> Verdict {
    let partition = history.key(read.key).partition;
    for (id, event) in history.events_of(read.key) {
        let before = event.acknowledged_us.is_some_and(|at| at < read.asked_us);
        if event.outcome != Outcome::Acknowledged || !before {
            continue;
        }
        let Some(dot) = event.dot else { continue };
        let witness = event.durable.difference(&event.lost).find(|n| read.included.contains(n));
        let must_meet = event.lost.is_empty() && quorums_meet(layout, partition, event, read);
        if (witness.is_some() || must_meet) && !read.covers.covers(dot) {
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

/// Whether any replicas that meet the write's level and any that meet the read's have one in common:
/// by region, the fewest that each level takes there are more than there are.
fn quorums_meet(layout: &Layout, partition: Partition, event: &Event, read: &Read) -> bool {
    let replicas = layout.replicas(partition).len();
    let total = |level: Level| match level {
        Level::Quorum => replicas / 2 + 1,
        Level::All => replicas,
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
    let somewhere = (0..layout.regions().len()).map(|index| RegionId(index as u16)).any(|region| {
        let members = layout.replicas_in(partition, region).len();
        let write = in_region(event.level, region, event.region);
        let read = in_region(read.level, region, Some(read.region));
        members > 0 && write + read > members
    });
    somewhere || total(event.level) + total(read.level) > replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{Told, covers, dot};
    use crate::plan::Shape;

    fn read(told: &Told, level: Level, region: u16, covered: bool) -> Read {
        let covers = if covered { covers(&[(1, 1)]) } else { VersionVector::new() };
        let (region, included) = (RegionId(region), BTreeSet::new());
        Read { key: told.key, asked_us: 100, level, region, included, covers }
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
}
