//! The cluster file: how to reach a cluster and prove who one is.
//!
//! TOML; paths are relative to the file:
//! ```toml
//! cluster = "demo"
//! region = "us-east"        # optional: the region to prefer
//! ca = "ca.pem"
//! cert = "client.pem"
//! key = "client.key"
//! [[node]]
//! id = 1
//! addr = "127.0.0.1:7401"
//! ```
//! Unknown keys are errors: a misspelt one must not be ignored.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holm_protocol::limits::is_name;
use serde::{Deserialize, Serialize};

/// A cluster file's content. Serializes to what [`ClusterFile::read`] reads.
///
/// ```
/// use holm_client::ClusterFile;
///
/// let text = r#"
///     cluster = "demo"
///     ca = "ca.pem"
///     cert = "client.pem"
///     key = "client.key"
///     [[node]]
///     id = 1
///     addr = "127.0.0.1:7401"
/// "#;
/// let file = ClusterFile::parse(text, "demo/cluster.toml".as_ref()).unwrap();
/// assert_eq!(file.ca, std::path::Path::new("demo/ca.pem"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// The cluster's name. A node of another one refuses the connection.
    pub cluster: String,
    /// The region to prefer. The nearest one, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The cluster's CA certificate, PEM.
    pub ca: PathBuf,
    /// The client's certificate, PEM, with intermediates if there are any.
    pub cert: PathBuf,
    /// The client's private key, PEM.
    pub key: PathBuf,
    /// Nodes to connect to first; the rest is learnt from them.
    #[serde(rename = "node", default)]
    pub nodes: Vec<ClusterFileNode>,
}

/// A node of a cluster file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFileNode {
    /// Its id.
    pub id: u64,
    /// Where clients reach it (UDP). Goes before the address in the layout.
    pub addr: SocketAddr,
}

/// Why a cluster file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterFileError {
    /// The file cannot be read.
    #[error("cannot read cluster file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what a cluster file is.
    #[error("cluster file {}: {why}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A value is out of range.
    #[error("cluster file {}: key `{key}`: {why}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Why.
        why: String,
    },
    /// A file that it names cannot be read.
    #[error("cluster file {}: key `{key}`: cannot read {}: {source}", .path.display(), .named.display())]
    Named {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The file it names.
        named: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ClusterFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ClusterFileError`], naming file and key.
    pub fn read(path: impl AsRef<Path>) -> Result<ClusterFile, ClusterFileError> {
        let path = path.as_ref();
        let unreadable = |source| ClusterFileError::Unreadable { path: path.to_owned(), source };
        ClusterFile::parse(&std::fs::read_to_string(path).map_err(unreadable)?, path)
    }

    /// Checks the text of a file; `path` is what its paths are relative to, and for messages.
    ///
    /// # Errors
    /// [`ClusterFileError`], naming file and key.
    pub fn parse(text: &str, path: &Path) -> Result<ClusterFile, ClusterFileError> {
        let mut file: ClusterFile = toml::from_str(text).map_err(|error| {
            let why = error.to_string().trim_end().to_owned();
            ClusterFileError::Invalid { path: path.to_owned(), why }
        })?;
        let bad = |key, why| ClusterFileError::Value { path: path.to_owned(), key, why };
        let name = "must be 1 to 64 of a-z 0-9 - _ . starting with a letter or digit";
        if !is_name(&file.cluster) {
            return Err(bad("cluster", format!("`{}` {name}", file.cluster)));
        }
        if let Some(region) = file.region.as_deref().filter(|region| !is_name(region)) {
            return Err(bad("region", format!("`{region}` {name}")));
        }
        if file.nodes.is_empty() {
            return Err(bad("node", "at least one [[node]] with id and addr is needed".into()));
        }
        let mut ids = BTreeSet::new();
        for node in &file.nodes {
            if !ids.insert(node.id) {
                return Err(bad("node.id", format!("{} is given twice", node.id)));
            }
            if node.addr.port() == 0 || node.addr.ip().is_unspecified() {
                return Err(bad("node.addr", format!("{} cannot be connected to", node.addr)));
            }
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        for named in [&mut file.ca, &mut file.cert, &mut file.key] {
            *named = directory.join(&*named);
        }
        Ok(file)
    }

    /// Reads a file that this one names, and says where it came from.
    pub(crate) fn load(
        named: &Path,
        key: &'static str,
        path: &Path,
    ) -> Result<Pem, ClusterFileError> {
        let failed = |source| {
            let (path, named) = (path.to_owned(), named.to_owned());
            ClusterFileError::Named { path, key, named, source }
        };
        let text = std::fs::read(named).map_err(failed)?;
        let what = match key {
            "ca" => "CA certificate",
            "cert" => "client certificate",
            _ => "client key",
        };
        let origin = format!("{what} {} (key `{key}` of {})", named.display(), path.display());
        Ok(Pem { text, origin })
    }
}

/// A PEM text and where it came from.
#[derive(Clone)]
pub(crate) struct Pem {
    pub(crate) text: Vec<u8>,
    pub(crate) origin: String,
}

impl std::fmt::Debug for Pem {
    // It may be a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pem({}, {} bytes)", self.origin, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster = \"demo\"\nca = \"ca.pem\"\ncert = \"/abs/c.pem\"\nkey = \"k\"\n\
        [[node]]\nid = 1\naddr = \"127.0.0.1:7401\"\n";

    fn parse(text: &str) -> Result<ClusterFile, ClusterFileError> {
        ClusterFile::parse(text, Path::new("etc/cluster.toml"))
    }

    /// Goal: relative paths start at the file, absolute ones stay.
    #[test]
    fn paths_are_relative_to_the_file() {
        let file = parse(GOOD).unwrap();
        assert_eq!(file.ca, Path::new("etc/ca.pem"));
        assert_eq!(file.cert, Path::new("/abs/c.pem"));
    }

    /// Goal: a mistake is named with its file and key. Method: one mistake each.
    #[test]
    fn mistakes_are_named() {
        for (from, to, key) in [
            ("cluster = \"demo\"", "cluster = \"De mo\"", "`cluster`"),
            ("key =", "kye =", "kye"),
            ("id = 1", "id = \"one\"", "id"),
            ("7401", "0", "`node.addr`"),
            ("ca =", "region = \"\"\nca =", "`region`"),
            ("[[node]]", "[[node]]\nid = 1\naddr = \"127.0.0.1:1\"\n[[node]]", "`node.id`"),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains("etc/cluster.toml") && error.contains(key), "{error}");
        }
        let none = GOOD.split("[[node]]").next().unwrap();
        assert!(parse(none).unwrap_err().to_string().contains("`node`"));
    }

    /// Goal: what is written can be read.
    #[test]
    fn serialized_files_read_back() {
        let file = parse(GOOD).unwrap();
        let text = toml::to_string(&file).unwrap();
        let again = ClusterFile::parse(&text, Path::new("c.toml")).unwrap();
        assert_eq!(again, file);
    }
}
