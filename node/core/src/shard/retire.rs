//! Closes the actors of runs that ended: finds out which of their dots exist, and makes all others void.
//!
//! # The problem
//! A run that dies leaves holes: dots that nobody has, and nobody will ever send. No replica can tell
//! a hole from a write on its way, and behind a hole nothing becomes stable. Who asks only some nodes
//! voids what another still holds; who lets an answer be overtaken by a late message voids what has
//! just arrived.
//!
//! # The rule
//! The replica with the lowest id closes its partitions' actors, in four steps for many at a time:
//! 1. every node: *is it yours?* An actor that is alive is left alone. All are asked, so nobody has to
//!    know whose an actor was: those of fallbacks, and those that a failed commit ended, are closed alike;
//! 2. every node: *keep no hint that names it from now on*; who still has hints of the partition says
//!    "later", because they may have to go to a replica that is not frozen;
//! 3. every replica: *take no dot of it that you lack; which do you have?*
//! 4. the actor's dots are those that some replica has. The decision is durable before it is told.
//!    Who learns it marks what is void as seen, and gets the rest by repair.
//!
//! **An answer is a promise of a disk**, and dies with it. So all of it happens in one *view*: the layout, and
//! the run of every node that a node is connected to. Who is asked answers only if its view is the
//! asking node's, down to the last run, and durably; a decision needs all answers of one view that is still the
//! asking node's own. A node that lost its disk is another run, and takes a partition from one that
//! has met this run ([`super::resync`]): either that one has frozen the actor before, and the
//! freeze is taken over with the partition, or its view is another. So nothing counts runs, and a node that
//! is down holds all of it back, until it returns or is removed from the layout.
//!
//! **Two at a time** decide the same: an actor that anybody knows to be closed is closed like that,
//! and of two who ask in one view each is asked by the other.
//!
//! **Folding**: when all that the actor has may be forgotten ([`super::stable`]), which means that
//! every replica durably has it and knows that, its entry goes from the clock ([`super::ends`]).
//!
//! Whoever misses a decision asks for it: an actor that is frozen or silent for some passes is *wanted*
//! from its closer.
//!
//! # Bounds
//! One round at a time, of [`ROUND_MAX`] actors; as many wanted ones. Messages of a few kilobytes, seldom.
//!
//! Source: rules 20 to 28 of `tla/RULES.md`, `tla/Retirement.tla`. Frozen answers are a consistent cut:
//! Chandy, Lamport, Distributed snapshots, TOCS 1985. Views instead of counted runs are ours.

use std::collections::{BTreeMap, BTreeSet};

use holm_protocol::error::{NotReady, RequestError};
use holm_protocol::ids::{Actor, NodeId, Partition};
use holm_protocol::version_vector::VersionVector;
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::{DotSet, IntervalSet};
use crate::layout::Layout;
use crate::object::Object;
use crate::peer::{Actors, CloseMessage, Finding, PeerMessage, Refusal, Step};
use crate::shard::ends::{Bar, End};
use crate::shard::event::Effect;
use crate::shard::fallback::Guest;
use crate::shard::partition::PartitionState;
use crate::shard::{Route, Shard, Turn};
use crate::store::Store;
use crate::time::Mono;

/// Actors, of all partitions, that one round closes: some kilobytes to and from each node.
const ROUND_MAX: usize = 512;

/// How long a round may take, milliseconds: several round trips, and syncs at each end.
const ROUND_MS: u64 = 10_000;

/// Passes in which nothing new was seen of an actor before it is asked about, and before others are
/// asked to ask: its last writes are on their way to replicas, which must not be frozen without them.
const QUIET_PASSES: u32 = 2;
const SILENT_PASSES: u32 = 4;

/// An actor and its partition.
type Place = (Partition, Actor);

/// What is awaited about one actor.
#[derive(Debug, Default)]
struct Asked {
    waits_for: BTreeSet<NodeId>,
    dots: IntervalSet,
}

