//! Bucket policies: what a bucket does with concurrent writes, and how carefully.

use serde::{Deserialize, Serialize};

use crate::ids::{BucketId, PlacementId};
use crate::level::Level;
use crate::limits::{MAX_SIBLINGS_MAX, VALUE_LEN_MAX, is_name};

/// What a bucket does with concurrent writes to one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BucketKind {
    /// Keeps them all, as siblings, until a writer that saw them writes again.
    Siblings,
    /// Keeps the one with the highest hybrid clock reading. Clocks decide: the loser is gone.
    Lww,
}

/// A bucket's policy. Stored in the cluster's metadata, changed at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketPolicy {
    /// What concurrent writes do. Fixed at creation.
    pub kind: BucketKind,
    /// Where the bucket's partitions live. Fixed at creation.
    pub placement: PlacementId,
    /// The level of a read that names none.
    pub read_level: Level,
    /// The level of a write that names none.
    pub write_level: Level,
    /// Siblings above which a put that overwrites none of them is refused.
    pub max_siblings: u16,
    /// Longest value, bytes.
    pub max_value: u32,
    /// Whether only replicas count, also at the levels at which other nodes of the region could stand
    /// in for them.
    pub strict: bool,
}

impl Default for BucketPolicy {
    fn default() -> Self {
        BucketPolicy {
            kind: BucketKind::Siblings,
            placement: PlacementId(0),
            read_level: Level::LocalQuorum,
            write_level: Level::LocalQuorum,
            // Enough for every region and client that writes at once in a partition; a bucket that
            // collects more is used without contexts, and should hear of it.
            max_siblings: 64,
            max_value: VALUE_LEN_MAX as u32,
            strict: false,
        }
    }
}

/// Why a bucket cannot have this name or policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketPolicyError {
    /// The name is not fit.
    #[error(
        "`{0}` is no bucket name: use 1 to 64 of a-z 0-9 - _ . starting with a letter or digit"
    )]
    Name(String),
    /// `max_siblings` is out of range.
    #[error("max_siblings is {got}, must be 1 to {limit}")]
    MaxSiblings {
        /// What was asked for.
        got: u16,
        /// [`MAX_SIBLINGS_MAX`].
        limit: usize,
    },
    /// `max_value` is out of range.
    #[error("max_value is {got} bytes, must be 1 to {limit}")]
    MaxValue {
        /// What was asked for.
        got: u32,
        /// [`VALUE_LEN_MAX`].
        limit: usize,
    },
}

impl BucketPolicy {
    /// Checks name and ranges.
    ///
    /// # Errors
    /// [`BucketPolicyError`], naming the field and its range.
    pub fn check(&self, name: &str) -> Result<(), BucketPolicyError> {
        if !is_name(name) {
            return Err(BucketPolicyError::Name(name.to_owned()));
        }
        if self.max_siblings == 0 || usize::from(self.max_siblings) > MAX_SIBLINGS_MAX {
            let limit = MAX_SIBLINGS_MAX;
            return Err(BucketPolicyError::MaxSiblings { got: self.max_siblings, limit });
        }
        if self.max_value == 0 || self.max_value as usize > VALUE_LEN_MAX {
            return Err(BucketPolicyError::MaxValue { got: self.max_value, limit: VALUE_LEN_MAX });
        }
        Ok(())
    }
}

/// A bucket as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketInfo {
    /// Its number on the wire and on disk.
    pub id: BucketId,
    /// Its name.
    pub name: String,
    /// Its policy.
    pub policy: BucketPolicy,
}
