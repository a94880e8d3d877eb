//! Steps in words.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use holm_core::clock::{DotSet, IntervalSet};
use holm_core::object::Object;
use holm_core::peer::verify::{Answer, KeyState, Question};
use holm_core::peer::{
    Claimed, CloseMessage, CompareMessage, Finding, Found, GapObject, HintMessage, PageObject,
    PeerMessage, Position, Want,
};
use holm_protocol::dot::Dot;
use holm_protocol::ids::{Actor, NodeId, Partition};
use holm_protocol::message::{Reply, Request};

use super::{Names, What, whole_frame};

/// Characters of a value that are shown.
const VALUE_SHOWN: usize = 16;

impl Names {
    pub(super) fn dot(&self, dot: Dot) -> String {
        match self.0.get(&dot.actor) {
            Some((node, run)) => format!("{node}.{run}:{}", dot.counter),
            None => dot.to_string(),
        }
    }

    fn actor(&self, actor: Actor) -> String {
        match self.0.get(&actor) {
            Some((node, run)) => format!("{node}.{run}"),
            None => actor.to_string(),
        }
    }

    pub(super) fn write(&self, what: &What, out: &mut String) -> fmt::Result {
        match what {
            What::Peer { from, to, frame } => {
                write!(out, "{from} -> {to} ")?;
                self.peer(frame, out)
            }
            What::Dropped { from, to, frame } => {
                write!(out, "{from} -x {to} ")?;
                self.peer(frame, out)
            }
            What::Request { client, node, frame } => {
                write!(out, "c{client} -> {node} ")?;
                self.request(frame, out)
            }
            What::Reply { client, node, frame } => {
                write!(out, "{node} -> c{client} ")?;
                self.reply(frame, out)
            }
            What::Commit { node, rows } => write!(out, "{node} commits {rows} rows"),
            What::Note(text) => out.write_str(text),
        }
    }

    fn hint(&self, message: &HintMessage, out: &mut String) -> fmt::Result {
        match message {
            HintMessage::Keep { replica, key, object, .. } => {
                write!(out, "keep for {replica} {} {}", text(key), self.object(object))
            }
            HintMessage::Kept { replica, refused: None, .. } => write!(out, "kept for {replica}"),
            HintMessage::Kept { replica, refused: Some(refusal), .. } => {
                write!(out, "not kept for {replica} ({refusal:?})")
            }
            HintMessage::HandOff { key, object, .. } => {
                write!(out, "hint {} {}", text(key), self.object(object))
            }
            HintMessage::HandedOff { refused: None, window_bytes, .. } => {
                write!(out, "hint is home, {window_bytes} bytes granted")
            }
            HintMessage::HandedOff { refused: Some(refusal), .. } => {
                write!(out, "hint refused ({refusal:?})")
            }
        }
    }

    fn comparison(&self, message: &CompareMessage, out: &mut String) -> fmt::Result {
        let (word, positions) = match message {
            CompareMessage::Compare { positions, .. } => ("compares", positions),
            CompareMessage::Compared { positions, .. } => ("answers", positions),
        };
        let position = |(partition, it): &(Partition, Position)| {
            let known = joined(it.know.iter().map(|top| self.dot(top)));
            format!("{partition} {:?}, all have {known}", it.standing)
        };
        write!(out, "{word}: {}", joined(positions.iter().map(position)))
    }

    fn close(&self, message: &CloseMessage, out: &mut String) -> fmt::Result {
        let actor = |&(partition, actor): &(Partition, Actor)| {
            format!("{} of {partition}", self.actor(actor))
        };
        let dots = |actor: Actor, dots: &IntervalSet| {
            let mut set = DotSet::new();
            set.merge_actor(actor, dots);
            self.dots(&set)
        };
        match message {
            CloseMessage::Ask { step, actors, .. } => {
                write!(out, "asks about {} ({step:?})", joined(actors.iter().map(actor)))
            }
            CloseMessage::Answer { step, found, .. } => {
                let one = |(partition, (of, finding)): &(Partition, (Actor, Finding))| {
                    let place = actor(&(*partition, *of));
                    match finding {
                        Finding::Alive => format!("{place} is alive"),
                        Finding::Later => format!("{place} later"),
                        Finding::Promised(here) => format!("{place} has {}", dots(*of, here)),
                        Finding::Closed(all) => format!("{place} has just {}", dots(*of, all)),
                    }
                };
                write!(out, "says that {} ({step:?})", joined(found.iter().map(one)))
            }
            CloseMessage::Ends(ends) => {
                let one = |(partition, (of, all)): &(Partition, (Actor, IntervalSet))| {
                    format!("{} of {partition}", dots(*of, all))
                };
                write!(out, "tells that there is just {}", joined(ends.iter().map(one)))
            }
            CloseMessage::Wanted(actors) => {
                write!(out, "wants to know the end of {}", joined(actors.iter().map(actor)))
            }
        }
    }

