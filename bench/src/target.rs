//! What a load is put on, and one operation on it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use holm_client::{Bucket, Cause, GetError, Level, Outcome, PutError, RequestError};

use crate::keyspace::{Keyspace, SplitMix};

/// What a load is put on.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Nothing: an operation is over at once. Shows what the harness itself costs.
    Null,
    /// A bucket, and the level of every operation; the bucket's defaults if none.
    Holm {
        /// The bucket.
        bucket: Bucket,
        /// How many replicas must answer.
        level: Option<Level>,
    },
}

/// How an operation failed, as reports name it.
pub(crate) type Label = Cow<'static, str>;

impl Target {
    /// Overwrites a record. The time is that of the put alone: if the record's context is not known
    /// it is read first, which is not counted.
    ///
    /// # Errors
    /// How the put, or the read before it, failed.
    pub(crate) async fn write(
        &self,
        space: &Keyspace,
        index: u64,
        random: &mut SplitMix,
    ) -> Result<Duration, Label> {
        let key = Keyspace::key(index);
        let value = space.value(index, random);
        let Target::Holm { bucket, level } = self else {
            return null(&(key, value)).await;
        };
        let context = match space.context(index) {
            Some(context) => context,
            None => bucket.get(key).send().await.map_err(|e| get_label(&e))?.context().clone(),
        };
        let begun = Instant::now();
        let mut put = bucket.put(key, value).context(&context);
        if let Some(level) = level {
            put = put.level(*level);
        }
        match put.send().await {
            Ok(written) => {
                let took = begun.elapsed();
                space.keep(index, written.context());
                Ok(took)
            }
            Err(error) => {
                if error.outcome() == Outcome::MayHaveHappened {
                    space.forget(index);
                }
                Err(put_label(&error))
            }
        }
    }

    /// Reads a record and checks that one of its values is there.
    ///
    /// # Errors
    /// How the read failed, or that the value is missing or another's.
    pub(crate) async fn read(&self, space: &Keyspace, index: u64) -> Result<Duration, Label> {
        let key = Keyspace::key(index);
        let Target::Holm { bucket, level } = self else {
            return null(&key).await;
        };
        let begun = Instant::now();
        let mut get = bucket.get(key);
        if let Some(level) = level {
            get = get.level(*level);
        }
        let got = get.send().await.map_err(|error| get_label(&error))?;
        let took = begun.elapsed();
        match got.siblings() {
            [] => Err(Cow::Borrowed("value:Absent")),
            all if all.iter().all(|one| space.is_value_of(index, &one.value)) => Ok(took),
            _ => Err(Cow::Borrowed("value:Foreign")),
        }
    }
}

/// An operation that does nothing but let the other tasks run.
async fn null<T>(made: &T) -> Result<Duration, Label> {
    let begun = Instant::now();
    std::hint::black_box(made);
    tokio::task::yield_now().await;
    Ok(begun.elapsed())
}

fn put_label(error: &PutError) -> Label {
    if let Some(refusal) = error.refusal() {
        return refusal_label(refusal);
    }
    match error {
        PutError::Overloaded { .. } => Cow::Borrowed("client:Overloaded"),
        PutError::Unavailable { last, .. } => cause_label(last, "client:Unavailable"),
        PutError::Unknown { last, .. } => cause_label(last, "client:Unknown"),
        _ => Cow::Borrowed("client:Other"),
    }
}

fn get_label(error: &GetError) -> Label {
    if let Some(refusal) = error.refusal() {
        return refusal_label(refusal);
    }
    match error {
        GetError::Overloaded { .. } => Cow::Borrowed("client:Overloaded"),
        GetError::Unavailable { last, .. } => cause_label(last, "client:Unavailable"),
        _ => Cow::Borrowed("client:Other"),
    }
}

/// The client's own queue is told apart: it is the harness's doing, not the cluster's.
fn cause_label(last: &Cause, otherwise: &'static str) -> Label {
    match last {
        Cause::QueueFull { .. } => Cow::Borrowed("client:Overloaded"),
        _ => Cow::Borrowed(otherwise),
    }
}

/// `16:Overloaded`: the stable number and the name.
fn refusal_label(error: &RequestError) -> Label {
    let debug = format!("{error:?}");
    let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
    Cow::Owned(format!("{}:{name}", error.code()))
}

#[cfg(test)]
mod tests {
    use holm_client::{BucketId, NodeId};

    use super::*;

    /// Goal: refusals are named by code, wherever they are found.
    #[test]
    fn refusals_are_named_by_code() {
        let error = RequestError::Overloaded { in_flight: 9, limit: 8, retry_after_ms: 1 };
        assert_eq!(refusal_label(&error), "16:Overloaded");
        let node = NodeId(1);
        let last = Cause::Refused { node, error };
        let timeout = Duration::from_secs(1);
        let put = PutError::Unavailable { timeout, attempts: 2, last };
        assert_eq!(put_label(&put), "16:Overloaded");
        let error = RequestError::UnknownBucket { bucket: BucketId(3) };
        assert_eq!(get_label(&GetError::Refused { node, error }), "6:UnknownBucket");
        let last = Cause::QueueFull { node, in_flight: 1, limit: 1 };
        let get = GetError::Unavailable { timeout, attempts: 1, last };
        assert_eq!(get_label(&get), "client:Overloaded");
    }
}
