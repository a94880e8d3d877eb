---------------------------- MODULE Linearizable ----------------------------
(***************************************************************************)
(* One register for each key of a `strong` bucket: put, get, delete and      *)
(* compare-and-set that look as if they happened one after the other, while  *)
(* replicas change, lose their disks, and forget what was deleted (DESIGN 8). *)
(*                                                                         *)
(* The protocol is CASPaxos (Rystsov, arXiv 1802.07000, 2018): a round has a  *)
(* ballot; a majority promises it and says what it last accepted; the        *)
(* proposer changes the latest of that by its operation and has a majority   *)
(* accept the result. Replica sets change as in Layout, by an epoch in which  *)
(* a round needs a majority of both. Here every register's value carries its  *)
(* whole history, the operations that took effect, in order. Linearizable is  *)
(* then: what operations answer are prefixes of one history, each has all    *)
(* that was answered before it began, and none takes effect twice.           *)
(*                                                                         *)
(* Promises and votes that were sent stay sent: they may be used late. A     *)
(* forgotten register is as one that never was; `erased` keeps its history   *)
(* for the model only. What a proposer does by itself is part of the next    *)
(* step that a node sees: a round begins with its first promise, later than  *)
(* in truth, so that more must be in its answer. Left out: several keys (each has its own rounds; they  *)
(* share only the floor of ballots, which refuses more), time, leases.        *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, Sequences, TLC

CONSTANTS
    Node, Old, New,   \* acceptors; those before and after a change of replicas
    Op,               \* operations; their kind is their first letter, see Kinds
    Kind, Expected,   \* what "cas" expects: the operation that wrote it, or "nothing"
    Ballots,          \* ballots are 1..Ballots
    MaxLost,          \* how many disks may be lost
    MaxEpoch,         \* 0: no change; 2: one change
    Reads,            \* a get is a "round", or asks once and is satisfied when a majority
                      \* is "agreeing", or takes the "latest" of its answers (must fail)
    Retry,            \* a retry is "recognised" in what it finds, or "blind" (must fail)
    BallotOf,         \* a ballot belongs to one "round", or is "reused" (must fail)
    Amnesia,          \* a node without its disk is "replaced", or "returns" (must fail)
    Change,           \* "joint", or "jump" from Old to New (must fail)
    Sweep,            \* before New alone decides each register is "written" by a round of
                      \* both, or "left" as it is (must fail)
    ForgetWhen,       \* a delete is forgotten when "all" replicas have accepted it, or
                      \* when a "majority" has (must fail)
    Forgets           \* then the replica keeps its ballot as a "floor", or "all" goes (must fail)

VARIABLES
    epoch, at,        \* the newest epoch; per node the one it knows
    acc,              \* per node: [prom, bal, hist]: promised, accepted ballot and value
    gone,             \* nodes that lost their disk and are out
    lost,             \* how many disks were lost
    round,            \* per ballot: [op, epoch, got, best, val, ok]: who promised, the latest
                      \* value that these gave, what is proposed, who accepted it
    op,               \* per operation: [st, must, res]
    fast,             \* per get that asks once: node -> answer
    erased            \* ghost: the longest history that was forgotten

vars == <<epoch, at, acc, gone, lost, round, op, fast, erased>>

None == [bal |-> 99, hist |-> <<>>]
NoOp == "no operation"
Fresh == [prom |-> 0, bal |-> 0, hist |-> <<>>]
Nothing == [bal |-> 0, hist |-> <<>>]
NoRound == [op |-> NoOp, epoch |-> 0, got |-> {}, best |-> Nothing, val |-> None, ok |-> {}]
Sets(e) == CASE e = 0 -> {Old} [] e = 1 -> {Old, New} [] OTHER -> {New}
Acceptors(e) == UNION Sets(e)
Quorate(s, e) == \A l \in Sets(e) : 2 * Cardinality(s \cap l) > Cardinality(l)

IsPrefix(s, t) == Len(s) <= Len(t) /\ SubSeq(t, 1, Len(s)) = s
Holds(h, o) == \E i \in 1..Len(h) : h[i] = o
Kinds == [o \in Op |-> CASE o \in {"p1", "p2", "p3"} -> "put" [] o \in {"g1", "g2", "g3", "g4"} -> "get"
                       [] o \in {"d1", "d2", "d3"} -> "delete" [] OTHER -> "cas"]
(* What a client sees of a history.                                          *)
Shown(h) == IF h = <<>> \/ Kind[h[Len(h)]] = "delete" THEN "nothing" ELSE h[Len(h)]
Change1(o, h) ==
    IF Kind[o] = "get" \/ (Kind[o] = "cas" /\ Shown(h) # Expected) THEN h ELSE Append(h, o)
Apply(o, h) == IF Retry = "recognised" /\ Holds(h, o) THEN h ELSE Change1(o, h)
(* Of answers the one with the highest ballot; of forgotten ones the longest. *)
Latest(a) == CHOOSE x \in a : \A y \in a :
    x.bal > y.bal \/ (x.bal = y.bal /\ Len(x.hist) >= Len(y.hist))
Done == {o \in Op : op[o].st = "done"}
Known == LET r == {op[o].res : o \in Done} \cup {<<>>}
         IN  CHOOSE x \in r : \A y \in r : Len(x) >= Len(y)
AnswerOf(n) == [bal |-> acc[n].bal, hist |-> IF acc[n].bal = 0 THEN erased ELSE acc[n].hist]
Serves(n, e) == n \in Acceptors(e) \ gone /\ at[n] = e

Init ==
    /\ epoch = 0 /\ at = [n \in Node |-> 0]
    /\ acc = [n \in Node |-> Fresh] /\ gone = {} /\ lost = 0
    /\ round = [b \in 1..Ballots |-> NoRound]
    /\ op = [o \in Op |-> [st |-> "idle", must |-> <<>>, res |-> <<>>]]
    /\ fast = [o \in Op |-> [n \in Node |-> None]] /\ erased = <<>>

Begun(o) == op' = IF op[o].st = "idle"
                  THEN [op EXCEPT ![o].st = "running", ![o].must = Known] ELSE op
(* Start: a proposer begins a round for operation o with ballot b; node n is the first to promise. *)
Start(o, b, n) ==
    /\ op[o].st # "done" /\ (Kind[o] = "get" => Reads = "round")
    /\ \A c \in 1..Ballots : round[c].op = o => c < b
    /\ round[b].op = NoOp /\ Serves(n, at[n]) /\ acc[n].prom < b
    /\ acc' = [acc EXCEPT ![n].prom = b]
    /\ round' = [round EXCEPT ![b] = [NoRound EXCEPT !.op = o, !.epoch = at[n],
                                                    !.got = {n}, !.best = AnswerOf(n)]]
    /\ Begun(o)
    /\ UNCHANGED <<epoch, at, gone, lost, fast, erased>>

(* Reuse: a proposer begins a round for operation o with a ballot that had one before. *)
Reuse(o, b) ==
    /\ BallotOf = "reused" /\ op[o].st # "done" /\ round[b].op \notin {NoOp, o}
    /\ \A c \in 1..Ballots : round[c].op = o => c < b
    /\ round' = [round EXCEPT ![b].op = o, ![b].val = None]
    /\ Begun(o)
    /\ UNCHANGED <<epoch, at, acc, gone, lost, fast, erased>>

(* Promise: node n promises ballot b and says what it last accepted. *)
Promise(n, b) ==
    /\ round[b].op # NoOp /\ round[b].val = None /\ Serves(n, round[b].epoch)
    /\ acc[n].prom < b
    /\ acc' = [acc EXCEPT ![n].prom = b]
    /\ round' = [round EXCEPT ![b].got = @ \cup {n}, ![b].best = Latest({@, AnswerOf(n)})]
    /\ UNCHANGED <<epoch, at, gone, lost, op, fast, erased>>

(* Accept: node n accepts ballot b, which a majority has promised: the latest value that these *)
(* gave, changed by the operation. What is proposed is fixed when the first node accepts it: *)
(* before that nobody can tell.                                              *)
Accept(n, b) ==
    LET r == round[b]
        val == IF r.val # None THEN r.val ELSE [bal |-> b, hist |-> Apply(r.op, r.best.hist)]
        keeps == BallotOf = "reused"
    IN  /\ r.op # NoOp /\ (r.val # None \/ Quorate(r.got, r.epoch)) /\ Serves(n, r.epoch)
        /\ acc[n].prom <= b /\ n \notin round[b].ok
        /\ acc' = [acc EXCEPT ![n] = [prom |-> b, bal |-> b, hist |-> val.hist]]
        /\ round' = [round EXCEPT ![b].val = val, ![b].ok = @ \cup {n},
              ![b].got = IF keeps THEN @ ELSE {}, ![b].best = IF keeps THEN @ ELSE Nothing]
        /\ UNCHANGED <<epoch, at, gone, lost, op, fast, erased>>

