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
(* One key. One node, Mortal, dies, loses what it had not saved, and starts    *)
(* under a new actor, perhaps with an empty disk, which it fills from a peer   *)
(* (Stability shows why). Every state that was sent may arrive anywhere, late, *)
(* or twice. `in` and `past` are the model's truth, as in Stability.           *)
(*                                                                         *)
(* The frozen answers are a consistent cut: Chandy, Lamport, Distributed       *)
(* snapshots, TOCS 1985. Left out: forgetting of deletes (Stability), pulses   *)
(* (what all have is read off at once), quorums.                               *)
(***************************************************************************)
EXTENDS Dots, Sequences, TLC

CONSTANTS
    Node, Fallback, Mortal,
    Writes,       \* what is written in turn: "put", "delete", or "any"
    Writers, MaxDeaths,
    MaxWipes,     \* how often the mortal node returns with an empty disk
    MaxRemovals,
    Naive         \* mistakes made, all of which must fail: a subset of the following
ASSUME Naive \subseteq {
    "hints unasked", \* fallbacks are not asked
    "down unasked",  \* a replica that is down is not asked
    "old answers",   \* an answer counts though the node has lost the disk that promised
    "no freeze",     \* an answer is no promise: what arrives later is taken
    "siblings only", \* what a state names in its context alone is not looked at
    "joined",        \* a state that shows a voided dot is joined without that dot
    "dropped",       \* a folded actor is forgotten altogether
    "epoch"}         \* a fold keeps the node's last epoch, not the actor

VARIABLES
    st,           \* per replica: [sib, ctx, seen, frozen, retired, in]
    saved,        \* what the mortal node would find after a power cut
    hints,        \* the states that the fallbacks keep
    fenced,       \* the actors that the fallbacks have frozen
    up, removed, run, epoch,
    knows,        \* per replica the newest run of the mortal node that it knows, durably
    answers,      \* the answers given: [by, run, knows, actor, dots]
    closed,       \* what is decided: [actor, dots, void]
    learned,      \* per replica the actors whose end it has learned
    net, past, faults

vars == <<st, saved, hints, fenced, up, removed, run, epoch, knows, answers, closed, learned,
          net, past, faults>>
life == <<up, removed, run, epoch, knows, faults>>

Empty == [sib |-> {}, ctx |-> {}, seen |-> {}, frozen |-> {}, retired |-> {}, in |-> {}]
Actor(n) == IF n = Mortal THEN [node |-> n, run |-> run, epoch |-> epoch]
            ELSE [node |-> n, run |-> 0, epoch |-> 0]
Actors == {w.dot.actor : w \in past}
Dead(a) == a.node = Mortal /\ (a.run < run \/ ~up)
Members == IF removed THEN Node \ {Mortal} ELSE Node
Serves(n) == n \in Members /\ (n = Mortal => up)
Past(d) == UNION {w.saw : w \in {v \in past : v.dot = d}}
Deletes == {w.dot : w \in {v \in past : v.del}}
DotsOf(a) == UNION {c.dots : c \in {k \in closed : k.actor = a}}
VoidOf(a) == UNION {c.void : c \in {k \in closed : k.actor = a}}
Budget(kind, max) == faults[kind] < max /\ faults' = [faults EXCEPT ![kind] = @ + 1]

(* The clock of a replica as a test: was this dot's effect taken in here?      *)
Has(s, d) ==
    \/ d \in s.seen
    \/ "dropped" \notin Naive /\ d.actor \in s.retired
    \/ "epoch" \in Naive /\ \E a \in s.retired :
          a.node = d.actor.node /\ d.actor.epoch <= a.epoch
(* A clock written out, folded entries and all.                               *)
Whole(s) == s.seen \cup UNION {DotsOf(a) \cup VoidOf(a) : a \in s.retired}

Init ==
    /\ st = [n \in Node |-> Empty] /\ saved = Empty
    /\ hints = {} /\ fenced = {} /\ up = TRUE /\ removed = FALSE
    /\ run = 0 /\ epoch = 1
    /\ knows = [n \in Node |-> 0] /\ answers = {} /\ closed = {} /\ learned = [n \in Node |-> {}]
    /\ net = {} /\ past = {} /\ faults = [death |-> 0, wipe |-> 0, removal |-> 0]

-----------------------------------------------------------------------------
(* What of the dots that a state names n must not take: of an actor that it has *)
(* frozen, any that it does not have; of one whose end it knows, any void one. *)
(* A tombstone's dot stands in its context alone, so contexts count.           *)
Barred(n, o) ==
    {d \in IF "siblings only" \in Naive THEN o.sib ELSE Names(o) :
        IF d.actor \in learned[n] THEN d \notin DotsOf(d.actor)
        ELSE d.actor \in st[n].frozen /\ d \notin st[n].seen}
Meet(mine, o, theirs) ==
    LET gone(d) == Covers(o.ctx, d) \/ Has(theirs, d)
        late(d) == Covers(mine.ctx, d) \/ Has(mine, d)
        keep == {d \in mine.sib : d \in o.sib \/ ~gone(d)}
        new == {d \in o.sib : d \in mine.sib \/ ~late(d)}
    IN  [mine EXCEPT !.sib = keep \cup new, !.ctx = Merge(@, o.ctx),
                     !.seen = @ \cup {d \in Names(o) : ~Has(mine, d)}, !.in = @ \cup o.in]
State(s) == [sib |-> s.sib, ctx |-> s.ctx, in |-> s.in]

(* A client's context names what it read, perhaps of a run that lost it since. What *)
(* is void is cut down to the greatest dot below that is not.                  *)
Cut(n, ctx) ==
    Tops({e \in ctx : e.actor \notin learned[n]}
         \cup UNION {{d \in DotsOf(e.actor) : d.n <= e.n} :
                        e \in {k \in ctx : k.actor \in learned[n]}})

Contexts == {[ctx |-> {}, in |-> {}]}
            \cup {[ctx |-> st[m].ctx, in |-> st[m].in] : m \in {k \in Node : Serves(k)}}
            \cup {[ctx |-> o.ctx, in |-> o.in] : o \in net}

(* Write: n coordinates a put or a delete with the context `read` that a client has; *)
(* one that names what n may not take yet is sent to another node.           *)
Write(n, del) == \E read \in Contexts :
    LET t == [ctx |-> Cut(n, read.ctx), in |-> read.in]
        a == Actor(n)
        d == [actor |-> a, n |-> Cardinality({w \in past : w.dot.actor = a}) + 1]
        kept == {e \in st[n].sib : ~Covers(t.ctx, e)}
        o == [st[n] EXCEPT
                !.sib = IF del THEN kept ELSE kept \cup {d},
                !.ctx = Merge(Merge(@, t.ctx), {d}),
                !.seen = @ \cup {e \in {d} \cup t.ctx : ~Has(st[n], e) \/ e = d},
                !.in = @ \cup t.in \cup {d}]
    IN  /\ Serves(n) /\ n \in Writers /\ Cardinality(past) < Len(Writes)
        /\ Writes[Cardinality(past) + 1] \in {"any", IF del THEN "delete" ELSE "put"}
        /\ del => read.ctx # {}
        /\ "siblings only" \in Naive \/ Barred(n, [sib |-> {}, ctx |-> t.ctx]) = {}
        /\ st' = [st EXCEPT ![n] = o]
        /\ past' = past \cup {[dot |-> d, saw |-> t.in, del |-> del]}
        /\ net' = net \cup {State(o)}
        /\ UNCHANGED <<life, saved, hints, fenced, answers, closed, learned>>

(* Receive: a state that was sent, now or long ago, arrives at replica n.      *)
Receive(n) == \E o \in net :
    LET taken == IF "joined" \in Naive THEN [o EXCEPT !.sib = @ \ Barred(n, o)] ELSE o
    IN  /\ Serves(n) /\ ("joined" \in Naive \/ Barred(n, o) = {})
        /\ Meet(st[n], taken, Empty) # st[n]
        /\ st' = [st EXCEPT ![n] = Meet(@, taken, Empty)]
        /\ UNCHANGED <<life, saved, hints, fenced, answers, closed, learned, net, past>>

(* Hint: a fallback durably keeps a state that a replica should have.          *)
Hint == \E o \in net :
    /\ Fallback # {} /\ o \notin hints
    /\ \A d \in Names(o) : d.actor \in fenced => \E h \in hints : d \in Names(h)
    /\ hints' = hints \cup {o}
    /\ UNCHANGED <<life, st, saved, fenced, answers, closed, learned, net, past>>

(* Handoff: a hint comes home, and is deleted when it is durable there.        *)
Handoff(n) == \E o \in hints :
    /\ Serves(n) /\ n # Mortal /\ Barred(n, o) = {}
    /\ st' = [st EXCEPT ![n] = Meet(@, o, Empty)]
    /\ hints' = hints \ {o}
    /\ UNCHANGED <<life, saved, fenced, answers, closed, learned, net, past>>

(* Repair: m lacks a dot that n has, and takes n's state under n's clock.       *)
Repair(m, n) == \E d \in st[n].seen :
    /\ Serves(m) /\ Serves(n) /\ Has(st[n], d) /\ ~Has(st[m], d)
    /\ Barred(m, st[n]) = {}
    /\ d.actor \in st[m].frozen => d.actor \in learned[m]
    /\ st' = [st EXCEPT ![m] = [Meet(@, st[n], st[n]) EXCEPT !.seen = @ \cup {d}]]
    /\ UNCHANGED <<life, saved, hints, fenced, answers, closed, learned, net, past>>

-----------------------------------------------------------------------------
(* Save: the mortal node syncs.                                               *)
Save ==
    /\ up /\ ~removed /\ saved # st[Mortal] /\ saved' = st[Mortal]
    /\ UNCHANGED <<life, st, hints, fenced, answers, closed, learned, net, past>>

(* Die: the mortal node loses power, and with it what it had not saved.        *)
Die ==
    /\ up /\ ~removed /\ Budget("death", MaxDeaths)
    /\ up' = FALSE /\ st' = [st EXCEPT ![Mortal] = saved]
    /\ UNCHANGED <<removed, run, epoch, knows, saved, hints, fenced, answers, closed, learned,
                   net, past>>

(* Start: the mortal node returns under a new actor.                          *)
Start ==
    /\ ~up /\ ~removed /\ up' = TRUE /\ run' = run + 1 /\ epoch' = epoch + 1
    /\ UNCHANGED <<removed, knows, faults, st, saved, hints, fenced, answers, closed, learned,
                   net, past>>

(* Wiped: the mortal node returns with an empty disk, its epochs forgotten, and    *)
(* takes everything from replica p before it does anything.                    *)
Wiped(p) ==
    /\ ~up /\ ~removed /\ p # Mortal /\ Budget("wipe", MaxWipes)
    /\ up' = TRUE /\ run' = run + 1 /\ epoch' = 1
    /\ st' = [st EXCEPT ![Mortal] = st[p]] /\ saved' = st[p]
    /\ learned' = [learned EXCEPT ![Mortal] = learned[p]]
    /\ knows' = [knows EXCEPT ![p] = run + 1]
    /\ UNCHANGED <<removed, hints, fenced, answers, closed, net, past>>

(* Remove: the operator declares that the mortal node, which is down, is dead for good. *)
Remove ==
    /\ ~up /\ ~removed /\ Budget("removal", MaxRemovals) /\ removed' = TRUE
    /\ UNCHANGED <<up, run, epoch, knows, st, saved, hints, fenced, answers, closed, learned,
                   net, past>>

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
