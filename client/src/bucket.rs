//! Reading and writing keys.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_protocol::bucket::{BucketInfo, BucketKind, BucketPolicy};
use holm_protocol::ids::BucketId;
use holm_protocol::level::Level;
use holm_protocol::limits::{CONTEXT_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use holm_protocol::message;
use tracing::Instrument;

use crate::answer::{Got, Written};
use crate::blob::Blob;
use crate::call::Deadline;
use crate::cluster::Cluster;
use crate::context::Context;
use crate::error::{DeleteError, GetError, PutError};
use crate::routing::Scope;

/// A named set of keys with one policy. Cheap to clone.
///
/// [`Bucket::get`], [`Bucket::put`] and [`Bucket::delete`] give requests: await them, or set more
/// first.
///
/// ```no_run
/// # async fn example(client: holm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use holm_client::Level;
///
/// let bucket = client.bucket("carts").await?;
/// let got = bucket.get("alice").level(Level::One).timeout(Duration::from_millis(200)).await?;
/// bucket.put("alice", "3 x tea").context(got.context()).level(Level::EachQuorum).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Bucket {
    cluster: Arc<Cluster>,
    info: Arc<BucketInfo>,
}

impl Bucket {
    pub(crate) fn new(cluster: Arc<Cluster>, info: BucketInfo) -> Bucket {
        Bucket { cluster, info: Arc::new(info) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Its number on the wire.
    #[must_use]
    pub fn id(&self) -> BucketId {
        self.info.id
    }

    /// Its policy, as it was when this handle was made.
    #[must_use]
    pub fn policy(&self) -> &BucketPolicy {
        &self.info.policy
    }

    /// Reads a key.
    pub fn get(&self, key: impl Into<Blob>) -> GetRequest<'_> {
        GetRequest { bucket: self, key: key.into().0, level: None, timeout: None }
    }

    /// Writes a value. Without a context it overwrites nothing: in a `siblings` bucket the values
    /// already there stay beside it.
    pub fn put(&self, key: impl Into<Blob>, value: impl Into<Blob>) -> PutRequest<'_> {
        PutRequest {
            bucket: self,
            key: key.into().0,
            value: value.into().0,
            context: Bytes::new(),
            level: None,
            timeout: None,
        }
    }

    /// Deletes what a context covers.
    ///
    /// **Without a context** the client first reads one, at the delete's level if that is set, else
    /// at the bucket's read level: the delete then covers what that read saw, and a concurrent
    /// write it did not see survives. [`Written::context_was_read`] says that it did.
    /// Buckets of kind `lww` need no context, and none is read.
    pub fn delete(&self, key: impl Into<Blob>) -> DeleteRequest<'_> {
        DeleteRequest {
            bucket: self,
            key: key.into().0,
            context: Bytes::new(),
            level: None,
            timeout: None,
        }
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    fn scope<'a>(&self, key: &'a [u8], level: Option<Level>, default: Level) -> Scope<'a> {
        Scope::Key {
            placement: self.info.policy.placement,
            bucket: self.info.id,
            key,
            level: level.unwrap_or(default),
        }
    }
}

/// Sends a request and awaits its answer.
type Sending<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

macro_rules! request_settings {
    ($request:ident, $answer:ty, $error:ty) => {
        impl $request<'_> {
            /// How many replicas must answer; the bucket's default if not set.
            pub fn level(mut self, level: Level) -> Self {
                self.level = Some(level);
                self
            }

            pub(crate) fn maybe_level(mut self, level: Option<Level>) -> Self {
                self.level = level;
                self
            }

            /// How long the call may take; the client's default if not set. At most a minute.
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.timeout = Some(timeout);
                self
            }
        }

        impl<'a> IntoFuture for $request<'a> {
            type Output = Result<$answer, $error>;
            type IntoFuture = Sending<'a, $answer, $error>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}

/// A read of one key; await it.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct GetRequest<'a> {
    bucket: &'a Bucket,
    key: Bytes,
    level: Option<Level>,
    timeout: Option<Duration>,
}

request_settings!(GetRequest, Got, GetError);

impl GetRequest<'_> {
    /// What awaiting the request does, without the one allocation that awaiting it costs.
    ///
    /// # Errors
    /// [`GetError`].
    pub async fn send(self) -> Result<Got, GetError> {
        check_key(&self.key).map_err(|(len, limit)| GetError::KeyLength { len, limit })?;
        let bucket = self.bucket;
        let deadline = bucket.cluster.deadline(self.timeout);
        let scope = bucket.scope(&self.key, self.level, bucket.info.policy.read_level);
        let get = message::Get {
            bucket: bucket.info.id,
            key: self.key.clone(),
            level: self.level,
            timeout_ms: 0,
        };
        let span = tracing::debug_span!("holm.get", bucket = %bucket.info.name);
        let values = bucket.cluster.get(scope, deadline, get).instrument(span).await?;
        Ok(Got::from(values))
    }
}