(* Complete: a majority has accepted ballot b; the client is answered. *)
Complete(b) ==
    LET r == round[b]
    IN  /\ r.val # None /\ Quorate(r.ok, r.epoch) /\ op[r.op].st = "running"
        /\ op' = [op EXCEPT ![r.op].st = "done", ![r.op].res = r.val.hist]
        /\ UNCHANGED <<epoch, at, acc, gone, lost, round, fast, erased>>

(* Ask: node n answers get o, which asks once. *)
Ask(o, n) ==
    /\ Kind[o] = "get" /\ Reads # "round" /\ op[o].st # "done"
    /\ Serves(n, 0) /\ MaxEpoch = 0 /\ fast[o][n] = None
    /\ fast' = [fast EXCEPT ![o][n] = AnswerOf(n)]
    /\ Begun(o)
    /\ UNCHANGED <<epoch, at, acc, gone, lost, round, erased>>

(* Read: get o has the answers of a majority q and is content with them. *)
Read(o, q) ==
    LET answers == {fast[o][n] : n \in q}
    IN  /\ op[o].st = "running" /\ Reads # "round" /\ Kind[o] = "get"
        /\ Quorate(q, 0) /\ None \notin answers
        /\ Reads = "agreeing" => \A x, y \in answers : x.bal = y.bal
        /\ op' = [op EXCEPT ![o].st = "done", ![o].res = Latest(answers).hist]
        /\ UNCHANGED <<epoch, at, acc, gone, lost, round, fast, erased>>

