-------------------------- MODULE TraceReplication --------------------------
(***************************************************************************)
(* Whether what the code did is a behaviour of `Replication`: as            *)
(* TraceCausality, on the same runs, with other steps.                      *)
(*                                                                          *)
(* The mapping. All nodes are replicas of the key and take writes; which    *)
(* region they are in decides only who passes a write on. A node has the    *)
(* writes that its object covers; an object that comes is taken in write by *)
(* write. A start is a crash: when the node went down is not seen by        *)
(* anybody. Votes are not logged: a node may have voted for whatever it has *)
(* committed, and a receipt may name no other.                              *)
(***************************************************************************)
EXTENDS Replication, TraceData

VARIABLES trace, at  \* which trace, and the number of its next step

traceVars == <<trace, at>>

Nodes == 1..3
None == {}
Many == 1000

Event == Traces[trace][at]
Logged(k) ==
    /\ at <= Len(Traces[trace]) /\ Event.k = k
    /\ at' = at + 1 /\ UNCHANGED trace

(* A dot is logged as its node, the number of the node's run, the counter.    *)
ADot(p) == [actor |-> <<p[1], p[2]>>, n |-> p[3]]
Dots(ps) == {ADot(p) : p \in ps}
Issued == {uid[i] : i \in 1..Len(uid)}

(* Put: a coordinator took a write and gave it this dot. *)
LoggedPut ==
    /\ Logged("put")
    /\ Put(Event.n)
    /\ uid' = Append(uid, ADot(Event.dot))

(* Take: a node joined an object that includes this write, which it did not have. What an earlier *)
(* run of its own has sent and not kept may come back to it too. *)
LoggedTake ==
    /\ Logged("take")
    /\ LET n == Event.n
           d == ADot(Event.dot)
       IN  /\ mem' = [mem EXCEPT ![n] = @ \cup {Copy(n, d)}]
           /\ \/ Take(n)
              \/ /\ d.actor[1] = n /\ d \in Issued /\ d \notin Own(n)
                 /\ UNCHANGED <<disk, run, made, net, votes, told, lost, uid, crashes, wipes>>

(* Sync: a node committed all that it has. *)
LoggedSync ==
    /\ Logged("sync")
    /\ Own(Event.n) = Dots(Event.has)
    /\ IF mem[Event.n] # disk[Event.n] THEN Sync(Event.n) ELSE UNCHANGED vars

(* Told: a client was told that its write is acknowledged, by replicas that have voted for it. *)
LoggedTold ==
    /\ Logged("told")
    /\ LET d == ADot(Event.dot)
       IN  /\ d.actor = Actor(Event.n)
           /\ Event.by \subseteq {v.node : v \in Heard(d)}
           /\ Cardinality(Event.by) >= W
           /\ IF \E t \in told : t.dot = d
              THEN UNCHANGED vars
              ELSE Acknowledge(Event.n) /\ \E t \in told' : t.dot = d

(* Start: a node starts with what its disk had, and nothing else. *)
LoggedStart ==
    /\ Logged("start")
    /\ LET n == Event.n
       IN  /\ {c[2] : c \in disk[n]} = Dots(Event.has)
           /\ IF mem[n] # disk[n] \/ made[n] > 0 THEN Crash(n) ELSE UNCHANGED vars

Accepted == at > Len(Traces[trace])
Done == Accepted /\ UNCHANGED vars /\ UNCHANGED traceVars

TraceInit == Init /\ trace \in 1..Len(Traces) /\ at = 1
TraceNext ==
    \/ LoggedPut \/ LoggedTake \/ LoggedSync \/ LoggedTold \/ LoggedStart
    \/ Done
TraceSpec == TraceInit /\ [][TraceNext]_<<vars, traceVars>>

(* For traces with a mistake in them: none goes on past the mistake.          *)
MistakesAreRefused == at <= Mistakes[trace]
=============================================================================
