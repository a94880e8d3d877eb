//! Typed values: JSON by serde.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{Got, Written};
use crate::blob::Blob;
use crate::bucket::{Bucket, PutRequest};
use crate::context::Context;
use crate::error::{GetJsonError, PutJsonError};

/// What a key holds, parsed: one value for each sibling, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GotJson<T> {
    values: Vec<T>,
    got: Got,
}

impl<T> GotJson<T> {
    /// The concurrent values. None: the key is absent or deleted.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The values, owned.
    #[must_use]
    pub fn into_values(self) -> Vec<T> {
        self.values
    }

    /// What this read saw, to hand back with the write that follows.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.got.context()
    }

    /// The answer as it came.
    #[must_use]
    pub fn got(&self) -> &Got {
        &self.got
    }
}

impl Got {
    /// Parses every sibling as JSON.
    ///
    /// # Errors
    /// [`GetJsonError::Json`] for the first that is none.
    pub fn json<T: DeserializeOwned>(self) -> Result<GotJson<T>, GetJsonError> {
        let parse = |(index, sibling): (usize, &crate::Sibling)| {
            serde_json::from_slice(&sibling.value)
                .map_err(|source| GetJsonError::Json { index, source })
        };
        let values = self.siblings().iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(GotJson { values, got: self })
    }
}

impl Bucket {
    /// Reads a key and parses every sibling as JSON. For a level or timeout of its own:
    /// `bucket.get(key).level(level).await?.json()`.
    ///
    /// # Errors
    /// [`GetJsonError`].
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        key: impl Into<Blob>,
    ) -> Result<GotJson<T>, GetJsonError> {
        self.get(key).send().await?.json()
    }

    /// Writes a value as JSON, over what `context` covers (`None`: a blind write). For a level or
    /// timeout of its own, use [`Bucket::json_request`].
    ///
    /// # Errors
    /// [`PutJsonError`].
    pub async fn put_json<T: Serialize + ?Sized>(
        &self,
        key: impl Into<Blob>,
        value: &T,
        context: Option<&Context>,
    ) -> Result<Written, PutJsonError> {
        let mut request = self.json_request(key, value)?;
        if let Some(context) = context {
            request = request.context(context);
        }
        Ok(request.send().await?)
    }

    /// A put of a value as JSON, to be set up further and awaited.
    ///
    /// # Errors
    /// [`PutJsonError::Json`].
    pub fn json_request<T: Serialize + ?Sized>(
        &self,
        key: impl Into<Blob>,
        value: &T,
    ) -> Result<PutRequest<'_>, PutJsonError> {
        Ok(self.put(key, serde_json::to_vec(value).map_err(PutJsonError::Json)?))
    }
}
