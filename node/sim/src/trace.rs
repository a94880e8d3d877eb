//! What happened, for people and for comparing runs.
//!
//! Steps are kept as the bytes that travelled and put into words only when somebody reads them:
//! most runs end well and nobody does. The digest covers every step, so two runs with the same
//! digest took the same steps (I12).
//!
//! Words: nodes are `n1`, a dot is `n1.2:5` (the fifth write of the second run of node 1), a value
//! written as that dot is `n1.2:5="text"`, a context is `[n1.2:5]`. A line of a report has the time
//! and the regions too ([`LEGEND`]).

mod words;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use holm_core::peer::{HintMessage, PeerMessage};
use holm_protocol::dot::Dot;
use holm_protocol::frame::FrameDecoder;
use holm_protocol::ids::{Actor, NodeId, Partition};
use holm_protocol::message::Request;

use words::text;

/// Steps kept for the report of a violation.
pub const STEPS_KEPT: usize = 400;

/// How to read the lines of a report, for somebody who sees them for the first time.
pub const LEGEND: &str = "\
  Columns: simulated milliseconds, region (or the regions a message crosses), what happened.
  n1 is node 1, c1 is client 1; n1 -> n2 arrived, n1 -x n2 did not. A dot names a write: n1.2:5 is
  the fifth write that the second run of n1 took in. {n1.2:5=\"text\"} are the values of an object
  with their dots, [n1.2:5] is its context: all writes it has seen up to these. An answer between
  nodes ends with the key that was asked for. Clients with long numbers are the referee, who reads
  everything in the end, and somebody who tries forged contexts.";

/// A running hash. Not cryptographic: it compares runs of the same program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest::new()
    }
}

impl Digest {
    /// Of nothing.
    #[must_use]
    pub fn new() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in a number.
    pub fn word(&mut self, word: u64) {
        // FNV-1a by words, with a shift so that high bits reach low ones.
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// Takes in bytes, and how many there are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// The hash.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum What {
    /// A message of one node reached another.
    Peer {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message's frame.
        frame: Bytes,
    },
    /// A message between nodes did not arrive.
    Dropped {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The message's frame.
        frame: Bytes,
    },
    /// A client's request reached a node.
    Request {
        /// The client.
        client: u64,
        /// The node.
        node: NodeId,
        /// The request's frame.
        frame: Bytes,
    },
    /// A node's answer reached a client.
    Reply {
        /// The client.
        client: u64,
        /// The node.
        node: NodeId,
        /// The answer's frame.
        frame: Bytes,
    },
    /// A shard committed.
    Commit {
        /// The node.
        node: NodeId,
        /// How many rows it changed.
        rows: u64,
    },
    /// Anything rare: a fault, a start, a stop.
    Note(String),
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// When, in simulated microseconds.
    pub at_us: u64,
    /// What.
    pub what: What,
}

/// The names of actors: the node, and the how-manieth of its runs.
#[derive(Debug, Clone, Default)]
pub struct Names(BTreeMap<Actor, (NodeId, u32)>);

/// Which key a question was about, for the answers that do not repeat it. By who asked, about which
/// partition, and the number of the question.
type Asked = BTreeMap<(Asker, u64), Bytes>;

/// Who numbers questions: each shard of a node its own, all clients together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    Node(NodeId, Partition),
    Clients,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Trace {
    names: Names,
    regions: BTreeMap<NodeId, usize>,
    client_regions: BTreeMap<u64, usize>,
    steps: VecDeque<Step>,
    steps_max: usize,
    count: u64,
    digest: Digest,
}

impl Trace {
    /// A trace that keeps the last `steps_max` steps.
    #[must_use]
    pub fn new(steps_max: usize) -> Trace {
        Trace {
            names: Names::default(),
            regions: BTreeMap::new(),
            client_regions: BTreeMap::new(),
            steps: VecDeque::new(),
            steps_max,
            count: 0,
            digest: Digest::new(),
        }
    }

    /// Says where a node is.
    pub fn place(&mut self, node: NodeId, region: usize) {
        self.regions.insert(node, region);
    }

