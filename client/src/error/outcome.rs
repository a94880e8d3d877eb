//! What each error says about the data, and how a failed call becomes its operation's error.

use std::time::Duration;

use holm_protocol::error::{Outcome, RequestError};
use holm_protocol::ids::RequestId;

use super::{
    AdminError, BucketError, CallError, DeleteError, GetError, GetJsonError, PutError,
    PutJsonError, UpdateError,
};

/// `outcome()` and `refusal()` of errors that share their variants' names.
macro_rules! call_error {
    ($error:ident, unknown: [$($unknown:pat),*], last: [$($last:pat => $cause:expr),*]) => {
        impl $error {
            /// Whether the call may have changed something.
            #[must_use]
            pub fn outcome(&self) -> Outcome {
                match self {
                    $($unknown => Outcome::MayHaveHappened,)*
                    _ => Outcome::NothingHappened,
                }
            }

            /// The refusal of a node behind it, if one is.
            #[must_use]
            pub fn refusal(&self) -> Option<&RequestError> {
                match self {
                    $error::Refused { error, .. } => Some(error),
                    $($last => $cause,)*
                    _ => None,
                }
            }
        }
    };
}

call_error!(GetError, unknown: [], last: [
    GetError::Unavailable { last, .. } => last.refusal()
]);
call_error!(PutError, unknown: [PutError::Unknown { .. }], last: [
    PutError::Unavailable { last, .. } | PutError::Unknown { last, .. } => last.refusal()
]);
call_error!(DeleteError, unknown: [DeleteError::Unknown { .. }], last: [
    DeleteError::Unavailable { last, .. } | DeleteError::Unknown { last, .. } => last.refusal(),
    DeleteError::Read(error) => error.refusal()
]);
call_error!(
    AdminError,
    unknown: [AdminError::Unknown { .. }, AdminError::UnexpectedReply { .. }],
    last: [
        AdminError::Unavailable { last, .. } | AdminError::Unknown { last } => last.refusal()
    ]
);

impl UpdateError {
    /// Whether the update may have changed something.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            UpdateError::Get(error) => error.outcome(),
            UpdateError::Put(error) => error.outcome(),
            UpdateError::Delete(error) => error.outcome(),
        }
    }

    /// The refusal of a node behind it, if one is.
    #[must_use]
    pub fn refusal(&self) -> Option<&RequestError> {
        match self {
            UpdateError::Get(error) => error.refusal(),
            UpdateError::Put(error) => error.refusal(),
            UpdateError::Delete(error) => error.refusal(),
        }
    }
}

impl GetJsonError {
    /// Always [`Outcome::NothingHappened`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::NothingHappened
    }
}

impl PutJsonError {
    /// Whether the value may still appear.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            PutJsonError::Put(error) => error.outcome(),
            PutJsonError::Json(_) => Outcome::NothingHappened,
        }
    }
}

impl BucketError {
    /// Always [`Outcome::NothingHappened`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::NothingHappened
    }

    /// The refusal of a node behind it, if one is.
    #[must_use]
    pub fn refusal(&self) -> Option<&RequestError> {
        match self {
            BucketError::View(error) => error.refusal(),
            _ => None,
        }
    }
}

impl From<CallError> for GetError {
    fn from(error: CallError) -> GetError {
        match error {
            CallError::Refused { node, error } => GetError::Refused { node, error },
            CallError::Overloaded { queue } => GetError::Overloaded { queue },
            CallError::Unavailable { timeout, attempts, last } => {
                GetError::Unavailable { timeout, attempts, last }
            }
            // Reads are never left unknown; if they were, this is what it would mean.
            CallError::Unknown { last } => {
                GetError::Unavailable { timeout: Duration::ZERO, attempts: 1, last }
            }
        }
    }
}

impl PutError {
    pub(crate) fn new(error: CallError, request: RequestId) -> PutError {
        match error {
            CallError::Refused { node, error } => PutError::Refused { node, error },
            CallError::Overloaded { queue } => PutError::Overloaded { queue },
            CallError::Unavailable { timeout, attempts, last } => {
                PutError::Unavailable { timeout, attempts, last }
            }
            CallError::Unknown { last } => PutError::Unknown { request, last },
        }
    }
}

impl DeleteError {
    pub(crate) fn new(error: CallError, request: RequestId) -> DeleteError {
        match error {
            CallError::Refused { node, error } => DeleteError::Refused { node, error },
            CallError::Overloaded { queue } => DeleteError::Overloaded { queue },
            CallError::Unavailable { timeout, attempts, last } => {
                DeleteError::Unavailable { timeout, attempts, last }
            }
            CallError::Unknown { last } => DeleteError::Unknown { request, last },
        }
    }
}

impl From<CallError> for AdminError {
    fn from(error: CallError) -> AdminError {
        match error {
            CallError::Refused { node, error } => AdminError::Refused { node, error },
            CallError::Overloaded { queue } => AdminError::Overloaded { queue },
            CallError::Unavailable { timeout, attempts, last } => {
                AdminError::Unavailable { timeout, attempts, last }
            }
            CallError::Unknown { last } => AdminError::Unknown { last },
        }
    }
}
