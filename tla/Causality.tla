----------------------------- MODULE Causality -----------------------------
(***************************************************************************)
(* What a value, its siblings, a delete and a causal context are, and why   *)
(* `join` loses nothing and brings nothing back (DESIGN 3 and 7; invariants *)
(* I3, I4, I5).                                                             *)
(*                                                                          *)
(* One key of one partition. Replicas take puts and deletes, each with a    *)
(* context that some client was given at any time before, or none. Every    *)
(* state that a replica ever had may arrive anywhere, late, often, in any   *)
(* order: `sent` only grows. Reads are no steps but functions of `sent`: a  *)
(* read joins states that replicas had at any two times, and whatever it    *)
(* can give may be a writer's context or be sent on as read repair.         *)
(*                                                                          *)
(* Beside what the database keeps, the model keeps what really happened:    *)
(* `in`, the writes that a state includes, and `past`, the writes that each *)
(* writer had seen, as explicit sets. The invariants compare the two.       *)
(*                                                                          *)
(* Left out: quorums, crashes, losses (Replication); values, since a dot    *)
(* stands for its value; several keys; runs of a node, logs, forgetting     *)
(* whole objects (Stability); last-writer-wins, where join is a maximum.    *)
(*                                                                          *)
(* Sources: dotted version vectors, Preguica et al., PODC 2012, at length   *)
(* arXiv 1011.5808; dot stores under one context, Almeida, Shoker, Baquero, *)
(* JPDC 2018; clocks beside objects, Goncalves et al., DottedDB, SRDS 2017. *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets, TLC

CONSTANTS
    Replica,        \* each is also the one actor that it is in this model
    MaxWrites,      \* puts and deletes in all
    WriterContext,  \* "closed" as built, or "dot added" (must fail), see Given
    Reduction,      \* TRUE: contexts are reduced when stable
    AnswersCarryClocks  \* FALSE: as built; TRUE: what reduction needs, see Answer

ASSUME /\ WriterContext \in {"closed", "dot added"}
       /\ {Reduction, AnswersCarryClocks} \subseteq BOOLEAN

VARIABLES
    obj,    \* per replica its object: [sib: dots alive, ctx: version vector, in]
    seen,   \* per replica its partition clock: the set of dots it has seen
    sent,   \* every state that a replica ever had, with its clock then
    given,  \* every context that a writer was given: [ctx, in]
    past,   \* writes: [dot, saw: what the writer had seen, del: a delete]
    answer  \* what a read answered; nothing follows a read

vars == <<obj, seen, sent, given, past, answer>>
Symmetry == Permutations(Replica)

-----------------------------------------------------------------------------
(* Values: dots, version vectors, objects. Pure, and the same as in the code. *)

Dot == [actor: Replica, n: 1..MaxWrites]
Zero == [a \in Replica |-> 0]
Max(m, n) == IF m > n THEN m ELSE n
Covers(v, d) == d.n <= v[d.actor]
Merge(v, w) == [a \in Replica |-> Max(v[a], w[a])]
Add(v, d) == [v EXCEPT ![d.actor] = Max(@, d.n)]

(* A sibling stays if both have it, or if the other side has not seen it.     *)
Join(x, y) ==
    [sib |-> (x.sib \cap y.sib)
             \cup {d \in x.sib : ~Covers(y.ctx, d)}
             \cup {d \in y.sib : ~Covers(x.ctx, d)},
     ctx |-> Merge(x.ctx, y.ctx),
     in  |-> x.in \cup y.in]

(* The dots that an object names: its siblings and its context's entries.     *)
Names(o) == o.sib \cup {[actor |-> a, n |-> o.ctx[a]] : a \in {b \in Replica : o.ctx[b] > 0}}

(* What was seen here and is not alive here was overwritten here (DESIGN 7,   *)
(* late messages), even if the context that said so is gone.                  *)
Late(own, clock, o) == {d \in o.sib : d \in clock /\ d \notin own.sib}
Received(own, clock, o) == Join(own, [o EXCEPT !.sib = @ \ Late(own, clock, o)])

(* A put or a delete under context t, at a coordinator that holds `own`.      *)
Written(own, t, d, del) ==
    LET kept == {e \in own.sib : ~Covers(t.ctx, e)}
    IN  [sib |-> IF del THEN kept ELSE kept \cup {d},
         ctx |-> Add(Merge(own.ctx, t.ctx), d),
         in  |-> own.in \cup t.in \cup {d}]

(* What a writer is given: the whole context, if its write is all that is     *)
(* alive; else its own and the dot, unless that entry would also cover dots   *)
(* which this actor gave to the key and the writer has not read; else its own.*)
Given(own, t, d, new) ==
    LET dotted == [ctx |-> Add(t.ctx, d), in |-> t.in \cup {d}]
    IN  IF WriterContext = "dot added" THEN dotted
        ELSE IF new.sib = {d} THEN [ctx |-> new.ctx, in |-> new.in]
        ELSE IF own.ctx[d.actor] <= t.ctx[d.actor] THEN dotted
        ELSE t

(* The join of two states that came with their clocks: a clock remembers what *)
(* a reduced context has forgotten.                                           *)
JoinUnderClocks(x, y) ==
    [sib |-> (x.sib \cap y.sib)
             \cup {d \in x.sib : ~Covers(y.ctx, d) /\ d \notin y.clock}
             \cup {d \in y.sib : ~Covers(x.ctx, d) /\ d \notin x.clock},
     ctx |-> Merge(x.ctx, y.ctx),
     in  |-> x.in \cup y.in]

(* A read at a coordinator that now has `own` and `clock`: x is what it has   *)
(* merged so far, y the answer that comes. As built, the coordinator takes    *)
(* out of y what it has overwritten itself, and adds what overwrote it.       *)
Answer(own, clock, x, y) ==
    LET late == Late(own, clock, y)
        both == Join(x, [y EXCEPT !.sib = @ \ late])
    IN  IF AnswersCarryClocks THEN JoinUnderClocks(x, y)
        ELSE IF late = {} THEN both ELSE Join(both, own)

(* What does as well without clocks in answers, where the coordinator is a    *)
(* replica that stability counts: it looks at the whole merge once more, when *)
(* it answers, with what it has then. Models put this in Answer's place.      *)
AnswerCheckedLast(own, clock, x, y) ==
    LET both == Join(x, y)
    IN  Join([both EXCEPT !.sib = @ \ Late(own, clock, both)], own)

(* Up to which counter a clock has seen every dot of an actor.                *)
Prefix(clock, a) ==
    CHOOSE n \in 0..MaxWrites :
        /\ \A m \in 1..n : [actor |-> a, n |-> m] \in clock
        /\ [actor |-> a, n |-> n + 1] \notin clock

(* Stable: everything that v covers has been seen by every replica.           *)
IsStable(v, clocks) == \A a \in Replica, clock \in clocks : v[a] <= Prefix(clock, a)

(* The context that covers just the live dots.                                *)
Reduced(o) ==
    LET live(a) == {0} \cup {d.n : d \in {e \in o.sib : e.actor = a}}
    IN  [o EXCEPT !.ctx = [a \in Replica |->
            CHOOSE n \in live(a) : \A m \in live(a) : m <= n]]

-----------------------------------------------------------------------------
(* Actions *)

Empty == [sib |-> {}, ctx |-> Zero, in |-> {}]
Blind == [ctx |-> Zero, in |-> {}]
Issued == {w.dot : w \in past}
Deletes == {w.dot : w \in {v \in past : v.del}}
PastOf(d) == UNION {w.saw : w \in {v \in past : v.dot = d}}
Sent(o, clock) == [sib |-> o.sib, ctx |-> o.ctx, in |-> o.in, clock |-> clock]
Answers(r) == {Answer(obj[r], seen[r], x, y) : x, y \in sent}
Contexts(r) == {Blind} \cup given \cup {[ctx |-> a.ctx, in |-> a.in] : a \in Answers(r)}

Init ==
    /\ obj = [r \in Replica |-> Empty]
    /\ seen = [r \in Replica |-> {}]
    /\ sent = {Sent(Empty, {})}
    /\ given = {} /\ past = {}
    /\ answer = Empty

(* Replica r goes over to an object.                                          *)
Become(r, new, clock) ==
    /\ answer = Empty
    /\ obj' = [obj EXCEPT ![r] = new]
    /\ seen' = [seen EXCEPT ![r] = clock]
    /\ sent' = sent \cup {Sent(new, clock)}
    /\ UNCHANGED answer

(* Replica r takes a put, or a delete, under context t. *)
WriteUnder(r, t, del) ==
    LET d == [actor |-> r, n |-> Cardinality({e \in Issued : e.actor = r}) + 1]
        new == Written(obj[r], t, d, del)
    IN  /\ Cardinality(past) < MaxWrites
        /\ del => t # Blind
        /\ past' = past \cup {[dot |-> d, saw |-> t.in, del |-> del]}
        /\ given' = given \cup {Given(obj[r], t, d, new)}
        /\ Become(r, new, seen[r] \cup Names(new))

(* Write: replica r coordinates a put, or a delete, under a context that a client may have. *)
Write(r, del) == \E t \in Contexts(r) : WriteUnder(r, t, del)

(* Replica r joins object o. *)
Take(r, o) ==
    /\ Become(r, Received(obj[r], seen[r], o), seen[r] \cup Names(o))
    /\ UNCHANGED <<given, past>>

(* Receive: replica r joins a state that was sent at any time, by a coordinator or as read repair. *)
Receive(r) ==
    \E o \in {[sib |-> s.sib, ctx |-> s.ctx, in |-> s.in] : s \in sent} \cup Answers(r) : Take(r, o)

(* Reduce: replica r cuts its context down to what is alive, once all of it is stable. *)
Reduce(r) ==
    /\ Reduction /\ IsStable(obj[r].ctx, {seen[s] : s \in Replica})
    /\ Become(r, Reduced(obj[r]), seen[r])
    /\ UNCHANGED <<given, past>>

(* Read: coordinator r answers a client from two states that replicas sent it. *)
Read(r) ==
    /\ answer = Empty
    /\ answer' \in Answers(r)
    /\ UNCHANGED <<obj, seen, sent, given, past>>

Next ==
    \E r \in Replica :
        \/ \E del \in BOOLEAN : Write(r, del)
        \/ Receive(r)
        \/ Reduce(r)
        \/ Read(r)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A o \in {obj[r] : r \in Replica} \cup {answer} :
        o.sib \subseteq Dot /\ o.ctx \in [Replica -> 0..MaxWrites] /\ o.in \subseteq Issued
    /\ \A r \in Replica : seen[r] \subseteq Issued
    /\ \A t \in given : t.ctx \in [Replica -> 0..MaxWrites] /\ t.in \subseteq Issued

(* Safety *)

(* The model's truth: of the writes `in`, those that none of them had seen.   *)
Alive(in) == {d \in in \ Deletes : \A e \in in : d \notin PastOf(e)}
Shown == {obj[r] : r \in Replica} \cup {answer}

(* I5: a sibling is lost only to a writer that saw it.                        *)
NothingVanishes == \A o \in Shown : Alive(o.in) \subseteq o.sib

(* I4: what a writer saw never comes back beside or after its write.          *)
NoResurrection == \A o \in Shown : o.sib \subseteq Alive(o.in)

(* Gone for good: stable, and alive nowhere.                                  *)
Settled == {d \in Issued : /\ IsStable(Add(Zero, d), {seen[r] : r \in Replica})
                           /\ \A r \in Replica : d \notin obj[r].sib}

(* A context covers no write whose effect its holder does not have; those that *)
(* are gone for good excepted, of which a reduced context tells no more.       *)
ContextsClaimNoMore ==
    \A o \in Shown \cup given :
        {d \in Issued : Covers(o.ctx, d)} \subseteq o.in \cup (IF Reduction THEN Settled ELSE {})

(* A context covers what is alive beside it: whoever writes under it has seen that. *)
ContextsCoverWhatIsShown == \A o \in Shown : \A d \in o.sib : Covers(o.ctx, d)

(* What was seen has been accounted for: the ground of I3.                    *)
SeenIsIncluded == \A r \in Replica : seen[r] \subseteq obj[r].in

(* I3: equal clocks, equal live states.                                       *)
EqualClocksEqualStates ==
    \A r, s \in Replica : seen[r] = seen[s] => obj[r].sib = obj[s].sib

(* Join is commutative, associative and idempotent on all objects there can be, *)
(* whether or not a history leads to them. For a model without writes.          *)
Objects(max) ==
    UNION {{[sib |-> s, ctx |-> v, in |-> {}] : s \in SUBSET {d \in [actor: Replica, n: 1..max] : Covers(v, d)}}
            : v \in [Replica -> 0..max]}
JoinLaws ==
    \A x, y \in Objects(2 - Cardinality(past)) :
        /\ Join(x, x) = x
        /\ Join(x, y) = Join(y, x)
        /\ \A z \in Objects(2 - Cardinality(past)) : Join(Join(x, y), z) = Join(x, Join(y, z))
=============================================================================
