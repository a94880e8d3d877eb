------------------------------ MODULE Sessions ------------------------------
(***************************************************************************)
(* What a reader may rely on, and what it must carry with it for that: the    *)
(* four session guarantees (Terry et al., PDIS 1994, section 3) and causality *)
(* across keys (DESIGN 8; I7). The reader's replica checks; no write waits    *)
(* for what it depends on, as in Occult (Mehdi et al., NSDI 2017).            *)
(* "session": a token is the dots read and written; a replica answers, or     *)
(* coordinates, if its clock has those of its partition. "causal": a token is  *)
(* per actor an HLC, and for writes coordinated by fallbacks their dots. A     *)
(* replica of a partition answers if it is safe for each entry whose actor is  *)
(* or was a home replica of that partition:                                 *)
(*   - a pulse "at HLC t my counter is k" with t not below the entry, and      *)
(*     1..k seen here; or                                                    *)
(*   - the actor's final statement "my last counter was k", and 1..k seen; or  *)
(*   - the majority stands in: quorums acknowledged all that the entry stands  *)
(*     for, no voter's clock then after q; and what a majority of replicas     *)
(*     said after q to have seen of the actor is here.                        *)
(*                                                                         *)
(* Replicas join (Causality): a state is the set of writes that it includes.   *)
(* What is said stays true, may be used at any time, and only lets more reads  *)
(* through. So pulses, statements and acknowledgements are no steps: each is   *)
(* made at every moment, and a reader has the one that helps it most:          *)
(*   - of pulses: k = the writes up to t, said just before the next one;       *)
(*   - of r's statements after q the first: what r took while its clock was    *)
(*     not after q (`took`);                                                 *)
(*   - of the quorums that acknowledge the one with the earliest q.            *)
(* But for what a majority says, HLCs are compared with the same actor's only: *)
(* elsewhere a clock just counts its node's writes. Left out: forgetting; the  *)
(* bootstrap of new replicas (Layout), which here only leave; writes of a node *)
(* whose actor ended; under a majority late syncs and other sets of replicas.  *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, TLC

CONSTANTS
    Node, Client, Key,
    OnePartition,   \* TRUE: all keys are of one partition; FALSE: each has its own
    Fallback, Wide, \* nodes that are replicas only of the partitions of the keys in Wide
    MaxWrites, MaxHlc,
    Ticks,          \* TRUE: clocks may run ahead
    Guarantee,      \* "session" or "causal"
    Syncs, Deaths, Leaves, Cuts,       \* TRUE: these are modelled
    SessionCheck,   \* seen "all", or the highest counter ("max", must fail)
    SessionWrites,  \* a write's coordinator has "covered" the session, or is any ("anywhere", must fail)
    SafeTime,       \* "prefix"; "holes", "undelivered", "seen" (all must fail)
    PulseAt,        \* below what is not yet "durable", or "now" (must fail)
    FallbackDots,   \* FALSE must fail
    ReadDeps,       \* what is read is checked with its dependencies "first"; must fail: these
                    \* "alone" are, or are added "after", or "never"
    StandIn,        \* "never"; after "ack time"; must fail: after "write time", for "any" write,
                    \* "sloppy": a fallback's hint counts in the quorum
    Finals,         \* by "all" replicas; by its "own" disk, or "ignored" once it left (both must fail)
    CutWhen         \* what "all" replicas are safe for; must fail: what "one" is, what all have "seen"

VARIABLES
    writes,         \* all writes: dot -> what was written
    hlc, seen,      \* per node: its clock; the dots that it includes
    took,           \* per node: dot -> its clock just before it took it
    home, dead,     \* per partition its replicas now; actors that ended
    finals,         \* final statements [by, part, k]
    tok, did        \* per client: its token; ghosts: the writes of its past, its own, those it read

vars == <<writes, hlc, seen, took, home, dead, finals, tok, did>>

Inf == 99
PartOf == [k \in Key |-> IF OnePartition THEN "p" ELSE k]
Part == {PartOf[k] : k \in Key}
Homes == [p \in Part |-> IF p \in Wide THEN Node ELSE Node \ Fallback]
Dots == DOMAIN writes
W(i) == writes[i]
In(p) == {i \in Dots : i.part = p}
On(k) == {i \in Dots : W(i).key = k}
Of(a, p) == {i \in Dots : i.by = a /\ i.part = p}
Max(s) == IF s = {} THEN 0 ELSE CHOOSE x \in s : \A y \in s : x >= y
Min(s) == CHOOSE x \in s : \A y \in s : x <= y
Counters(s) == {i.n : i \in s}
Most(s, p) == 2 * Cardinality(s) > Cardinality(Homes[p])
NoToken == [ent |-> [a \in Node |-> 0], quo |-> [a \in Node |-> 0], dots |-> {}]
Join(s) == [ent |-> [a \in Node |-> Max({t.ent[a] : t \in s})],
            quo |-> [a \in Node |-> Max({t.quo[a] : t \in s})],
            dots |-> UNION {t.dots : t \in s}]

(* Where the answer to a write tells what the coordinator knows at once, it is *)
(* given at once: nobody but its client is concerned, which waits for it.      *)
AtOnce == ~Syncs /\ StandIn = "never"
Answered(i) == W(i).waits = "nobody"
Durable == IF Syncs THEN {i \in Dots : Answered(i) \/ (i.by \in dead /\ i \in seen[i.by])} ELSE Dots

Late == IF StandIn \in {"ack time", "sloppy"} THEN 1 ELSE 0   \* 1: statements are later than q
(* The HLC by which a quorum has acknowledged dot i, or Inf.                   *)
AckedAt(i) ==
    LET by(t) == {r \in Homes[i.part] : i \in seen[r] /\ took[r][i] <= t}
                 \cup IF StandIn = "sloppy" THEN {"hint"} ELSE {}
    IN  Min({t \in W(i).hlc..MaxHlc : Most(by(t), i.part)} \cup {Inf})
(* The token that stands for dot i, written as w.                              *)
TokenOf(i, w) ==
    IF Guarantee = "session" \/ (FallbackDots /\ ~w.home) THEN [NoToken EXCEPT !.dots = {i}]
    ELSE [NoToken EXCEPT !.ent[i.by] = w.hlc,
                         !.quo[i.by] = CASE StandIn = "never" -> 0
                                         [] StandIn = "any" -> w.hlc
                                         [] AckedAt(i) = Inf -> Inf
                                         [] StandIn = "write time" -> w.hlc
                                         [] OTHER -> AckedAt(i)]

Has(n, a, p, k) == 1..k \subseteq Counters(seen[n] \cap Of(a, p))
Reaches(n, a, p, k) == k <= Max(Counters(seen[n] \cap Of(a, p)))   \* holes or not
SafeFor(n, p, a, t) ==
    \/ n = a /\ a \notin dead
    \/ LET upto == {i \in Of(a, p) : W(i).hlc <= t}
           k == Max(Counters({i \in upto : PulseAt = "now" => W(i).hlc < t}))
       IN  /\ PulseAt = "durable" => upto \subseteq Durable
           /\ CASE SafeTime = "undelivered" -> TRUE
                [] SafeTime = "holes" -> Reaches(n, a, p, k)
                [] OTHER -> Has(n, a, p, k)
    \/ \E f \in finals : f.by = a /\ f.part = p /\ Has(n, a, p, f.k)
StandsIn(n, p, a, q) ==
    LET last == q - 1 + Late
        said(r) == {i \in Of(a, p) \cap seen[r] : took[r][i] <= last}
    IN  /\ StandIn # "never" /\ q # Inf
        /\ Most({r \in Homes[p] : r = n \/ (hlc[r] > last /\ said(r) \subseteq seen[n])}, p)
Covers(n, p, t) ==
    /\ IF SessionCheck = "all" THEN t.dots \cap In(p) \subseteq seen[n]
       ELSE \A a \in Node : Reaches(n, a, p, Max(Counters(t.dots \cap Of(a, p))))
    /\ IF SafeTime = "seen"
       THEN Max({t.ent[a] : a \in Node}) <= Max({W(i).hlc : i \in seen[n]})
       ELSE \A a \in (IF Finals = "ignored" THEN home[p] ELSE Homes[p]) :
               t.ent[a] = 0 \/ SafeFor(n, p, a, t.ent[a]) \/ StandsIn(n, p, a, t.quo[a])

Shown(n, k) == seen[n] \cap On(k)
Brings(c, n, k) ==
    Join({tok[c]} \cup {TokenOf(i, W(i)) : i \in Shown(n, k)} \cup
         IF Guarantee = "session" \/ ReadDeps = "never" THEN {} ELSE {W(i).deps : i \in Shown(n, k)})
(* Whether n may answer client c's read of key k.                              *)
Answers(c, n, k) ==
    /\ n \in home[PartOf[k]]
    /\ \A i \in Shown(n, k) : i.by = n => i \in Durable
    /\ Covers(n, PartOf[k],
              CASE ReadDeps = "first" -> Brings(c, n, k)
                [] ReadDeps = "alone" -> Join({tok[c]} \cup {W(i).deps : i \in Shown(n, k)})
                [] OTHER -> tok[c])
(* Client c has written s, read r, and what lies before that is of its past.   *)
Knows(c, s, r) ==
    IF Guarantee = "session" THEN [did EXCEPT ![c].mine = @ \cup s, ![c].read = @ \cup r]
    ELSE [did EXCEPT ![c].past = @ \cup s \cup r \cup UNION {W(i).past : i \in r}]
Waits(c) == \E i \in Dots : W(i).waits = c /\ i.by \notin dead

Init ==
    /\ writes = <<>> /\ hlc = [n \in Node |-> 0]
    /\ seen = [n \in Node |-> {}] /\ took = [n \in Node |-> <<>>]
    /\ home = [p \in Part |-> Homes[p]] /\ dead = {} /\ finals = {}
    /\ tok = [c \in Client |-> NoToken]
    /\ did = [c \in Client |-> [past |-> {}, mine |-> {}, read |-> {}]]

(* Node n takes the dots s, and its clock goes on to t. (No q is below 1.)     *)
Take(n, s, t) ==
    /\ seen' = [seen EXCEPT ![n] = @ \cup s]
    /\ IF StandIn = "never" THEN UNCHANGED took
       ELSE took' = [took EXCEPT ![n] = [i \in s \ seen[n] |-> Max({hlc[n], Late})] @@ @]
    /\ hlc' = [hlc EXCEPT ![n] = t]

(* Read: client c reads key k at replica n. *)
Read(c, n, k) ==
    /\ Shown(n, k) # {} /\ (IF Answers(c, n, k) THEN TRUE ELSE FALSE)
    /\ tok' = [tok EXCEPT ![c] = Brings(c, n, k)]
    /\ did' = Knows(c, {}, Shown(n, k))
    /\ UNCHANGED <<writes, hlc, seen, took, home, dead, finals>>

(* Write: client c writes key k at node n, a replica or a fallback. *)
Write(c, n, k) ==
    LET p == PartOf[k]
        i == [by |-> n, part |-> p, n |-> Cardinality(Of(n, p)) + 1]
        w == [key |-> k, hlc |-> hlc[n] + 1, home |-> n \in home[p], deps |-> tok[c],
              incl |-> Shown(n, k), waits |-> IF AtOnce THEN "nobody" ELSE c,
              past |-> did[c].past, mine |-> did[c].mine, read |-> did[c].read]
    IN  /\ Cardinality(Dots) < MaxWrites /\ hlc[n] < MaxHlc /\ n \notin dead /\ ~Waits(c)
        /\ \A f \in finals : ~(f.by = n /\ f.part = p)     \* it has said its last here
        /\ Guarantee = "session" /\ SessionWrites = "covered" =>
              (IF Covers(n, p, tok[c]) THEN TRUE ELSE FALSE)
        /\ writes' = writes @@ (i :> w)
        /\ Take(n, {i}, hlc[n] + 1)
        /\ IF AtOnce
           THEN tok' = [tok EXCEPT ![c] = Join({@, TokenOf(i, w)})] /\ did' = Knows(c, {i}, {})
           ELSE UNCHANGED <<tok, did>>
        /\ UNCHANGED <<home, dead, finals>>

(* Answer: dot i is durable at its coordinator, and its client is told. *)
Answer(i) ==
    LET c == W(i).waits
    IN  /\ ~Answered(i) /\ i.by \notin dead
        /\ writes' = [writes EXCEPT ![i].waits = "nobody"]
        /\ tok' = [tok EXCEPT ![c] = Join({@, TokenOf(i, W(i))})]
        /\ did' = Knows(c, {i}, {})
        /\ UNCHANGED <<hlc, seen, took, home, dead, finals>>

Void(i) == \E f \in finals : f.by = i.by /\ f.part = i.part /\ f.k < i.n
(* Replicate: replica n joins the object that the write with dot i made. *)
Replicate(n, i) ==
    LET s == W(i).incl \cup {i}
    IN  /\ n \in home[i.part] /\ i \notin seen[n] /\ \A j \in s : ~Void(j)
        /\ Take(n, s, IF StandIn = "never" THEN hlc[n] ELSE Max({hlc[n], W(i).hlc}))
        /\ UNCHANGED <<writes, home, dead, finals, tok, did>>

(* Tick: the clock of node n goes on. *)
Tick(n) ==
    /\ Ticks /\ hlc[n] < MaxHlc
    /\ hlc' = [hlc EXCEPT ![n] = @ + 1]
    /\ UNCHANGED <<writes, seen, took, home, dead, finals, tok, did>>

(* Die: actor a ends, and with it what it had not synced; its node goes on under another. *)
Die(a) ==
    LET disk == {i \in seen[a] : i.by # a \/ i \in Durable}
    IN  /\ Deaths /\ a \notin dead /\ dead' = dead \cup {a}
        /\ seen' = [seen EXCEPT ![a] = disk \cup UNION {W(i).incl : i \in disk}]
        /\ UNCHANGED <<writes, hlc, took, home, finals, tok, did>>

(* Leave: node a is no longer a replica of partition p. *)
Leave(a, p) ==
    /\ Leaves /\ a \in home[p] /\ Cardinality(home[p]) > 1 /\ Of(a, p) \cap seen[a] \subseteq Durable
    /\ home' = [home EXCEPT ![p] = @ \ {a}]
    /\ UNCHANGED <<writes, hlc, seen, took, dead, finals, tok, did>>

(* Final: the last counter of actor a on partition p is settled; later ones are void. *)
Final(a, p) ==
    LET own == Of(a, p) \cap Durable
        known == own \cup IF Finals = "own" THEN {} ELSE Of(a, p) \cap UNION {seen[n] : n \in Homes[p]}
    IN  /\ Guarantee = "causal" /\ a \in Homes[p] /\ (a \in dead \/ a \notin home[p])
        /\ \A f \in finals : ~(f.by = a /\ f.part = p)
        /\ finals' = finals \cup {[by |-> a, part |-> p, k |-> Max(Counters(known))]}
        /\ UNCHANGED <<writes, hlc, seen, took, home, dead, tok, did>>

Stable(at, safe) == Cuts /\ IF CutWhen = "one" THEN safe # {} ELSE safe = at
(* Cut: client c drops from its token the entry of actor a, which is stable. *)
Cut(c, a) ==
    LET at == {<<n, p>> \in Node \X Part : a \in Homes[p] /\ n \in home[p]}
    IN  /\ tok[c].ent[a] > 0
        /\ Stable(at, {x \in at : SafeFor(x[1], x[2], a, tok[c].ent[a])})
        /\ tok' = [tok EXCEPT ![c].ent[a] = 0, ![c].quo[a] = 0]
        /\ UNCHANGED <<writes, hlc, seen, took, home, dead, finals, did>>

(* Drop: client c drops from its token dot i, which is stable. *)
Drop(c, i) ==
    /\ i \in tok[c].dots
    /\ Stable(home[i.part], {n \in home[i.part] :
                                i \in seen[n] /\ (n = i.by => i \in Durable \/ CutWhen = "seen")})
    /\ tok' = [tok EXCEPT ![c].dots = @ \ {i}]
    /\ UNCHANGED <<writes, hlc, seen, took, home, dead, finals, did>>

Next ==
    \/ \E c \in Client, n \in Node, k \in Key : Read(c, n, k) \/ Write(c, n, k)
    \/ \E i \in Dots : Answer(i)
    \/ \E i \in Dots, n \in Node : Replicate(n, i)
    \/ \E i \in Dots, c \in Client : Drop(c, i)
    \/ \E n \in Node : Tick(n) \/ Die(n)
    \/ \E n \in Node, p \in Part : Leave(n, p) \/ Final(n, p)
    \/ \E n \in Node, c \in Client : Cut(c, n)

Spec == Init /\ [][Next]_vars
Alike == Permutations(Client) \cup Permutations(Key \ Wide) \cup Permutations(Node \ Fallback)

-----------------------------------------------------------------------------
TypeOK ==
    /\ hlc \in [Node -> 0..MaxHlc] /\ \A n \in Node : seen[n] \subseteq Dots
    /\ \A c \in Client : tok[c].dots \subseteq Dots

(* Each speaks of every read that a replica would answer now. Under "causal"   *)
(* the last one is all there is to check, and the ghosts of the others idle.   *)
Promise(Kept(_, _, _)) == \A c \in Client, n \in Node, k \in Key : Answers(c, n, k) => Kept(c, n, k)
Mine(c, n, k) == did[c].mine \cap On(k) \subseteq seen[n]
Before(c, n, k) == did[c].read \cap On(k) \subseteq seen[n]
After(c, n, k) == \A i \in Shown(n, k) : W(i).mine \cap On(k) \subseteq seen[n]
Follows(c, n, k) == \A i \in Shown(n, k) : W(i).read \cap On(k) \subseteq seen[n]
Causes(c, n, k) ==
    (did[c].past \cup UNION {W(i).past : i \in Shown(n, k)}) \cap On(k) \subseteq seen[n]

ReadYourWrites == Promise(Mine)
MonotonicReads == Promise(Before)
MonotonicWrites == Promise(After)
WritesFollowReads == Promise(Follows)
CausalAcrossKeys == Guarantee = "causal" => Promise(Causes)
=============================================================================
