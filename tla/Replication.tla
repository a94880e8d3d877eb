---------------------------- MODULE Replication ----------------------------
(***************************************************************************)
(* What an acknowledgement stands for, what crashes and lost disks may take, *)
(* and how replicas become equal again (DESIGN 5 and 6; I1, I2, I6).         *)
(*                                                                          *)
(* One key. By `Causality` an object is as good as the set of writes that it *)
(* includes, and join is union, so a node holds *copies* <<h, d>>: of write  *)
(* d for replica h. At h itself that is its own state; elsewhere it is a     *)
(* hint. `mem` is what was taken in, `disk` what a crash leaves of it.       *)
(*                                                                          *)
(* Two regions. A coordinator sends a write to its own region's nodes and    *)
(* one copy to a relay in the other, which passes it on. Messages stay in    *)
(* `net`: each may come late, often, in any order, or never. A node that is  *)
(* down or cut off is one that takes no steps. So a crash is a restart, and  *)
(* who takes over for whom needs no failure detector: any spare node may     *)
(* take the place of any replica at any time.                                *)
(*                                                                          *)
(* Left out: siblings and contexts (Causality); clocks and forgetting        *)
(* (Stability); reads; levels other than "W replicas", which differ in which *)
(* W count and not in what a vote means; refusals, deadlines, retries;       *)
(* bounds on hints.                                                          *)
(*                                                                          *)
(* Sources: Dynamo, SOSP 2007, sections 4.3 to 4.7; Pillai et al., OSDI      *)
(* 2014, and Alagappan et al., FAST 2018, for what crashes take.             *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Near, Spare,      \* replicas and other nodes of the region that writes come to
    Far,              \* replicas of the other region
    Coordinator,      \* which of Near and Spare take clients' writes
    W,                \* how many replicas must have a write before it is acknowledged
    MaxWrites, MaxCrashes, MaxWipes,
    VoteWhen,         \* "durable", or "taken" (must fail)
    ActorOf,          \* "run": a new actor at each start, or "node" (must fail)
    RelayVotes,       \* "heard": a relay passes votes on, or "forged" (must fail)
    CountBy,          \* what votes are counted by: "replica"; must fail: "node" and "message"
    HintsGo           \* when hints go: "durable at home"; must fail, see DropHint: the others

ASSUME /\ Coordinator \subseteq Near \cup Spare
       /\ VoteWhen \in {"durable", "taken"} /\ ActorOf \in {"run", "node"}
       /\ RelayVotes \in {"heard", "forged"} /\ CountBy \in {"replica", "node", "message"}
       /\ HintsGo \in {"durable at home", "taken at home", "voted at home", "restart"}

VARIABLES
    mem, disk,       \* per node its copies: taken in; synced
    run, made,       \* per node: which start it is in; the last counter it has drawn
    net,             \* writes on their way: [to, copy, relay: whether to pass it on]
    votes,           \* "it is durable here": [node, copy]
    told,            \* writes acknowledged to clients: [dot, by: the replicas counted]
    lost,            \* copies of which a replaced disk was the last to have them
    uid,             \* every write ever made, in order, with its dot: so that reuse shows
    crashes, wipes   \* how many there were

vars == <<mem, disk, run, made, net, votes, told, lost, uid, crashes, wipes>>

Home == Near \cup Far
Node == Home \cup Spare
Symmetry == Permutations(Near) \cup Permutations(Far) \cup Permutations(Spare)

Actor(n) == IF ActorOf = "run" THEN <<n, run[n]>> ELSE <<n, 0>>
Copy(h, d) == <<h, d>>
Own(n) == {c[2] : c \in {x \in mem[n] : x[1] = n}}
Hints(n) == {c \in mem[n] : c[1] # n}
Message(n, h, d, relay) == [to |-> n, copy |-> Copy(h, d), relay |-> relay]
Vote(n, c) == [node |-> n, copy |-> c]
OnDisk(c) == \E n \in Node : c \in disk[n]
Max(S) == CHOOSE x \in S \cup {0} : \A y \in S : y <= x

(* Whether votes meet the level. A replica and the spare node that stands for *)
(* it are one: when the hint is home, they are one copy.                      *)
Heard(d) == {v \in votes : v.copy[2] = d}
Meets(voted) ==
    CASE CountBy = "replica" -> Cardinality({v.copy[1] : v \in voted}) >= W
      [] CountBy = "node"    -> Cardinality({v.node : v \in voted}) >= W
      [] CountBy = "message" -> voted # {}

Init ==
    /\ mem = [n \in Node |-> {}] /\ disk = [n \in Node |-> {}]
    /\ run = [n \in Node |-> 1] /\ made = [n \in Node |-> 0]
    /\ net = {} /\ votes = {} /\ told = {} /\ lost = {} /\ uid = <<>>
    /\ crashes = 0 /\ wipes = 0

-----------------------------------------------------------------------------
(* Put: coordinator n, a replica or a spare node in the place of h, takes a write and sends it. *)
Put(n) ==
    \E h \in IF n \in Home THEN {n} ELSE Near :
        LET d == [actor |-> Actor(n), n |-> made[n] + 1]
            direct == {Message(m, m, d, FALSE) : m \in Near \ {n}}
            stands == {Message(s, m, d, FALSE) : s \in Spare \ {n}, m \in Near \ {n}}
        IN  /\ Len(uid) < MaxWrites
            /\ mem' = [mem EXCEPT ![n] = @ \cup {Copy(h, d)}]
            /\ made' = [made EXCEPT ![n] = @ + 1]
            /\ uid' = Append(uid, d)
            /\ \E relays \in IF Far = {} THEN {{}} ELSE {{f} : f \in Far} :
                net' = net \cup direct \cup stands \cup {Message(f, f, d, TRUE) : f \in relays}
            /\ votes' = IF VoteWhen = "taken" THEN votes \cup {Vote(n, Copy(h, d))} ELSE votes
            /\ UNCHANGED <<disk, run, told, lost, crashes, wipes>>

(* Take: node n joins a write that was sent to it, as its own or as a hint; a relay passes it on. *)
Take(n) ==
    \E m \in {x \in net : x.to = n} :
        LET d == m.copy[2]
        IN  /\ m.copy \notin mem[n] \/ m.relay
            (* A spare node stands for one replica of a write. *)
            /\ n \in Spare => \A c \in mem[n] : c[2] # d
            /\ mem' = [mem EXCEPT ![n] = @ \cup {m.copy}]
            /\ net' = IF m.relay THEN net \cup {Message(f, f, d, FALSE) : f \in Far \ {n}} ELSE net
            /\ votes' = IF VoteWhen = "taken" THEN votes \cup {Vote(n, m.copy)} ELSE votes
            /\ <<mem', net'>> # <<mem, net>>
            /\ UNCHANGED <<disk, run, made, told, lost, uid, crashes, wipes>>

(* Sync: node n makes durable what it has taken in, and then votes for it. *)
Sync(n) ==
    LET new == mem[n] \ disk[n]
        forged == {Vote(f, Copy(f, c[2])) : f \in Far, c \in new}
    IN  /\ mem[n] # disk[n]
        /\ disk' = [disk EXCEPT ![n] = mem[n]]
        /\ votes' = votes \cup {Vote(n, c) : c \in new}
                    \cup (IF RelayVotes = "forged" /\ n \in Far THEN forged ELSE {})
        /\ lost' = lost \ new
        /\ UNCHANGED <<mem, run, made, net, told, uid, crashes, wipes>>

(* Acknowledge: coordinator n, in the run that took the write, has the votes and answers. *)
Acknowledge(n) ==
    \E i \in 1..Len(uid) :
        LET d == uid[i]
        IN  /\ d.actor = Actor(n) /\ d.n <= made[n]
            /\ \A t \in told : t.dot # d
            /\ Meets(Heard(d))
            /\ told' = told \cup {[dot |-> d, by |-> {v.copy[1] : v \in Heard(d)}]}
            /\ UNCHANGED <<mem, disk, run, made, net, votes, lost, uid, crashes, wipes>>

(* Hand off: replica h takes the hints that node n keeps for it. *)
HandOff(n, h) ==
    LET hints == {c \in Hints(n) : c[1] = h}
    IN  /\ ~(hints \subseteq mem[h])
        /\ mem' = [mem EXCEPT ![h] = @ \cup hints]
        /\ UNCHANGED <<disk, run, made, net, votes, told, lost, uid, crashes, wipes>>

(* Drop hint: node n forgets a hint, which its replica has answered to have on its disk. *)
DropHint(n) ==
    \E c \in Hints(n) :
        /\ CASE HintsGo = "taken at home" -> c \in mem[c[1]]
             [] HintsGo = "voted at home" -> Vote(c[1], c) \in votes
             (* An answer on its way when its sender's disk dies is as good as one before. *)
             [] OTHER -> c \in disk[c[1]]
        /\ mem' = [mem EXCEPT ![n] = @ \ {c}]
        /\ disk' = [disk EXCEPT ![n] = @ \ {c}]
        /\ UNCHANGED <<run, made, net, votes, told, lost, uid, crashes, wipes>>

(* Repair: replica m takes from replica n what it lacks: sent again, read repair, gap repair. *)
Repair(n, m) ==
    LET copies == {Copy(m, d) : d \in Own(n)}
    IN  /\ n # m /\ ~(copies \subseteq mem[m])
        /\ mem' = [mem EXCEPT ![m] = @ \cup copies]
        /\ UNCHANGED <<disk, run, made, net, votes, told, lost, uid, crashes, wipes>>

(* What a start finds: what is on the disk. *)
StartFrom(nodes) ==
    LET kept(n) == IF HintsGo = "restart" THEN {c \in disk[n] : c[1] = n} ELSE disk[n]
        mine(n) == {c[2].n : c \in {x \in disk[n] : x[2].actor = Actor(n)}}
    IN  /\ \E n \in nodes : mem[n] # disk[n] \/ kept(n) # disk[n] \/ made[n] > 0
        /\ mem' = [n \in Node |-> IF n \in nodes THEN kept(n) ELSE mem[n]]
        /\ disk' = [n \in Node |-> IF n \in nodes THEN kept(n) ELSE disk[n]]
        (* A run that has drawn no dot needs no new name. *)
        /\ run' = [n \in Node |-> IF n \in nodes /\ made[n] > 0 THEN run[n] + 1 ELSE run[n]]
        /\ made' = [n \in Node |-> IF n \notin nodes THEN made[n]
                                   ELSE IF ActorOf = "run" THEN 0 ELSE Max(mine(n))]
        /\ UNCHANGED <<net, votes, told, lost, uid, wipes>>

(* Crash: node n loses what it has not synced, and starts again. *)
Crash(n) ==
    /\ crashes < MaxCrashes /\ crashes' = crashes + 1
    /\ StartFrom({n})

(* Power cut: all nodes at once lose what they have not synced, and start again. *)
PowerCut ==
    /\ crashes < MaxCrashes /\ crashes' = crashes + 1
    /\ StartFrom(Node)

(* Wipe: node n loses its disk for good, and starts again with an empty one. *)
Wipe(n) ==
    /\ wipes < MaxWipes /\ wipes' = wipes + 1
    /\ disk[n] # {}
    /\ mem' = [mem EXCEPT ![n] = {}] /\ disk' = [disk EXCEPT ![n] = {}]
    /\ lost' = lost \cup {c \in disk[n] : \A m \in Node \ {n} : c \notin disk[m]}
    /\ run' = [run EXCEPT ![n] = IF made[n] > 0 THEN @ + 1 ELSE @]
    /\ made' = [made EXCEPT ![n] = 0]
    /\ UNCHANGED <<net, votes, told, uid, crashes>>

Next ==
    \/ PowerCut
    \/ \E n \in Coordinator : Put(n) \/ Acknowledge(n)
    \/ \E n \in Node : Take(n) \/ Sync(n) \/ Crash(n) \/ Wipe(n)
    \/ \E n \in Spare : DropHint(n) \/ \E h \in Near : HandOff(n, h)
    \/ \E n, m \in Home : Repair(n, m)

Spec == Init /\ [][Next]_vars

(* Nothing is asked of messages: all that was sent at first may be lost. Of   *)
(* what is tried for ever, hand-off and repair, something gets through.       *)
Fairness ==
    /\ \A n \in Node : WF_vars(Sync(n))
    /\ \A n \in Spare, h \in Near : WF_vars(HandOff(n, h))
    /\ \A n, m \in Home : WF_vars(Repair(n, m))
LiveSpec == Spec /\ Fairness

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A n \in Node : disk[n] \subseteq mem[n]
    /\ \A n \in Home : \A c \in mem[n] : c[1] = n
    /\ \A t \in told : t.by \subseteq Home
    /\ lost \subseteq Home \X {uid[i] : i \in 1..Len(uid)}

(* Safety *)

(* I1: no two writes ever get the same dot.                                   *)
DotsAreUnique == \A i, j \in 1..Len(uid) : uid[i] = uid[j] => i = j

(* I2: an acknowledged write survives the loss of any W-1 of the disks that    *)
(* count for it, and every crash, also of all nodes at once. A hint's disk     *)
(* counts until the hint is home, then the replica's does.                     *)
AcknowledgedSurvives ==
    \A t \in told :
        Cardinality({h \in t.by : Copy(h, t.dot) \in lost}) < W
            => \E n \in Node, h \in Home : Copy(h, t.dot) \in mem[n]

(* Of each replica that an acknowledgement counts, there is a durable copy, at *)
(* home or as a hint, unless a disk was lost that had the last.                *)
AcknowledgedIsDurable ==
    \A t \in told : \A h \in t.by : OnDisk(Copy(h, t.dot)) \/ Copy(h, t.dot) \in lost

(* An acknowledgement counts as many different replicas as its level needs.    *)
ReceiptMeetsLevel == \A t \in told : Cardinality(t.by) >= W

(* Liveness *)

(* I6: once clients and faults stop, every replica has all that anyone has.    *)
Everything == {c[2] : c \in UNION {mem[n] : n \in Node}}
Converged == \A n \in Home : Own(n) = Everything
Converges == <>[]Converged
=============================================================================