    fn peer(&self, frame: &Bytes, out: &mut String) -> fmt::Result {
        let Some(message) = whole_frame(frame).and_then(|f| PeerMessage::decode(&f).ok()) else {
            return out.write_str("undecodable");
        };
        match message {
            PeerMessage::Write { key, object, fan_out, .. } => {
                write!(out, "write {} {}", text(&key), self.object(&object))?;
                if !fan_out.is_empty() {
                    write!(out, ", pass on to {}", list(&fan_out))?;
                }
                Ok(())
            }
            PeerMessage::WriteReply { durable, refused, .. } => {
                write!(out, "durable at {}", list(&durable))?;
                for (node, refusal) in refused {
                    write!(out, ", refused by {node} ({refusal:?})")?;
                }
                Ok(())
            }
            PeerMessage::Read { key, want, .. } => {
                let want = if want == Want::Full { "object" } else { "digest" };
                write!(out, "read {want} of {}", text(&key))
            }
            PeerMessage::ReadReply { found, .. } => match found {
                Found::Object(object) => write!(out, "found {}", self.object(&object)),
                Found::Digest(digest) => write!(out, "found digest {:04x}", digest & 0xffff),
                Found::Absent => out.write_str("found nothing"),
                Found::Refused(refusal) => write!(out, "refused ({refusal:?})"),
            },
            PeerMessage::Repair { key, object, .. } => {
                write!(out, "repair {} {}", text(&key), self.object(&object))
            }
            PeerMessage::Hint(message) => self.hint(&message, out),
            PeerMessage::Fingerprint(message) => write!(out, "{message:?}"),
            PeerMessage::Compare(message) => self.comparison(&message, out),
            PeerMessage::Close(message) => self.close(&message, out),
            PeerMessage::Proxy { request, .. } => {
                out.write_str("asks for its client: ")?;
                self.a_request(&request, out)
            }
            PeerMessage::ProxyReply { reply, .. } => {
                out.write_str("for your client: ")?;
                self.a_reply(&reply, out)
            }
            PeerMessage::Inspect { key, .. } => write!(out, "inspect {}", text(&key)),
            PeerMessage::InspectReply { .. } => out.write_str("inspected"),
            PeerMessage::Pulse { actor, counters, .. } => {
                let upto = |(partition, counter): &(Partition, u64)| {
                    format!("{} of {partition}", self.dot(Dot { actor, counter: *counter }))
                };
                write!(out, "has written {}", joined(counters.iter().map(upto)))
            }
            PeerMessage::Seen { clocks, .. } => {
                let clock = |(partition, claimed): &(Partition, Claimed)| {
                    let know: Vec<String> = claimed.know.iter().map(|it| self.dot(it)).collect();
                    let know = match know.is_empty() {
                        true => String::new(),
                        false => format!(", stable up to {}", know.join(" ")),
                    };
                    format!("{} of {partition}{know}", self.dots(&claimed.seen))
                };
                write!(out, "has seen {}", joined(clocks.iter().map(clock)))
            }
            PeerMessage::Noted { .. } => out.write_str("noted"),
            PeerMessage::PageAsk { partition, after, gathers, .. } => {
                let after = after.map_or("the beginning".to_owned(), |(_, key)| text(&key));
                let who = if gathers { ", to gather it" } else { "" };
                write!(out, "wants {partition} whole, from {after} on{who}")
            }
            PeerMessage::PageAnswer { partition, clock, objects, is_last, .. } => {
                let object =
                    |it: &PageObject| format!("{} {}", text(&it.key), self.object(&it.object));
                write!(out, "sends of {partition} {}", joined(objects.iter().map(object)))?;
                if !clock.is_empty() {
                    write!(out, ", had seen {}", self.dots(&clock))?;
                }
                if is_last { out.write_str(", that is all") } else { Ok(()) }
            }
            PeerMessage::GapAsk { missing, partition, .. } => {
                write!(out, "lacks {} of {partition}", self.dots(&missing))
            }
            PeerMessage::GapAnswer { objects, cut, unknown, .. } => {
                let object = |it: &GapObject| {
                    let (key, done) = (text(&it.key), self.dots(&it.done));
                    format!("{key} {} for {done}", self.object(&it.object))
                };
                write!(out, "sends {}", joined(objects.iter().map(object)))?;
                if !cut.is_empty() {
                    write!(out, ", has no keys for {}", self.dots(&cut))?;
                }
                if !unknown.is_empty() {
                    write!(out, ", has not seen {}", self.dots(&unknown))?;
                }
                Ok(())
            }
            PeerMessage::Verify { partition, question, .. } => {
                write!(out, "verifies {partition}: ")?;
                match question {
                    Question::Middle => out.write_str("what is your tree?"),
                    Question::Leaves(nodes) => write!(out, "leaves under {nodes:?}?"),
                    Question::Keys { .. } => out.write_str("keys?"),
                    Question::Objects(_, states) => self.states(&states, out),
                }
            }
            PeerMessage::VerifyReply { partition, answer, .. } => {
                write!(out, "verified {partition}: ")?;
                match answer {
                    Answer::Middle(_) => out.write_str("the tree"),
                    Answer::Leaves(leaves) => write!(out, "{} leaves", leaves.len()),
                    Answer::Keys { keys, .. } => write!(out, "{} keys", keys.len()),
                    Answer::Objects(_, states) => self.states(&states, out),
                    Answer::Refused(refusal) => write!(out, "refused ({refusal:?})"),
                }
            }
        }
    }