/// A round under way.
#[derive(Debug)]
struct Round {
    view: u64,
    step: Step,
    deadline: Mono,
    actors: BTreeMap<Place, Asked>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Retiring {
    /// When to look next; `None` before the first layout.
    next: Option<Mono>,
    /// Actors of no run that is known: how much was seen of each, and for how many passes just that.
    quiet: BTreeMap<Place, (u64, u32)>,
    /// Actors that others want closed.
    wanted: BTreeSet<Place>,
    round: Option<Round>,
    /// Messages that speak of the open batch.
    open: Vec<Effect>,
    /// Messages that wait until the disk has come to a number.
    waiting: Option<(u64, Vec<Effect>)>,
    /// When to look whether it has.
    waiting_at: Option<Mono>,
}

impl Retiring {
    /// When something is to be done.
    pub(super) fn due(&self) -> Option<Mono> {
        self.next.into_iter().chain(self.waiting_at).min()
    }

    /// There is a layout.
    pub(super) fn plan(&mut self, now: Mono, every_ms: u64) {
        if self.next.is_none() && every_ms > 0 {
            self.next = Some(now.plus_ms(every_ms));
        }
    }

    /// A batch is committed: what speaks of it goes out when it is durable.
    pub(super) fn committed(&mut self, number: u64) {
        if !self.open.is_empty() {
            let (_, mut effects) = self.waiting.take().unwrap_or_default();
            effects.append(&mut self.open);
            self.waiting = Some((number, effects));
            self.waiting_at = Some(Mono(0));
        }
    }

    /// A batch is lost: nothing that it promised holds.
    pub(super) fn roll_back(&mut self) {
        self.open.clear();
        self.round = None;
    }
}

impl Shard {
    /// The layout, and which run of each of its nodes this node is connected to; `None` if there is
    /// one that it is not.
    pub(super) fn view(&self) -> Option<u64> {
        let layout = self.cluster.layout.as_ref()?;
        layout.node(self.boot.node)?;
        let mut bytes = layout.digest().to_be_bytes().to_vec();
        for node in layout.nodes() {
            let run = self.run_of(node.id)?;
            bytes.extend([node.id.0.to_be_bytes(), run.0.to_be_bytes()].concat());
        }
        Some(xxh3_64(&bytes))
    }

    fn run_of(&self, node: NodeId) -> Option<Actor> {
        if node == self.boot.node {
            return Some(self.run);
        }
        self.peers.run(node).filter(|_| self.peers.is_up(node))
    }

    /// Whether an actor is this node's own and not at its end.
    fn is_alive(&self, (partition, actor): Place) -> bool {
        let guest = self.guests.get(&partition).and_then(Guest::alive);
        actor == self.boot.actor || guest == Some(actor)
    }

    /// Looks for actors that ended, and goes on with those that are being closed.
    pub(super) fn retire<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let now = turn.now.mono;
        if self.retiring.next.is_none_or(|next| next > now) {
            return;
        }
        self.retiring.next = Some(now.plus_ms(self.config.retire_ms));
        let sound = self.is_sound() && self.writable(turn.store).is_ok();
        let (Some(view), Some(layout)) =
            (self.view().filter(|_| sound), self.cluster.layout.clone())
        else {
            self.retiring.round = None;
            return;
        };
        let is_on = |round: &Round| round.view == view && round.deadline > now;
        self.retiring.round = self.retiring.round.take().filter(is_on);
        self.fold_all();
        let (mine, others) = self.candidates(&layout);
        for (closer, actors) in others {
            let message = PeerMessage::Close(CloseMessage::Wanted(actors));
            turn.out.push(Effect::Send { to: vec![closer], message });
        }
        if self.retiring.round.is_none() && !mine.is_empty() {
            let others = layout.nodes().iter().map(|node| node.id);
            let others: BTreeSet<NodeId> = others.filter(|&node| node != self.boot.node).collect();
            let asked =
                |place| (place, Asked { waits_for: others.clone(), dots: IntervalSet::new() });
            let deadline = now.plus_ms(ROUND_MS);
            let is_mine =
                |place: &Place| matches!(self.finding(*place, Step::Whose), Finding::Promised(_));
            let actors = mine.into_iter().filter(is_mine);
            let actors = actors.take(ROUND_MAX).map(asked).collect();
            self.retiring.round = Some(Round { view, step: Step::Whose, deadline, actors });
            self.ask_about_ends(turn);
            self.go_on_closing(turn);
        }
    }

