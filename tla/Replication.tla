---------------------------- MODULE Replication ----------------------------
(***************************************************************************)
(* How many copies an acknowledgement stands for, and what crashes may take *)
(* (DESIGN 5, 6, 9; invariants I1, I2, I6).                                  *)
(*                                                                         *)
(* One key. By `Causality` an object is as good as the set of writes that it *)
(* includes, and join is union; so here a node holds a set of dots. What was *)
(* committed is in `mem`; what would survive a crash is in `disk`. Messages  *)
(* are never taken out of `net`: each may arrive late, twice, out of order,  *)
(* or never. Nodes of `Home` are the key's replicas, the others fallbacks,   *)
(* which keep what they take as hints for a named replica.                   *)
(*                                                                         *)
(* Left out: contexts and siblings (Causality); clocks and forgetting        *)
(* (Stability); reads; levels other than "W nodes": `local_quorum` and its   *)
(* kin differ in which W nodes count, not in what a vote means.              *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Node, Home,      \* nodes; those of them that are replicas of the key
    W,               \* how many must have a write before it is acknowledged
    MaxWrites, MaxCrashes, MaxWipes,
    Votes,           \* when a node votes: "durable", or "committed" (sync = interval)
    ActorOf,         \* "run": a new actor at each start, or "node" (must fail)
    RelayVotes,      \* "named": a relay passes votes on, or "forged" (must fail)
    HintDropped      \* "durable": when the target has it on disk, or "sent" (must fail)

ASSUME /\ Home \subseteq Node /\ W \in 1..Cardinality(Node)
       /\ Votes \in {"durable", "committed"} /\ ActorOf \in {"run", "node"}
       /\ RelayVotes \in {"named", "forged"} /\ HintDropped \in {"durable", "sent"}

VARIABLES
    up, run,         \* per node: whether it runs; how many times it was started
    mem, disk,       \* per node: what it has committed; what it has synced
    hints,           \* per node: <<target, dot>>, durable like the dot itself
    net,             \* messages: writes [to, dot], relayed writes, votes [node, dot]
    told,            \* acknowledged writes: [dot, by]
    lost,            \* <<node, dot>>: a disk that had the dot was wiped
    uid,             \* ghost: per write ever made its dot, so that reuse shows
    crashes, wipes   \* how many so far

vars == <<up, run, mem, disk, hints, net, told, lost, uid, crashes, wipes>>

Actor(n) == IF ActorOf = "run" THEN <<n, run[n]>> ELSE <<n, 0>>
DotsOf(a) == {d \in UNION {mem[n] : n \in Node} : d.actor = a}
(* A node counts from what it remembers: that is all it has after a start.   *)
NextDot(n) ==
    [actor |-> Actor(n), n |-> Cardinality({d \in mem[n] : d.actor = Actor(n)}) + 1]

WriteTo(n, d, for) == [kind |-> "write", to |-> n, dot |-> d, for |-> for]
Vote(n, d) == [kind |-> "vote", node |-> n, dot |-> d]

Init ==
    /\ up = [n \in Node |-> TRUE] /\ run = [n \in Node |-> 1]
    /\ mem = [n \in Node |-> {}] /\ disk = [n \in Node |-> {}]
    /\ hints = [n \in Node |-> {}]
    /\ net = {} /\ told = {} /\ lost = {} /\ uid = {}
    /\ crashes = 0 /\ wipes = 0

(* A client's write: the coordinator commits it and ships it to the replicas, *)
(* and to a fallback in the place of any one of them.                         *)
Put(n) ==
    LET d == NextDot(n)
        homes == {WriteTo(m, d, m) : m \in Home \ {n}}
        stands == {WriteTo(f, d, m) : f \in Node \ (Home \cup {n}), m \in Home}
    IN  /\ up[n] /\ n \in Home /\ Cardinality(uid) < MaxWrites
        /\ mem' = [mem EXCEPT ![n] = @ \cup {d}]
        /\ uid' = uid \cup {[write |-> Cardinality(uid) + 1, dot |-> d]}
        /\ net' = net \cup homes \cup stands
        /\ UNCHANGED <<up, run, disk, hints, told, lost, crashes, wipes>>

(* A replica joins. A fallback does as well, and notes for whom. A relay      *)
(* passes on under the same rules: to the model one more message.             *)
Take(n) ==
    \E m \in net :
        /\ m.kind = "write" /\ m.to = n /\ up[n]
        /\ m.dot \notin mem[n] \/ (m.for # n /\ <<m.for, m.dot>> \notin hints[n])
        /\ mem' = [mem EXCEPT ![n] = @ \cup {m.dot}]
        /\ hints' = IF m.for = n THEN hints
                    ELSE [hints EXCEPT ![n] = @ \cup {<<m.for, m.dot>>}]
        /\ net' = IF RelayVotes = "forged"
                  THEN net \cup {Vote(h, m.dot) : h \in Home}
                  ELSE net
        /\ UNCHANGED <<up, run, disk, told, lost, uid, crashes, wipes>>

Sync(n) ==
    /\ up[n] /\ disk[n] # mem[n]
    /\ disk' = [disk EXCEPT ![n] = mem[n]]
    /\ UNCHANGED <<up, run, mem, hints, net, told, lost, uid, crashes, wipes>>

CastVote(n, d) ==
    /\ up[n] /\ d \in (IF Votes = "durable" THEN disk[n] ELSE mem[n])
    /\ Vote(n, d) \notin net
    /\ net' = net \cup {Vote(n, d)}
    /\ UNCHANGED <<up, run, mem, disk, hints, told, lost, uid, crashes, wipes>>

(* The coordinator's own run counts votes, by identity.                       *)
Acknowledge(n, d) ==
    LET by == {m.node : m \in {v \in net : v.kind = "vote" /\ v.dot = d}}
    IN  /\ up[n] /\ d.actor = Actor(n)
        /\ Cardinality(by) >= W
        /\ \A t \in told : t.dot # d
        /\ told' = told \cup {[dot |-> d, by |-> by]}
        /\ UNCHANGED <<up, run, mem, disk, hints, net, lost, uid, crashes, wipes>>

HandOff(n) ==
    \E h \in hints[n] :
        /\ up[n]
        /\ net' = net \cup {WriteTo(h[1], h[2], h[1])}
        /\ hints' = IF HintDropped = "sent" THEN [hints EXCEPT ![n] = @ \ {h}] ELSE hints
        /\ mem' = IF HintDropped = "sent" THEN [mem EXCEPT ![n] = @ \ {h[2]}] ELSE mem
        /\ disk' = IF HintDropped = "sent" THEN [disk EXCEPT ![n] = @ \ {h[2]}] ELSE disk
        /\ UNCHANGED <<up, run, told, lost, uid, crashes, wipes>>

DropHint(n) ==
    \E h \in hints[n] :
        /\ up[n] /\ h[2] \in disk[h[1]] /\ Vote(h[1], h[2]) \in net
        /\ hints' = [hints EXCEPT ![n] = @ \ {h}]
        /\ UNCHANGED <<up, run, mem, disk, net, told, lost, uid, crashes, wipes>>

(* Read repair and anti-entropy: a replica sends what it holds.               *)
Repair(n, m) ==
    /\ up[n] /\ {n, m} \subseteq Home /\ n # m
    /\ \E d \in mem[n] : /\ WriteTo(m, d, m) \notin net
                         /\ net' = net \cup {WriteTo(m, d, m)}
    /\ UNCHANGED <<up, run, mem, disk, hints, told, lost, uid, crashes, wipes>>

Crash(n) ==
    /\ up[n] /\ crashes < MaxCrashes
    /\ up' = [up EXCEPT ![n] = FALSE]
    /\ mem' = [mem EXCEPT ![n] = disk[n]]
    /\ hints' = [hints EXCEPT ![n] = {h \in @ : h[2] \in disk[n]}]
    /\ crashes' = crashes + 1
    /\ UNCHANGED <<run, disk, net, told, lost, uid, wipes>>

Start(n) ==
    /\ ~up[n]
    /\ up' = [up EXCEPT ![n] = TRUE]
    /\ run' = [run EXCEPT ![n] = @ + 1]
    /\ UNCHANGED <<mem, disk, hints, net, told, lost, uid, crashes, wipes>>

Wipe(n) ==
    /\ ~up[n] /\ wipes < MaxWipes
    /\ lost' = lost \cup {<<n, d>> : d \in disk[n]}
    /\ mem' = [mem EXCEPT ![n] = {}] /\ disk' = [disk EXCEPT ![n] = {}]
    /\ hints' = [hints EXCEPT ![n] = {}]
    /\ wipes' = wipes + 1
    /\ UNCHANGED <<up, run, net, told, uid, crashes>>

Next ==
    \E n \in Node :
        \/ Put(n) \/ Take(n) \/ Sync(n) \/ HandOff(n) \/ DropHint(n)
        \/ Crash(n) \/ Start(n) \/ Wipe(n)
        \/ \E d \in mem[n] : CastVote(n, d) \/ Acknowledge(n, d)
        \/ \E m \in Node : Repair(n, m)

Fairness ==
    \A n \in Node :
        /\ WF_vars(Start(n)) /\ WF_vars(Sync(n)) /\ SF_vars(Take(n) /\ mem' # mem)
        /\ \A m \in Node : WF_vars(Repair(n, m))

Spec == Init /\ [][Next]_vars
LiveSpec == Spec /\ Fairness

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A n \in Node : disk[n] \subseteq mem[n]
    /\ \A t \in told : t.by \subseteq Node
    /\ up \in [Node -> BOOLEAN]

(* I1: no two writes ever get the same dot.                                   *)
DotsAreUnique == \A x, y \in uid : x.dot = y.dot => x = y

(* I2: an acknowledged write survives the loss of any W-1 of the disks that    *)
(* acknowledged it; and every crash, also of all nodes at once.                *)
AcknowledgedSurvives ==
    \A t \in told :
        Cardinality({n \in t.by : <<n, t.dot>> \in lost}) < W
            => \E n \in Node : t.dot \in disk[n]

(* I6: once nothing more happens to nodes and clients, replicas are equal.     *)
Converged == \A n, m \in Home : mem[n] = mem[m]
Converges == <>[]Converged
=============================================================================
