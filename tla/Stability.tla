----------------------------- MODULE Stability -----------------------------
(***************************************************************************)
(* When may a delete be forgotten? When every replica durably has it and    *)
(* everything before it, and every replica durably knows so (DESIGN 7;       *)
(* invariants I1, I3, I4, I5).                                               *)
(*                                                                         *)
(* One key, so one object a node, and one partition clock, `seen`. A node    *)
(* commits to `mem`, syncs to `disk`, loses power, returns, maybe with an    *)
(* older disk, another node's, or an empty one, and starts each time under a *)
(* new actor (Disks). Two rounds lead to forgetting: by pulses a node hears   *)
(* what the others have durably seen, and so what is stable (`know`); by      *)
(* pulses it hears what the others know to be stable, and forgets only what   *)
(* all know. So any one peer can tell a returning node that its disk is too  *)
(* old, if there is one such disk at a time: with two, asking one peer does   *)
(* not do (Stability-two-older-disks). Shown with two nodes and three writes, *)
(* late messages and removals; with three nodes for one delete and one older  *)
(* disk, nothing late; what more was only walked at random says so.           *)
(*                                                                         *)
(* Every state that was sent may arrive anywhere, late, or twice: a hint of  *)
(* a fallback is such a state, and so is what a client has read. `in` and    *)
(* `past` are the model's truth: the writes that a state includes, and what  *)
(* each writer had seen.                                                     *)
(*                                                                         *)
(* After Goncalves, Almeida, Baquero, Fonte: DottedDB, SRDS 2017 (its        *)
(* watermarks are the first round here; the second is ours), and Baquero,    *)
(* Almeida, Shoker: Pure operation-based replicated data types, 2017 (causal  *)
(* stability).                                                               *)
(*                                                                         *)
(* Left out: holes of dead runs, folding of clocks (Retirement), quorums and  *)
(* hints' ends (Replication), several keys, two layouts (Layout). What a      *)
(* replica sends of its own, in a repair or a relay, is a join of the states  *)
(* after writes, and does what these do one after the other.                  *)
(***************************************************************************)
EXTENDS Disks

Actor(n) == IF "same actor" \in Naive THEN <<n, 0>> ELSE <<n, run[n]>>
Past(d) == UNION {w.saw : w \in {v \in past : v.dot = d}}
Deletes == {w.dot : w \in {v \in past : v.del}}

(* Two states meet. A sibling stays if both have it, or the other side has not seen it: *)
(* by its context, or by its clock, if it came with one (else {}).            *)
Meet(mine, o, clock) ==
    LET keep == {d \in mine.sib : d \in o.sib \/ ~(Covers(o.ctx, d) \/ d \in clock)}
        late(d) == Covers(mine.ctx, d) \/ ("blind" \notin Naive /\ d \in mine.seen)
        new == {d \in o.sib : d \in mine.sib \/ ~late(d)}
    IN  [mine EXCEPT !.sib = keep \cup new, !.ctx = Merge(@, o.ctx),
                     !.seen = @ \cup Names(o), !.log = @ \cup (Names(o) \ mine.seen),
                     !.in = @ \cup o.in]

(* What a client may have read: nothing, a replica's state, a state sent ever. *)
Contexts == {[ctx |-> {}, in |-> {}]}
            \cup {[ctx |-> mem[m].ctx, in |-> mem[m].in] : m \in {k \in Node : Serves(k)}}
            \cup {[ctx |-> o.ctx, in |-> o.in] : o \in net}

WriteUnder(n, t, del) ==
    LET a == Actor(n)
        d == [actor |-> a, n |-> Cardinality(OfActor(mem[n].seen, a)) + 1]
        kept == {e \in mem[n].sib : ~Covers(t.ctx, e)}
        o == [mem[n] EXCEPT
                !.sib = IF del THEN kept ELSE kept \cup {d},
                !.ctx = Merge(Merge(@, t.ctx), {d}),
                !.seen = @ \cup {d} \cup t.ctx,
                !.log = @ \cup {d} \cup (t.ctx \ mem[n].seen), !.in = @ \cup t.in \cup {d}]
    IN  /\ Serves(n)
        /\ Commit(n, o)
        /\ past' = past \cup {[dot |-> d, saw |-> t.in, del |-> del]}
        /\ net' = IF Sending = "nothing" THEN net ELSE net \cup {State(o)}
        /\ UNCHANGED <<nodes, heard>>

(* Write: n coordinates a put, or a delete, with the context that a client holds. *)
Write(n, del) ==
    /\ n \in Writers /\ Cardinality(past) < Len(Writes)
    /\ Writes[Cardinality(past) + 1] \in {"any", IF del THEN "delete" ELSE "put"}
    /\ \E t \in Contexts : (del => t.ctx # {}) /\ WriteUnder(n, t, del)

(* Receive: a state that was sent, now or long ago, arrives at n.             *)
Receive(n) == \E o \in net :
    /\ Serves(n) /\ Meet(mem[n], o, {}) # mem[n]
    /\ Commit(n, Meet(mem[n], o, {}))
    /\ UNCHANGED <<nodes, heard, net, past>>

(* Sync: n makes durable what it has committed.                               *)
Sync(n) ==
    /\ up[n] /\ disk[n] # mem[n]
    /\ disk' = [disk EXCEPT ![n] = mem[n]]
    /\ UNCHANGED <<nodes, mem, heard, net, past>>

Claim(n) ==
    LET s == IF "committed" \in Naive THEN mem[n] ELSE disk[n]
    IN  [seen |-> s.seen, know |-> s.know]

Asked(m, claims) ==
    IF "down" \in Naive THEN {n \in layout : n = m \/ claims[n] # NoClaim} ELSE layout
Stable(m, claims) ==
    LET of(n) == IF "set" \in Naive THEN claims[n].seen ELSE Prefix(claims[n].seen)
    IN  {d \in UNION {of(n) : n \in layout} : \A n \in Asked(m, claims) : d \in of(n)}
Forgettable(m) ==
    IF Rounds = 1 THEN mem[m].know
    ELSE LET claims == [heard[m] EXCEPT ![m] = Claim(m)]
         IN  {d \in mem[m].know : \A n \in Asked(m, claims) : d \in claims[n].know}

(* Pulse: n tells m what it durably has and durably knows; m concludes what is stable. *)
Pulse(n, m) ==
    LET claims == [heard[m] EXCEPT ![n] = Claim(n)]
        stable == Stable(m, [claims EXCEPT ![m] = Claim(m)])
    IN  /\ Serves(n) /\ Serves(m) /\ (n # m \/ layout = {n})
        /\ heard[m] # claims \/ ~(stable \subseteq mem[m].know)
        /\ heard' = [heard EXCEPT ![m] = claims]
        /\ Commit(m, [mem[m] EXCEPT !.know = @ \cup stable])
        /\ UNCHANGED <<nodes, net, past>>

(* Forget: n trims its log and reduces the context; an empty tombstone vanishes by it. *)
Forget(n) ==
    LET all == "timer" \in Naive \/ mem[n].ctx \subseteq Forgettable(n)
        s == [mem[n] EXCEPT !.ctx = IF all THEN Tops(mem[n].sib) ELSE @,
                            !.log = @ \ Forgettable(n)]
    IN  /\ Serves(n) /\ s # mem[n]
        /\ Commit(n, s)
        /\ UNCHANGED <<nodes, heard, net, past>>

(* Cut log: n's log outgrew its bound.                                        *)
CutLog(n) ==
    /\ Serves(n) /\ mem[n].log # {} /\ Budget("cut", MaxCuts)
    /\ Commit(n, [mem[n] EXCEPT !.log = {}])
    /\ UNCHANGED <<old, up, run, mode, layout, heard, net, past>>

Clock(n) == IF "one-sided" \in Naive THEN {} ELSE mem[n].seen
(* State s with all that n has.                                               *)
Whole(s, n) == [Meet(s, mem[n], Clock(n)) EXCEPT !.seen = @ \cup mem[n].seen,
                                                 !.know = @ \cup mem[n].know]
RECURSIVE WholeOf(_, _)
WholeOf(s, from) ==
    IF from = {} THEN s
    ELSE LET n == CHOOSE n \in from : TRUE IN WholeOf(Whole(s, n), from \ {n})

(* Repair: m lacks a dot of which n's log has the key; n sends the key's state. *)
Repair(m, n) == \E d \in mem[n].seen :
    /\ Serves(m) /\ Serves(n) /\ d \notin mem[m].seen
    /\ d \in mem[n].log \/ "marked" \in Naive
    /\ LET met == IF d \in mem[n].log THEN Meet(mem[m], mem[n], Clock(n)) ELSE mem[m]
       IN  Commit(m, [met EXCEPT !.seen = @ \cup {d}, !.log = @ \cup {d}])
    /\ UNCHANGED <<nodes, heard, net, past>>

(* Resync: m, behind or without a dot whose log entry n lacks, takes all of n and its clock. *)
Resync(m, n) ==
    /\ up[m] /\ m \in layout /\ Serves(n) /\ (Knows(n, m) \/ "one way" \in Naive)
    /\ \/ mode[m] = "behind"
       \/ mode[m] = "ok" /\ "marked" \notin Naive
             /\ \E d \in mem[n].seen \ mem[m].seen : d \notin mem[n].log
    /\ Commit(m, Whole(mem[m], n))
    /\ mode' = [mode EXCEPT ![m] = "ok"]
    /\ UNCHANGED <<old, up, run, layout, faults, heard, net, past>>

(* Gather: all others are behind, so n takes all that any of them has: nobody has more. *)
(* (In one step: with three nodes what happens between its parts is not seen.) *)
Gather(n) ==
    /\ up[n] /\ n \in layout /\ mode[n] # "ok" /\ layout # {n}
    /\ \A m \in layout \ {n} : up[m] /\ mode[m] = "behind"
    /\ Commit(n, WholeOf(mem[n], layout \ {n}))
    /\ mode' = [mode EXCEPT ![n] = "ok"]
    /\ heard' = Without(heard, n)
    /\ UNCHANGED <<old, up, run, layout, faults, net, past>>

Next ==
    \/ \E n \in Node, del \in BOOLEAN : Write(n, del)
    \/ \E n \in Node :
        \/ Receive(n) \/ Sync(n) \/ Forget(n) \/ CutLog(n)
        \/ Crash(n) \/ Start(n) \/ Backup(n) \/ Remove(n) \/ Return(n) \/ Gather(n)
        \/ \E m \in Node : \/ Pulse(n, m) \/ Repair(n, m) \/ Resync(n, m)
                           \/ Compare(n, m) \/ Restore(n, m)

Spec == Init /\ [][Next]_vars

(* Copies that nobody can use any more do not matter.                         *)
View == <<mem, disk, up, run, mode, heard, layout, net, past,
          [faults EXCEPT !.backup = IF Copies THEN @ ELSE 0], IF Copies THEN old ELSE 0>>
Symmetry == {p \in Permutations(Node) : \A s \in {Writers, Faulty, Copied} : {p[n] : n \in s} = s}
PutDelete == <<"put", "delete">>
PutDeletePut == Append(PutDelete, "put")
PutPutDelete == <<"put", "put", "delete">>

(* What an older disk has lost another replica knows: it is not alone in its layout, and  *)
(* nothing became stable with one replica alone.                              *)
NotAlone == (faults.restore > 0 => layout = Node) /\ \A n \in Node : heard[n][n] = NoClaim

(* For three nodes: all writes but the last are everywhere before pulses come, and known *)
(* to be stable somewhere before faults come; the last write comes after them. *)
Directed ==
    LET claims == {heard[n][m] : n, m \in Node} IN
    /\ faults.crash = 0 /\ claims # {NoClaim} =>
          \A n \in Node : Cardinality(mem[n].seen) = Len(Writes) - 1
    /\ faults.crash > 0 => faults.removal > 0 \/ \E c \in claims : ~(c.know \subseteq {First})
    /\ Cardinality(past) = Len(Writes) =>
          faults.restore = MaxRestores /\ faults.removal = MaxRemovals

Fair ==
    /\ \A n \in Node : WF_vars(Sync(n)) /\ WF_vars(Forget(n))
                       /\ WF_vars(Start(n)) /\ WF_vars(Return(n)) /\ WF_vars(Gather(n))
    /\ \A n, m \in Node : WF_vars(Pulse(n, m)) /\ WF_vars(Repair(n, m))
                          /\ WF_vars(Resync(n, m)) /\ WF_vars(Compare(n, m))
LiveSpec == Spec /\ Fair

-----------------------------------------------------------------------------
TypeOK ==
    /\ \A n \in Node : mem[n].log \cup mem[n].know \cup mem[n].sib \subseteq mem[n].seen
    /\ up \in [Node -> BOOLEAN] /\ layout \subseteq Node /\ layout # {}
    /\ mode \in [Node -> {"ok", "doubt", "behind"}]

(* I1. *)
DotsAreUnique == \A x, y \in past : x.dot = y.dot => x = y

(* I4: nothing shows a write that a write which it includes had seen.         *)
NoResurrection ==
    \A n \in Node : Serves(n) =>
        \A d \in mem[n].sib : \A e \in mem[n].in : d \notin Past(e)

(* What makes forgetting safe: what one has forgotten all who serve have seen. *)
ForgottenIsSeen ==
    \A n, m \in Node : Serves(n) /\ Serves(m) =>
        \A d \in mem[m].in : Covers(mem[m].ctx, d) \/ d \in mem[n].seen

(* I5: nothing is missing but for a reason.                                   *)
NothingVanishes ==
    \A n \in Node : Serves(n) =>
        \A d \in mem[n].in \ Deletes :
            d \in mem[n].sib \/ \E e \in mem[n].in : d \in Past(e)

(* I3. *)
EqualClocksEqualStates ==
    \A n, m \in Node :
        Serves(n) /\ Serves(m) /\ mem[n].seen = mem[m].seen => mem[n].sib = mem[m].sib

(* Progress: once faults and writes end, all that is dead is forgotten everywhere. *)
AllIsForgotten == <>[](\A n \in Node : mem[n].log = {} /\ mem[n].ctx \subseteq mem[n].sib)
=============================================================================