    /// Folds away actors of which every replica durably has all, and knows that every one has.
    fn fold_all(&mut self) {
        let is_done = |(partition, actor): &Place| {
            let end = self.ends.get(*partition, *actor);
            let Some(End::Closed(dots)) = end else { return false };
            let forgettable = self.stable.forgettable(*partition);
            forgettable.is_some_and(|forgettable| forgettable.get(*actor) >= dots.max())
        };
        let of = |(&partition, state): (&Partition, &'_ PartitionState)| {
            let actors: Vec<Actor> = state.clock().iter().map(|(actor, _)| actor).collect();
            actors.into_iter().map(move |actor| (partition, actor))
        };
        let done: Vec<Place> = self.partitions.iter().flat_map(of).filter(is_done).collect();
        done.into_iter().for_each(|place| self.fold_end(place));
    }

    /// Actors at their ends: those that this node is to close, and those that others are.
    fn candidates(&mut self, layout: &Layout) -> (BTreeSet<Place>, BTreeMap<NodeId, Actors>) {
        // Of this node's own actors it knows itself which is alive: a failed commit ends some early.
        let others = layout.nodes().iter().map(|node| node.id);
        let others = others.filter(|&node| node != self.boot.node);
        let runs: BTreeSet<Actor> = others.filter_map(|node| self.run_of(node)).collect();
        let before = std::mem::take(&mut self.retiring.quiet);
        let mut quiet = BTreeMap::new();
        let seen = self.partitions.iter().flat_map(|(&partition, state)| {
            state.clock().iter().map(move |(actor, seen)| ((partition, actor), seen.count()))
        });
        let frozen = self.ends.frozen().iter().map(|&place| (place, 0));
        for (place, count) in frozen.chain(seen) {
            let (partition, actor) = place;
            let end = self.ends.get(partition, actor);
            let is_known = end.is_some_and(|end| end.dots().is_some());
            // A run may live longer than its first actor. Who is frozen has ended.
            let is_alive = end.is_none() && runs.contains(&actor) || self.is_alive(place);
            if is_known || is_alive {
                continue;
            }
            let passes = match before.get(&place) {
                Some(&(known, passes)) if known == count => passes + 1,
                _ => 0,
            };
            quiet.insert(place, (count, passes));
        }
        let mut mine = std::mem::take(&mut self.retiring.wanted);
        let mut others: BTreeMap<NodeId, Actors> = BTreeMap::new();
        for (&(partition, actor), &(_, passes)) in &quiet {
            let Some(&closer) = layout.replicas(partition).iter().min() else { continue };
            if closer == self.boot.node && passes >= QUIET_PASSES {
                mine.insert((partition, actor));
            } else if closer != self.boot.node && passes >= SILENT_PASSES {
                let actors = others.entry(closer).or_default();
                if actors.len() < ROUND_MAX {
                    actors.push((partition, actor));
                }
            }
        }
        self.retiring.quiet = quiet;
        (mine, others)
    }