    /// Says where a client is.
    pub fn place_client(&mut self, client: u64, region: usize) {
        self.client_regions.insert(client, region);
    }

    /// Names an actor.
    pub fn name(&mut self, actor: Actor, node: NodeId, run: u32) {
        self.names.0.insert(actor, (node, run));
    }

    /// Takes in a step.
    pub fn step(&mut self, at_us: u64, what: What) {
        self.count += 1;
        self.digest.word(at_us);
        let (kind, from, to, bytes) = match &what {
            What::Peer { from, to, frame } => (1, from.0, to.0, frame.as_ref()),
            What::Dropped { from, to, frame } => (2, from.0, to.0, frame.as_ref()),
            What::Request { client, node, frame } => (3, *client, node.0, frame.as_ref()),
            What::Reply { client, node, frame } => (4, *client, node.0, frame.as_ref()),
            What::Commit { node, rows } => (5, node.0, *rows, &[][..]),
            What::Note(text) => (6, 0, 0, text.as_bytes()),
        };
        self.digest.word(kind);
        self.digest.word(from);
        self.digest.word(to);
        self.digest.bytes(bytes);
        if self.steps.len() >= self.steps_max {
            self.steps.pop_front();
        }
        self.steps.push_back(Step { at_us, what });
    }

    /// Takes in a rare step.
    pub fn note(&mut self, at_us: u64, text: String) {
        self.step(at_us, What::Note(text));
    }

    /// The hash over all steps.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// How many steps there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The kept steps.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// The kept steps in words, with times, regions and the keys of answers: see [`LEGEND`].
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mut asked = Asked::new();
        self.steps.iter().map(move |step| {
            let ms = step.at_us as f64 / 1000.0;
            let (place, words) = (self.region(&step.what), self.words(&step.what));
            let key = answered_key(&step.what, &mut asked);
            let key = key.map_or(String::new(), |key| format!("  ({})", text(&key)));
            format!("{ms:10.3} ms  {place:<6}  {words}{key}")
        })
    }

    /// The region of a step, or the two that it crosses.
    fn region(&self, what: &What) -> String {
        let node = |node: &NodeId| self.regions.get(node).copied();
        let client = |client: &u64| self.client_regions.get(client).copied();
        let (from, to) = match what {
            What::Peer { from, to, .. } | What::Dropped { from, to, .. } => (node(from), node(to)),
            What::Request { client: from, node: to, .. } => (client(from), node(to)),
            What::Reply { client: to, node: from, .. } => (node(from), client(to)),
            What::Commit { node: at, .. } => (node(at), node(at)),
            What::Note(text) => {
                let at = text.split_whitespace().find_map(node_named).and_then(|at| node(&at));
                (at, at)
            }
        };
        match (from, to) {
            (Some(from), Some(to)) if from != to => format!("r{from}>r{to}"),
            (Some(at), _) | (None, Some(at)) => format!("r{at}"),
            (None, None) => String::new(),
        }
    }

    /// A step in words.
    #[must_use]
    pub fn words(&self, what: &What) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.names.write(what, &mut out);
        out
    }

    /// A text in which actors are called by their names.
    #[must_use]
    pub fn with_names(&self, text: &str) -> String {
        self.names.0.iter().fold(text.to_owned(), |text, (actor, (node, run))| {
            text.replace(&actor.to_string(), &format!("{node}.{run}"))
        })
    }

    /// A dot's name.
    #[must_use]
    pub fn dot(&self, dot: Dot) -> String {
        self.names.dot(dot)
    }
}

