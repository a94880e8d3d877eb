//! Names for what became of a request: the `outcome` label.

/// By [`RequestError::code`](holm_protocol::error::RequestError::code); 0 is a result. The last is
/// for codes of a newer protocol.
pub(super) const OUTCOMES: [&str; 29] = [
    "ok",
    "malformed",
    "unsupported_version",
    "wrong_cluster",
    "unauthorized",
    "settings_differ",
    "unknown_bucket",
    "key_length",
    "value_too_large",
    "object_too_large",
    "context",
    "context_required",
    "too_many_siblings",
    "level_unreachable",
    "write_unknown",
    "read_unavailable",
    "overloaded",
    "not_ready",
    "store",
    "request_id_reused",
    "coordinator_lost",
    "bucket_refused",
    "layout_refused",
    "not_development",
    "frame_too_long",
    "clock_skew",
    "write_unavailable",
    "hints_full",
    "other",
];

/// The place of a code in [`OUTCOMES`].
pub(super) fn position(code: u16) -> usize {
    usize::from(code).min(OUTCOMES.len() - 1)
}