    /// Sends the questions of the round's step, one message to each node.
    fn ask_about_ends<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let Some(Round { view, step, actors, .. }) = &self.retiring.round else { return };
        let mut asked: BTreeMap<NodeId, Actors> = BTreeMap::new();
        for (&place, Asked { waits_for, .. }) in actors {
            waits_for.iter().for_each(|&node| asked.entry(node).or_default().push(place));
        }
        for (node, actors) in asked {
            let ask = CloseMessage::Ask { view: *view, step: *step, actors };
            turn.out.push(Effect::Send { to: vec![node], message: PeerMessage::Close(ask) });
        }
    }

    /// A message about actors that ended.
    pub(super) fn on_close<S: Store>(
        &mut self,
        from: NodeId,
        message: CloseMessage,
        turn: &mut Turn<'_, S>,
    ) {
        match message {
            CloseMessage::Ask { view, step, actors } => {
                let sound = self.is_sound() && self.writable(turn.store).is_ok();
                if !sound || self.view() != Some(view) {
                    return;
                }
                let say = |(partition, actor)| {
                    (partition, (actor, self.finding((partition, actor), step)))
                };
                let found = actors.into_iter().map(say).collect();
                self.promise(vec![from], CloseMessage::Answer { view, step, found });
            }
            CloseMessage::Answer { view, step, found } => {
                let is_it = |round: &Round| (round.view, round.step) == (view, step);
                if self.retiring.round.as_ref().is_some_and(is_it) && self.view() == Some(view) {
                    for (partition, (actor, finding)) in found {
                        self.on_finding(from, (partition, actor), finding);
                    }
                    self.go_on_closing(turn);
                }
            }
            CloseMessage::Ends(ends) => {
                if self.writable(turn.store).is_err() {
                    return;
                }
                for (partition, (actor, dots)) in ends {
                    self.learn_end((partition, actor), dots);
                }
            }
            CloseMessage::Wanted(actors) => {
                let is_open = |place: &Place| self.ends_of([*place]).is_empty();
                let open: Vec<Place> = actors.iter().copied().filter(is_open).collect();
                let ends = self.ends_of(actors);
                self.tell_ends(vec![from], ends);
                let wanted = open.into_iter().filter(|(partition, _)| self.closes(*partition));
                let wanted: Vec<Place> = wanted.take(ROUND_MAX).collect();
                if self.retiring.wanted.len() <= ROUND_MAX {
                    self.retiring.wanted.extend(wanted);
                }
            }
        }
    }

    /// Whether this node closes the actors of a partition.
    fn closes(&self, partition: Partition) -> bool {
        let layout = self.cluster.layout.as_ref();
        let first = layout.and_then(|layout| layout.replicas(partition).iter().min());
        first == Some(&self.boot.node) && self.boot.owns(partition)
    }

    /// What this node says of an actor, and promises, in the open batch.
    fn finding(&mut self, place: Place, step: Step) -> Finding {
        let (partition, actor) = place;
        let end = self.ends.get(partition, actor).and_then(End::dots);
        if let Some(dots) = end {
            return Finding::Closed(dots.clone());
        }
        if self.is_alive(place) {
            return Finding::Alive;
        }
        let layout = self.cluster.layout.as_ref();
        let is_replica = layout.is_some_and(|it| it.is_replica(partition, self.boot.node));
        let is_held = self.partitions.contains_key(&partition);
        if !self.boot.owns(partition) || is_replica != is_held || self.hints.of(partition) > 0 {
            return Finding::Later;
        }
        // What it has seen says nothing before it is known to be all that it ever had.
        if is_replica && !self.serves(partition) {
            return Finding::Later;
        }
        match (step, is_replica) {
            // A replica keeps no hints of its partitions.
            (Step::Whose, _) | (Step::Hints, true) => Finding::Promised(IntervalSet::new()),
            (Step::Hints, false) | (Step::Dots, true) => Finding::Promised(self.freeze(place)),
            (Step::Dots, false) => Finding::Later,
        }
    }

    /// Freezes an actor, in the open batch: these of its dots are here.
    fn freeze(&mut self, (partition, actor): Place) -> IntervalSet {
        if self.ends.get(partition, actor).is_none() {
            self.ends.set(partition, actor, End::Frozen);
            self.counters.runs_frozen += 1;
        }
        let seen = self.partitions.get(&partition).and_then(|state| state.clock().get(actor));
        seen.cloned().unwrap_or_default()
    }

    fn on_finding(&mut self, from: NodeId, place: Place, finding: Finding) {
        let Some(round) = &mut self.retiring.round else { return };
        let Some(asked) = round.actors.get_mut(&place) else { return };
        if !asked.waits_for.remove(&from) {
            return;
        }
        match finding {
            Finding::Promised(dots) => asked.dots.merge(&dots),
            // What it is wanted for is tried again at a later pass.
            Finding::Alive | Finding::Later => _ = round.actors.remove(&place),
            Finding::Closed(dots) => {
                round.actors.remove(&place);
                if self.learn_end(place, dots) {
                    self.tell_all([place]);
                }
            }
        }
    }

    /// Goes on when everybody has answered.
    fn go_on_closing<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let is_done = |round: &mut Round| round.actors.values().all(|it| it.waits_for.is_empty());
        let Some(mut round) = self.retiring.round.take_if(is_done) else { return };
        if round.actors.is_empty() {
            return;
        }
        if round.step == Step::Dots {
            let decided: Vec<Place> = round.actors.keys().copied().collect();
            for (place, asked) in round.actors {
                self.learn_end(place, asked.dots);
            }
            return self.tell_all(decided);
        }
        let Some(layout) = self.cluster.layout.clone() else { return };
        let me = self.boot.node;
        if round.step == Step::Whose {
            round.step = Step::Hints;
            let others: BTreeSet<NodeId> = layout.nodes().iter().map(|node| node.id).collect();
            for asked in round.actors.values_mut() {
                asked.waits_for = others.iter().copied().filter(|&node| node != me).collect();
            }
        } else {
            round.step = Step::Dots;
            for (&place, asked) in &mut round.actors {
                let replicas = layout.replicas(place.0).iter().copied();
                asked.waits_for = replicas.filter(|&node| node != me).collect();
                asked.dots = self.freeze(place);
            }
        }
        self.retiring.round = Some(round);
        self.ask_about_ends(turn);
        // A replica alone has nobody to ask.
        self.go_on_closing(turn);
    }

    /// Learns which dots an actor has, in the open batch: marks all others as seen. Says whether it did
    /// not know that, and could.
    pub(super) fn learn_end(&mut self, place: Place, dots: IntervalSet) -> bool {
        let (partition, actor) = place;
        if dots.is_empty() || !self.boot.owns(partition) || self.is_alive(place) {
            self.counters.peer_rejections += 1;
            return false;
        }
        if let Some(known) = self.ends.get(partition, actor).and_then(End::dots) {
            // There is one decision.
            self.counters.peer_rejections += u64::from(*known != dots);
            return false;
        }
        let state = self.partitions.get(&partition);
        if state.is_some_and(|state| !dots.covers(&state.clock().seen_of(actor))) {
            // What is here cannot be void: such a decision was made without this disk.
            self.counters.ends_refused += 1;
            return false;
        }
        self.counters.runs_closed += 1;
        self.ends.set(partition, actor, End::Closed(dots));
        self.mark_end(partition);
        true
    }

    fn mark_end(&mut self, partition: Partition) {
        if let Some(state) = self.partitions.get_mut(&partition) {
            state.mark_ends(partition, &self.ends);
        }
    }

    /// Takes over what another replica knew when this one began to take a partition whole from it.
    pub(super) fn adopt_ends(&mut self, partition: Partition, ends: &[(Actor, End)]) {
        for &(actor, ref end) in ends {
            let place = (partition, actor);
            match end.dots() {
                Some(dots) => _ = self.learn_end(place, dots.clone()),
                None if self.is_alive(place) => self.counters.peer_rejections += 1,
                None => _ = self.freeze(place),
            }
        }
    }

    /// The same of what is folded there, when all of it is here.
    pub(super) fn adopt_folds(&mut self, partition: Partition, ends: &[(Actor, End)]) {
        for (actor, _) in ends.iter().filter(|(_, end)| matches!(end, End::Folded(_))) {
            self.fold_end((partition, *actor));
        }
    }

    /// Folds an actor away, in the open batch, if all that it has is here.
    fn fold_end(&mut self, (partition, actor): Place) {
        let Some(End::Closed(dots)) = self.ends.get(partition, actor).cloned() else { return };
        let Some(state) = self.partitions.get(&partition) else { return };
        if state.clock().seen_of(actor).prefix() >= dots.max() {
            self.ends.set(partition, actor, End::Folded(dots));
            self.counters.runs_folded += 1;
            self.mark_end(partition);
        }
    }

    /// What is decided of these.
    fn ends_of(
        &self,
        actors: impl IntoIterator<Item = Place>,
    ) -> Vec<(Partition, (Actor, IntervalSet))> {
        let known = |(partition, actor): Place| {
            let dots = self.ends.get(partition, actor)?.dots()?.clone();
            Some((partition, (actor, dots)))
        };
        actors.into_iter().filter_map(known).collect()
    }

    fn tell_ends(&mut self, to: Vec<NodeId>, ends: Vec<(Partition, (Actor, IntervalSet))>) {
        if !ends.is_empty() && !to.is_empty() {
            self.promise(to, CloseMessage::Ends(ends));
        }
    }

    /// Tells every node what is decided.
    fn tell_all(&mut self, actors: impl IntoIterator<Item = Place>) {
        let ends = self.ends_of(actors);
        let Some(layout) = &self.cluster.layout else { return };
        let others = layout.nodes().iter().map(|node| node.id);
        self.tell_ends(others.filter(|&node| node != self.boot.node).collect(), ends);
    }

    /// Says something when all of it is durable.
    fn promise(&mut self, to: Vec<NodeId>, message: CloseMessage) {
        self.retiring.open.push(Effect::Send { to, message: PeerMessage::Close(message) });
    }

    /// Between two batches: says what has become durable.
    pub(super) fn keep_promises<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        let number = self.retiring.waiting.as_ref().map(|(number, _)| *number);
        self.retiring.waiting_at = None;
        if number.is_some_and(|number| turn.store.durable() >= number) {
            let waiting = self.retiring.waiting.take();
            turn.out.extend(waiting.into_iter().flat_map(|(_, effects)| effects));
        } else if number.is_some() {
            self.retiring.waiting_at = Some(turn.now.mono.plus_ms(self.config.pulse_ms.max(1)));
        }
    }

    /// Of dots that are asked for, those that are void: who asks is told so.
    pub(super) fn void_of(&mut self, partition: Partition, asked: &DotSet, from: NodeId) -> DotSet {
        let mut void = DotSet::new();
        let mut closed = BTreeSet::new();
        for (actor, first, last) in asked.spans() {
            let Some(dots) = self.ends.get(partition, actor).and_then(End::dots) else { continue };
            let mut span = IntervalSet::new();
            span.insert_range(first, last);
            for (first, last) in span.difference(dots) {
                void.insert_range(actor, first, last);
                closed.insert((partition, actor));
            }
        }
        let ends = self.ends_of(closed);
        self.tell_ends(vec![from], ends);
        void
    }

    /// Whether an object may be taken: it names nothing that is void, or may be.
    pub(super) fn check_ends(&self, partition: Partition, object: &Object) -> Result<(), Refusal> {
        let clock = self.partitions.get(&partition).map(|state| state.clock());
        let check = |dot| self.ends.check(partition, dot, clock);
        object.named_dots().try_for_each(check).map_err(|bar| match bar {
            Bar::Frozen => Refusal::Frozen,
            Bar::Void => Refusal::Void,
        })
    }

    /// Whether an object may be taken with the whole partition: it names nothing that is void. Other
    /// dots of a frozen actor may come like this: who sends them has them, and answers for them itself.
    pub(super) fn check_void(&self, partition: Partition, object: &Object) -> Result<(), Refusal> {
        let is_void = |dot| matches!(self.ends.check(partition, dot, None), Err(Bar::Void));
        if object.named_dots().any(is_void) { Err(Refusal::Void) } else { Ok(()) }
    }

    /// A client's context as it may become part of an object.
    pub(super) fn lower_context(
        &self,
        route: &Route,
        context: &VersionVector,
        object: &Object,
    ) -> Result<VersionVector, RequestError> {
        let state = self.partitions.get(&route.partition).filter(|_| route.replica);
        let clock = state.map(|state| state.clock());
        let lowered = self.ends.lower(route.partition, context, (object, clock));
        // Nothing has happened, and another replica may know the write.
        lowered.map_err(|_| RequestError::NotReady { reason: NotReady::Undecided })
    }
}