(* Forget: node n removes a deleted register. *)
Forget(n) ==
    LET b == acc[n].bal
    IN  /\ b > 0 /\ acc[n].hist # <<>> /\ Shown(acc[n].hist) = "nothing"
        /\ n \notin gone
        /\ \E r \in {round[b]} :
              IF ForgetWhen = "all" THEN Acceptors(r.epoch) \subseteq r.ok
              ELSE Quorate(r.ok, r.epoch)
        /\ acc' = [acc EXCEPT ![n] = [Fresh EXCEPT !.prom =
                      IF Forgets = "floor" THEN acc[n].prom ELSE 0]]
        /\ erased' = IF Len(acc[n].hist) > Len(erased) THEN acc[n].hist ELSE erased
        /\ UNCHANGED <<epoch, at, gone, lost, round, op, fast>>

(* Lose disk: node n loses all that it promised and accepted. *)
LoseDisk(n) ==
    /\ lost < MaxLost /\ n \notin gone
    /\ lost' = lost + 1
    /\ gone' = IF Amnesia = "replaced" THEN gone \cup {n} ELSE gone
    /\ acc' = [acc EXCEPT ![n] = Fresh]
    /\ UNCHANGED <<epoch, at, round, op, fast, erased>>

Written ==
    \/ \E b \in 1..Ballots : round[b].epoch = 1 /\ Quorate(round[b].ok, 1)
    \/ 2 * Cardinality({n \in Old \ gone : at[n] = 1 /\ acc[n].bal = 0}) > Cardinality(Old)
(* Next epoch: the replicas go from Old to both, or from both to New. *)
NextEpoch ==
    /\ epoch < MaxEpoch
    /\ epoch' = IF Change = "jump" THEN 2 ELSE epoch + 1
    /\ epoch = 1 /\ Sweep = "written" => Written
    /\ UNCHANGED <<at, acc, gone, lost, round, op, fast, erased>>

(* Learn: node n learns of the newest epoch. *)
Learn(n) ==
    /\ at[n] < epoch /\ n \notin gone
    /\ at' = [at EXCEPT ![n] = epoch]
    /\ UNCHANGED <<epoch, acc, gone, lost, round, op, fast, erased>>

Next ==
    \/ \E b \in 1..Ballots :
        \/ \E o \in Op : Reuse(o, b) \/ \E n \in Node : Start(o, b, n)
        \/ \E n \in Node : Promise(n, b) \/ Accept(n, b)
        \/ Complete(b)
    \/ \E o \in Op :
        \/ \E n \in Node : Ask(o, n)
        \/ \E q \in SUBSET Node : Read(o, q)
    \/ \E n \in Node : Forget(n) \/ LoseDisk(n) \/ Learn(n)
    \/ NextEpoch

Spec == Init /\ [][Next]_vars
Alike == Permutations(Old \cap New) \cup Permutations(Old \ New) \cup Permutations(New \ Old)
(* Some operation may still be answered. What follows otherwise need not be looked at: all *)
(* that is claimed is about answers.                                          *)
MayAnswer ==
    \E o \in Op, b \in 1..Ballots : op[o].st # "done" /\
        \/ /\ round[b].op = NoOp /\ \A c \in 1..Ballots : round[c].op = o => c < b
           /\ \E e \in 0..MaxEpoch : Quorate({n \in Node \ gone : acc[n].prom < b /\ at[n] <= e}, e)
        \/ /\ round[b].op = o
           /\ LET e == round[b].epoch IN
              Quorate(round[b].ok \cup {n \in Node \ gone : acc[n].prom <= b /\ at[n] <= e}, e)

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A n \in Node : at[n] <= epoch /\ acc[n].prom >= acc[n].bal
    /\ \A b \in 1..Ballots : round[b].ok \subseteq Acceptors(round[b].epoch)

(* Answers are prefixes of one history.                                      *)
OneHistory ==
    \A o, p \in Done : IsPrefix(op[o].res, op[p].res) \/ IsPrefix(op[p].res, op[o].res)

(* An answer has all that was answered before its operation began.            *)
RealTime == \A o \in Done : IsPrefix(op[o].must, op[o].res)

(* No operation takes effect twice.                                          *)
TakesEffectOnce ==
    \A o \in Done : LET h == op[o].res IN \A i, j \in 1..Len(h) : h[i] = h[j] => i = j

(* A put or delete that was answered is part of its history.                  *)
TakesEffect ==
    \A o \in Done : Kind[o] \in {"put", "delete"} => Holds(op[o].res, o)

(* A compare-and-set takes effect only on what it expects.                    *)
ComparesWell ==
    \A o \in Done : LET h == op[o].res IN
        \A i \in 1..Len(h) : Kind[h[i]] = "cas" => Shown(SubSeq(h, 1, i - 1)) = Expected
=============================================================================
