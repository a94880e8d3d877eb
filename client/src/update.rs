//! Read, change, write back.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use holm_protocol::error::{ContextFault, RequestError};
use holm_protocol::level::Level;
use holm_protocol::message::Sibling;

use crate::answer::{Got, Written};
use crate::blob::Blob;
use crate::bucket::Bucket;
use crate::error::{DeleteError, PutError, UpdateError};

/// How often an update starts over when its context went stale between read and write. A secret
/// rotates once, so a second stale context in a row already means that something else is wrong.
const ROUNDS_MAX: u32 = 3;

/// What to do with a key, having seen its siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Replace all siblings with this value.
    Put(Bytes),
    /// Delete all siblings.
    Delete,
    /// Leave the key as it is.
    Keep,
}

impl Update {
    /// Replace all siblings with this value.
    pub fn put(value: impl Into<Blob>) -> Update {
        Update::Put(value.into().0)
    }
}

/// What an update did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Updated {
    /// It wrote a value or deleted the key.
    Written(Written),
    /// It left the key as it was read.
    Kept(Got),
}

/// A read-modify-write of one key; await it.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct UpdateRequest<'a, F> {
    bucket: &'a Bucket,
    key: Bytes,
    change: F,
    level: Option<Level>,
    timeout: Option<Duration>,
}

impl Bucket {
    /// Reads a key, lets `change` decide, and writes what it says with the context of the read.
    ///
    /// This is how siblings are resolved: `change` sees all of them and its value replaces them.
    /// It is **not** a compare-and-set: an update that runs at the same time elsewhere also
    /// succeeds, both results become siblings, and the next update sees both. Let `change` merge
    /// what it sees, without losing anything, and updates of all regions converge.
    ///
    /// `change` may run again, on a fresh read, if nothing was written yet. It never runs again
    /// after a write whose outcome is unknown.
    ///
    /// ```no_run
    /// # async fn example(bucket: holm_client::Bucket) -> Result<(), Box<dyn std::error::Error>> {
    /// use holm_client::Update;
    ///
    /// bucket
    ///     .update("tags", |siblings| {
    ///         let mut lines: Vec<&[u8]> =
    ///             siblings.iter().flat_map(|s| s.value.split(|b| *b == b'\n')).collect();
    ///         lines.push(b"new");
    ///         lines.sort();
    ///         lines.dedup();
    ///         Update::put(lines.join(&b'\n'))
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn update<F>(&self, key: impl Into<Blob>, change: F) -> UpdateRequest<'_, F>
    where
        F: FnMut(&[Sibling]) -> Update + Send,
    {
        UpdateRequest { bucket: self, key: key.into().0, change, level: None, timeout: None }
    }
}

impl<F: FnMut(&[Sibling]) -> Update + Send> UpdateRequest<'_, F> {
    /// The level of both the read and the write; the bucket's defaults if not set.
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// How long the whole update may take; the client's default if not set. At most a minute.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What awaiting the request does, without the one allocation that awaiting it costs.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn send(mut self) -> Result<Updated, UpdateError> {
        let deadline = self.bucket.cluster().deadline(self.timeout);
        let mut round = 1;
        loop {
            let get = self.bucket.get(&self.key).maybe_level(self.level).timeout(deadline.left());
            let got = get.send().await.map_err(UpdateError::Get)?;
            let result = match (self.change)(got.siblings()) {
                Update::Keep => return Ok(Updated::Kept(got)),
                Update::Put(value) => {
                    let put = self.bucket.put(&self.key, value).context(got.context());
                    let put = put.maybe_level(self.level).timeout(deadline.left());
                    put.send().await.map_err(UpdateError::Put)
                }
                // Nothing was ever there: nothing to delete, and no context to do it with.
                Update::Delete if got.is_absent() && got.context().is_empty() => {
                    return Ok(Updated::Kept(got));
                }
                Update::Delete => {
                    let delete = self.bucket.delete(&self.key).context(got.context());
                    let delete = delete.maybe_level(self.level).timeout(deadline.left());
                    delete.send().await.map_err(UpdateError::Delete)
                }
            };
            match result {
                Ok(written) => return Ok(Updated::Written(written)),
                Err(error) if round < ROUNDS_MAX && is_stale(&error) => round += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether the write was refused, nothing happened, and a fresh read would give what it lacked.
fn is_stale(error: &UpdateError) -> bool {
    let refused = match error {
        UpdateError::Put(PutError::Refused { error, .. })
        | UpdateError::Delete(DeleteError::Refused { error, .. }) => error,
        _ => return false,
    };
    matches!(
        refused,
        RequestError::Context { fault: ContextFault::UnknownSecret }
            | RequestError::TooManySiblings { .. }
    )
}

impl<'a, F: FnMut(&[Sibling]) -> Update + Send + 'a> IntoFuture for UpdateRequest<'a, F> {
    type Output = Result<Updated, UpdateError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
