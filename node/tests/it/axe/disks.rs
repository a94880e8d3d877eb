//! Disks that fail or are slow under load, by `strace`: what single writes are told is in
//! [`crate::bad_disk`]; here the simulator's clients are at work and its referee judges.

use super::load::Load;
use super::rig::{Rig, Setup};
use crate::bad_disk::wal;
use crate::harness::Dice;
use crate::harness::holmd::Holmd;
use crate::harness::strace::Strace;

/// Acknowledged writes while the disk is in trouble, and after it.
const BETWEEN: u64 = 80;
/// Restarts until a node reads its disk while reads fail.
const TRIES: usize = 5;

/// What is the matter with one node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Every fsync fails.
    FailedFsync,
    /// Every third fsync fails, and those between do not make up for it.
    SomeFailedFsyncs,
    /// Every fsync takes 300 ms.
    SlowFsync,
    /// Every read of a table fails.
    FailedRead,
    /// The log that is written takes no more, as on a full disk; a new one would.
    NoRoom,
}

impl Trouble {
    pub(crate) const ALL: [Trouble; 5] = [
        Trouble::FailedFsync,
        Trouble::SomeFailedFsyncs,
        Trouble::SlowFsync,
        Trouble::FailedRead,
        Trouble::NoRoom,
    ];

    fn args(self, node: &Holmd) -> Vec<String> {
        let (trace, inject) = match self {
            Trouble::FailedFsync => ("trace=fsync,fdatasync", "inject=fsync,fdatasync:error=EIO"),
            Trouble::SomeFailedFsyncs => {
                ("trace=fsync,fdatasync", "inject=fsync,fdatasync:error=EIO:when=3+3")
            }
            Trouble::SlowFsync => {
                ("trace=fsync,fdatasync", "inject=fsync,fdatasync:delay_enter=300000")
            }
            Trouble::FailedRead => ("trace=pread64", "inject=pread64:error=EIO"),
            Trouble::NoRoom => {
                ("trace=write,pwrite64,writev", "inject=write,pwrite64,writev:error=ENOSPC")
            }
        };
        let mut args = vec!["-e".to_owned(), trace.to_owned(), "-e".to_owned(), inject.to_owned()];
        if self == Trouble::NoRoom {
            args.extend(["-P".to_owned(), wal(node).to_str().unwrap().to_owned()]);
        }
        args
    }

    fn is_lasting(self) -> bool {
        matches!(self, Trouble::FailedFsync | Trouble::SomeFailedFsyncs)
    }
}

/// Three nodes on plain directories.
pub(crate) fn setup() -> Setup {
    Setup {
        regions: vec![(3, 3)],
        images: false,
        flags: vec![],
        repeat: "cargo xtask soak --only disk".to_owned(),
    }
}

/// Strikes. `false` if this machine cannot trace.
pub(crate) async fn strike(trouble: Trouble, rig: &mut Rig, load: &Load, dice: &mut Dice) -> bool {
    let victim = dice.below(rig.nodes.len());
    let mut effects = 0;
    for _ in 0..TRIES {
        if trouble == Trouble::FailedRead {
            // What is replayed from the log becomes tables, and nothing is in caches yet, unless the
            // node's comparison with the others was quicker than we are.
            rig.kill(victim);
            rig.spawn(victim);
            rig.until_whole().await;
        }
        let args = trouble.args(&rig.nodes[victim]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some(strace) = Strace::attach(&rig.nodes[victim], &args).await else {
            return false;
        };
        load.more(BETWEEN).await;
        effects = strace.detach();
        if effects > 0 || trouble != Trouble::FailedRead {
            break;
        }
    }
    assert!(effects > 0, "{trouble:?} had no effect");
    load.more(BETWEEN).await;
    if trouble.is_lasting() {
        // The disk is sound again; the node is not before it has read what is really there.
        let (code, page) = rig.nodes[victim].get("/readyz").await;
        assert!(code == 503 && page.contains("the store failed"), "{code} {page}");
        rig.kill(victim);
        rig.examine(victim, false);
        rig.spawn(victim);
    }
    rig.until_whole().await;
    let log = rig.nodes[victim].log();
    assert!(!log.contains("panic"), "{log}");
    assert!(rig.forgetful().is_empty(), "a failed fsync is no reason for amnesia");
    true
}

/// Goal: whatever one node's disk does, no acknowledged write is lost, and none is on no disk of a
/// node that acknowledged it. Method: a round of each trouble on one cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn troubled_disks_lose_nothing() {
    let Some(mut rig) = super::rig_or_skip(setup()).await else { return };
    for (seed, trouble) in (1..).zip(Trouble::ALL) {
        let mut is_played = false;
        rig.round(seed, async |rig, load, dice| {
            is_played = strike(trouble, rig, load, dice).await;
        })
        .await;
        if !is_played {
            return;
        }
    }
    rig.look_back().await;
    assert_eq!((rig.tally.excused, rig.tally.lost_on_disks), (0, 0), "{}", rig.tally);
    println!("{}", rig.tally);
}
