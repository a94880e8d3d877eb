-------------------------------- MODULE Dots --------------------------------
(***************************************************************************)
(* Dots and contexts, as Stability and Retirement write them. A dot is       *)
(* [actor, n]. A context is a set of dots, at most one an actor: its entry.  *)
(* An entry covers the smaller counters of its actor too.                    *)
(***************************************************************************)
EXTENDS Naturals, FiniteSets

Covers(ctx, d) == \E e \in ctx : e.actor = d.actor /\ d.n <= e.n

(* The greatest dot of each actor: the smallest context that covers `dots`.  *)
Tops(dots) == {d \in dots : \A e \in dots : e.actor = d.actor => e.n <= d.n}
Merge(v, w) == Tops(v \cup w)

(* The dots that a state names: each is a write whose effect it includes.    *)
Names(o) == o.sib \cup o.ctx

(* What of a clock is contiguous, per actor.                                 *)
Prefix(seen) ==
    {d \in seen : \A i \in 1..(d.n - 1) : [actor |-> d.actor, n |-> i] \in seen}
OfActor(dots, a) == {d \in dots : d.actor = a}
=============================================================================
