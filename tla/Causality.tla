----------------------------- MODULE Causality -----------------------------
(***************************************************************************)
(* What a value, its siblings, a delete and a causal context are, and why  *)
(* `join` loses nothing (DESIGN 3; invariants I4, I5).                      *)
(*                                                                         *)
(* One key of one partition. Replicas take puts and deletes, each with a    *)
(* context that some client was given earlier, or none. Every object that   *)
(* was ever shipped may arrive anywhere, at any time, any number of times:  *)
(* `sent` only grows. Beside what the database keeps, the model keeps what  *)
(* really happened: which writes a state includes, and which writes a       *)
(* writer had seen, as explicit sets. The invariants compare the two.       *)
(*                                                                         *)
(* Left out: quorums, crashes, the network's losses (Replication), values   *)
(* (a dot stands for its value), several keys, holes in clocks (Stability). *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Replica,        \* each is also the one actor that it is in this model
    MaxWrites,      \* puts and deletes in all
    Client,         \* each holds one context at a time
    WriterContext,  \* "closed" as built, or "dot added" (must fail), see Given
    Reduction,      \* TRUE: contexts are reduced when stable
    AnswersCarryClocks  \* TRUE: answers to reads are joined under clocks (see Read)

ASSUME WriterContext \in {"closed", "dot added"} /\ Reduction \in BOOLEAN

VARIABLES
    obj,      \* per replica its object, with `in`: the writes that it includes
    seen,     \* per replica its partition clock: the set of dots it has seen
    sent,     \* every object that was shipped
    token,    \* per client its context, with `in`: the writes it accounts for
    past,     \* per issued dot, the writes that its writer had seen
    answer    \* the last answer to a read

vars == <<obj, seen, sent, token, past, answer>>

Dot   == [actor: Replica, n: 1..MaxWrites]
Vector == [Replica -> 0..MaxWrites]
None  == [a \in Replica |-> 0]
Issued == {w.dot : w \in past}
Deletes == {w.dot : w \in {v \in past : v.del}}
PastOf(d) == (CHOOSE w \in past : w.dot = d).saw

Max(m, n) == IF m > n THEN m ELSE n
Covers(v, d) == d.n <= v[d.actor]
Merge(v, w) == [a \in Replica |-> Max(v[a], w[a])]
Add(v, d) == [v EXCEPT ![d.actor] = Max(@, d.n)]

(* DESIGN 3: a sibling stays if both have it, or the other has not seen it.  *)
Join(x, y) ==
    [sib |-> (x.sib \cap y.sib)
             \cup {d \in x.sib : ~Covers(y.ctx, d)}
             \cup {d \in y.sib : ~Covers(x.ctx, d)},
     ctx |-> Merge(x.ctx, y.ctx),
     in  |-> x.in \cup y.in]

(* The dots that an object names: its siblings and its context's entries.    *)
Names(o) == o.sib \cup {d \in Dot : o.ctx[d.actor] = d.n}

Nothing == [sib |-> {}, ctx |-> None, in |-> {}]
NoToken == [ctx |-> None, in |-> {}]

Init ==
    /\ obj = [r \in Replica |-> Nothing]
    /\ seen = [r \in Replica |-> {}]
    /\ sent = {}
    /\ token = [c \in Client |-> NoToken]
    /\ past = {}
    /\ answer = Nothing

(***************************************************************************)
(* What a writer is given. An entry of a vector covers all smaller counters *)
(* of its actor, so "my context and my dot" may cover a sibling that the    *)
(* writer never saw: one that the same actor gave to another client. Hence  *)
(* the rule: everything, if nothing else is alive; else its own context and *)
(* the dot, unless that would cover a live sibling; else its own context.   *)
(***************************************************************************)
Given(r, t, d, o) ==
    LET plain == [ctx |-> Add(t.ctx, d), in |-> t.in \cup {d}]
        unread == {e \in Issued : e.actor = d.actor /\ e.n < d.n /\ e \notin t.in}
    IN  IF WriterContext = "dot added" THEN plain
        ELSE IF o.sib \subseteq {d} THEN [ctx |-> o.ctx, in |-> o.in]
        ELSE IF unread = {} THEN plain
        ELSE t

Write(r, c, t, del) ==
    LET d == [actor |-> r, n |-> Cardinality({e \in Issued : e.actor = r}) + 1]
        kept == {e \in obj[r].sib : ~Covers(t.ctx, e)}
        new == [sib |-> IF del THEN kept ELSE kept \cup {d},
                ctx |-> Add(Merge(obj[r].ctx, t.ctx), d),
                in  |-> obj[r].in \cup t.in \cup {d}]
    IN  /\ Cardinality(past) < MaxWrites
        /\ del => t # NoToken
        /\ obj' = [obj EXCEPT ![r] = new]
        /\ seen' = [seen EXCEPT ![r] = @ \cup Names(new)]
        /\ sent' = sent \cup {new}
        /\ UNCHANGED answer
        /\ past' = past \cup {[dot |-> d, saw |-> t.in, del |-> del]}
        (* The client takes what it is given, or goes on with what it has.   *)
        /\ \E next \in {Given(r, t, d, new), token[c]} : token' = [token EXCEPT ![c] = next]

(***************************************************************************)
(* The late message rule (DESIGN 7): what was seen here and is not alive    *)
(* here was overwritten here, even if the object that said so is gone.      *)
(***************************************************************************)
Receive(r, o) ==
    LET late == {d \in o.sib : d \in seen[r] /\ d \notin obj[r].sib}
        new == Join(obj[r], [o EXCEPT !.sib = @ \ late])
    IN  /\ obj' = [obj EXCEPT ![r] = new]
        /\ seen' = [seen EXCEPT ![r] = @ \cup Names(o)]
        /\ UNCHANGED <<sent, token, past, answer>>

(* A replica ships what it has: read repair, hand-off, anti-entropy.         *)
Ship(r) ==
    /\ obj[r].in # {}
    /\ sent' = sent \cup {obj[r]}
    /\ UNCHANGED <<obj, seen, token, past, answer>>

(***************************************************************************)
(* A client reads: a coordinator joins what replica r holds with an answer  *)
(* that another replica gave, maybe long ago. Once contexts are reduced the *)
(* join needs r's clock as well: r's object no longer says that it has      *)
(* overwritten what the old answer holds.                                   *)
(***************************************************************************)
Read(r, c, o) ==
    /\ LET late == {d \in o.sib : d \in seen[r] /\ d \notin obj[r].sib}
           other == IF AnswersCarryClocks THEN [o EXCEPT !.sib = @ \ late] ELSE o
       IN  answer' = Join(obj[r], other)
    /\ token' = [token EXCEPT ![c] = [ctx |-> answer'.ctx, in |-> answer'.in]]
    /\ UNCHANGED <<obj, seen, sent, past>>

(* Stable: every replica has seen this actor's dots up to here, all of them. *)
Prefix(r, a) ==
    CHOOSE n \in 0..MaxWrites :
        /\ \A m \in 1..n : [actor |-> a, n |-> m] \in seen[r]
        /\ n = MaxWrites \/ [actor |-> a, n |-> n + 1] \notin seen[r]
IsStable(v) == \A a \in Replica, r \in Replica : v[a] <= Prefix(r, a)

Reduce(r) ==
    LET live == [a \in Replica |->
                    LET mine == {d.n : d \in {e \in obj[r].sib : e.actor = a}}
                    IN  IF mine = {} THEN 0 ELSE CHOOSE n \in mine : \A m \in mine : m <= n]
    IN  /\ Reduction
        /\ IsStable(obj[r].ctx)
        /\ obj' = [obj EXCEPT ![r].ctx = live]
        /\ UNCHANGED <<seen, sent, token, past, answer>>

Next ==
    \/ \E r \in Replica :
        \/ \E c \in Client, del \in BOOLEAN :
              \E t \in {token[c], NoToken} : Write(r, c, t, del)
        \/ \E c \in Client, o \in sent \cup {Nothing} : Read(r, c, o)
        \/ \E o \in sent : Receive(r, o)
        \/ Ship(r)
        \/ Reduce(r)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A r \in Replica : obj[r].sib \subseteq Dot /\ obj[r].ctx \in Vector
    /\ \A r \in Replica : seen[r] \subseteq Dot
    /\ \A c \in Client : token[c].ctx \in Vector /\ token[c].in \subseteq Issued

(* The model's truth: of the writes `in`, those that none of them had seen.  *)
Alive(in) == {d \in in \ Deletes : \A e \in in : d \notin PastOf(e)}

(* I5 and I4 in one: a replica shows exactly the causally latest writes of   *)
(* those that it includes. Nothing concurrent is lost, nothing overwritten   *)
(* stays or returns.                                                         *)
SiblingsAreTheLatest ==
    /\ \A r \in Replica : obj[r].sib = Alive(obj[r].in)
    /\ answer.sib = Alive(answer.in)

(* A context covers no write that its holder does not account for.           *)
ContextsClaimNoMore ==
    /\ \A c \in Client, d \in Issued : Covers(token[c].ctx, d) => d \in token[c].in
    /\ \A r \in Replica : \A d \in Issued : Covers(obj[r].ctx, d) => d \in obj[r].in

(* What was seen has been accounted for (the ground of I3).                  *)
SeenIsIncluded == \A r \in Replica : seen[r] \subseteq obj[r].in

(* I3: equal clocks, equal live states.                                      *)
EqualClocksEqualStates ==
    \A r, s \in Replica : seen[r] = seen[s] => obj[r].sib = obj[s].sib

JoinLaws ==
    \A x, y \in sent :
        /\ Join(x, x) = x
        /\ Join(x, y) = Join(y, x)
        /\ \A z \in sent : Join(Join(x, y), z) = Join(x, Join(y, z))
=============================================================================
