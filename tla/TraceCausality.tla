--------------------------- MODULE TraceCausality ---------------------------
(***************************************************************************)
(* Whether what the code did is a behaviour of `Causality`.                 *)
(*                                                                          *)
(* The simulator plays the core with faults and writes down what it did to  *)
(* one key (TraceData). Each logged step must be a step of the              *)
(* specification that leads to just the logged object; a step that is none  *)
(* is a deadlock, and its number is `at`.                                   *)
(*                                                                          *)
(* The mapping. A run of a node is a replica: it is its own actor. A start  *)
(* is a replica that joins what its predecessor's disk had. What an object  *)
(* includes is what its context covers: contexts are not reduced here.      *)
(* An answer to a read is the join of any states that replicas had, which   *)
(* a replica of its own could hold that takes them in one after the other;  *)
(* such replicas are left out. What a disk keeps is not in the              *)
(* specification; here it is what was there at the last commit.             *)
(***************************************************************************)
EXTENDS Causality, TraceData, Sequences

VARIABLES
    trace, at,  \* which trace, and the number of its next step
    told,       \* contexts that clients were given
    gave,       \* per write what its writer may be given: [dot, under, ctx]
    safe        \* per run what is on its disk

traceVars == <<trace, at, told, gave, safe>>

Runs == 1..8
WritesMax == 1000

Event == Traces[trace][at]
Logged(k) ==
    /\ at <= Len(Traces[trace]) /\ Event.k = k
    /\ at' = at + 1 /\ UNCHANGED trace

ADot(p) == [actor |-> p[1], n |-> p[2]]
Dots(ps) == {ADot(p) : p \in ps}
Counters(s) == [a \in Replica |-> s[a]]
Included(ctx) == {d \in Issued : Covers(ctx, d)}
Object(sib, s) == [sib |-> Dots(sib), ctx |-> Counters(s), in |-> Included(Counters(s))]
Same(o, sib, s) == o.sib = Dots(sib) /\ o.ctx = Counters(s)

(* The join of some states that replicas had. If it is one, it is also that of  *)
(* all states that it covers: a dot is in it if no state has covered it away.   *)
IsJoinOfSent(o) ==
    LET below == {s \in sent : \A a \in Replica : s.ctx[a] <= o.ctx[a]}
    IN  (* As sets: TLC takes "there is" within a step for a choice. *)
        /\ {a \in Replica : o.ctx[a] \notin {s.ctx[a] : s \in below}} = {}
        /\ o.sib = {d \in UNION {s.sib : s \in below} :
                        \A s \in below : d \in s.sib \/ ~Covers(s.ctx, d)}

(* Write: a coordinator took a put or a delete, under a context that some client was given. *)
LoggedWrite ==
    /\ Logged("write")
    /\ LET t == [ctx |-> Counters(Event.under), in |-> Included(Counters(Event.under))]
           r == Event.at
           d == [actor |-> r, n |-> Cardinality({e \in Issued : e.actor = r}) + 1]
       IN  /\ t = Blind \/ t.ctx \in told
           /\ WriteUnder(r, t, Event.del)
           /\ Same(obj'[r], Event.sib, Event.ctx)
           /\ gave' = gave \cup {[dot |-> d, under |-> t.ctx,
                                  ctx |-> Given(obj[r], t, d, obj'[r]).ctx]}
    /\ UNCHANGED <<told, safe>>

(* Join: a replica joined an object that others could send. *)
LoggedJoin ==
    /\ Logged("join")
    /\ LET o == Object(Event.gotsib, Event.gotctx)
       IN  IsJoinOfSent(o) /\ Take(Event.at, o)
    /\ Same(obj'[Event.at], Event.sib, Event.ctx)
    /\ UNCHANGED <<told, gave, safe>>

(* Commit: what is on the disk is what the replica has. *)
LoggedCommit ==
    /\ Logged("commit")
    /\ Same(obj[Event.at], Event.sib, Event.ctx)
    /\ safe' = [safe EXCEPT ![Event.at] = obj[Event.at]]
    /\ UNCHANGED <<told, gave>> /\ UNCHANGED vars

(* Start: a new run begins with what the disk had, and nothing else. *)
LoggedStart ==
    /\ Logged("start")
    /\ obj[Event.at] = Empty
    /\ Same(safe[Event.was], Event.sib, Event.ctx)
    /\ IF safe[Event.was] = Empty THEN UNCHANGED vars ELSE Take(Event.at, safe[Event.was])
    /\ safe' = [safe EXCEPT ![Event.at] = safe[Event.was]]
    /\ UNCHANGED <<told, gave>>

(* Told: a writer got the context that is due, or, when its request was repeated, its own or that *)
(* of a state in which its write is all that is alive. *)
LoggedTold ==
    /\ Logged("told")
    /\ LET ctx == Counters(Event.ctx)
           d == ADot(Event.dot)
       IN  /\ ctx \in UNION {{g.ctx, g.under} : g \in {x \in gave : x.dot = d}}
                      \cup {s.ctx : s \in {x \in sent : x.sib = {d}}}
           /\ told' = told \cup {ctx}
    /\ UNCHANGED <<gave, safe>> /\ UNCHANGED vars

(* Read: a reader was shown a join of states that replicas had. *)
LoggedRead ==
    /\ Logged("read")
    /\ IsJoinOfSent(Object(Event.sib, Event.ctx))
    /\ told' = told \cup {Counters(Event.ctx)}
    /\ UNCHANGED <<gave, safe>> /\ UNCHANGED vars

Accepted == at > Len(Traces[trace])
Done == Accepted /\ UNCHANGED vars /\ UNCHANGED traceVars

TraceInit ==
    /\ Init
    /\ trace \in 1..Len(Traces) /\ at = 1
    /\ told = {} /\ gave = {} /\ safe = [r \in Replica |-> Empty]
TraceNext ==
    \/ LoggedWrite \/ LoggedJoin \/ LoggedCommit
    \/ LoggedStart \/ LoggedTold \/ LoggedRead
    \/ Done
TraceSpec == TraceInit /\ [][TraceNext]_<<vars, traceVars>>

(* For traces with a mistake in them: none goes on past the mistake.          *)
MistakesAreRefused == at <= Mistakes[trace]
=============================================================================
