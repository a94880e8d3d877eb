//! File, environment and flags laid over the defaults, key by key.
//!
//! Precedence: flag, environment, file, default. Every value is checked against its key's kind
//! where it came from, so that the error can name the place.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holm_protocol::limits::is_name;
use toml::{Table, Value};

use super::ConfigError;
use super::keys::{KEYS, Key, Kind, names, parse_seeds};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// [`Key::default`].
    Default,
    /// This file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment => f.write_str("environment"),
            Source::Flag => f.write_str("flag"),
        }
    }
}

/// Every key's value and where it came from, in the order of [`KEYS`].
#[derive(Debug, Clone)]
pub struct Merged {
    values: Vec<(Value, Source)>,
}

impl Merged {
    /// Lays the three sources over the defaults. `lookup` gives a key's text in the environment or
    /// among the flags, by its index in [`KEYS`].
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key, a value of the wrong kind or out of range, or a key that
    /// must be set and is not.
    pub fn new(
        file: Option<(&Path, Table)>,
        env: &dyn Fn(usize) -> Option<String>,
        flags: &dyn Fn(usize) -> Option<String>,
    ) -> Result<Merged, ConfigError> {
        if let Some((path, table)) = &file {
            refuse_unknown(path, table)?;
        }
        let mut values = Vec::with_capacity(KEYS.len());
        for (index, key) in KEYS.iter().enumerate() {
            let from_file = file.as_ref().and_then(|(path, table)| {
                let value = table.get(key.section)?.get(key.name)?.clone();
                Some((rebase(key, value, path), Source::File((*path).to_owned())))
            });
            let text = |text: String, source| (from_text(key.kind, text), source);
            let found = flags(index)
                .map(|flag| text(flag, Source::Flag))
                .or_else(|| env(index).map(|var| text(var, Source::Environment)))
                .or(from_file)
                .or_else(|| Some((default(key)?, Source::Default)));
            let Some((value, source)) = found else {
                return Err(ConfigError::Missing { key: &names()[index] });
            };
            if !fits(key.kind, &value) {
                let got = value.to_string();
                return Err(ConfigError::OutOfRange {
                    key: &names()[index],
                    got,
                    kind: key.kind,
                    source_of: source,
                });
            }
            values.push((value, source));
        }
        Ok(Merged { values })
    }

    /// The values as one TOML document.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        for (key, (value, _)) in KEYS.iter().zip(&self.values) {
            let section = table.entry(key.section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(key.name.to_owned(), value.clone());
            }
        }
        table
    }

    /// The effective configuration as a file, each line with its source.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for (key, (value, source)) in KEYS.iter().zip(&self.values) {
            if key.section != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                out.push_str(&format!("{gap}[{}]\n", key.section));
                section = key.section;
            }
            out.push_str(&format!("{} = {value} # {source}\n", key.name));
        }
        out
    }
}

fn refuse_unknown(path: &Path, table: &Table) -> Result<(), ConfigError> {
    let unknown = |key: String| ConfigError::UnknownKey { key, file: path.to_owned() };
    for (section, value) in table {
        let Value::Table(keys) = value else { return Err(unknown(section.clone())) };
        if !KEYS.iter().any(|key| key.section == section) {
            return Err(unknown(format!("[{section}]")));
        }
        let known = |name: &str| KEYS.iter().any(|key| key.section == section && key.name == name);
        if let Some(name) = keys.keys().find(|name| !known(name)) {
            return Err(unknown(format!("{section}.{name}")));
        }
    }
    Ok(())
}

/// A relative path in a file counts from that file.
fn rebase(key: &Key, value: Value, file: &Path) -> Value {
    match (key.kind, value) {
        (Kind::Path, Value::String(path)) if !path.is_empty() => {
            let base = file.parent().unwrap_or(Path::new(""));
            Value::String(base.join(path).to_string_lossy().into_owned())
        }
        (_, value) => value,
    }
}

/// Reads the text of a flag or variable. What does not parse stays text, and is refused with it.
fn from_text(kind: Kind, text: String) -> Value {
    match kind {
        Kind::Integer { .. } => text.trim().parse().map_or(Value::String(text), Value::Integer),
        Kind::Switch => text.trim().parse().map_or(Value::String(text), Value::Boolean),
        _ => Value::String(text),
    }
}

fn default(key: &Key) -> Option<Value> {
    // A default that is not TOML is caught by the test of this table.
    key.default.and_then(|text| text.parse().ok())
}

fn fits(kind: Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Integer { min, max }, Value::Integer(got)) => (min..=max).contains(got),
        (Kind::Switch, Value::Boolean(_)) => true,
        (Kind::OneOf(words), Value::String(got)) => words.contains(&got.as_str()),
        (Kind::Name, Value::String(got)) => is_name(got),
        (Kind::Address, Value::String(got)) => got.parse::<SocketAddr>().is_ok(),
        (Kind::Path | Kind::Text, Value::String(got)) => !got.trim().is_empty(),
        (Kind::Seeds, Value::String(got)) => parse_seeds(got).is_some(),
        _ => false,
    }
}
