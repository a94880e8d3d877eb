//! Bugs put back on purpose, to see that the referee finds them.
//!
//! The core is not touched: a bug is played by changing what goes into it or comes out of it
//! ([`messages`], [`answers`]), what its disk does ([`crate::store`]), or how it starts. Each stands
//! for a mistake that somebody made, or could make, in a database like this one. The list begins
//! with those that the referee must catch by the tests' plan, and goes on with others that a slip in
//! the core would look like.

pub mod answers;
pub mod messages;

use crate::check::{
    Property, answers as read, bounds, claims, closed, converged, deadline, dots, durable,
    equal_clocks, gone, hints, logged, quarantine, quorum_reads, receipts, replica, values,
};

/// What is known of a bug.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// What reports call it.
    pub name: &'static str,
    /// The mistake, in a sentence.
    pub statement: &'static str,
    /// Where such a mistake was seen, if it is known for sure.
    pub seen: Option<&'static str>,
    /// The rule that is there for it. Another may be broken first.
    pub caught_by: &'static Property,
}

macro_rules! tampers {
    ($($name:ident, $statement:literal, $seen:expr, $caught_by:path;)*) => {
        /// A bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Tamper {
            $(#[doc = $statement] $name,)*
        }

        impl Tamper {
            /// All of them.
            pub const ALL: [Tamper; [$(Tamper::$name),*].len()] = [$(Tamper::$name),*];

            /// What is known of it.
            #[must_use]
            pub fn facts(self) -> Facts {
                match self {
                    $(Tamper::$name => Facts {
                        name: stringify!($name),
                        statement: $statement,
                        seen: $seen,
                        caught_by: &$caught_by,
                    },)*
                }
            }
        }
    };
}

const FSYNC: Option<&str> =
    Some("PostgreSQL, 2018; Rebello et al., USENIX ATC 2020: failed fsyncs that are tried again");
const KV679: Option<&str> = Some("Riak kv679: a counter that starts anew after its state is lost");
const PAR: Option<&str> =
    Some("Alagappan et al., FAST 2018: a replica that lost its log votes again");
const SPREADS: Option<&str> =
    Some("Ganesan et al., FAST 2017: damage that spreads to intact replicas");
const LWW: Option<&str> =
    Some("Jepsen on Riak and Cassandra, 2013: concurrent writes dropped by timestamp");
const GRACE: Option<&str> =
    Some("deletes that return after tombstones are collected, in Cassandra and Riak");
const DOMINANCE: Option<&str> =
    Some("false dominance of per-server version vectors: Preguica et al., PODC 2012");
const CRASHES: Option<&str> =
    Some("Pillai et al., OSDI 2014: updates that crashes leave half done");

