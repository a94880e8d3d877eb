//! The client against fake nodes that speak the protocol over real QUIC and TLS on loopback.
//!
//! What a node would answer is scripted, so that each test sees exactly one kind of trouble.

mod bad_input;
mod fake;
mod routing;
mod writes;
