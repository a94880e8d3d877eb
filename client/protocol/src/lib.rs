//! What both ends of a holm connection must agree on: ids, dots and contexts, messages, errors,
//! limits.
//!
//! Where to look: [`ids`] names things; [`dot`] and [`version_vector`] are causality on the wire;
//! [`handshake`] opens a lane, [`frame`] cuts it into messages, [`message`] and [`admin`] are
//! those messages; [`error`] numbers every refusal; [`limits`] bounds everything.
//!
//! No I/O, no runtime: encoders append to buffers, decoders are total.
#![forbid(unsafe_code)]

pub mod admin;
pub mod bucket;
pub mod dot;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod level;
pub mod limits;
pub mod message;
pub mod version_vector;
pub mod wire;