tampers! {
    AcknowledgedBeforeSync, "A commit is acknowledged before it is synced.",
        CRASHES, durable::ON_DISK;
    SyncsLastBatchOnly, "A sync makes only the newest batch safe, of all that were written since the last.",
        CRASHES, durable::OUTLIVES_CRASHES;
    EvenSplitIsQuorum, "Half of an even number of replicas is taken for a majority: R + W = N.",
        None, receipts::LEVEL_MET;
    StrictIgnored, "A bucket that is to have no fallbacks has some.",
        None, receipts::LEVEL_MET;
    CounterReusedAfterAmnesia, "A node whose disk was replaced goes on under its old actor, counting from 1.",
        KV679, dots::UNIQUE;
    ContextOfWrongActor, "Merging contexts, an actor's counter is raised to that of another.",
        None, read::VISIBLE_OR_OVERWRITTEN;
    PrunedByClock, "Of several siblings only the one with the latest clock reading is stored.",
        LWW, replica::NOTHING_VANISHES;
    TimeoutIsFailure, "A write that missed its quorum is reported as not done.",
        None, values::NOT_DONE;
    WindowLostButClaimed, "A restarted node says that it still remembers the requests of its last run.",
        None, dots::RETRY_ONCE;
    ChecksumTooLate, "A value is damaged before its checksum is taken.",
        SPREADS, values::GENUINE;
    FailedFsyncRetried, "A commit whose sync failed is tried again and reported as done.",
        FSYNC, durable::ON_DISK;
    ClockOrdersOneActor, "Of two siblings of one actor the one with the later clock reading replaces the other.",
        LWW, replica::NOTHING_VANISHES;
    VoteCountedTwice, "One replica's acknowledgement is counted for another as well.",
        None, durable::ON_DISK;
    RestoredDiskKeepsActor, "A node whose disk was set back or cloned goes on under the actor that the disk names.",
        KV679, dots::UNIQUE;
    ForgedContextAccepted, "A context is used without looking at whether it was given out for the key.",
        None, values::NOT_DONE;
    ContextCoversUnseen, "A read leaves a sibling out and covers it in its context.",
        DOMINANCE, read::VISIBLE_OR_OVERWRITTEN;
    DeleteForgetsDot, "A delete reaches the other replicas without a dot of its own.",
        KV679, durable::ON_DISK;
    RepairOverwrites, "Read repair replaces the receiver's object instead of joining.",
        None, replica::NOTHING_VANISHES;
    RelayForgesVotes, "A relay acknowledges for replicas that it has not passed the write on to.",
        None, durable::ON_DISK;
    ActorReused, "A restarted node goes on under its old actor.",
        KV679, dots::UNIQUE;
    RetryForgotten, "The idempotence window forgets a request.",
        None, dots::RETRY_ONCE;
    ReplicaDenies, "A replica that has the key answers a read as if it did not.",
        None, quorum_reads::INTERSECTION;
    QuorumOffByOne, "A quorum is met by one replica less, and the receipt names one that was not heard.",
        None, durable::ON_DISK;
    AmnesiaUnnoticed, "A node whose disk was replaced does not notice and serves at once.",
        PAR, quarantine::STEPS_ASIDE;
    AcknowledgedBeforeCommit, "A replica acknowledges a write when it takes it in, not when it is committed.",
        None, durable::ON_DISK;
    RefusalCounts, "A replica's refusal is counted as an acknowledgement.",
        None, durable::ON_DISK;
    PutDropsUnseen, "A put drops all its coordinator's siblings, whether its writer saw them or not.",
        DOMINANCE, replica::NOTHING_VANISHES;
    PutIgnoresContext, "A put drops nothing of what its writer saw.",
        None, read::WRITERS_CONTEXT;
    WritersContextCoversAll, "A writer gets a context that covers all its coordinator has, unseen siblings too.",
        DOMINANCE, read::WRITERS_CONTEXT;
    ContextMixedUp, "An answer carries the context of an earlier answer.",
        None, read::CONTEXT_GENUINE;
    WriteOverwrites, "A replica replaces its object by what it is sent instead of joining.",
        None, replica::NOTHING_VANISHES;
    WriteWithoutContext, "A write reaches the other replicas without what it overwrote.",
        None, equal_clocks::EQUAL_STATES;
    RepairWithoutContext, "Read repair sends the live values and not what they overwrote.",
        None, equal_clocks::EQUAL_STATES;
    JoinKeepsCovered, "A join keeps siblings that the other side has overwritten.",
        None, read::NOTHING_DOMINATED;
    LatestByArrival, "Where the last writer wins, the last to arrive wins.",
        LWW, equal_clocks::EQUAL_STATES;
    DigestIgnored, "A read takes every digest for equal to its own.",
        None, quorum_reads::INTERSECTION;
    CacheNotUpdated, "A replica answers reads from before the last write to the key.",
        None, quorum_reads::INTERSECTION;
    ReplyOfEarlierRead, "A replica's answer to an earlier read is taken for that to a later one.",
        None, read::VISIBLE_OR_OVERWRITTEN;
    PassedOnTwice, "A node passes a client's write on to two coordinators.",
        None, dots::RETRY_ONCE;
    LogWithoutObject, "A clock marks a write as seen that was not stored.",
        None, logged::LOG_HAS_OBJECT;
    ObjectWithoutLog, "An object is stored, and the log entries of the writes that it names are not.",
        CRASHES, replica::CLOCK_NAMES_ALL;
    BatchNotAtomic, "A killed process leaves the log entries of its last batch, and not the objects.",
        CRASHES, durable::OUTLIVES_CRASHES;
    TombstoneRemovedAtOnce, "A deleted object is removed from the disk with its context.",
        GRACE, replica::FORGOTTEN_IS_KNOWN;
    TombstonesForgotten, "A restarting node drops its deleted objects.",
        GRACE, durable::OUTLIVES_CRASHES;
    LimitsNotKept, "A node takes on more requests than its limit.",
        None, bounds::BOUNDED;
    SilentTimeout, "A call that misses its deadline is never answered.",
        None, deadline::IN_TIME;
    DeleteKeepsValue, "A delete acknowledges and leaves the value alive.",
        GRACE, gone::OVERWRITTEN_GONE;
    HintDroppedEarly, "A hint is deleted when its replica has taken it in, not when that is durable.",
        None, hints::HOME_FIRST;
    HintDroppedByOldAnswer, "A hint is deleted on the answer to an earlier hand-off of its key.",
        None, hints::HOME_FIRST;
    HintsForgotten, "A restarting node has forgotten what it kept for others.",
        None, durable::OUTLIVES_CRASHES;
    HintsStay, "A node never hands over what it keeps for others.",
        None, hints::GO_HOME;
    FallbackCountedBesideReplica, "A fallback is counted as well as the replica that it stands for.",
        None, durable::ON_DISK;
    AcknowledgedAndDropped, "A replica acknowledges a write that it has thrown away.",
        None, durable::ON_DISK;
    ClaimsUnsynced, "Pulses and claims speak of what is committed and not synced.",
        None, claims::DURABLE;
    GapsNotAskedFor, "A replica that knows what it lacks does not ask for it.",
        None, converged::SAME_EVERYWHERE;
    ClaimsOwnRunOnly, "A node tells others what it has written, and not what it has seen of nodes that are gone.",
        None, converged::SAME_EVERYWHERE;
    ServesInDoubt, "A started node serves before it has compared with another replica.",
        GRACE, quarantine::ASKS_FIRST;
    ComparesOneWay, "Who is compared with does not look whether it has missed something itself.",
        None, quarantine::BEHIND_STEPS_ASIDE;
    ResyncEndsEarly, "A replica that takes a partition whole takes its first page for all of it.",
        None, equal_clocks::EQUAL_STATES;
    StableBySet, "A claim says that everything up to the last write is seen, whatever is missing before it.",
        None, claims::STABLE_IS_SEEN;
    SeenIsStable, "A replica claims to know to be stable what it has seen.",
        None, replica::FORGOTTEN_IS_KNOWN;
    DownReplicaForgotten, "Replicas that cannot be reached do not hold stability back.",
        GRACE, claims::STABLE_IS_SEEN;
    StableNotTold, "Replicas do not tell each other what they know to be stable.",
        None, converged::ALL_FORGOTTEN;
    DotsDenied, "A replica that is asked what it has of a run that ended says that it has nothing.",
        None, closed::NOTHING_HELD_IS_VOID;
    EndsNotTold, "What is decided of a run that ended is told to nobody.",
        None, closed::ALL_FOLDED;
    GapClosedUnsent, "An answer to a gap leaves objects out and says that it closes their gaps.",
        None, equal_clocks::EQUAL_STATES;
}

impl Tamper {
    /// What reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The mistake, in a sentence.
    #[must_use]
    pub fn statement(self) -> &'static str {
        self.facts().statement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the table in the README is the code's. Method: each bug's row, but for the seeds that
    /// it took, which the self-test counts; and no other rows.
    #[test]
    fn the_readme_lists_every_bug() {
        let readme = include_str!("../README.md");
        for tamper in Tamper::ALL {
            let Facts { name, statement, seen, caught_by } = tamper.facts();
            let (seen, rule) = (seen.unwrap_or("-"), caught_by.name);
            let row = format!("| `{name}` | {statement} | {seen} | {rule} | ");
            assert!(readme.contains(&row), "README.md lacks\n{row}");
        }
        let is_bug = |line: &&str| line.starts_with("| `") && line.matches('|').count() == 6;
        let rows = readme.lines().filter(is_bug);
        assert_eq!(rows.count(), Tamper::ALL.len());
    }
}