/// The key of an answer, if its question was seen. Remembers questions.
fn answered_key(what: &What, asked: &mut Asked) -> Option<Bytes> {
    match what {
        What::Peer { from, to, frame } | What::Dropped { from, to, frame } => {
            let message = PeerMessage::decode(&whole_frame(frame)?).ok()?;
            let asker = |node: &NodeId| Asker::Node(*node, message.partition());
            let (question, answer) = (asker(from), asker(to));
            match message {
                PeerMessage::Write { op, key, .. }
                | PeerMessage::Read { op, key, .. }
                | PeerMessage::Inspect { op, key, .. }
                | PeerMessage::Hint(
                    HintMessage::Keep { op, key, .. } | HintMessage::HandOff { op, key, .. },
                ) => {
                    asked.insert((question, op.0), key);
                    None
                }
                PeerMessage::Proxy { op, request, .. } => {
                    asked.insert((question, op.0), key_of(request)?);
                    None
                }
                PeerMessage::WriteReply { op, .. }
                | PeerMessage::ReadReply { op, .. }
                | PeerMessage::ProxyReply { op, .. }
                | PeerMessage::InspectReply { op, .. }
                | PeerMessage::Hint(
                    HintMessage::Kept { op, .. } | HintMessage::HandedOff { op, .. },
                ) => asked.get(&(answer, op.0)).cloned(),
                PeerMessage::Repair { .. }
                | PeerMessage::Pulse { .. }
                | PeerMessage::Seen { .. }
                | PeerMessage::Noted { .. }
                | PeerMessage::GapAsk { .. }
                | PeerMessage::GapAnswer { .. }
                | PeerMessage::PageAsk { .. }
                | PeerMessage::PageAnswer { .. }
                | PeerMessage::Compare(_)
                | PeerMessage::Close(_)
                | PeerMessage::Verify { .. }
                | PeerMessage::VerifyReply { .. }
                | PeerMessage::Fingerprint(_) => None,
            }
        }
        What::Request { frame, .. } => {
            let frame = whole_frame(frame)?;
            asked.insert((Asker::Clients, frame.id), key_of(Request::decode(&frame).ok()?)?);
            None
        }
        What::Reply { frame, .. } => asked.get(&(Asker::Clients, whole_frame(frame)?.id)).cloned(),
        What::Commit { .. } | What::Note(_) => None,
    }
}

fn key_of(request: Request) -> Option<Bytes> {
    match request {
        Request::Get(get) => Some(get.key),
        Request::Put(put) => Some(put.key),
        Request::Delete(delete) => Some(delete.key),
        Request::Admin(_) => None,
    }
}

/// The node that a word such as `n3` or `n3:` names.
fn node_named(word: &str) -> Option<NodeId> {
    word.trim_end_matches([':', ',']).strip_prefix('n')?.parse().ok().map(NodeId)
}

/// The one frame in these bytes.
#[must_use]
pub fn whole_frame(bytes: &Bytes) -> Option<holm_protocol::frame::Frame> {
    let mut decoder = FrameDecoder::new();
    decoder.push(bytes);
    let frame = decoder.next_frame().ok()??;
    (decoder.buffered() == 0).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Script;
    use holm_protocol::level::Level;

    /// Goal: a line says when, where, what, which key and which dot. Method: a write from region 0
    /// to its replica in region 1.
    #[test]
    fn lines_name_time_regions_key_and_dot() {
        let mut script = Script::new(&[(1, 1), (1, 1)]);
        script.put(1, ("k", "red"), &Bytes::new(), Level::All);
        script.run_ms(100);
        script.cluster().crash(NodeId(2));
        let lines: Vec<String> = script.cluster().trace().lines().collect();
        let shown = |what: &str| {
            let line = lines.iter().find(|line| line.contains(what));
            line.cloned().unwrap_or_else(|| panic!("no {what} in {lines:#?}"))
        };
        let write = shown("n1 -> n2 write");
        assert!(write.trim_start().starts_with("240."), "after one way of 40 ms: {write}");
        assert!(
            write.contains(" ms  r0>r1   n1 -> n2 write k {n1.1:1=\"red\"} [n1.1:1]"),
            "{write}"
        );
        assert!(shown("n2 -> n1 durable at n2").ends_with("  (k)"));
        assert!(shown("n1 -> c1 written n1.1:1").ends_with("  (k)"));
        assert!(shown("n1 commits").contains(" r0 "));
        assert!(shown("n2 is killed").contains(" r1 "));
        let (mut names, actor) = (Trace::new(1), Actor(7));
        names.name(actor, NodeId(3), 2);
        assert_eq!(names.with_names(&format!("{actor}:5 of k is gone")), "n3.2:5 of k is gone");
    }
}
