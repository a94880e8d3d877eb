------------------------------- MODULE Layout -------------------------------
(***************************************************************************)
(* A partition moves from the replicas `Old` to the replicas `New`, while   *)
(* clients write and read, and the operator may change his mind: no         *)
(* acknowledged write leaves its quorum (DESIGN 4; invariants I1, I2, I9).   *)
(*                                                                         *)
(* A change is a sequence of epochs, each with a phase:                     *)
(*   old    writes to Old,          reads of Old                            *)
(*   join   writes to Old and New,  reads of Old; New bootstraps            *)
(*   moved  writes to Old and New,  reads of New                            *)
(*   new    writes to New,          reads of New; Old lets go               *)
(* The sequence is one value that gossip spreads; nodes and coordinators     *)
(* are behind it by any number of epochs. The rule that makes this safe: of  *)
(* any two epochs under which requests can still succeed, the reads of one   *)
(* meet the writes of the other. A replica refuses requests of an epoch      *)
(* before its own, so an epoch has ended once enough replicas are past it.   *)
(*                                                                         *)
(* A write is a dot, a replica's state a set of them (join is union, see     *)
(* Causality); `clock` is what a replica claims to have. Messages may        *)
(* arrive late or never; coordinators may repeat them under a later epoch.   *)
(* Left out: deletes and forgetting (Stability), crashes (Replication),      *)
(* how an epoch is agreed on. Joint quorums: Ongaro, "Consensus", 2014, 4.3; *)
(* layouts with several live versions: Garage, rpc/layout.                   *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, Sequences, TLC

CONSTANTS
    Node, Old, New,  \* nodes; the replicas before and after
    Fallback,        \* nodes that may stand in at level "one"
    Coord,           \* nodes that coordinate writes
    MaxWrites, MaxEpochs,
    Level,           \* what acknowledges a write: "quorum", or "one"
    Reads,           \* TRUE: a read in several steps is modelled
    WriteQuorum,     \* in both layouts ("both"), or only in "old" or "new" (must fail)
    SwitchWhen,      \* reads move when New has "bootstrapped", or "at once" (must fail)
    Target,          \* bootstrapped is to have what a "quorum" of Old has, or "one" (must fail)
    Adopt,           \* "none": no snapshots, gap repair alone; or a snapshot's clock is
                     \* taken when all its objects are here, as of its "start", or as
                     \* of its "end", or it is taken "first" (both must fail)
    Acks,            \* bootstrapping is acknowledged per "epoch", or once for all, "ever" (must fail)
    DropWhen,        \* a copy goes when "handed over", when its node has "left",
                     \* or "early": when any new replica has bootstrapped (both must fail)
    DropKeeps,       \* the node's own "counter", or "nothing" (must fail)
    AbortBy,         \* "steps", "never", or "jump", "late" (both must fail)
    Votes,           \* counted anew under a new epoch ("fresh"), or "kept" (must fail)
    StaleRequests    \* "refused", or "accepted" (must fail)

VARIABLES
    plan,            \* the epochs so far: a sequence of phases
    at,              \* per node: the newest epoch that it knows
    obj, clock,      \* per node: the writes it holds; those it claims
    said,            \* per node: its clock when it learned of the newest "join"
    booted,          \* <<node, epoch>>: bootstrapped
    snap,            \* per node: the snapshot that it is taking in, or NoSnap
    count,           \* per node: its own counter
    made,            \* the dots of all writes, in order
    tried,           \* per write: the epoch under which its coordinator tries now
    votes,           \* <<write, node>>: taken durably, for the coordinator that tries now
    acked,           \* acknowledged writes
    read             \* the read under way, or NoRead

vars == <<plan, at, obj, clock, said, booted, snap, count, made, tried, votes, acked, read>>
data == <<obj, clock, snap, count>>

NoSnap == [from |-> "none"]
NoRead == [epoch |-> 0]
Dots == {made[i] : i \in 1..Len(made)}
Last == plan[Len(plan)]
Quorums(l) == {q \in SUBSET l : 2 * Cardinality(q) > Cardinality(l)}
WritesOf(p) == CASE p = "old" -> {Old} [] p = "new" -> {New}
                 [] WriteQuorum = "old" -> {Old} [] WriteQuorum = "new" -> {New}
                 [] OTHER -> {Old, New}
ReadsOf(p) == IF p \in {"old", "join"} THEN Old ELSE New
Replicas(p) == CASE p = "old" -> Old [] p = "new" -> New [] OTHER -> Old \cup New

Accepts(n, e) == at[n] <= e \/ StaleRequests = "accepted"
(* No read under epoch e can find a quorum any more.                         *)
Ended(e) == \A q \in Quorums(ReadsOf(plan[e])) : \E n \in q : at[n] > e
NoReadsOf(l) == {e \in 1..Len(plan) - 1 : ReadsOf(plan[e]) = l /\ ~Ended(e)} = {}

Init ==
    /\ plan = <<"old">> /\ at = [n \in Node |-> 1]
    /\ obj = [n \in Node |-> {}] /\ clock = obj /\ said = obj
    /\ booted = {} /\ snap = [n \in Node |-> NoSnap]
    /\ count = [n \in Node |-> 0] /\ made = <<>>
    /\ tried = <<>> /\ votes = {} /\ acked = {} /\ read = NoRead

(* Put: node c coordinates a write, gives it a dot, and knows of epoch e. *)
Put(c, e) ==
    LET w == <<c, count[c] + 1>> IN
    /\ c \in Coord /\ Len(made) < MaxWrites
    /\ made' = Append(made, w)
    /\ count' = [count EXCEPT ![c] = @ + 1]
    /\ tried' = [v \in DOMAIN tried \cup {w} |-> IF v = w THEN e ELSE tried[v]]
    /\ UNCHANGED <<plan, at, obj, clock, said, booted, snap, votes, acked, read>>

(* Try again: the coordinator of write w learns of epoch e, sends w again and counts anew. *)
TryAgain(w, e) ==
    /\ w \notin acked /\ tried[w] < e
    /\ tried' = [tried EXCEPT ![w] = e]
    /\ votes' = IF Votes = "kept" THEN votes ELSE {v \in votes : v[1] # w}
    /\ UNCHANGED <<plan, at, obj, clock, said, booted, snap, count, made, acked, read>>

(* Take: node n makes write w durable, on a request of its own epoch. *)
Take(n, w) ==
    /\ n \in Replicas(plan[at[n]]) \cup Fallback
    /\ at[n] = tried[w] \/ (at[n] > tried[w] /\ StaleRequests = "accepted")
    /\ w \notin acked /\ <<w, n>> \notin votes
    /\ obj' = [obj EXCEPT ![n] = @ \cup {w}]
    /\ clock' = [clock EXCEPT ![n] = @ \cup {w}]
    /\ votes' = votes \cup {<<w, n>>}
    /\ UNCHANGED <<plan, at, said, booted, snap, count, made, tried, acked, read>>

Enough(by, l) == IF Level = "one" THEN by \cap (l \cup Fallback) # {}
                 ELSE by \cap l \in Quorums(l)
(* Acknowledge: the client is told that write w is done. *)
Acknowledge(w) ==
    LET by == {v[2] : v \in {u \in votes : u[1] = w}}
    IN  /\ w \notin acked
        /\ \A l \in WritesOf(plan[tried[w]]) : Enough(by, l)
        /\ acked' = acked \cup {w}
        /\ votes' = {v \in votes : v[1] # w} /\ tried' = [tried EXCEPT ![w] = 1]
        /\ UNCHANGED <<plan, at, obj, clock, said, booted, snap, count, made, read>>

(* Learn: node n learns of epoch e by gossip or from a request; at a "join" it says what it has. *)
Learn(n, e) ==
    /\ at[n] < e
    /\ at' = [at EXCEPT ![n] = e]
    /\ said' = IF plan[e] = "join" THEN [said EXCEPT ![n] = clock[n]] ELSE said
    /\ UNCHANGED <<plan, obj, clock, booted, snap, count, made, tried, votes, acked, read>>

(* Gap repair: replica n gets write w, which its clock lacks, from a node that has it. *)
GapRepair(n, w) ==
    /\ n \in Replicas(plan[at[n]]) /\ w \notin clock[n] /\ \E m \in Node : w \in obj[m]
    /\ obj' = [obj EXCEPT ![n] = @ \cup {w}]
    /\ clock' = [clock EXCEPT ![n] = @ \cup {w}]
    /\ UNCHANGED <<plan, at, said, booted, snap, count, made, tried, votes, acked, read>>

(* Snapshot: the joining replica n begins to take in what replica m holds. *)
Snapshot(n, m) ==
    /\ Adopt # "none" /\ n \in New \ Old /\ m \in Old
    /\ plan[at[n]] = "join" /\ snap[n] = NoSnap
    /\ obj[m] \ obj[n] # {}
    /\ snap' = [snap EXCEPT ![n] = [from |-> m, left |-> obj[m], clock |-> clock[m]]]
    /\ clock' = IF Adopt = "first" THEN [clock EXCEPT ![n] = @ \cup clock[m]] ELSE clock
    /\ UNCHANGED <<plan, at, obj, said, booted, count, made, tried, votes, acked, read>>

(* Snapshot object: one object of the snapshot arrives at n. *)
SnapshotObject(n, w) ==
    /\ snap[n] # NoSnap /\ w \in snap[n].left
    /\ obj' = [obj EXCEPT ![n] = @ \cup {w}]
    /\ snap' = [snap EXCEPT ![n].left = @ \ {w}]
    /\ UNCHANGED <<plan, at, clock, said, booted, count, made, tried, votes, acked, read>>

(* Snapshot end: node n has all objects of the snapshot and adopts its clock. *)
SnapshotEnd(n) ==
    /\ snap[n] # NoSnap /\ snap[n].left = {}
    /\ clock' = [clock EXCEPT ![n] =
          @ \cup (IF Adopt = "end" THEN clock[snap[n].from] ELSE snap[n].clock)]
    /\ snap' = [snap EXCEPT ![n] = NoSnap]
    /\ UNCHANGED <<plan, at, obj, said, booted, count, made, tried, votes, acked, read>>

