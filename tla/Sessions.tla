------------------------------ MODULE Sessions ------------------------------
(***************************************************************************)
(* What a reader may rely on, and what it must carry with it for that: the    *)
(* four session guarantees and causality across keys (DESIGN 8; I7). The      *)
(* reader's replica checks; no write waits for what it depends on, as in      *)
(* Occult (Mehdi et al., NSDI 2017). The guarantees: Terry et al., PDIS 1994. *)
(*                                                                         *)
(* "session": the client keeps which writes of a partition it has read and    *)
(* written, and a replica answers, or coordinates, if its clock has them.     *)
(* "causal": it keeps per actor an HLC, and for writes that were coordinated   *)
(* by fallbacks their dots. A replica of a partition answers if it is safe     *)
(* for each entry whose actor is or was a home replica of that partition:     *)
(*   - a pulse "at HLC t my counter is k" with t not below the entry, and      *)
(*     1..k seen here; or                                                    *)
(*   - the actor's final statement "my last counter was k", and 1..k seen; or  *)
(*   - all that the entry stands for was acknowledged by a quorum at HLC q,    *)
(*     and all that a majority said after q to have seen of the actor is here. *)
(*                                                                         *)
(* Replicas join (Causality): a state is the set of writes that it includes.  *)
(* A pulse or statement once made stays true and may be used at any time.     *)
(* `past`, `mine`, `read` are the model's truth. Left out: forgetting, the     *)
(* bootstrap of new replicas (Layout), which here only leave.                 *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, Sequences, TLC

CONSTANTS
    Node, Client, Key,
    OnePartition,   \* TRUE: all keys are of one partition; FALSE: each has its own
    Fallback,       \* nodes that are no replicas (but of the partition of "k2", if that is another)
    MaxWrites, MaxHlc, Ticking,        \* Ticking: nodes whose clock may run ahead
    Guarantee,      \* "session" or "causal"
    Syncs, Deaths, Leaves, Cuts,       \* TRUE: these are modelled
    SessionCheck,   \* seen "all", or the highest counter ("max", must fail)
    SessionWrites,  \* a write's coordinator has "covered" the session, or is any ("anywhere", must fail)
    SafeTime,       \* "prefix"; "holes", "undelivered", "seen" (all must fail)
    PulseAt,        \* below what is not yet "durable", or "now" (must fail)
    FallbackDots,   \* FALSE must fail
    ReadDeps,       \* what is read is checked with its dependencies "first", or these are
                    \* added "after", or "never" (both must fail)
    StandIn,        \* "never"; after "ack time"; after "write time", for "any" write (both must fail)
    Finals,         \* by "all" replicas; by the node's own disk ("own", must fail);
                    \* "ignored": an actor that has left is not asked for (must fail)
    CutWhen         \* an entry is dropped when "all" replicas are safe, or "one" (must fail)

VARIABLES
    writes,         \* all writes, in order
    hlc, seen,      \* per node: its clock; the writes that it includes
    synced, acked,  \* writes that their coordinator has on disk; per write the HLC of its quorum, or 0
    said, stated,   \* pulses [by, part, t, k]; statements [by, part, t, ids]
    home, dead,     \* per partition its replicas now; actors that ended
    finals,         \* final statements [by, part, k]
    tok, sess, did  \* per client: causal token, session token, ghosts

vars == <<writes, hlc, seen, synced, acked, said, stated, home, dead, finals, tok, sess, did>>

Inf == 99
PartOf == [k \in Key |-> IF OnePartition THEN "p" ELSE k]
Part == {PartOf[k] : k \in Key}
Homes == [p \in Part |-> IF p = "k2" THEN Node ELSE Node \ Fallback]
Ids == 1..Len(writes)
W(i) == writes[i]
In(p) == {i \in Ids : PartOf[W(i).key] = p}
On(k) == {i \in Ids : W(i).key = k}
Of(a, p) == {i \in In(p) : W(i).by = a}
Max(s) == IF s = {} THEN 0 ELSE CHOOSE x \in s : \A y \in s : x >= y
Counters(s) == {W(i).n : i \in s}
NoToken == [ent |-> [a \in Node |-> 0], quo |-> [a \in Node |-> 0], dots |-> {}]
Join(t, u) == [ent |-> [a \in Node |-> Max({t.ent[a], u.ent[a]})],
               quo |-> [a \in Node |-> Max({t.quo[a], u.quo[a]})],
               dots |-> t.dots \cup u.dots]
RECURSIVE JoinAll(_)
JoinAll(s) == IF s = {} THEN NoToken
              ELSE LET t == CHOOSE x \in s : TRUE IN Join(t, JoinAll(s \ {t}))

(* The entry that write i is to who depends on it.                            *)
EntryOf(i) ==
    LET w == W(i)
        quo == CASE StandIn = "any" -> w.hlc
                 [] acked[i] = 0 -> Inf
                 [] StandIn = "write time" -> w.hlc
                 [] OTHER -> acked[i]
    IN  IF w.home \/ ~FallbackDots
        THEN [NoToken EXCEPT !.ent[w.by] = w.hlc, !.quo[w.by] = quo]
        ELSE [NoToken EXCEPT !.dots = {i}]

Has(n, a, p, k) == 1..k \subseteq Counters(seen[n] \cap Of(a, p))
SafeFor(n, p, a, t) ==
    \/ n = a /\ a \notin dead
    \/ \E s \in said : /\ s.by = a /\ s.part = p /\ s.t >= t
                       /\ CASE SafeTime = "undelivered" -> TRUE
                            [] SafeTime = "holes" -> s.k <= Max(Counters(seen[n] \cap Of(a, p)))
                            [] OTHER -> Has(n, a, p, s.k)
    \/ \E f \in finals : f.by = a /\ f.part = p /\ Has(n, a, p, f.k)
StandsIn(n, p, a, q) ==
    /\ StandIn # "never" /\ q # Inf
    /\ \E m \in SUBSET Homes[p] :
        /\ 2 * Cardinality(m) > Cardinality(Homes[p])
        /\ \A r \in m \ {n} : \E s \in stated :
              /\ s.by = r /\ s.part = p
              /\ IF StandIn = "ack time" THEN s.t > q ELSE s.t >= q
              /\ s.ids \cap Of(a, p) \subseteq seen[n]
Covers(n, p, t) ==
    /\ t.dots \cap In(p) \subseteq seen[n]
    /\ IF SafeTime = "seen"
       THEN Max({t.ent[a] : a \in Node}) <= Max({W(i).hlc : i \in seen[n]})
       ELSE \A a \in (IF Finals = "ignored" THEN home[p] ELSE Homes[p]) :
               t.ent[a] = 0 \/ SafeFor(n, p, a, t.ent[a]) \/ StandsIn(n, p, a, t.quo[a])
CoversSession(n, p, s) ==
    IF SessionCheck = "all" THEN s \cap In(p) \subseteq seen[n]
    ELSE \A a \in Node : Max(Counters(s \cap Of(a, p))) <= Max(Counters(seen[n] \cap Of(a, p)))

Shown(n, k) == seen[n] \cap On(k)
Brings(c, n, k) == Join(tok[c], JoinAll({EntryOf(i) : i \in Shown(n, k)} \cup
                        IF ReadDeps = "never" THEN {} ELSE {W(i).deps : i \in Shown(n, k)}))
(* Whether n may answer client c's read of key k.                             *)
Answers(c, n, k) ==
    /\ n \in home[PartOf[k]]
    /\ \A i \in Shown(n, k) : W(i).by = n => i \in synced
    /\ IF Guarantee = "session" THEN CoversSession(n, PartOf[k], sess[c])
       ELSE Covers(n, PartOf[k], IF ReadDeps = "first" THEN Brings(c, n, k) ELSE tok[c])

Init ==
    /\ writes = <<>> /\ hlc = [n \in Node |-> 0] /\ seen = [n \in Node |-> {}]
    /\ synced = {} /\ acked = [i \in 1..MaxWrites |-> 0] /\ said = {} /\ stated = {}
    /\ home = [p \in Part |-> Homes[p]] /\ dead = {} /\ finals = {}
    /\ tok = [c \in Client |-> NoToken] /\ sess = [c \in Client |-> {}]
    /\ did = [c \in Client |-> [past |-> {}, mine |-> {}, read |-> {}]]

(* Read: client c reads key k at replica n. *)
Read(c, n, k) ==
    LET s == Shown(n, k)
    IN  /\ s # {} /\ (IF Answers(c, n, k) THEN TRUE ELSE FALSE)
        /\ tok' = IF Guarantee = "causal" THEN [tok EXCEPT ![c] = Brings(c, n, k)] ELSE tok
        /\ sess' = IF Guarantee = "session" THEN [sess EXCEPT ![c] = @ \cup s] ELSE sess
        /\ did' = [did EXCEPT ![c].read = @ \cup s,
                              ![c].past = @ \cup s \cup UNION {W(i).past : i \in s}]
        /\ UNCHANGED <<writes, hlc, seen, synced, acked, said, stated, home, dead, finals>>

(* Write: client c writes key k at node n, a replica or a fallback. *)
Write(c, n, k) ==
    LET p == PartOf[k]
        w == [key |-> k, by |-> n, n |-> Cardinality(Of(n, p)) + 1, hlc |-> hlc[n] + 1,
              home |-> n \in home[p], deps |-> tok[c], incl |-> Shown(n, k), client |-> c,
              past |-> did[c].past, mine |-> did[c].mine, read |-> did[c].read]
    IN  /\ Len(writes) < MaxWrites /\ hlc[n] < MaxHlc /\ n \notin dead
        /\ \A i \in Ids : W(i).client = c => i \in synced \/ W(i).by \in dead
        /\ Guarantee = "session" /\ SessionWrites = "covered" =>
              (IF CoversSession(n, p, sess[c]) THEN TRUE ELSE FALSE)
        /\ writes' = Append(writes, w)
        /\ hlc' = [hlc EXCEPT ![n] = @ + 1]
        /\ seen' = [seen EXCEPT ![n] = @ \cup {Len(writes) + 1}]
        /\ UNCHANGED <<synced, acked, said, stated, home, dead, finals, tok, sess, did>>

(* Sync: write i is durable at its coordinator, and its client is answered. *)
Sync(i) ==
    LET c == W(i).client
    IN  /\ i \notin synced /\ W(i).by \notin dead
        /\ synced' = synced \cup {i}
        /\ tok' = IF Guarantee = "causal" THEN [tok EXCEPT ![c] = Join(@, EntryOf(i))] ELSE tok
        /\ sess' = IF Guarantee = "session" THEN [sess EXCEPT ![c] = @ \cup {i}] ELSE sess
        /\ did' = [did EXCEPT ![c].mine = @ \cup {i}, ![c].past = @ \cup {i}]
        /\ UNCHANGED <<writes, hlc, seen, acked, said, stated, home, dead, finals>>

Void(i) == \E f \in finals : f.by = W(i).by /\ f.part = PartOf[W(i).key] /\ f.k < W(i).n
(* Replicate: replica n joins the object that write i made. *)
Replicate(n, i) ==
    /\ n \in home[PartOf[W(i).key]] /\ i \notin seen[n]
    /\ {j \in W(i).incl \cup {i} : Void(j)} = {} /\ (Syncs \/ i \in synced)
    /\ seen' = [seen EXCEPT ![n] = @ \cup W(i).incl \cup {i}]
    /\ hlc' = [hlc EXCEPT ![n] = Max({@, W(i).hlc})]
    /\ UNCHANGED <<writes, synced, acked, said, stated, home, dead, finals, tok, sess, did>>

(* Acknowledge: a quorum of replicas has write i; the latest of their clocks is kept. *)
Acknowledge(i) ==
    /\ StandIn # "never" /\ acked[i] = 0 /\ i \in synced /\ W(i).home
    /\ \E q \in SUBSET Homes[PartOf[W(i).key]] :
        /\ 2 * Cardinality(q) > Cardinality(Homes[PartOf[W(i).key]])
        /\ \A r \in q : i \in seen[r]
        /\ acked' = [acked EXCEPT ![i] = Max({hlc[r] : r \in q})]
    /\ UNCHANGED <<writes, hlc, seen, synced, said, stated, home, dead, finals, tok, sess, did>>

(* Pulse: node a says how far its durable writes go, on each partition. *)
Pulse(a) ==
    LET open == {W(i).hlc : i \in {j \in Ids \ synced : W(j).by = a}}
        t == IF PulseAt = "now" \/ open = {} THEN hlc[a]
             ELSE (CHOOSE x \in open : \A y \in open : x <= y) - 1
        new == {[by |-> a, part |-> p, t |-> t, k |-> Max(Counters(Of(a, p) \cap synced))]
                   : p \in {q \in Part : a \in home[q]}}
    IN  /\ Guarantee = "causal" /\ a \notin dead /\ t > 0 /\ ~(new \subseteq said)
        /\ said' = said \cup new
        /\ UNCHANGED <<writes, hlc, seen, synced, acked, stated, home, dead, finals, tok, sess, did>>

(* State: replica r says what it has seen of partition p. *)
State(r, p) ==
    LET s == [by |-> r, part |-> p, t |-> hlc[r], ids |-> seen[r] \cap In(p)]
    IN  /\ StandIn # "never" /\ r \in home[p] /\ s \notin stated
        /\ stated' = stated \cup {s}
        /\ UNCHANGED <<writes, hlc, seen, synced, acked, said, home, dead, finals, tok, sess, did>>

(* Tick: the clock of node n goes on. *)
Tick(n) ==
    /\ n \in Ticking /\ hlc[n] < MaxHlc
    /\ hlc' = [hlc EXCEPT ![n] = @ + 1]
    /\ UNCHANGED <<writes, seen, synced, acked, said, stated, home, dead, finals, tok, sess, did>>

(* Die: actor a ends, and with it what it had not synced; its node goes on under another. *)
Die(a) ==
    /\ Deaths /\ a \notin dead /\ dead' = dead \cup {a}
    /\ seen' = [seen EXCEPT ![a] = {i \in @ : W(i).by # a \/ i \in synced}]
    /\ UNCHANGED <<writes, hlc, synced, acked, said, stated, home, finals, tok, sess, did>>

(* Leave: node a is no longer a replica of partition p. *)
Leave(a, p) ==
    /\ Leaves /\ a \in home[p] /\ Cardinality(home[p]) > 1 /\ Of(a, p) \subseteq synced
    /\ home' = [home EXCEPT ![p] = @ \ {a}]
    /\ UNCHANGED <<writes, hlc, seen, synced, acked, said, stated, dead, finals, tok, sess, did>>

(* Final: the last counter of actor a on partition p is settled; later ones are void. *)
Final(a, p) ==
    LET own == Of(a, p) \cap synced
        known == IF Finals = "own" THEN own ELSE own \cup (Of(a, p) \cap UNION {seen[n] : n \in Homes[p]})
        f == [by |-> a, part |-> p, k |-> Max(Counters(known))]
    IN  /\ Guarantee = "causal" /\ a \in Homes[p] /\ (a \in dead \/ a \notin home[p])
        /\ \A g \in finals : ~(g.by = a /\ g.part = p)
        /\ finals' = finals \cup {f}
        /\ UNCHANGED <<writes, hlc, seen, synced, acked, said, stated, home, dead, tok, sess, did>>

(* Cut: client c drops from its token the entry of actor a, which is stable. *)
Cut(c, a) ==
    LET at == {<<n, p>> \in Node \X Part : a \in Homes[p] /\ n \in home[p]}
        safe == {x \in at : SafeFor(x[1], x[2], a, tok[c].ent[a])}
    IN  /\ Cuts /\ tok[c].ent[a] > 0
        /\ IF CutWhen = "all" THEN safe = at ELSE safe # {}
        /\ tok' = [tok EXCEPT ![c].ent[a] = 0, ![c].quo[a] = 0]
        /\ UNCHANGED <<writes, hlc, seen, synced, acked, said, stated, home, dead, finals, sess, did>>

Next ==
    \/ \E c \in Client, n \in Node, k \in Key : Read(c, n, k) \/ Write(c, n, k)
    \/ \E i \in Ids :
        \/ Sync(i) \/ Acknowledge(i)
        \/ \E n \in Node : Replicate(n, i)
    \/ \E n \in Node :
        \/ Pulse(n) \/ Tick(n) \/ Die(n)
        \/ \E p \in Part : State(n, p) \/ Leave(n, p) \/ Final(n, p)
        \/ \E c \in Client : Cut(c, n)

Spec == Init /\ [][Next]_vars
Alike == Permutations(Client)

-----------------------------------------------------------------------------
TypeOK ==
    /\ hlc \in [Node -> 0..MaxHlc] /\ synced \subseteq Ids
    /\ \A n \in Node : seen[n] \subseteq Ids
    /\ \A c \in Client : sess[c] \cup tok[c].dots \subseteq Ids

(* Each speaks of every read that a replica would answer now.                 *)
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
