-------------------------------- MODULE Disks --------------------------------
(***************************************************************************)
(* The nodes of Stability: what each holds, on disk and in memory, what may  *)
(* befall it, and how a node that starts finds out whether its disk is an    *)
(* older one, another node's, or empty.                                      *)
(*                                                                         *)
(* A node that starts is in doubt and compares with a peer: each says what   *)
(* it durably knows to be stable; who has not seen all of that is behind,    *)
(* even if it was serving. Who is behind takes all from a peer that serves   *)
(* (Resync, in Stability), or, when no other replica does, from all of them  *)
(* (Gather). A replica alone in its layout has nobody to ask: what it lost    *)
(* with its disk is lost, as with any last copy.                             *)
(***************************************************************************)
EXTENDS Dots, Sequences, TLC

CONSTANTS
    Node,
    Writes,       \* what is written in turn: "put", "delete", or "any" of the two
    Seeded,       \* TRUE: the first put is everywhere already, and on every backup
    MaxCrashes, MaxRestores, MaxCuts, MaxRemovals,
    SyncAlways,   \* TRUE: a commit is durable at once
    Writers,      \* the nodes that coordinate writes
    Faulty,       \* the nodes that faults may strike
    Copied,       \* the nodes whose disks somebody copies
    Sending,      \* what arrives late: "nothing", or "writes", the state after each
    Rounds,       \* 2; 1: what a node knows to be stable it forgets
    Naive         \* mistakes made, all of which must fail: a subset of the following
ASSUME Naive \subseteq {
    "timer",      \* a tombstone is forgotten at any time
    "blind",      \* a late sibling that was seen here and is gone is taken as new
    "set",        \* stability by the set of dots seen, not by the prefix
    "committed",  \* a pulse speaks of what is not yet durable
    "down",       \* the stable clock leaves out replicas not heard of: down, or suspected
    "marked",     \* a dot whose log entry is gone is marked seen without its state
    "one-sided",  \* a resync drops nothing that the peer has overwritten
    "trusting",   \* a started node serves without asking
    "all behind", \* a started node whose peers are all behind serves without asking
    "one way",    \* who is asked does not look whether it has itself missed something
    "old claims", \* the claims of a node's earlier run still count with whom it asked
    "unfilled",   \* a node that was added again answers before it has resynced
    "old layout", \* claims still count though the layout has changed since
    "same actor"} \* a restarted node goes on under its old actor

VARIABLES
    mem, disk,    \* per node: [sib, ctx, seen, log, know, in]
    old,          \* per node: an older state of its disk
    up, run,
    mode,         \* "ok"; "doubt": started, has not asked yet; "behind": must resync
    heard,        \* heard[m][n]: what n last claimed to m, [seen, know]
    layout,       \* the nodes that are replicas
    net,          \* the states that were sent
    past,         \* the writes: [dot, saw, del]
    faults        \* how many of each kind

vars == <<mem, disk, old, up, run, mode, heard, layout, net, past, faults>>
nodes == <<old, up, run, mode, layout, faults>>

Empty == [sib |-> {}, ctx |-> {}, seen |-> {}, log |-> {}, know |-> {}, in |-> {}]
First == [actor |-> <<"earlier", 0>>, n |-> 1]
Begin == IF Seeded THEN [sib |-> {First}, ctx |-> {First}, seen |-> {First}, log |-> {First},
                         know |-> {}, in |-> {First}]
         ELSE Empty
State(s) == [sib |-> s.sib, ctx |-> s.ctx, in |-> s.in]
NoClaim == [seen |-> {}, know |-> {}]
NoClaims == [n \in Node |-> NoClaim]
Without(claims, n) == [m \in Node |-> [claims[m] EXCEPT ![n] = NoClaim]]
Serves(n) == up[n] /\ n \in layout /\ mode[n] = "ok"
Budget(kind, max) ==
    faults[kind] < max /\ faults' = [faults EXCEPT ![kind] = @ + 1]
Commit(n, s) ==
    /\ mem' = [mem EXCEPT ![n] = s]
    /\ disk' = IF SyncAlways THEN [disk EXCEPT ![n] = s] ELSE disk

Init ==
    /\ mem = [n \in Node |-> Begin] /\ disk = mem /\ old = mem
    /\ up = [n \in Node |-> TRUE] /\ run = [n \in Node |-> 0] /\ mode = [n \in Node |-> "ok"]
    /\ heard = [m \in Node |-> NoClaims] /\ layout = Node
    /\ net = IF Seeded /\ Sending = "writes" THEN {State(Begin)} ELSE {}
    /\ past = IF Seeded THEN {[dot |-> First, saw |-> {}, del |-> FALSE]} ELSE {}
    /\ faults = [crash |-> 0, backup |-> 0, restore |-> 0, cut |-> 0, removal |-> 0]

-----------------------------------------------------------------------------
(* Crash: n loses power, and with it what it had not synced.                  *)
Crash(n) ==
    /\ up[n] /\ n \in Faulty /\ Budget("crash", MaxCrashes)
    /\ up' = [up EXCEPT ![n] = FALSE]
    /\ mem' = [mem EXCEPT ![n] = disk[n]]
    /\ heard' = [heard EXCEPT ![n] = NoClaims]
    /\ UNCHANGED <<disk, old, run, mode, layout, net, past>>

(* Start: n starts under a new actor, and serves nothing until it has asked.  *)
Start(n) ==
    /\ ~up[n]
    /\ up' = [up EXCEPT ![n] = TRUE] /\ run' = [run EXCEPT ![n] = @ + 1]
    /\ mode' = [mode EXCEPT ![n] =
          IF "trusting" \in Naive \/ layout = {n} THEN "ok"
          ELSE IF "all behind" \in Naive /\ \A m \in layout \ {n} : mode[m] = "behind" THEN "ok"
          ELSE IF @ = "behind" THEN @ ELSE "doubt"]
    /\ UNCHANGED <<mem, disk, old, layout, heard, net, past, faults>>

