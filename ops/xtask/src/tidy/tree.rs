//! The files of the clone, read once: those git knows or would add.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::place::entries;
use crate::run::{Child, Failure};

/// Paths relative to the root with `/` between parts, and the text of those that are UTF-8.
#[derive(Debug, Default)]
pub(super) struct Tree {
    texts: BTreeMap<String, String>,
    binaries: BTreeSet<String>,
}

impl Tree {
    /// Reads the clone at `root`. Without git (a source archive), everything but `target`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn load(root: &Path) -> Result<Self, Failure> {
        let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let mut paths = Vec::new();
        match Child::new("git", &args).directory(root).output() {
            Ok(listing) => {
                paths.extend(listing.split('\0').filter(|path| !path.is_empty()).map(String::from));
            }
            Err(_) => walk(root, "", &mut paths),
        }
        let mut tree = Self::default();
        for path in paths {
            let full = root.join(&path);
            // Deleted but still in the index, or a link: nothing to check.
            if !full.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                continue;
            }
            let bytes = fs::read(&full)
                .map_err(|error| Failure::new(format!("{path}: {error}"), "make it readable"))?;
            match String::from_utf8(bytes) {
                Ok(text) => drop(tree.texts.insert(path, text)),
                Err(_) => drop(tree.binaries.insert(path)),
            }
        }
        Ok(tree)
    }

    /// A tree made by hand, for the tests of the rules.
    #[cfg(test)]
    pub(super) fn sample(files: &[(&str, &str)]) -> Self {
        let texts = files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        Self { texts, binaries: BTreeSet::new() }
    }

    /// How many files it has.
    pub(super) fn len(&self) -> usize {
        self.texts.len() + self.binaries.len()
    }

    /// Every text file: its path and its text, by path.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Text files whose name ends in `suffix`.
    pub(super) fn ending(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(path, _)| path.ends_with(suffix))
    }

    /// One file's text.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Whether there is such a file, or a directory with files in it. The root is "".
    pub(super) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let directory = format!("{path}/");
        path.is_empty()
            || self.texts.contains_key(path)
            || self.binaries.contains(path)
            || self
                .texts
                .range(directory.clone()..)
                .next()
                .is_some_and(|(next, _)| next.starts_with(&directory))
            || self
                .binaries
                .range(directory.clone()..)
                .next()
                .is_some_and(|next| next.starts_with(&directory))
    }
}

fn walk(root: &Path, below: &str, paths: &mut Vec<String>) {
    for entry in entries(&root.join(below)) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if entry.is_symlink() || name == "target" || name == ".git" {
            continue;
        }
        if entry.is_dir() {
            walk(root, &path, paths);
        } else {
            paths.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;

    /// Goal: a path exists as a file or as a directory, and a common prefix is neither.
    #[test]
    fn files_and_directories_exist() {
        let tree = Tree::sample(&[("node/core/src/lib.rs", ""), ("node/core.md", "")]);
        for path in ["node/core/src/lib.rs", "node/core/src", "node/core/", "node", ""] {
            assert!(tree.has(path), "{path}");
        }
        for path in ["node/co", "node/core/src/lib", "other"] {
            assert!(!tree.has(path), "{path}");
        }
    }
}
