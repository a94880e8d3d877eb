//! Where the cluster file is looked for, and writing one for the demo. What is in it is the SDK's
//! matter ([`holm_client::ClusterFile`]).

use std::path::{Path, PathBuf};

use holm_client::ClusterFile;

use crate::cli::Global;
use crate::failure::Failure;
use crate::files::{self, Secrecy};

/// The name looked for in the current directory.
const NAME_HERE: &str = "holm-cluster.toml";

/// The cluster file to use: as asked for, or the first that exists of the usual places.
///
/// # Errors
/// None was asked for and none exists.
pub(crate) fn locate(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(path) = &global.cluster {
        return Ok(path.clone());
    }
    let places = [Some(PathBuf::from(NAME_HERE)), config_file()];
    places.into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        Failure::usage(
            format!(
                "no cluster file: neither ./{NAME_HERE} nor ~/.config/holm/cluster.toml exists"
            ),
            "name one with `--cluster FILE` or HOLM_CLUSTER; `holm demo` starts a cluster and \
             makes one",
        )
    })
}

fn config_file() -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_CONFIG_HOME") {
        Some(base) if !base.is_empty() => PathBuf::from(base),
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".config"),
    };
    Some(base.join("holm").join("cluster.toml"))
}

/// Writes a cluster file that must not exist yet.
///
/// # Errors
/// It exists or cannot be written.
pub(crate) fn write(path: &Path, file: &ClusterFile) -> Result<(), Failure> {
    let text = toml::to_string(file).map_err(|error| {
        Failure::failed(
            format!("cannot write the cluster file as TOML: {error}"),
            "paths in it must be UTF-8",
        )
    })?;
    files::create_new(path, &text, Secrecy::Public)
}

#[cfg(test)]
mod tests {
    use holm_client::ClusterFileNode;

    use super::*;

    /// Goal: what is written reads back, with paths beside the file. Method: write, read.
    #[test]
    fn written_files_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        let addr = "127.0.0.1:7401".parse().unwrap();
        let file = ClusterFile {
            cluster: "demo".into(),
            region: Some("us-east".into()),
            ca: "ca.pem".into(),
            cert: "client.pem".into(),
            key: "client.key".into(),
            nodes: vec![ClusterFileNode { id: 1, addr }],
        };
        write(&path, &file).unwrap();
        let read = ClusterFile::read(&path).unwrap();
        assert_eq!((read.nodes, read.region), (file.nodes, file.region));
        assert_eq!(read.ca, dir.path().join("ca.pem"));
    }
}