Knows(n, m) == disk[m].know \subseteq mem[n].seen
(* Compare: n and m tell each other what they know to be stable; who has not seen it is *)
(* behind. What m heard of n's earlier runs ends.                             *)
Compare(n, m) ==
    /\ up[n] /\ up[m] /\ {n, m} \subseteq layout /\ n # m
    /\ mode[n] # "ok" /\ mode[m] # "behind"
    /\ mode[n] = "behind" => ~Knows(m, n) /\ "one way" \notin Naive
    /\ mode' = [mode EXCEPT ![n] = IF @ = "doubt" /\ Knows(n, m) THEN "ok" ELSE "behind",
                            ![m] = IF Knows(m, n) \/ "one way" \in Naive THEN @ ELSE "behind"]
    /\ heard' = IF "old claims" \in Naive THEN heard ELSE [heard EXCEPT ![m][n] = NoClaim]
    /\ UNCHANGED <<mem, disk, old, up, run, layout, net, past, faults>>

(* A copy of a disk may still be put somewhere.                                *)
Copies == faults.restore < MaxRestores /\ (faults.crash < MaxCrashes \/ ~\A n \in Node : up[n])

(* Backup: somebody copies n's disk.                                          *)
Backup(n) ==
    /\ ~Seeded /\ Copies /\ old[n] # disk[n] /\ n \in Copied /\ Budget("backup", MaxRestores)
    /\ old' = [old EXCEPT ![n] = disk[n]]
    /\ UNCHANGED <<mem, disk, up, run, mode, layout, heard, net, past>>

(* Restore: while n is down its disk becomes an older one: its own, a clone, or empty. *)
Restore(n, from) ==
    /\ ~up[n] /\ disk[n] # old[from] /\ Budget("restore", MaxRestores)
    /\ disk' = [disk EXCEPT ![n] = old[from]] /\ mem' = [mem EXCEPT ![n] = old[from]]
    /\ UNCHANGED <<old, up, run, mode, layout, heard, net, past>>

(* Remove: n, which is down, leaves the layout. Somebody may have told n alone of a new *)
(* run, so no claim of before counts any more.                                *)
Remove(n) ==
    /\ ~up[n] /\ n \in layout /\ layout # {n} /\ Budget("removal", MaxRemovals)
    /\ layout' = layout \ {n}
    /\ heard' = IF "old layout" \in Naive THEN heard ELSE [m \in Node |-> NoClaims]
    /\ UNCHANGED <<mem, disk, old, up, run, mode, net, past>>

(* Return: a removed node is added again, with the disk it has; it must resync first. *)
Return(n) ==
    /\ n \notin layout /\ up[n]
    /\ layout' = layout \cup {n}
    /\ mode' = [mode EXCEPT ![n] = IF "trusting" \in Naive THEN "ok"
                                   ELSE IF "unfilled" \in Naive THEN "doubt" ELSE "behind"]
    /\ heard' = Without(heard, n)
    /\ UNCHANGED <<mem, disk, old, up, run, net, past, faults>>
=============================================================================