/// A write of one value; await it.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct PutRequest<'a> {
    bucket: &'a Bucket,
    key: Bytes,
    value: Bytes,
    context: Bytes,
    level: Option<Level>,
    timeout: Option<Duration>,
}

request_settings!(PutRequest, Written, PutError);

impl PutRequest<'_> {
    /// The context of the read that this write follows: it overwrites what that read saw.
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.to_bytes();
        self
    }

    /// What awaiting the request does, without the one allocation that awaiting it costs.
    ///
    /// # Errors
    /// [`PutError`].
    pub async fn send(self) -> Result<Written, PutError> {
        check_key(&self.key).map_err(|(len, limit)| PutError::KeyLength { len, limit })?;
        let (len, limit) = (self.value.len(), VALUE_LEN_MAX);
        if len > limit {
            return Err(PutError::ValueTooLarge { len, limit });
        }
        let (len, limit) = (self.context.len(), CONTEXT_LEN_MAX);
        if len > limit {
            return Err(PutError::ContextTooLong { len, limit });
        }
        let bucket = self.bucket;
        let deadline = bucket.cluster.deadline(self.timeout);
        let scope = bucket.scope(&self.key, self.level, bucket.info.policy.write_level);
        let request = bucket.cluster.next_request_id();
        let put = message::Put {
            bucket: bucket.info.id,
            key: self.key.clone(),
            value: self.value,
            context: self.context,
            level: self.level,
            request,
            timeout_ms: 0,
        };
        let span = tracing::debug_span!("holm.put", bucket = %bucket.info.name, %request);
        let write = message::Request::Put(put);
        let written = bucket.cluster.write(scope, deadline, write).instrument(span).await;
        let written = written.map_err(|error| PutError::new(error, request))?;
        Ok(Written::new(written, false))
    }
}

/// A delete of what a context covers; await it.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct DeleteRequest<'a> {
    bucket: &'a Bucket,
    key: Bytes,
    context: Bytes,
    level: Option<Level>,
    timeout: Option<Duration>,
}

request_settings!(DeleteRequest, Written, DeleteError);

impl DeleteRequest<'_> {
    /// The context of the read that this delete follows: it deletes what that read saw.
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.to_bytes();
        self
    }

    /// What awaiting the request does, without the one allocation that awaiting it costs.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn send(self) -> Result<Written, DeleteError> {
        check_key(&self.key).map_err(|(len, limit)| DeleteError::KeyLength { len, limit })?;
        let (len, limit) = (self.context.len(), CONTEXT_LEN_MAX);
        if len > limit {
            return Err(DeleteError::ContextTooLong { len, limit });
        }
        let bucket = self.bucket;
        let deadline = bucket.cluster.deadline(self.timeout);
        let must_read = self.context.is_empty() && bucket.info.policy.kind != BucketKind::Lww;
        let context =
            if must_read { self.read_context(deadline).await? } else { self.context.clone() };
        let scope = bucket.scope(&self.key, self.level, bucket.info.policy.write_level);
        let request = bucket.cluster.next_request_id();
        let delete = message::Delete {
            bucket: bucket.info.id,
            key: self.key.clone(),
            context,
            level: self.level,
            request,
            timeout_ms: 0,
        };
        let span = tracing::debug_span!("holm.delete", bucket = %bucket.info.name, %request);
        let write = message::Request::Delete(delete);
        let written = bucket.cluster.write(scope, deadline, write).instrument(span).await;
        let written = written.map_err(|error| DeleteError::new(error, request))?;
        Ok(Written::new(written, must_read))
    }

    async fn read_context(&self, deadline: Deadline) -> Result<Bytes, DeleteError> {
        let bucket = self.bucket;
        let scope = bucket.scope(&self.key, self.level, bucket.info.policy.read_level);
        let get = message::Get {
            bucket: bucket.info.id,
            key: self.key.clone(),
            level: self.level,
            timeout_ms: 0,
        };
        let values = bucket.cluster.get(scope, deadline, get).await;
        let values = values.map_err(|error| DeleteError::Read(error.into()))?;
        if values.context.is_empty() { Err(DeleteError::Absent) } else { Ok(values.context) }
    }
}

/// A key's length and its limit, if it is empty or too long.
fn check_key(key: &[u8]) -> Result<(), (usize, usize)> {
    match key.len() {
        1..=KEY_LEN_MAX => Ok(()),
        len => Err((len, KEY_LEN_MAX)),
    }
}
