//! Who a certificate speaks for: the bytes have been verified against the CA, or not even that.
//!
//! Promises: the reader is total; whom it names, the certificate's bytes name.

use crate::node::identity::PeerIdentity;

/// DER bytes.
pub fn run(data: &[u8]) {
    match PeerIdentity::from_certificate(data) {
        Ok(identity) => {
            assert!(!identity.to_string().is_empty());
            let uri = match identity {
                PeerIdentity::Node(node) => format!("holm://node/{}", node.0),
                PeerIdentity::Client { name, .. } => format!("holm://client/{name}?roles="),
            };
            let is_there = data.windows(uri.len()).any(|window| window == uri.as_bytes());
            assert!(is_there, "{uri} is not in the certificate");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
