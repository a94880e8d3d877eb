----------------------------- MODULE Retirement -----------------------------
(***************************************************************************)
(* What becomes of the dots of a run that ended? Some died with it and leave *)
(* holes in every clock, and its entries would stay in every clock for ever  *)
(* (DESIGN 7; invariants I3, I4, I5).                                         *)
(*                                                                         *)
(* A retired actor is closed. Every node that could hold a dot of it (the    *)
(* replicas, its own node's next run, fallbacks) durably freezes it: it takes *)
(* no further dot of it from anybody, and answers which it holds. When all    *)
(* have answered, the actor's dots are known once and for all: those that     *)
(* somebody holds. All others are void, holes and what lay beyond the end. A  *)
(* node that learned this marks the voids seen and gets the rest by repair.   *)
(* When all replicas have all of it, a node folds the actor: the entry leaves *)
(* the clock for the table `retired`, which is exact and kept: actor, end and *)
(* voids. So no new actor is taken for an old one, nor an old dot for a new.   *)
(*                                                                         *)
(* One key. One node, Mortal, dies and starts again (Runs); an empty disk it   *)
(* fills from a peer (Stability shows why). Every state that was sent may     *)
(* arrive anywhere, late, or twice. `in` and `past` are the model's truth, as  *)
(* in Stability.                                                             *)
(*                                                                         *)
(* The frozen answers are a consistent cut: Chandy, Lamport, Distributed       *)
(* snapshots, TOCS 1985. Left out: forgetting of deletes (Stability), pulses   *)
(* (what all have is read off at once), quorums.                               *)
(***************************************************************************)
EXTENDS Runs

(* Answer: replica n freezes a dead actor, durably, and says which dots of it it has. *)
Answer(n) == \E a \in Actors :
    /\ Serves(n) /\ Dead(a) /\ a \notin st[n].frozen
    /\ ~\E r \in answers : r.by = n /\ r.actor = a /\ r.run = Actor(n).run
    /\ answers' = answers \cup {[by |-> n, run |-> Actor(n).run, knows |-> knows[n], actor |-> a,
                                 dots |-> OfActor(st[n].seen, a)]}
    /\ st' = IF "no freeze" \in Naive THEN st ELSE [st EXCEPT ![n].frozen = @ \cup {a}]
    /\ saved' = IF n = Mortal THEN st'[n] ELSE saved
    /\ UNCHANGED <<life, hints, fenced, closed, learned, net, past>>

(* Fence: a fallback freezes a dead actor, and says which dots of it its hints name. *)
Fence(f) == \E a \in Actors :
    /\ Dead(a) /\ a \notin fenced /\ ~\E r \in answers : r.by = f /\ r.actor = a
    /\ answers' = answers \cup
          {[by |-> f, run |-> 0, knows |-> 0, actor |-> a, dots |-> OfActor(UNION {Names(o) : o \in hints}, a)]}
    /\ fenced' = IF "no freeze" \in Naive THEN fenced ELSE fenced \cup {a}
    /\ UNCHANGED <<life, st, saved, hints, closed, learned, net, past>>

(* Close: all have answered, and no answer names a later life of another's node; the   *)
(* actor's dots are those that somebody has.                                  *)
Close == \E a \in Actors :
    LET asked == (IF "down unasked" \in Naive THEN {n \in Node : Serves(n)} ELSE Members)
                 \cup (IF "hints unasked" \in Naive THEN {} ELSE Fallback)
        old(r) == r.by = Mortal /\ "old answers" \notin Naive
                  /\ \E q \in answers : q.actor = a /\ r.run < q.knows
        held == UNION {r.dots : r \in {q \in answers : q.actor = a}}
        below == {d \in {w.dot : w \in past} : d.actor = a /\ \E e \in held : d.n < e.n}
    IN  /\ Dead(a) /\ ~\E c \in closed : c.actor = a
        /\ \A n \in asked : \E r \in answers : r.by = n /\ r.actor = a /\ ~old(r)
        /\ closed' = closed \cup {[actor |-> a, dots |-> held, void |-> below \ held]}
        /\ UNCHANGED <<life, st, saved, hints, fenced, answers, learned, net, past>>

(* Learn: replica n learns a dead actor's end, and marks what is void as seen.  *)
Learn(n) == \E a \in Actors :
    /\ Serves(n) /\ a \notin learned[n] /\ \E c \in closed : c.actor = a
    /\ learned' = [learned EXCEPT ![n] = @ \cup {a}]
    /\ st' = [st EXCEPT ![n].seen = @ \cup VoidOf(a)]
    /\ saved' = IF n = Mortal THEN st'[n] ELSE saved
    /\ UNCHANGED <<life, hints, fenced, answers, closed, net, past>>

Durable(n) == Whole(IF n = Mortal THEN saved ELSE st[n])

(* Fold: all replicas have all of a dead actor; n moves its entry out of the clock, and  *)
(* reduces the context if all of that is stable.                              *)
Fold(n) == \E a \in Actors :
    LET stable == \A m \in Members : st[n].ctx \subseteq Prefix(Durable(m)) IN
    /\ Serves(n) /\ a \in learned[n] \ st[n].retired
    /\ \A m \in Members : a \in learned[m] /\ DotsOf(a) \cup VoidOf(a) \subseteq Durable(m)
    /\ st' = [st EXCEPT ![n].seen = @ \ OfActor(@, a), ![n].retired = @ \cup {a},
                          ![n].ctx = IF stable THEN Tops(st[n].sib) ELSE @]
    /\ saved' = IF n = Mortal THEN st'[n] ELSE saved
    /\ learned' = IF "dropped" \in Naive THEN [learned EXCEPT ![n] = @ \ {a}] ELSE learned
    /\ UNCHANGED <<life, hints, fenced, answers, closed, net, past>>

Next ==
    \/ \E n \in Node, del \in BOOLEAN : Write(n, del)
    \/ \E n \in Node :
        \/ Receive(n) \/ Handoff(n) \/ Answer(n) \/ Learn(n) \/ Fold(n) \/ Wiped(n)
        \/ \E m \in Node : Repair(n, m)
    \/ \E f \in Fallback : Fence(f)
    \/ Hint \/ Close \/ Save \/ Die \/ Start \/ Remove

Spec == Init /\ [][Next]_vars

Puts == <<"put", "put">>
PutDelete == <<"put", "delete">>
PutPutDelete == <<"put", "put", "delete">>
ThreePuts == <<"put", "put", "put">>

Fair ==
    /\ WF_vars(Start) /\ WF_vars(Save) /\ WF_vars(Close) /\ WF_vars(\E f \in Fallback : Fence(f))
    /\ \A n \in Node :
        /\ WF_vars(Answer(n)) /\ WF_vars(Learn(n)) /\ WF_vars(Fold(n)) /\ WF_vars(Handoff(n))
        /\ \A m \in Node : WF_vars(Repair(n, m))
LiveSpec == Spec /\ Fair

-----------------------------------------------------------------------------
TypeOK == \A n \in Node : st[n].sib \subseteq Whole(st[n])

(* I4: nothing shows a write that a write which it includes had seen.         *)
NoResurrection ==
    \A n \in Node : Serves(n) =>
        \A d \in st[n].sib : \A e \in st[n].in : d \notin Past(e)

(* I5: nothing is missing but for a reason.                                   *)
NothingVanishes ==
    \A n \in Node : Serves(n) =>
        \A d \in st[n].in \ Deletes :
            d \in st[n].sib \/ \E e \in st[n].in : d \in Past(e)

(* I5: what a replica or a hint names is not void.                            *)
NothingHeldIsVoid ==
    \A c \in closed : \A o \in hints \cup {st[n] : n \in {k \in Node : Serves(k)}} :
        OfActor(Names(o), c.actor) \subseteq c.dots

(* I3. *)
EqualClocksEqualStates ==
    \A n, m \in Node :
        Serves(n) /\ Serves(m) /\ Whole(st[n]) = Whole(st[m]) => st[n].sib = st[m].sib

(* Progress: in the end no clock has an entry of a dead actor.                *)
AllIsFolded == <>[](\A n \in Node : Serves(n) => \A d \in st[n].seen : ~Dead(d.actor))
=============================================================================