(* Bootstrapped: replica n has all that Old had when it stopped writing alone. *)
Bootstrapped(n) ==
    LET sources == IF Target = "quorum" THEN Quorums(Old) ELSE SUBSET Old \ {{}}
    IN  /\ n \in New /\ Last = "join" /\ at[n] = Len(plan)
        /\ Adopt = "first" \/ snap[n] = NoSnap
        /\ {m \in Old : at[m] = Len(plan) /\ said[m] \subseteq clock[n]} \in sources
        /\ booted' = booted \cup {<<n, Len(plan)>>}
        /\ UNCHANGED <<plan, at, obj, clock, said, snap, count, made, tried, votes, acked, read>>

Goes(p) == /\ Len(plan) < MaxEpochs
           /\ plan' = Append(plan, p)
           /\ UNCHANGED <<at, said, booted, made, tried, votes, acked, read>> /\ UNCHANGED data

(* Begin: the operator applies the new layout. *)
Begin == Last = "old" /\ Goes("join")

(* Switch: reads move to New, every replica of which has bootstrapped. *)
Switch ==
    /\ Last = "join"
    /\ SwitchWhen = "bootstrapped" =>
          New \subseteq {b[1] : b \in {x \in booted : Acks = "ever" \/ x[2] = Len(plan)}}
    /\ Goes("moved")

