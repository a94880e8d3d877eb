//! Recorded steps as TLA+, for the module `TraceStability`.
//!
//! A dot is its node, the number of the node's run, its counter. What a node knows is written out, dot
//! by dot. Questions between nodes are numbered from 1.

use holm_core::peer::{OpId, Position, Standing};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::version_vector::VersionVector;

use super::{Claim, Held, Page, Step, Trace};
use crate::steps::Shown;
use crate::steps::tla::Records;

impl Trace {
    /// Whether something happened in it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Write(..)))
    }

    /// For `TraceStability`.
    #[must_use]
    pub fn stability(&self) -> Records {
        let mut asked = Vec::new();
        self.steps.iter().map(|step| self.record(step, &mut asked)).collect()
    }

    fn record(&self, step: &Step, asked: &mut Vec<OpId>) -> String {
        let fields = match step {
            Step::Write(node, actor, deletes, under, after) => {
                let dot = Dot::new(*actor, after.object.context.get(*actor));
                let (dot, under) = (self.dot(dot), self.tops(under));
                let deletes = if *deletes { "TRUE" } else { "FALSE" };
                let of = format!("dot |-> {dot}, del |-> {deletes}, under |-> {under}");
                format!("\"write\", n |-> {node}, {of}, {}", self.held(after), node = node.0)
            }
            Step::Join(node, got, after) => {
                let got = self.object("got", got);
                format!("\"join\", n |-> {}, {got}, {}", node.0, self.held(after))
            }
            Step::Forget(node, cut) => {
                format!("\"forget\", n |-> {}, {}", node.0, self.object("", cut))
            }
            Step::Commit(node, after, log, is_synced) => {
                let is_synced = if *is_synced { "TRUE" } else { "FALSE" };
                let (after, know) = (self.held(after), self.prefixes(&after.know));
                let log = self.set(log);
                format!(
                    "\"commit\", n |-> {}, {after}, know |-> {know}, log |-> {log}, synced |-> {is_synced}",
                    node.0
                )
            }
            Step::Sync(node) => format!("\"sync\", n |-> {}", node.0),
            Step::Tell(from, to, claim) => {
                format!("\"tell\", n |-> {}, m |-> {}, {}", from.0, to.0, self.claim(claim))
            }
            Step::Hear(node, from, claim) => {
                format!("\"hear\", n |-> {}, m |-> {}, {}", node.0, from.0, self.claim(claim))
            }
            Step::Meet(node, other, run) => {
                format!("\"meet\", n |-> {}, m |-> {}, run |-> {}", node.0, other.0, self.run(*run))
            }
            Step::Ask(from, to, op, position) => {
                self.position("ask", (*from, *to), (*op, position), asked)
            }
            Step::Answer(from, to, op, position) => {
                self.position("answer", (*from, *to), (*op, position), asked)
            }
            Step::Serve(node, from, op, position) => {
                self.position("serve", (*node, *from), (*op, position), asked)
            }
            Step::Want(from, to, op, position) => {
                self.position("want", (*from, *to), (*op, position), asked)
            }
            Step::Page(from, to, page) => {
                format!("\"page\", n |-> {}, m |-> {}, {}", from.0, to.0, self.page("", page))
            }
            Step::Whole(node, from, page, after) => {
                let (page, know) = (self.page("got", page), self.prefixes(&after.know));
                format!(
                    "\"whole\", n |-> {}, m |-> {}, {page}, {}, know |-> {know}",
                    node.0,
                    from.0,
                    self.held(after)
                )
            }
            Step::Stand(node, standing) => {
                format!("\"stand\", n |-> {}, mode |-> {}", node.0, mode(*standing))
            }
            Step::Copy(node) => format!("\"copy\", n |-> {}", node.0),
            Step::Replace(node, from) => {
                let from = from.map_or(0, |from| from.0);
                format!("\"replace\", n |-> {}, m |-> {from}", node.0)
            }
            Step::Start(node, actor, found, log) => {
                let (know, log) = (self.prefixes(&found.know), self.set(log));
                let mode = mode(found.standing);
                let (run, found) = (self.run(*actor), self.held(found));
                format!(
                    "\"start\", n |-> {}, run |-> {run}, {found}, know |-> {know}, log |-> {log}, mode |-> {mode}",
                    node.0
                )
            }
        };
        format!("[k |-> {fields}]")
    }

    fn position(
        &self,
        kind: &str,
        (from, to): (NodeId, NodeId),
        (op, position): (OpId, &Position),
        asked: &mut Vec<OpId>,
    ) -> String {
        let number = asked.iter().position(|it| *it == op).unwrap_or_else(|| {
            asked.push(op);
            asked.len() - 1
        });
        let (know, mode) = (self.prefixes(&position.know), mode(position.standing));
        let who = format!("n |-> {}, m |-> {}, op |-> {}", from.0, to.0, number + 1);
        format!("\"{kind}\", {who}, mode |-> {mode}, know |-> {know}")
    }

    fn claim(&self, claim: &Claim) -> String {
        let (seen, know) = (self.set(&claim.seen), self.prefixes(&claim.know));
        format!("run |-> {}, seen |-> {seen}, know |-> {know}", self.run(claim.run))
    }

    fn page(&self, prefix: &str, page: &Page) -> String {
        let (seen, know) = (self.set(&page.seen), self.prefixes(&page.know));
        let object = self.object(prefix, &page.object);
        format!("{object}, {prefix}seen |-> {seen}, {prefix}know |-> {know}")
    }

    fn held(&self, held: &Held) -> String {
        format!("{}, seen |-> {}", self.object("", &held.object), self.set(&held.seen))
    }

    fn object(&self, prefix: &str, object: &Shown) -> String {
        let (live, context) = (self.set(&object.live), self.tops(&object.context));
        format!("{prefix}sib |-> {live}, {prefix}ctx |-> {context}")
    }

    /// A context's entries.
    fn tops(&self, context: &VersionVector) -> String {
        self.set(&context.iter().collect::<Vec<_>>())
    }

    /// All dots up to these.
    fn prefixes(&self, upto: &VersionVector) -> String {
        let up_to = |top: Dot| (1..=top.counter).map(move |n| Dot { counter: n, ..top });
        self.set(&upto.iter().flat_map(up_to).collect::<Vec<_>>())
    }

    fn set(&self, dots: &[Dot]) -> String {
        let dots: Vec<String> = dots.iter().map(|dot| self.dot(*dot)).collect();
        format!("{{{}}}", dots.join(","))
    }

    fn dot(&self, dot: Dot) -> String {
        let node = self.runs.iter().find(|(_, actor)| *actor == dot.actor).map_or(0, |it| it.0.0);
        format!("<<{node},{},{}>>", self.run(dot.actor), dot.counter)
    }

    /// The number of a run among those of its node, from 0.
    fn run(&self, actor: Actor) -> usize {
        let Some(at) = self.runs.iter().position(|(_, it)| *it == actor) else { return 0 };
        let (node, _) = self.runs[at];
        self.runs[..at].iter().filter(|(it, _)| *it == node).count()
    }
}

fn mode(standing: Standing) -> &'static str {
    match standing {
        Standing::Serves => "\"ok\"",
        Standing::Doubt => "\"doubt\"",
        Standing::Behind => "\"behind\"",
    }
}
