//! The network at its sockets: real endpoints on loopback, real certificates, hostile and friendly
//! peers. Nothing here waits for a fixed time: everything waits for an event, under one deadline.

mod handshake;
mod lanes;
mod links;
mod sim;
mod support;