(* Finish: writes leave Old, of which no read can succeed any more. *)
Finish == Last = "moved" /\ NoReadsOf(Old) /\ Goes("new")

(* Turn back: reads return to Old. *)
TurnBack == Last = "moved" /\ AbortBy # "never" /\ Goes("join")

(* Abort: writes leave New, of which no read can succeed any more. *)
Abort ==
    /\ CASE AbortBy = "steps" -> Last = "join" /\ NoReadsOf(New)
         [] AbortBy = "jump" -> Last \in {"join", "moved"}
         [] AbortBy = "late" -> Last = "new" \/ (Last = "join" /\ NoReadsOf(New))
         [] OTHER -> FALSE
    /\ Goes("old")

HandedOver(n) == \A w \in obj[n], m \in Replicas(plan[at[n]]) : w \in obj[m]
MayDrop(n) ==
    \/ /\ n \notin Replicas(plan[at[n]])
       /\ DropWhen = "left" \/ HandedOver(n)
    \/ DropWhen = "early" /\ n \in Old \ New /\ booted # {}
(* Drop: node n, not a replica any more, deletes its copy and its clock. *)
Drop(n) ==
    /\ MayDrop(n) /\ obj[n] \cup clock[n] # {}
    /\ obj' = [obj EXCEPT ![n] = {}] /\ clock' = [clock EXCEPT ![n] = {}]
    /\ snap' = [snap EXCEPT ![n] = NoSnap]
    /\ count' = IF DropKeeps = "counter" THEN count ELSE [count EXCEPT ![n] = 0]
    /\ UNCHANGED <<plan, at, said, booted, made, tried, votes, acked, read>>