    fn dots(&self, dots: &DotSet) -> String {
        joined(dots.spans().map(|(actor, first, counter)| {
            let last = self.dot(Dot { actor, counter });
            if first == counter { last } else { format!("{first}..{last}") }
        }))
    }

    fn states(&self, states: &[KeyState], out: &mut String) -> fmt::Result {
        for KeyState { at: (_, key), object } in states {
            let object = object.as_ref().map_or("nothing".to_owned(), |it| self.object(it));
            write!(out, "{} is {object}; ", text(key))?;
        }
        Ok(())
    }

    fn object(&self, bytes: &[u8]) -> String {
        let Ok(object) = Object::decode(bytes) else { return "damaged object".to_owned() };
        let values: Vec<String> = object
            .siblings()
            .iter()
            .map(|s| format!("{}={}", self.dot(s.dot), shown(&s.value)))
            .collect();
        let context: Vec<String> = object.context.iter().map(|dot| self.dot(dot)).collect();
        format!("{{{}}} [{}]", values.join(", "), context.join(" "))
    }

    fn request(&self, frame: &Bytes, out: &mut String) -> fmt::Result {
        match whole_frame(frame).and_then(|f| Request::decode(&f).ok()) {
            Some(request) => self.a_request(&request, out),
            None => out.write_str("undecodable"),
        }
    }

    #[expect(clippy::unused_self, reason = "beside its likes, which name dots")]
    fn a_request(&self, request: &Request, out: &mut String) -> fmt::Result {
        let at = |level: Option<_>| level.map_or(String::new(), |level| format!(" at {level}"));
        match request {
            Request::Get(get) => write!(out, "get {}{}", text(&get.key), at(get.level)),
            Request::Put(put) => {
                let blind = if put.context.is_empty() { "blind " } else { "" };
                let (key, value) = (text(&put.key), shown(&put.value));
                write!(out, "{blind}put {key}={value}{}", at(put.level))
            }
            Request::Delete(delete) => {
                write!(out, "delete {}{}", text(&delete.key), at(delete.level))
            }
            Request::Admin(_) => out.write_str("admin"),
        }
    }

    fn reply(&self, frame: &Bytes, out: &mut String) -> fmt::Result {
        match whole_frame(frame).and_then(|f| Reply::decode(&f).ok()) {
            Some(reply) => self.a_reply(&reply, out),
            None => out.write_str("undecodable"),
        }
    }

    fn a_reply(&self, reply: &Reply, out: &mut String) -> fmt::Result {
        match reply {
            Reply::Written(written) => {
                let nodes: Vec<NodeId> = written.receipt.replicas.iter().map(|e| e.node).collect();
                write!(out, "written {} on {}", self.dot(written.dot), list(&nodes))
            }
            Reply::Values(values) => {
                let siblings: Vec<String> = values
                    .siblings
                    .iter()
                    .map(|s| format!("{}={}", self.dot(s.dot), shown(&s.value)))
                    .collect();
                let nodes: Vec<NodeId> = values.receipt.replicas.iter().map(|e| e.node).collect();
                write!(out, "values {{{}}} by {}", siblings.join(", "), list(&nodes))
            }
            Reply::Admin(_) => out.write_str("admin reply"),
            Reply::Error(error) => write!(out, "error: {error}"),
        }
    }
}

fn list(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(" ") }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shown(value: &[u8]) -> String {
    let value = text(value);
    match value.char_indices().nth(VALUE_SHOWN) {
        Some((cut, _)) => format!("\"{}...\"", &value[..cut]),
        None => format!("{value:?}"),
    }
}
