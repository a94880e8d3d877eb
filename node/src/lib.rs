//! The shell around the core: what a node is besides the protocol itself.

pub mod store;
