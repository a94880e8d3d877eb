//! Bugs played on requests and answers of clients.

use bytes::Bytes;
use holm_core::context::ContextSecrets;
use holm_core::layout::Layout;
use holm_protocol::error::{RequestError, StoreFault};
use holm_protocol::ids::{BucketId, NodeId, Partition, RegionId};
use holm_protocol::level::Level;
use holm_protocol::limits::CONTEXT_ENTRIES_MAX;
use holm_protocol::message::{Receipt, ReceiptEntry, Reply, Request};
use holm_protocol::version_vector::VersionVector;
use holm_protocol::wire::Reader;

use crate::tamper::Tamper;

/// Where the version vector of a context starts: after version, secret and MAC.
const CONTEXT_HEAD: usize = 18;

/// What a bug may look at when an answer leaves.
#[derive(Debug)]
pub struct Leaving<'a> {
    /// The key that was asked about.
    pub bucket: BucketId,
    /// The key.
    pub key: &'a [u8],
    /// Its partition.
    pub partition: Partition,
    /// The level that the client asked for.
    pub level: Option<Level>,
    /// The layout.
    pub layout: &'a Layout,
    /// The cluster's secrets.
    pub secrets: &'a ContextSecrets,
    /// The context of all that the answering node holds of the key.
    pub covers: Option<VersionVector>,
    /// The context of the answer before, of any key.
    pub earlier: Option<Bytes>,
}

impl Tamper {
    /// What becomes of an answer on its way to a client; `None` if it is not sent.
    #[must_use]
    pub fn reply(self, reply: Reply, leaving: &Leaving<'_>) -> Option<Reply> {
        Some(match reply {
            Reply::Error(error @ RequestError::WriteUnknown { .. }) => match self {
                Tamper::TimeoutIsFailure => {
                    Reply::Error(RequestError::Store { fault: StoreFault::Full })
                }
                Tamper::SilentTimeout => return None,
                _ => Reply::Error(error),
            },
            Reply::Values(mut values) => {
                if self == Tamper::ContextCoversUnseen && values.siblings.len() > 1 {
                    values.siblings.pop();
                }
                self.mix_up(&mut values.context, leaving);
                self.pad(&mut values.receipt, leaving);
                Reply::Values(values)
            }
            Reply::Written(mut written) => {
                if self == Tamper::WritersContextCoversAll
                    && let Some(covers) = &leaving.covers
                {
                    written.context = leaving.secrets.seal(leaving.bucket, leaving.key, covers);
                }
                self.mix_up(&mut written.context, leaving);
                self.pad(&mut written.receipt, leaving);
                Reply::Written(written)
            }
            other => other,
        })
    }

    fn mix_up(self, context: &mut Bytes, leaving: &Leaving<'_>) {
        if let (Tamper::ContextMixedUp, Some(earlier)) = (self, &leaving.earlier) {
            *context = earlier.clone();
        }
    }

    /// The receipt of a level that was weakened on the way in.
    fn pad(self, receipt: &mut Receipt, leaving: &Leaving<'_>) {
        if !matches!(self, Tamper::QuorumOffByOne | Tamper::EvenSplitIsQuorum) {
            return;
        }
        let weakened = leaving.level.is_some_and(|level| level != receipt.level);
        receipt.level = leaving.level.unwrap_or(receipt.level);
        if self == Tamper::QuorumOffByOne && weakened {
            let named: Vec<NodeId> = receipt.replicas.iter().map(|entry| entry.node).collect();
            let replicas = leaving.layout.replicas(leaving.partition).iter().copied();
            let missing = replicas.clone().count() / 2 + 1;
            let more = replicas.filter(|node| !named.contains(node));
            for node in more.take(missing.saturating_sub(named.len())) {
                let region = leaving.layout.region_of(node).unwrap_or(RegionId(0));
                receipt.replicas.push(ReceiptEntry { node, region, fallback: false });
            }
        }
    }

    /// Changes a request on its way in. `repeated` counts earlier tries, `replicas` those that the
    /// key has.
    pub fn request(
        self,
        request: &mut Request,
        (repeated, replicas): (u32, usize),
        secrets: &ContextSecrets,
    ) {
        let (level, context, id, at) = match request {
            Request::Put(put) => (
                &mut put.level,
                Some(&mut put.context),
                Some(&mut put.request),
                (put.bucket, put.key.clone()),
            ),
            Request::Delete(delete) => (
                &mut delete.level,
                Some(&mut delete.context),
                Some(&mut delete.request),
                (delete.bucket, delete.key.clone()),
            ),
            Request::Get(get) => (&mut get.level, None, None, (get.bucket, get.key.clone())),
            Request::Admin(_) => return,
        };
        let half = (replicas / 2) as u8;
        match (self, level, context) {
            (Tamper::EvenSplitIsQuorum, Some(level @ Level::Quorum), _)
                if replicas.is_multiple_of(2) =>
            {
                *level = Level::Count(half);
            }
            (Tamper::QuorumOffByOne, Some(level @ Level::Quorum), _) if half > 0 => {
                *level = Level::Count(half);
            }
            (Tamper::ForgedContextAccepted, _, Some(context)) => {
                believe(context, (at.0, &at.1), secrets);
            }
            (Tamper::RetryForgotten, ..) if repeated > 0 => {
                if let Some(id) = id {
                    id.client ^= u64::from(repeated) << 32;
                }
            }
            _ => {}
        }
        if let (Tamper::PutIgnoresContext, Request::Put(put)) = (self, request) {
            put.context = Bytes::new();
        }
    }
}

/// Seals whatever a context says as if it had been given out for this key.
fn believe(context: &mut Bytes, (bucket, key): (BucketId, &[u8]), secrets: &ContextSecrets) {
    if secrets.open(bucket, key, context).is_ok() {
        return;
    }
    let Some(vector) = context.get(CONTEXT_HEAD..) else { return };
    if let Ok(covers) = VersionVector::decode(&mut Reader::new(vector), CONTEXT_ENTRIES_MAX) {
        *context = secrets.seal(bucket, key, &covers);
    }
}
