---------------------------- MODULE TraceStability ----------------------------
(***************************************************************************)
(* Whether what the code did is a behaviour of `Stability`: as              *)
(* TraceCausality, on runs that forget.                                     *)
(*                                                                          *)
(* The mapping. All nodes are replicas of the key, which is alone in its    *)
(* partition: the partition's clock, log and account are the key's. What    *)
(* is known up to a counter is known of each dot up to it. What a state     *)
(* includes is as in the specification: what was sent with it. A client's   *)
(* context stands for what of it the object names then: entries that the    *)
(* object covers already are not marked as seen, and one of which all has   *)
(* been seen, which a client may have kept for long, does not grow back.    *)
(*                                                                          *)
(* What is one step there and several in the code. A pulse: a claim (or how *)
(* far a run has written, which the code calls a pulse) is told, and must   *)
(* be on the disk; is heard later or never, and must have been told, by the *)
(* run that the hearing node has met last; something is concluded from it   *)
(* with a later commit. Claims of a run only grow, so a late one says less. *)
(* A comparison: a node asks, the other looks whether it has missed         *)
(* something itself and answers, the first one serves. What was heard of    *)
(* the first one's earlier runs ends when the other meets its run, before   *)
(* the answer. A resync: a page is sent, and taken. To forget: the object's *)
(* context, and entries of the log with any commit. A node may conclude and *)
(* forget less than it could, and fall behind without need.                 *)
(*                                                                          *)
(* What is more than one step there. A start is a crash and a start, and,   *)
(* where a process was killed, a sync before them: what was written is kept *)
(* though it was not synced. A gap that is repaired is a state that         *)
(* arrives, and dots that the object then includes are seen with it. A      *)
(* state that is a join of others, of a read, is as if these had arrived.   *)
(* After a resync the sender's context is all there is to know, if it has   *)
(* seen what the object names. What a log has forgotten in memory may be    *)
(* back after a start.                                                      *)
(*                                                                          *)
(* Whether contexts were given out TraceCausality checks. Left out: logs    *)
(* that are cut; other layouts; several disks that are older at once.       *)
(***************************************************************************)
EXTENDS Stability, TraceData

VARIABLES
    trace, at,  \* which trace, and the number of its next step
    written,    \* per node what it has written, synced or not
    told,       \* the claims that were made, those of a run to a node in one: [n, run, m, seen, know]
    met,        \* met[m][n]: the run of n that m has met last
    said,       \* where nodes said that they stand: [k, op, n, run, m, mode, know]
    pages,      \* what nodes sent whole: [n, m, mode, state]
    healing,    \* per node: whom it has taken whole from since it is behind, as [n, mode]
    aside       \* the nodes whose disk says that they are behind

sayings == <<told, met, said, pages, healing>>
traceVars == <<trace, at, written, sayings, aside>>

Nodes == 1..3
None == {}
Nothing == <<>>
Many == 1000  \* no run has this number

Event == Traces[trace][at]
Logged(k) ==
    /\ at <= Len(Traces[trace]) /\ Event.k = k
    /\ at' = at + 1 /\ UNCHANGED trace

(* A dot is logged as its node, the number of the node's run, the counter.    *)
ADot(p) == [actor |-> <<p[1], p[2]>>, n |-> p[3]]
DotSet(ps) == {ADot(p) : p \in ps}
Issued == {w.dot : w \in past}
Included(ctx) == {d \in Issued : Covers(ctx, d)}
Same(s, sib, ctx) == s.sib = DotSet(sib) /\ s.ctx = DotSet(ctx)

(* What was sent as this object: a state that a node had, or a join of some, in which what no *)
(* write that it includes has seen is alive.                                *)
Below(ctx) == {o \in net : o.ctx # {} /\ \A d \in o.ctx : Covers(ctx, d)}
Alive(in) == {d \in in \ Deletes : \A e \in in : d \notin Past(e)}
Sent(sib, ctx) ==
    LET same == {o \in net : o.sib = sib /\ o.ctx = ctx}
        from == IF same # {} THEN same ELSE Below(ctx)
    IN  [sib |-> sib, ctx |-> ctx, in |-> UNION {o.in : o \in from}]
WasSent(o) ==
    \/ \E s \in net : s.sib = o.sib /\ s.ctx = o.ctx
    \/ o.sib = Alive(o.in) /\ o.ctx = Tops(UNION {s.ctx : s \in Below(o.ctx)})

(* Write: a coordinator took a put or a delete, under a client's context.     *)
LoggedWrite ==
    /\ Logged("write")
    /\ LET n == Event.n
           ctx == DotSet(Event.under)
           named == {d \in Names(mem[n]) : Covers(ctx, d)}
           new == IF ctx \subseteq mem[n].seen THEN {} ELSE ctx \cap Merge(mem[n].ctx, ctx)
           held == Tops(named \cup new)
       IN  /\ ADot(Event.dot).actor = Actor(n)
           /\ WriteUnder(n, [ctx |-> held, in |-> Included(ctx)], Event.del)
           /\ Same(mem'[n], Event.sib, Event.ctx) /\ mem'[n].seen = DotSet(Event.seen)
    /\ UNCHANGED <<written, aside, sayings>>

(* Join: a replica joined an object that was sent; it marks as seen nothing but what it then has. *)
LoggedJoin ==
    /\ Logged("join")
    /\ LET n == Event.n
           o == Sent(DotSet(Event.gotsib), DotSet(Event.gotctx))
           joined == Meet(mem[n], o, {})
           seen == DotSet(Event.seen)
           s == [joined EXCEPT !.seen = seen, !.log = @ \cup (seen \ mem[n].seen)]
       IN  /\ Serves(n) /\ WasSent(o)
           /\ Same(s, Event.sib, Event.ctx)
           /\ joined.seen \subseteq seen /\ seen \subseteq joined.seen \cup s.in
           /\ Commit(n, s)
           /\ net' = net \cup {State(s)}
    /\ UNCHANGED <<nodes, heard, past, written, aside, sayings>>

(* Forget: a replica cut the object's context down, all of which may be forgotten. *)
LoggedForget ==
    /\ Logged("forget")
    /\ LET n == Event.n
           s == [mem[n] EXCEPT !.ctx = Tops(mem[n].sib)]
       IN  /\ Serves(n) /\ mem[n].ctx \subseteq Forgettable(n)
           /\ Same(s, Event.sib, Event.ctx)
           /\ Commit(n, s)
           /\ net' = net \cup {State(s)}
    /\ UNCHANGED <<nodes, heard, past, written, aside, sayings>>

(* Commit: a replica concluded what is stable from what it heard, let go of entries of the log, *)
(* and wrote all that it has.                                               *)
LoggedCommit ==
    /\ Logged("commit")
    /\ LET n == Event.n
           know == DotSet(Event.know)
           log == DotSet(Event.log)
           claims == [heard[n] EXCEPT ![n] = Claim(n)]
           s == [mem[n] EXCEPT !.know = know, !.log = log]
       IN  /\ Same(s, Event.sib, Event.ctx) /\ s.seen = DotSet(Event.seen)
           /\ mem[n].know \subseteq know /\ log \subseteq mem[n].log
           /\ know \subseteq mem[n].know \cup Stable(n, claims)
           /\ mem[n].log \ log \subseteq Forgettable(n)
           /\ s # mem[n] => know = mem[n].know \/ Serves(n)
           /\ mem' = [mem EXCEPT ![n] = s]
           /\ written' = [written EXCEPT ![n] = s]
           /\ aside' = IF mode[n] = "behind" THEN aside \cup {n} ELSE aside \ {n}
           /\ disk' = IF Event.synced THEN [disk EXCEPT ![n] = s] ELSE disk
    /\ UNCHANGED <<nodes, heard, net, past, sayings>>

(* Sync: what was written is safe.                                           *)
LoggedSync ==
    /\ Logged("sync")
    /\ disk' = [disk EXCEPT ![Event.n] = written[Event.n]]
    /\ UNCHANGED <<nodes, mem, heard, net, past, written, aside, sayings>>

(* Tell: a replica claimed what is safe on its disk, and nothing else.       *)
Claims(n, r, m) == {c \in told : c.n = n /\ c.run = r /\ c.m = m}
LoggedTell ==
    /\ Logged("tell")
    /\ LET n == Event.n
           new == [n |-> n, run |-> Event.run, m |-> Event.m,
                   seen |-> DotSet(Event.seen), know |-> DotSet(Event.know)]
           before == Claims(n, Event.run, Event.m)
       IN  /\ Serves(n) /\ Event.run = run[n]
           /\ new.seen \subseteq disk[n].seen /\ new.know \subseteq disk[n].know
           /\ told' = (told \ before) \cup {[new EXCEPT
                          !.seen = @ \cup UNION {c.seen : c \in before},
                          !.know = @ \cup UNION {c.know : c \in before}]}
    /\ UNCHANGED vars /\ UNCHANGED <<written, aside, met, said, pages, healing>>

(* Meet: a node met a run of another, and what it heard of earlier ones ends. *)
LoggedMeet ==
    /\ Logged("meet")
    /\ met' = [met EXCEPT ![Event.n][Event.m] = Event.run]
    /\ heard' = IF met[Event.n][Event.m] = Event.run THEN heard
                ELSE [heard EXCEPT ![Event.n][Event.m] = NoClaim]
    /\ UNCHANGED <<nodes, mem, disk, net, past, written, aside, told, said, pages, healing>>

(* Hear: a node took in a claim that was made to it by the run that it has met. *)
LoggedHear ==
    /\ Logged("hear")
    /\ LET seen == DotSet(Event.seen)
           know == DotSet(Event.know)
       IN  /\ Event.run = met[Event.n][Event.m]
           /\ \E c \in Claims(Event.m, Event.run, Event.n) :
                  seen \subseteq c.seen /\ know \subseteq c.know
           /\ heard' = [heard EXCEPT ![Event.n][Event.m] =
                            [seen |-> @.seen \cup seen, know |-> @.know \cup know]]
    /\ UNCHANGED <<nodes, mem, disk, net, past, written, aside, sayings>>

Position(k) == [k |-> k, op |-> Event.op, n |-> Event.n, run |-> run[Event.n], m |-> Event.m,
                mode |-> Event.mode, know |-> DotSet(Event.know)]
SaysAll(n) == disk[n].know \subseteq DotSet(Event.know) /\ DotSet(Event.know) \subseteq mem[n].know

(* Ask: a node told another all that it knows to be stable, and wants to know the same of it. *)
LoggedAsk ==
    /\ Logged("ask")
    /\ SaysAll(Event.n) /\ Event.mode # "ok"
    /\ said' = said \cup {Position("ask")}
    /\ UNCHANGED vars /\ UNCHANGED <<written, aside, told, met, pages, healing>>

(* Answer: a node that has seen all that the asking one knows, or is behind, answers. *)
LoggedAnswer ==
    /\ Logged("answer")
    /\ SaysAll(Event.n)
    /\ \E q \in said :
          /\ q.k = "ask" /\ q.op = Event.op /\ q.n = Event.m /\ q.m = Event.n
          /\ q.know \subseteq mem[Event.n].seen \/ mode[Event.n] = "behind"
          /\ met[Event.n][Event.m] # Many /\ met[Event.n][Event.m] >= q.run
    /\ said' = said \cup {Position("answer")}
    /\ UNCHANGED vars /\ UNCHANGED <<written, aside, told, met, pages, healing>>

(* Serve: a node in doubt has compared with another, which is not behind, in this run. *)
LoggedServe ==
    /\ Logged("serve")
    /\ LET n == Event.n
           know == DotSet(Event.know)
       IN  /\ up[n] /\ mode[n] = "doubt"
           /\ \E q \in said : q.k = "ask" /\ q.op = Event.op /\ q.n = n /\ q.run = run[n]
           /\ \E p \in said :
                 /\ p.k = "answer" /\ p.op = Event.op /\ p.n = Event.m /\ p.m = n
                 /\ p.mode = Event.mode /\ p.know = know /\ p.mode # "behind"
           /\ know \subseteq mem[n].seen
           /\ mode' = [mode EXCEPT ![n] = "ok"]
    /\ UNCHANGED <<old, up, run, layout, faults, mem, disk, heard, net, past>>
    /\ UNCHANGED <<written, aside, sayings>>

(* Want: a node asks another one for all that it has, and tells it what it knows. *)
LoggedWant ==
    /\ Logged("want")
    /\ DotSet(Event.know) \subseteq mem[Event.n].know
    /\ said' = said \cup {Position("ask")}
    /\ UNCHANGED vars /\ UNCHANGED <<written, aside, told, met, pages, healing>>

(* Page: a node sent all that it has written. *)
LoggedPage ==
    /\ Logged("page")
    /\ LET n == Event.n
           s == written[n]
       IN  /\ Same(s, Event.sib, Event.ctx)
           /\ s.seen = DotSet(Event.seen) /\ s.know = DotSet(Event.know)
           /\ pages' = pages \cup {[n |-> n, m |-> Event.m, mode |-> mode[n], state |-> s]}
    /\ UNCHANGED vars /\ UNCHANGED <<written, aside, told, met, said, healing>>

(* Whole: a replica took in all that another sent, who had seen all that it knows to be stable. If *)
(* that one had seen all that the object names, its context is all there is to know. *)
LoggedWhole ==
    /\ Logged("whole")
    /\ LET n == Event.n
           know == DotSet(Event.know)
           sent == {p \in pages : /\ p.n = Event.m /\ p.m = n
                                  /\ Same(p.state, Event.gotsib, Event.gotctx)
                                  /\ p.state.seen = DotSet(Event.gotseen)
                                  /\ p.state.know = DotSet(Event.gotknow)}
           p == CHOOSE p \in sent : TRUE
           o == p.state
           joined == Meet(mem[n], State(o), o.seen)
           s == [joined EXCEPT !.ctx = IF Names(mem[n]) \subseteq o.seen THEN o.ctx ELSE @,
                               !.seen = @ \cup o.seen, !.know = know]
           claims == [heard[n] EXCEPT ![n] = Claim(n)]
           stable == IF Serves(n) THEN Stable(n, claims) ELSE {}
       IN  /\ up[n] /\ sent # {} /\ disk[n].know \subseteq o.seen
           /\ Same(s, Event.sib, Event.ctx) /\ s.seen = DotSet(Event.seen)
           /\ mem[n].know \subseteq know /\ know \subseteq mem[n].know \cup o.know \cup stable
           /\ Commit(n, s)
           /\ net' = net \cup {State(s)}
           /\ healing' = [healing EXCEPT ![n] = @ \cup {[n |-> p.n, mode |-> p.mode]}]
    /\ UNCHANGED <<nodes, heard, past, written, aside, told, met, said, pages>>

(* Stand: a node found that it has missed something; or one that was behind has taken all from *)
(* one that serves, or from all others, which are behind.                   *)
LoggedStand ==
    /\ Logged("stand")
    /\ LET n == Event.n
       IN  /\ \/ Event.mode = "behind"
              \/ /\ Event.mode = "ok" /\ mode[n] = "behind"
                 /\ \/ \E h \in healing[n] : h.mode = "ok"
                    \/ \A m \in Node \ {n} : \E h \in healing[n] : h.n = m
           /\ mode' = [mode EXCEPT ![n] = Event.mode]
           /\ healing' = [healing EXCEPT ![n] = {}]
    /\ UNCHANGED <<old, up, run, layout, faults, mem, disk, heard, net, past>>
    /\ UNCHANGED <<written, aside, told, met, said, pages>>

(* Copy: somebody copied a node's disk. *)
LoggedCopy ==
    /\ Logged("copy")
    /\ old' = [old EXCEPT ![Event.n] = written[Event.n]]
    /\ UNCHANGED <<up, run, mode, layout, faults, mem, disk, heard, net, past>>
    /\ UNCHANGED <<written, aside, sayings>>

(* Replace: the disk of a node that is down became a copy of one, or an empty one. *)
LoggedReplace ==
    /\ Logged("replace")
    /\ LET s == IF Event.m = 0 THEN Empty ELSE old[Event.m]
       IN  /\ written' = [written EXCEPT ![Event.n] = s]
           /\ disk' = [disk EXCEPT ![Event.n] = s] /\ mem' = [mem EXCEPT ![Event.n] = s]
    /\ mode' = [mode EXCEPT ![Event.n] = "doubt"] /\ aside' = aside \ {Event.n}
    /\ UNCHANGED <<old, up, run, layout, faults, heard, net, past, sayings>>

(* Start: a node starts under a new actor, with what it had written, and serves nothing yet. *)
LoggedStart ==
    /\ Logged("start")
    /\ LET n == Event.n
           log == DotSet(Event.log)
           s == [written[n] EXCEPT !.log = log]
       IN  /\ Same(s, Event.sib, Event.ctx)
           /\ s.seen = DotSet(Event.seen) /\ s.know = DotSet(Event.know)
           /\ written[n].log \subseteq log /\ log \subseteq s.seen
           /\ Event.run = run[n] + 1 /\ Event.mode # "ok"
           /\ n \in aside => Event.mode = "behind"
           /\ mem' = [mem EXCEPT ![n] = s] /\ disk' = [disk EXCEPT ![n] = s]
           /\ written' = [written EXCEPT ![n] = s]
           /\ run' = [run EXCEPT ![n] = Event.run] /\ mode' = [mode EXCEPT ![n] = Event.mode]
           /\ heard' = [heard EXCEPT ![n] = NoClaims]
           /\ met' = [met EXCEPT ![n] = [m \in Node |-> Many]]
           /\ healing' = [healing EXCEPT ![n] = {}]
    /\ UNCHANGED <<old, up, layout, faults, net, past, aside, told, said, pages>>

Accepted == at > Len(Traces[trace])
Done == Accepted /\ UNCHANGED vars /\ UNCHANGED traceVars

TraceInit ==
    /\ Init
    /\ trace \in 1..Len(Traces) /\ at = 1
    /\ written = mem /\ told = {} /\ said = {} /\ pages = {} /\ healing = [n \in Node |-> {}] /\ aside = {}
    /\ met = [n \in Node |-> [m \in Node |-> Many]]
TraceNext ==
    \/ LoggedWrite \/ LoggedJoin \/ LoggedForget \/ LoggedCommit \/ LoggedSync
    \/ LoggedTell \/ LoggedMeet \/ LoggedHear
    \/ LoggedAsk \/ LoggedAnswer \/ LoggedServe \/ LoggedStart
    \/ LoggedWant \/ LoggedPage \/ LoggedWhole \/ LoggedStand
    \/ LoggedCopy \/ LoggedReplace
    \/ Done
TraceSpec == TraceInit /\ [][TraceNext]_<<vars, traceVars>>

(* What a clock has the object includes. *)
SeenIsIncluded == \A n \in Node : mem[n].seen \subseteq mem[n].in

(* For traces with a mistake in them: none goes on past the mistake.          *)
MistakesAreRefused == at <= Mistakes[trace]
=============================================================================