(* Read: a coordinator that knows epoch e begins a read. *)
Read(e) ==
    /\ Reads /\ read = NoRead /\ acked # {}
    /\ read' = [epoch |-> e, must |-> acked, asked |-> {}, got |-> {}]
    /\ UNCHANGED <<plan, at, said, booted, made, tried, votes, acked>> /\ UNCHANGED data

(* Answer: replica n answers the read. *)
Answer(n) ==
    /\ read # NoRead /\ n \in ReadsOf(plan[read.epoch]) \ read.asked
    /\ at[n] = read.epoch \/ StaleRequests = "accepted"
    /\ read' = [read EXCEPT !.asked = @ \cup {n}, !.got = @ \cup obj[n]]
    /\ UNCHANGED <<plan, at, said, booted, made, tried, votes, acked>> /\ UNCHANGED data

Next ==
    \/ \E c \in Coord, e \in 1..Len(plan) : Put(c, e)
    \/ \E n \in Node : \E w \in Dots :
        \/ Take(n, w) \/ GapRepair(n, w) \/ SnapshotObject(n, w)
    \/ \E w \in Dots :
        \/ \E e \in 1..Len(plan) : TryAgain(w, e)
        \/ Acknowledge(w)
    \/ \E n \in Node :
        \/ \E e \in 1..Len(plan) : Learn(n, e)
        \/ \E m \in Node : Snapshot(n, m)
        \/ SnapshotEnd(n) \/ Bootstrapped(n) \/ Drop(n) \/ Answer(n)
    \/ Begin \/ Switch \/ Finish \/ TurnBack \/ Abort
    \/ \E e \in 1..Len(plan) : Read(e)

Spec == Init /\ [][Next]_vars

(* What matters of a state: who said what counts only during the newest "join".   *)
View == <<plan, at, obj, clock, snap, count, made, tried, votes, acked, read,
          IF Last = "join" THEN [n \in Node |-> IF at[n] = Len(plan) THEN said[n] ELSE {}] ELSE 0,
          IF Acks = "ever" THEN booted
          ELSE IF Last = "join" THEN {b \in booted : b[2] = Len(plan)} ELSE {}>>
Stayers == Permutations(Old \cap New)

-----------------------------------------------------------------------------
TypeOK ==
    /\ plan \in Seq({"old", "join", "moved", "new"}) /\ at \in [Node -> 1..Len(plan)]
    /\ \A n \in Node : obj[n] \cup clock[n] \cup said[n] \subseteq Dots
    /\ acked \subseteq Dots /\ count \in [Node -> 0..MaxWrites]

(* I1. *)
DotsAreUnique == Cardinality(Dots) = Len(made)

(* I2: somebody holds what was acknowledged.                                  *)
AcknowledgedSurvives == \A w \in acked : \E n \in Node : w \in obj[n]

(* I9: whatever quorum a read may meet, under whatever epoch, has it.          *)
StaysInQuorum ==
    \A e \in 1..Len(plan) : \A q \in Quorums(ReadsOf(plan[e])) :
        (\A n \in q : Accepts(n, e)) => \A w \in acked : \E n \in q : w \in obj[n]

(* I9 as a client sees it: a read returns what was acknowledged before it.     *)
ReadsAreComplete ==
    read # NoRead /\ read.asked \in Quorums(ReadsOf(plan[read.epoch])) => read.must \subseteq read.got

(* A clock claims nothing that is missing: nobody would ask for it again.      *)
ClockIsHonest == \A n \in Node : clock[n] \subseteq obj[n]

(* I9: a copy goes only when every replica of a layout in force has its own.   *)
CopiesKept ==
    [][\A w \in acked, n \in Node : w \in obj[n] \ obj'[n] =>
          \E e \in 1..Len(plan) : \A m \in Replicas(plan[e]) : w \in obj'[m]]_vars

(* A change that is not aborted ends, and the old copies go.                  *)
Fair ==
    /\ WF_vars(Begin) /\ WF_vars(Switch) /\ WF_vars(Finish)
    /\ \A n \in Node :
        /\ WF_vars(Learn(n, Len(plan))) /\ WF_vars(Bootstrapped(n)) /\ WF_vars(Drop(n))
        /\ WF_vars(\E w \in Dots : GapRepair(n, w))
        /\ WF_vars(SnapshotEnd(n)) /\ WF_vars(\E w \in Dots : SnapshotObject(n, w))
FairSpec == Spec /\ Fair
Finishes == <>[](Last = "new" /\ \A n \in Old \ New : obj[n] = {})
=============================================================================
