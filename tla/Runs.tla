-------------------------------- MODULE Runs --------------------------------
(***************************************************************************)
(* The nodes of Retirement: what each holds, what it takes and refuses, and  *)
(* how one of them, Mortal, dies, loses what it had not saved, and returns    *)
(* under a new actor, perhaps with an empty disk. What is asked of nodes, and  *)
(* decided, about an actor that ended is in Retirement.                      *)
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
=============================================================================
