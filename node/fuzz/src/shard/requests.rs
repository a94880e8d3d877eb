//! What clients ask: few keys and request ids, so that requests meet each other.

use bytes::Bytes;
use holm_protocol::ids::BucketId;
use holm_protocol::level::Level;
use holm_protocol::message::{Delete, Get, Put, Request};

use super::hostile;
use super::place::request_id;
use crate::input::Input;

/// A bucket and a key.
pub(super) fn key(input: &mut Input<'_>) -> (BucketId, Bytes) {
    (hostile::bucket(input), hostile::key(input))
}

/// A put, get or delete, with a context that was given for this key, for another, or by nobody.
pub(super) fn request(input: &mut Input<'_>, contexts: &[(BucketId, Bytes, Bytes)]) -> Request {
    let kind = input.below(5);
    let (bucket, key) = key(input);
    let key = match input.byte() {
        0..=251 => key,
        252 => Bytes::new(),
        _ => Bytes::from(vec![7; 1025]),
    };
    let level = match input.byte() % 8 {
        0 => None,
        1 | 2 => Some(Level::One),
        3 => Some(Level::LocalQuorum),
        4 => Some(Level::Quorum),
        5 => Some(Level::EachQuorum),
        6 => Some(Level::All),
        _ => Some(Level::Count(1 + input.byte() % 127)),
    };
    let timeout_ms = match input.byte() {
        byte @ 0..=239 => u32::from(byte),
        _ => u32::MAX,
    };
    if kind < 2 {
        return Request::Get(Get { bucket, key, level, timeout_ms });
    }
    let request = request_id(input.below(24) as u64);
    let context = context(input, (bucket, &key), contexts);
    if kind == 2 {
        return Request::Delete(Delete { bucket, key, context, level, request, timeout_ms });
    }
    let value = match input.byte() {
        byte @ 0..=251 => Bytes::from(vec![byte; usize::from(byte % 16)]),
        _ => Bytes::from(vec![1; 65]),
    };
    Request::Put(Put { bucket, key, value, context, level, request, timeout_ms })
}

fn context(
    input: &mut Input<'_>,
    (bucket, key): (BucketId, &[u8]),
    contexts: &[(BucketId, Bytes, Bytes)],
) -> Bytes {
    match input.byte() {
        0..=79 => Bytes::new(),
        80..=229 => {
            let fits = |it: &&(BucketId, Bytes, Bytes)| it.0 == bucket && it.1 == key;
            contexts.iter().rev().find(fits).map(|it| it.2.clone()).unwrap_or_default()
        }
        230..=244 => contexts.last().map(|it| it.2.clone()).unwrap_or_default(),
        _ => Bytes::copy_from_slice(input.bytes(30)),
    }
}
