//! Text that people write: holmd's configuration and the client's cluster file.
//!
//! Promises: any text gives a configuration or an error in words; a configuration that is accepted
//! keeps the relations between its keys, and is accepted again as it is shown.

use std::path::Path;

use holm_client::ClusterFile;

use crate::input::Input;
use crate::node::config::keys::KEYS;
use crate::node::config::merge::Merged;
use crate::node::config::{Config, ConfigError, relations};

/// The first byte chooses: a configuration file, one key of the environment with its value over a
/// sound file, or a cluster file.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => drop(std::str::from_utf8(input.rest()).map(|text| node_file(text, &|_| None))),
        1 => {
            let key = input.below(KEYS.len());
            if let Ok(value) = std::str::from_utf8(input.rest()) {
                node_file(SOUND, &|index| (index == key).then(|| value.to_owned()));
            }
        }
        _ => drop(std::str::from_utf8(input.rest()).map(cluster_file)),
    }
}

/// The keys without a default.
pub const SOUND: &str = "[node]\nid = 1\ndata_dir = \"d\"\n[cluster]\nid = \"c\"\n\
    [tls]\nca = \"ca\"\ncert = \"c\"\nkey = \"k\"\n";

fn merged(
    text: &str,
    env: &dyn Fn(usize) -> Option<String>,
) -> Result<(Config, Merged), ConfigError> {
    let path = Path::new("/etc/holm/holm.toml");
    let table = text.parse().map_err(|source| {
        let source = Box::new(source);
        ConfigError::NotToml { file: path.to_owned(), source }
    })?;
    let merged = Merged::new(Some((path, table)), env, &|_| None)?;
    let shape = |source| ConfigError::Shape { source: Box::new(source) };
    let config: Config = merged.table().try_into().map_err(shape)?;
    relations(&config)?;
    Ok((config, merged))
}

fn node_file(text: &str, env: &dyn Fn(usize) -> Option<String>) {
    match merged(text, env) {
        Ok((config, sources)) => {
            assert!(relations(&config).is_ok());
            let shown = sources.render();
            // A relative path of the environment counts from where the program was started.
            let is_relative =
                [&config.node.data_dir, &config.tls.ca, &config.tls.cert, &config.tls.key]
                    .iter()
                    .any(|path| path.is_relative());
            match merged(&shown, &|_| None) {
                Ok(_) if is_relative => {}
                Ok((again, _)) => assert_eq!(again, config, "shown:\n{shown}"),
                Err(error) => panic!("what is shown is refused: {error}\n{shown}"),
            }
        }
        Err(error) => {
            // A value that passed its key's check must fit its field.
            assert!(!matches!(error, ConfigError::Shape { .. }), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

fn cluster_file(text: &str) {
    match ClusterFile::parse(text, Path::new("/etc/holm/cluster.toml")) {
        Ok(file) => {
            assert!(!file.nodes.is_empty());
            let written = match toml::to_string(&file) {
                Ok(written) => written,
                Err(error) => panic!("a cluster file cannot be written: {error}"),
            };
            match ClusterFile::parse(&written, Path::new("elsewhere.toml")) {
                Ok(again) => assert_eq!(again, file),
                Err(error) => panic!("what was written is refused: {error}\n{written}"),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
