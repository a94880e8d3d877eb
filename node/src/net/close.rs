//! The numbers with which connections and lanes are closed.
//!
//! Below 1000 a code is that of a [`holm_protocol::error::RequestError`], which was sent as an error
//! frame before where there was a lane to send it on. The rest are these.

use quinn::VarInt;

/// Nothing is wrong: the lane or connection is done.
pub const DONE: VarInt = VarInt::from_u32(0);
/// The node stops.
pub const SHUTDOWN: VarInt = VarInt::from_u32(1000);
/// No hello came in time, or nothing came for long.
pub const SILENT: VarInt = VarInt::from_u32(1001);
/// The certificate does not fit the protocol, or names nobody.
pub const CERTIFICATE: VarInt = VarInt::from_u32(1002);
/// There is a better connection to this node.
pub const REPLACED: VarInt = VarInt::from_u32(1003);
/// Answers were not taken, or a frame was not finished.
pub const STALLED: VarInt = VarInt::from_u32(1004);
/// The node is no longer part of the layout, or its address changed.
pub const REMOVED: VarInt = VarInt::from_u32(1005);
/// There are too many clients: the number of [`holm_protocol::error::RequestError::Overloaded`].
pub const OVERLOADED: VarInt = VarInt::from_u32(16);
