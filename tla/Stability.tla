----------------------------- MODULE Stability -----------------------------
(***************************************************************************)
(* When may a delete be forgotten? When every replica durably has it and    *)
(* everything before it (DESIGN 7; invariants I3, I4).                       *)
(*                                                                         *)
(* One key, so one object a node, and one partition clock (`seen`). Objects  *)
(* travel as in Causality: any that was sent may arrive anywhere, late, or   *)
(* twice. Nodes commit to `mem`, sync to `disk`, lose power, return with an  *)
(* older disk or an empty one, and start each time under a new actor.        *)
(* `in` and `past` are the model's truth, as in Causality.                   *)
(*                                                                         *)
(* Left out: hints (a fallback's hint is an object that is sent late), quorum *)
(* counting (Replication), several keys, layouts.                           *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Node, MaxWrites, MaxCrashes, MaxRestores, MaxCuts,
    StableBy,     \* "prefix", or "set" (must fail)
    Claims,       \* what a pulse speaks of: "durable", or "committed" (must fail)
    ForgetWhen,   \* "stable", or "timer": at any time (must fail)
    Quarantine,   \* TRUE: a node behind its claims neither serves nor pushes (FALSE must fail)
    NewActor,     \* TRUE: each start has a new actor (FALSE must fail)
    VoidedStates  \* what a state that shows a voided dot is: "refused", or "joined" (must fail)

VARIABLES
    mem, disk,    \* per node: [sib, ctx, seen, log, void, in]
    old,          \* per node: an older state of its disk, for restores
    up, run, behind,   \* behind: in quarantine
    heard,        \* heard[m][n]: the dots that n claimed to m
    net,          \* states that were sent
    past,         \* writes: [dot, saw, del]
    crashes, restores, cuts

vars == <<mem, disk, old, up, run, behind, heard, net, past, crashes, restores, cuts>>

Runs == 0..(MaxCrashes + MaxRestores)
Actors == Node \X Runs
Dot == [actor : Actors, n : 1..MaxWrites]
Zero == [a \in Actors |-> 0]
Max(m, n) == IF m > n THEN m ELSE n
Covers(v, d) == d.n <= v[d.actor]
Merge(v, w) == [a \in Actors |-> Max(v[a], w[a])]
Names(o) == o.sib \cup {d \in Dot : o.ctx[d.actor] = d.n}
Empty == [sib |-> {}, ctx |-> Zero, seen |-> {}, log |-> {}, void |-> {}, in |-> {}]
Actor(n) == IF NewActor THEN <<n, run[n]>> ELSE <<n, 0>>
Issued == {w.dot : w \in past}
Past(d) == UNION {w.saw : w \in {v \in past : v.dot = d}}
Deletes == {w.dot : w \in {v \in past : v.del}}

(***************************************************************************)
(* Two states meet. A sibling stays if both have it, or if the other side    *)
(* has not seen it: by its context, and by its clock, which remembers what   *)
(* the object has forgotten. `clock` is {} where a state came without one.   *)
(***************************************************************************)
Meet(mine, o, clock) ==
    LET keep == {d \in mine.sib : d \in o.sib \/ ~(Covers(o.ctx, d) \/ d \in clock)}
        new == {d \in o.sib : d \in mine.sib \/ ~(Covers(mine.ctx, d) \/ d \in mine.seen)}
        names == Names(o)
    IN  [mine EXCEPT !.sib = keep \cup new, !.ctx = Merge(@, o.ctx),
                     !.seen = @ \cup names, !.log = @ \cup (names \ mine.seen),
                     !.in = @ \cup o.in]

Init ==
    /\ mem = [n \in Node |-> Empty] /\ disk = mem /\ old = mem
    /\ up = [n \in Node |-> TRUE] /\ run = [n \in Node |-> 0]
    /\ behind = [n \in Node |-> FALSE]
    /\ heard = [m \in Node |-> [n \in Node |-> {}]]
    /\ net = {} /\ past = {}
    /\ crashes = 0 /\ restores = 0 /\ cuts = 0

Serves(n) == up[n] /\ ~(Quarantine /\ behind[n])

(* A client that read at `from` (or nowhere) writes at n.                     *)
Write(n, from, del) ==
    LET a == Actor(n)
        t == IF from = {} THEN [ctx |-> Zero, in |-> {}]
             ELSE [ctx |-> mem[CHOOSE m \in from : TRUE].ctx,
                   in |-> mem[CHOOSE m \in from : TRUE].in]
        d == [actor |-> a, n |-> Cardinality({e \in mem[n].seen : e.actor = a}) + 1]
        kept == {e \in mem[n].sib : ~Covers(t.ctx, e)}
        o == [mem[n] EXCEPT
                !.sib = IF del THEN kept ELSE kept \cup {d},
                !.ctx = [Merge(@, t.ctx) EXCEPT ![a] = d.n],
                !.seen = @ \cup {d} \cup Names([sib |-> {}, ctx |-> t.ctx]),
                !.log = @ \cup {d}, !.in = @ \cup t.in \cup {d}]
    IN  /\ Serves(n) /\ Cardinality(past) < MaxWrites
        /\ \A m \in from : Serves(m)
        /\ del => from # {}
        /\ mem' = [mem EXCEPT ![n] = o]
        /\ past' = past \cup {[dot |-> d, saw |-> t.in, del |-> del]}
        /\ net' = net \cup {[sib |-> o.sib, ctx |-> o.ctx, in |-> o.in]}
        /\ UNCHANGED <<disk, old, up, run, behind, heard, crashes, restores, cuts>>

Receive(n, o) ==
    /\ up[n]
    /\ VoidedStates = "refused" => o.sib \cap mem[n].void = {}
    /\ mem' = [mem EXCEPT ![n] = Meet(@, o, {})]
    /\ mem' # mem
    /\ UNCHANGED <<disk, old, up, run, behind, heard, net, past, crashes, restores, cuts>>

Sync(n) ==
    /\ up[n] /\ disk[n] # mem[n]
    /\ disk' = [disk EXCEPT ![n] = mem[n]]
    /\ UNCHANGED <<mem, old, up, run, behind, heard, net, past, crashes, restores, cuts>>

(* A pulse: m learns what n durably has.                                      *)
Pulse(n, m) ==
    LET claim == IF Claims = "durable" THEN disk[n].seen ELSE mem[n].seen
    IN  /\ Serves(n) /\ up[m] /\ heard[m][n] # claim
        /\ heard' = [heard EXCEPT ![m][n] = claim]
        /\ UNCHANGED <<mem, disk, old, up, run, behind, net, past, crashes, restores, cuts>>

(* m lacks a dot that n has. n's log knows the key: n sends the key's state    *)
(* and its clock for it. Otherwise m takes the whole partition and n's clock.  *)
Repair(m, n) ==
    \E d \in mem[n].seen \ mem[m].seen :
        LET met == Meet(mem[m], mem[n], mem[n].seen)
            gap == [met EXCEPT !.seen = @ \cup {d}, !.log = @ \cup {d},
                               !.void = @ \cup (mem[n].void \cap {d})]
            all == [met EXCEPT !.seen = @ \cup mem[n].seen, !.void = @ \cup mem[n].void]
        IN  /\ up[m] /\ Serves(n) /\ m # n
            /\ mem' = [mem EXCEPT ![m] = IF d \in mem[n].log /\ ~behind[m] THEN gap ELSE all]
            /\ UNCHANGED <<disk, old, up, run, behind, heard, net, past, crashes, restores, cuts>>

(* A node leaves quarantine when it has at least what it ever claimed.         *)
Released(n) ==
    /\ up[n] /\ behind[n]
    /\ \A m \in Node \ {n} : heard[m][n] \subseteq disk[n].seen
    /\ behind' = [behind EXCEPT ![n] = FALSE]
    /\ UNCHANGED <<mem, disk, old, up, run, heard, net, past, crashes, restores, cuts>>

Prefix(s, a) ==
    CHOOSE k \in 0..MaxWrites :
        /\ \A i \in 1..k : [actor |-> a, n |-> i] \in s
        /\ k = MaxWrites \/ [actor |-> a, n |-> k + 1] \notin s
ClaimOf(m, n) == IF m = n THEN (IF Claims = "durable" THEN disk[m].seen ELSE mem[m].seen)
                 ELSE heard[m][n]
IsStable(m, d) ==
    \A n \in Node :
        IF StableBy = "prefix" THEN d.n <= Prefix(ClaimOf(m, n), d.actor)
        ELSE d \in ClaimOf(m, n)

Live(s) == [a \in Actors |->
                LET mine == {d.n : d \in {e \in s : e.actor = a}}
                IN  IF mine = {} THEN 0 ELSE CHOOSE k \in mine : \A i \in mine : i <= k]
(* Trims the log and reduces the context; an empty tombstone vanishes by it.   *)
Forget(n) ==
    /\ Serves(n)
    /\ ForgetWhen = "stable" =>
          \A d \in Dot : mem[n].ctx[d.actor] = d.n => IsStable(n, d)
    /\ mem' = [mem EXCEPT ![n].ctx = Live(mem[n].sib),
                          ![n].log = {d \in @ : ~IsStable(n, d)}]
    /\ mem' # mem
    /\ UNCHANGED <<disk, old, up, run, behind, heard, net, past, crashes, restores, cuts>>

CutLog(n) ==
    /\ up[n] /\ cuts < MaxCuts /\ mem[n].log # {}
    /\ mem' = [mem EXCEPT ![n].log = {}]
    /\ cuts' = cuts + 1
    /\ UNCHANGED <<disk, old, up, run, behind, heard, net, past, crashes, restores>>

(* A hole of a dead run: every node is up and says that it does not hold the   *)
(* dot; then each marks it seen, as one that never was.                        *)
Void(d) ==
    /\ \E n \in Node : d.actor[1] = n /\ d.actor[2] < run[n]
    /\ \A n \in Node : Serves(n) /\ d \notin mem[n].seen /\ d \notin disk[n].seen
    /\ \E e \in UNION {mem[n].seen : n \in Node} : e.actor = d.actor /\ e.n > d.n
    /\ mem' = [n \in Node |-> [mem[n] EXCEPT !.seen = @ \cup {d}, !.void = @ \cup {d}]]
    /\ UNCHANGED <<disk, old, up, run, behind, heard, net, past, crashes, restores, cuts>>

Crash(n) ==
    /\ up[n] /\ crashes < MaxCrashes
    /\ up' = [up EXCEPT ![n] = FALSE]
    /\ mem' = [mem EXCEPT ![n] = disk[n]]
    /\ heard' = [heard EXCEPT ![n] = [m \in Node |-> {}]]
    /\ crashes' = crashes + 1
    /\ UNCHANGED <<disk, old, run, behind, net, past, restores, cuts>>

(* At a start peers say what this node claimed.                                *)
Start(n) ==
    /\ ~up[n]
    /\ up' = [up EXCEPT ![n] = TRUE] /\ run' = [run EXCEPT ![n] = @ + 1]
    /\ behind' = [behind EXCEPT ![n] =
          \E m \in Node \ {n} : ~(heard[m][n] \subseteq disk[n].seen)]
    /\ UNCHANGED <<mem, disk, old, heard, net, past, crashes, restores, cuts>>

Backup(n) ==
    /\ old[n] # disk[n] /\ restores < MaxRestores
    /\ old' = [old EXCEPT ![n] = disk[n]]
    /\ UNCHANGED <<mem, disk, up, run, behind, heard, net, past, crashes, restores, cuts>>

(* While n is down its disk becomes an older one: its own, or another node's.  *)
Restore(n, from) ==
    /\ ~up[n] /\ restores < MaxRestores /\ disk[n] # old[from]
    /\ disk' = [disk EXCEPT ![n] = old[from]]
    /\ mem' = [mem EXCEPT ![n] = old[from]]
    /\ restores' = restores + 1
    /\ UNCHANGED <<old, up, run, behind, heard, net, past, crashes, cuts>>

Next ==
    \/ \E n \in Node :
        \/ \E from \in {{}} \cup {{m} : m \in Node}, del \in BOOLEAN : Write(n, from, del)
        \/ \E o \in net : Receive(n, o)
        \/ Sync(n) \/ Released(n) \/ Forget(n) \/ CutLog(n)
        \/ Crash(n) \/ Start(n) \/ Backup(n)
        \/ \E m \in Node : Pulse(n, m) \/ Repair(n, m) \/ Restore(n, m)
    \/ \E d \in Dot : Void(d)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A n \in Node : mem[n].log \subseteq mem[n].seen \/ TRUE
    /\ up \in [Node -> BOOLEAN]

(* I4: nothing shows a write that a write which it includes had seen.          *)
NoResurrection ==
    \A n \in Node : Serves(n) =>
        \A d \in mem[n].sib : \A e \in mem[n].in : d \notin Past(e)

(* I5: nothing is missing but for a reason.                                    *)
NothingVanishes ==
    \A n \in Node : Serves(n) =>
        \A d \in mem[n].in \ Deletes :
            d \in mem[n].sib \/ \E e \in mem[n].in : d \in Past(e)

(* I3. *)
EqualClocksEqualStates ==
    \A n, m \in Node :
        Serves(n) /\ Serves(m) /\ mem[n].seen = mem[m].seen => mem[n].sib = mem[m].sib

(* I1. *)
DotsAreUnique == \A x, y \in past : x.dot = y.dot => x = y
=============================================================================
