----------------------------- MODULE Stability -----------------------------
(***************************************************************************)
(* When may a delete be forgotten? When every replica durably has it and    *)
(* everything before it, and every replica durably knows so (DESIGN 7;       *)
(* invariants I1, I3, I4, I5).                                               *)
(*                                                                         *)
(* One key, so one object a node, and one partition clock, `seen`. A node    *)
(* commits to `mem`, syncs to `disk`, loses power, returns, maybe with an    *)
(* older disk, another node's, or an empty one, and starts each time under a *)
(* new actor. Two rounds lead to forgetting: by pulses a node hears what the *)
(* others have durably seen, and so what is stable (`know`); by pulses it    *)
(* hears what the others know to be stable, and forgets only what all know.  *)
(* So any one peer can tell a returning node that it is too old: shown for   *)
(* two nodes; with three, behaviours were walked at random, not exhausted.   *)
(*                                                                         *)
(* Every state that was sent may arrive anywhere, late, or twice: a hint of  *)
(* a fallback is such a state, and so is what a client has read. `in` and    *)
(* `past` are the model's truth: the writes that a state includes, and what  *)
(* each writer had seen.                                                     *)
(*                                                                         *)
(* After Goncalves, Almeida, Baquero, Fonte: DottedDB, SRDS 2017, sections   *)
(* III-IV (its watermarks are the first round here; the second is ours), and *)
(* Baquero, Almeida, Shoker: Pure operation-based CRDTs, 2017 (stability).   *)
(*                                                                         *)
(* Left out: holes of dead runs, folding of clocks (Retirement), quorums and  *)
(* hints' ends (Replication), several keys, two layouts (Layout). With two    *)
(* older disks at a time asking one peer does not do: Stability-two-older-disks. *)
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
    Sending,      \* what may arrive late: "nothing", "writes", or "all": also what replicas hold
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
NoClaim == [seen |-> {}, know |-> {}]
Unheard == [m \in Node |-> [n \in Node |-> NoClaim]]
Actor(n) == IF "same actor" \in Naive THEN <<n, 0>> ELSE <<n, run[n]>>
Past(d) == UNION {w.saw : w \in {v \in past : v.dot = d}}
Deletes == {w.dot : w \in {v \in past : v.del}}
Serves(n) == up[n] /\ n \in layout /\ mode[n] = "ok"
Budget(kind, max) ==
    faults[kind] < max /\ faults' = [faults EXCEPT ![kind] = @ + 1]
Commit(n, s) ==
    /\ mem' = [mem EXCEPT ![n] = s]
    /\ disk' = IF SyncAlways THEN [disk EXCEPT ![n] = s] ELSE disk

Init ==
    /\ mem = [n \in Node |-> Begin] /\ disk = mem /\ old = mem
    /\ up = [n \in Node |-> TRUE] /\ run = [n \in Node |-> 0] /\ mode = [n \in Node |-> "ok"]
    /\ heard = Unheard /\ layout = Node /\ net = {}
    /\ past = IF Seeded THEN {[dot |-> First, saw |-> {}, del |-> FALSE]} ELSE {}
    /\ faults = [crash |-> 0, backup |-> 0, restore |-> 0, cut |-> 0, removal |-> 0]

-----------------------------------------------------------------------------
(* Two states meet. A sibling stays if both have it, or the other side has not seen it: *)
(* by its context, or by its clock, if it came with one (else {}).            *)
Meet(mine, o, clock) ==
    LET keep == {d \in mine.sib : d \in o.sib \/ ~(Covers(o.ctx, d) \/ d \in clock)}
        late(d) == Covers(mine.ctx, d) \/ ("blind" \notin Naive /\ d \in mine.seen)
        new == {d \in o.sib : d \in mine.sib \/ ~late(d)}
    IN  [mine EXCEPT !.sib = keep \cup new, !.ctx = Merge(@, o.ctx),
                     !.seen = @ \cup Names(o), !.log = @ \cup (Names(o) \ mine.seen),
                     !.in = @ \cup o.in]

(* What a client may have read: nothing, a replica's state, a state sent ever. *)
Contexts == {[ctx |-> {}, in |-> {}]}
            \cup {[ctx |-> mem[m].ctx, in |-> mem[m].in] : m \in {k \in Node : Serves(k)}}
            \cup {[ctx |-> o.ctx, in |-> o.in] : o \in net}
State(s) == [sib |-> s.sib, ctx |-> s.ctx, in |-> s.in]

(* Write: n coordinates a put, or a delete, with the context that a client holds. *)
Write(n, del) == \E t \in Contexts :
    LET a == Actor(n)
        d == [actor |-> a, n |-> Cardinality(OfActor(mem[n].seen, a)) + 1]
        kept == {e \in mem[n].sib : ~Covers(t.ctx, e)}
        o == [mem[n] EXCEPT
                !.sib = IF del THEN kept ELSE kept \cup {d},
                !.ctx = Merge(Merge(@, t.ctx), {d}),
                !.seen = @ \cup {d} \cup t.ctx,
                !.log = @ \cup {d} \cup (t.ctx \ mem[n].seen), !.in = @ \cup t.in \cup {d}]
    IN  /\ Serves(n) /\ n \in Writers /\ Cardinality(past) < Len(Writes)
        /\ Writes[Cardinality(past) + 1] \in {"any", IF del THEN "delete" ELSE "put"}
        /\ del => t.ctx # {}
        /\ Commit(n, o)
        /\ past' = past \cup {[dot |-> d, saw |-> t.in, del |-> del]}
        /\ net' = IF Sending = "nothing" THEN net ELSE net \cup {State(o)}
        /\ UNCHANGED <<nodes, heard>>

(* Ship: n sends what it holds (read repair, a relay, anti-entropy).          *)
Ship(n) ==
    /\ Sending = "all" /\ Serves(n) /\ mem[n].sib # {}
    /\ net' = net \cup {State(mem[n])} /\ net' # net
    /\ UNCHANGED <<nodes, mem, disk, heard, past>>

(* Receive: a state that was sent, now or long ago, arrives at n.             *)
Receive(n) == \E o \in net :
    /\ Serves(n) /\ Meet(mem[n], o, {}) # mem[n]
    /\ Commit(n, Meet(mem[n], o, {}))
    /\ UNCHANGED <<nodes, heard, net, past>>

(* Sync: n makes durable what it has committed.                               *)
Sync(n) ==
    /\ up[n] /\ disk[n] # mem[n]
    /\ disk' = [disk EXCEPT ![n] = mem[n]]
    /\ UNCHANGED <<nodes, mem, heard, net, past>>

Claim(n) ==
    LET s == IF "committed" \in Naive THEN mem[n] ELSE disk[n]
    IN  [seen |-> s.seen, know |-> s.know]

Asked(m, claims) ==
    IF "down" \in Naive THEN {n \in layout : n = m \/ claims[n] # NoClaim} ELSE layout
Stable(m, claims) ==
    LET of(n) == IF "set" \in Naive THEN claims[n].seen ELSE Prefix(claims[n].seen)
    IN  {d \in UNION {of(n) : n \in layout} : \A n \in Asked(m, claims) : d \in of(n)}
Forgettable(m) ==
    IF Rounds = 1 THEN mem[m].know
    ELSE LET claims == [heard[m] EXCEPT ![m] = Claim(m)]
         IN  {d \in mem[m].know : \A n \in Asked(m, claims) : d \in claims[n].know}

(* Pulse: n tells m what it durably has and durably knows; m concludes what is stable. *)
Pulse(n, m) ==
    LET claims == [heard[m] EXCEPT ![n] = Claim(n)]
        stable == Stable(m, [claims EXCEPT ![m] = Claim(m)])
    IN  /\ Serves(n) /\ Serves(m) /\ (n # m \/ layout = {n})
        /\ heard[m] # claims \/ ~(stable \subseteq mem[m].know)
        /\ heard' = [heard EXCEPT ![m] = claims]
        /\ Commit(m, [mem[m] EXCEPT !.know = @ \cup stable])
        /\ UNCHANGED <<nodes, net, past>>

(* Forget: n trims its log and reduces the context; an empty tombstone vanishes by it. *)
Forget(n) ==
    LET all == "timer" \in Naive \/ mem[n].ctx \subseteq Forgettable(n)
        s == [mem[n] EXCEPT !.ctx = IF all THEN Tops(mem[n].sib) ELSE @,
                            !.log = @ \ Forgettable(n)]
    IN  /\ Serves(n) /\ s # mem[n]
        /\ Commit(n, s)
        /\ UNCHANGED <<nodes, heard, net, past>>

(* Cut log: n's log outgrew its bound.                                        *)
CutLog(n) ==
    /\ Serves(n) /\ mem[n].log # {} /\ Budget("cut", MaxCuts)
    /\ Commit(n, [mem[n] EXCEPT !.log = {}])
    /\ UNCHANGED <<old, up, run, mode, layout, heard, net, past>>

Clock(n) == IF "one-sided" \in Naive THEN {} ELSE mem[n].seen

(* Repair: m lacks a dot of which n's log has the key; n sends the key's state. *)
Repair(m, n) == \E d \in mem[n].seen :
    /\ Serves(m) /\ Serves(n) /\ d \notin mem[m].seen
    /\ d \in mem[n].log \/ "marked" \in Naive
    /\ LET met == IF d \in mem[n].log THEN Meet(mem[m], mem[n], Clock(n)) ELSE mem[m]
       IN  Commit(m, [met EXCEPT !.seen = @ \cup {d}, !.log = @ \cup {d}])
    /\ UNCHANGED <<nodes, heard, net, past>>

(* Resync: m, behind or without a dot whose log entry n lacks, takes all of n and its clock. *)
Resync(m, n) ==
    /\ up[m] /\ m \in layout /\ Serves(n)
    /\ \/ mode[m] = "behind"
       \/ mode[m] = "ok" /\ "marked" \notin Naive
             /\ \E d \in mem[n].seen \ mem[m].seen : d \notin mem[n].log
    /\ Commit(m, [Meet(mem[m], mem[n], Clock(n)) EXCEPT
                    !.seen = @ \cup mem[n].seen, !.know = @ \cup mem[n].know])
    /\ mode' = [mode EXCEPT ![m] = "ok"]
    /\ UNCHANGED <<old, up, run, layout, faults, heard, net, past>>

-----------------------------------------------------------------------------
(* Crash: n loses power, and with it what it had not synced.                  *)
Crash(n) ==
    /\ up[n] /\ n \in Faulty /\ Budget("crash", MaxCrashes)
    /\ up' = [up EXCEPT ![n] = FALSE]
    /\ mem' = [mem EXCEPT ![n] = disk[n]]
    /\ heard' = [heard EXCEPT ![n] = [m \in Node |-> NoClaim]]
    /\ UNCHANGED <<disk, old, run, mode, layout, net, past>>

(* Start: n starts under a new actor, and serves nothing until it has asked.  *)
Start(n) ==
    /\ ~up[n]
    /\ up' = [up EXCEPT ![n] = TRUE] /\ run' = [run EXCEPT ![n] = @ + 1]
    /\ mode' = [mode EXCEPT ![n] =
          IF "trusting" \in Naive \/ \A m \in layout \ {n} : mode[m] = "behind" THEN "ok"
          ELSE IF @ = "behind" THEN @ ELSE "doubt"]
    /\ UNCHANGED <<mem, disk, old, layout, heard, net, past, faults>>

(* Compare: n asks m what it knows to be stable, and has it or not; m drops n's old claims. *)
Compare(n, m) ==
    /\ up[n] /\ mode[n] = "doubt" /\ {n, m} \subseteq layout /\ n # m
    /\ up[m] /\ mode[m] # "behind"
    /\ mode' = [mode EXCEPT ![n] = IF disk[m].know \subseteq mem[n].seen THEN "ok" ELSE "behind"]
    /\ heard' = IF "old claims" \in Naive THEN heard ELSE [heard EXCEPT ![m][n] = NoClaim]
    /\ UNCHANGED <<mem, disk, old, up, run, layout, net, past, faults>>

(* Backup: somebody copies n's disk.                                          *)
Backup(n) ==
    /\ ~Seeded /\ old[n] # disk[n] /\ n \in Copied /\ Budget("backup", MaxRestores)
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
    /\ heard' = IF "old layout" \in Naive THEN heard ELSE Unheard
    /\ UNCHANGED <<mem, disk, old, up, run, mode, net, past>>

(* Return: a removed node is added again, with the disk it has; it must resync first. *)
Return(n) ==
    /\ n \notin layout /\ up[n]
    /\ layout' = layout \cup {n}
    /\ mode' = [mode EXCEPT ![n] = IF "trusting" \in Naive THEN "ok"
                                   ELSE IF "unfilled" \in Naive THEN "doubt" ELSE "behind"]
    /\ heard' = [m \in Node |-> [heard[m] EXCEPT ![n] = NoClaim]]
    /\ UNCHANGED <<mem, disk, old, up, run, net, past, faults>>

Next ==
    \/ \E n \in Node, del \in BOOLEAN : Write(n, del)
    \/ \E n \in Node :
        \/ Receive(n) \/ Ship(n) \/ Sync(n) \/ Forget(n) \/ CutLog(n)
        \/ Crash(n) \/ Start(n) \/ Backup(n) \/ Remove(n) \/ Return(n)
        \/ \E m \in Node : \/ Pulse(n, m) \/ Repair(n, m) \/ Resync(n, m)
                           \/ Compare(n, m) \/ Restore(n, m)

Spec == Init /\ [][Next]_vars

Symmetry == {p \in Permutations(Node) : \A s \in {Writers, Faulty, Copied} : {p[n] : n \in s} = s}
PutDelete == <<"put", "delete">>
PutDeletePut == Append(PutDelete, "put")
PutPutDelete == <<"put", "put", "delete">>

(* For three nodes: all writes but the last are everywhere before pulses come, and known *)
(* to be stable somewhere before faults come; the last write comes after them. *)
Directed ==
    LET claims == {heard[n][m] : n, m \in Node} IN
    /\ faults.crash = 0 /\ claims # {NoClaim} =>
          \A n \in Node : Cardinality(mem[n].seen) = Len(Writes) - 1
    /\ faults.crash > 0 => faults.removal > 0 \/ \E c \in claims : ~(c.know \subseteq {First})
    /\ Cardinality(past) = Len(Writes) =>
          faults.restore = MaxRestores /\ faults.removal = MaxRemovals

Fair ==
    /\ \A n \in Node : WF_vars(Sync(n)) /\ WF_vars(Forget(n))
                       /\ WF_vars(Start(n)) /\ WF_vars(Return(n))
    /\ \A n, m \in Node : WF_vars(Pulse(n, m)) /\ WF_vars(Repair(n, m))
                          /\ WF_vars(Resync(n, m)) /\ WF_vars(Compare(n, m))
LiveSpec == Spec /\ Fair

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A n \in Node : mem[n].log \cup mem[n].know \cup mem[n].sib \subseteq mem[n].seen
    /\ up \in [Node -> BOOLEAN] /\ layout \subseteq Node /\ layout # {}
    /\ mode \in [Node -> {"ok", "doubt", "behind"}]

(* I1. *)
DotsAreUnique == \A x, y \in past : x.dot = y.dot => x = y

(* I4: nothing shows a write that a write which it includes had seen.         *)
NoResurrection ==
    \A n \in Node : Serves(n) =>
        \A d \in mem[n].sib : \A e \in mem[n].in : d \notin Past(e)

(* I5: nothing is missing but for a reason.                                   *)
NothingVanishes ==
    \A n \in Node : Serves(n) =>
        \A d \in mem[n].in \ Deletes :
            d \in mem[n].sib \/ \E e \in mem[n].in : d \in Past(e)

(* I3. *)
EqualClocksEqualStates ==
    \A n, m \in Node :
        Serves(n) /\ Serves(m) /\ mem[n].seen = mem[m].seen => mem[n].sib = mem[m].sib

(* Progress: once faults and writes end, all that is dead is forgotten everywhere. *)
AllIsForgotten == <>[](\A n \in Node : mem[n].log = {} /\ mem[n].ctx \subseteq mem[n].sib)
=============================================================================
