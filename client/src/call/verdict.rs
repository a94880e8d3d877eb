//! What an answer means: for the call, and for what this client thinks of the node.

use std::sync::Arc;
use std::time::Duration;

use holm_protocol::error::{RequestError, Retry};
use holm_protocol::ids::NodeId;
use holm_protocol::message::{Reply, Request};
use tokio::time::Instant;

use super::{ROUND_PAUSE_MAX, ROUND_PAUSE_MIN};
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{Cause, FullQueue};
use crate::lane::{Answer, CloseReason};
use crate::latency::Reach;
use crate::node::Node;

/// How long a node that cannot serve at all is passed over.
const AVOID: Duration = Duration::from_millis(200);

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is done.
    Done(Reply),
    /// The request must change.
    Refused(RequestError),
    /// This client has too much in flight.
    Full(FullQueue),
    /// Nothing happened; ask the next node.
    Elsewhere(Cause),
    /// Nothing happened; wait this long first.
    Later(Cause, Duration),
    /// It may have happened.
    Unknown(Cause),
}

/// An attempt under way.
pub(super) struct Asked<'a> {
    pub(super) node: &'a Node,
    pub(super) connection: &'a Connection,
    pub(super) started: Instant,
}

impl Asked<'_> {
    /// What an answer means, and what it says about the node.
    pub(super) fn judge(
        &self,
        cluster: &Arc<Cluster>,
        reach: Reach,
        request: &Request,
        answer: Option<Answer>,
    ) -> Verdict {
        let node = self.node.id();
        let frame = match answer {
            None => {
                let waited_ms = self.started.elapsed().as_millis() as u64;
                return Verdict::Unknown(Cause::NoAnswer { node, waited_ms });
            }
            Some(Answer::Closed { sent, reason }) => {
                let cause = closed(node, sent, reason);
                return if sent { Verdict::Unknown(cause) } else { Verdict::Elsewhere(cause) };
            }
            Some(Answer::Frame(frame)) => frame,
        };
        let reply = Reply::decode(&frame).map_err(|error| error.to_string());
        match reply {
            Ok(Reply::Error(error)) => judge_error(cluster, self.node, error),
            Ok(reply) if answers(&reply, request) => {
                self.node.latency().observe(reach, self.started.elapsed());
                Verdict::Done(reply)
            }
            Ok(_) => garbage(self, format!("a frame of kind {} as answer", frame.kind)),
            Err(what) => garbage(self, what),
        }
    }
}

fn judge_error(cluster: &Arc<Cluster>, node: &Node, error: RequestError) -> Verdict {
    match &error {
        RequestError::NotReady { .. } => {
            node.avoid_for(AVOID);
            cluster.refresh_soon();
        }
        RequestError::UnknownBucket { .. } => cluster.refresh_soon(),
        _ => {}
    }
    let pause = match &error {
        RequestError::Overloaded { retry_after_ms, .. } => {
            Duration::from_millis(u64::from(*retry_after_ms)).min(ROUND_PAUSE_MAX)
        }
        _ => ROUND_PAUSE_MIN,
    };
    let retry = error.retry();
    match retry {
        Retry::Never => Verdict::Refused(error),
        Retry::Elsewhere => Verdict::Elsewhere(Cause::Refused { node: node.id(), error }),
        Retry::Later => Verdict::Later(Cause::Refused { node: node.id(), error }, pause),
        Retry::SameRequest => Verdict::Unknown(Cause::Refused { node: node.id(), error }),
    }
}

fn garbage(asked: &Asked<'_>, what: String) -> Verdict {
    asked.connection.fail(&what);
    Verdict::Unknown(Cause::Garbage { node: asked.node.id(), what })
}

pub(super) fn mismatch(node: NodeId) -> Cause {
    Cause::Garbage { node, what: "the answer to another kind of request".to_owned() }
}

fn answers(reply: &Reply, request: &Request) -> bool {
    matches!(
        (reply, request),
        (Reply::Written(_), Request::Put(_) | Request::Delete(_))
            | (Reply::Values(_), Request::Get(_))
            | (Reply::Admin(_), Request::Admin(_))
    )
}

pub(super) fn closed(node: NodeId, sent: bool, reason: CloseReason) -> Cause {
    match reason {
        CloseReason::Lost(why) => Cause::ConnectionLost { node, sent, why: why.to_string() },
        CloseReason::Garbage(what) => Cause::Garbage { node, what: what.to_string() },
        CloseReason::Refused(error) => Cause::Refused { node, error: *error },
    }
}
