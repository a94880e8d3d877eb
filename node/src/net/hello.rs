//! What a hello must say. Pure checks; the first thing wrong is the refusal.

use holm_protocol::error::RequestError;
use holm_protocol::frame::Frame;
use holm_protocol::handshake::{
    self, ClientHello, ClientWelcome, Lane, MetadataVersion, PeerHello,
};
use holm_protocol::ids::{Actor, NodeId};
use holm_protocol::limits::NAME_LEN_MAX;
use holm_protocol::message::kind;

/// Who this node is, as hellos tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub run: Actor,
    /// The name of its store.
    pub store: u128,
    /// [`handshake::settings_fingerprint`] of its settings.
    pub fingerprint: u64,
}

impl LocalNode {
    /// This node's hello on a lane to another node, and its answer to one.
    #[must_use]
    pub fn hello(&self, lane: Lane, metadata: MetadataVersion) -> PeerHello {
        PeerHello {
            cluster: self.cluster.clone(),
            node: self.node,
            run: self.run,
            fingerprint: self.fingerprint,
            store: self.store,
            lane,
            metadata,
        }
    }

    /// This node's answer to a client.
    #[must_use]
    pub fn welcome(&self, metadata: MetadataVersion) -> ClientWelcome {
        ClientWelcome {
            cluster: self.cluster.clone(),
            node: self.node,
            run: self.run,
            layout_version: metadata.layout,
        }
    }

    /// Checks a client's first frame.
    ///
    /// # Errors
    /// What to answer.
    pub fn check_client(&self, frame: &Frame) -> Result<ClientHello, RequestError> {
        expect_kind(frame, kind::HELLO)?;
        let hello: ClientHello = handshake::decode(&frame.body)?;
        if hello.client.len() > NAME_LEN_MAX {
            let what = format!("client name of {} bytes, limit {NAME_LEN_MAX}", hello.client.len());
            return Err(RequestError::Malformed { what });
        }
        if let Some(asked) = &hello.cluster {
            self.check_cluster(asked)?;
        }
        Ok(hello)
    }

    /// Checks a hello or welcome of the node that holds `certified`'s certificate.
    ///
    /// # Errors
    /// What to answer.
    pub fn check_peer(
        &self,
        frame: &Frame,
        expected: u8,
        certified: NodeId,
    ) -> Result<PeerHello, RequestError> {
        expect_kind(frame, expected)?;
        let hello: PeerHello = handshake::decode(&frame.body)?;
        self.check_cluster(&hello.cluster)?;
        if hello.node != certified {
            let what = format!("hello of node {}, certificate of {}", hello.node.0, certified.0);
            return Err(RequestError::Malformed { what });
        }
        if hello.node == self.node {
            let what = format!(
                "hello of node {}, which is this node: is its id taken twice?",
                hello.node.0
            );
            return Err(RequestError::Malformed { what });
        }
        if hello.run.0 == 0 {
            return Err(RequestError::Malformed { what: "hello of run 0".to_owned() });
        }
        if hello.fingerprint != self.fingerprint {
            return Err(RequestError::SettingsDiffer {
                ours: self.fingerprint,
                theirs: hello.fingerprint,
            });
        }
        Ok(hello)
    }

    fn check_cluster(&self, asked: &str) -> Result<(), RequestError> {
        if asked == self.cluster {
            return Ok(());
        }
        // Hellos are short, but what is repeated to the other side and the log is cut anyway.
        let asked = asked.chars().take(NAME_LEN_MAX).collect();
        Err(RequestError::WrongCluster { here: self.cluster.clone(), asked })
    }
}

fn expect_kind(frame: &Frame, expected: u8) -> Result<(), RequestError> {
    if frame.kind == expected {
        return Ok(());
    }
    let what = format!("first frame of kind {}, expected {expected}", frame.kind);
    Err(RequestError::Malformed { what })
}
