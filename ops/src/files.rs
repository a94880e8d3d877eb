//! Files that must not be lost by accident, or read by others.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::failure::Failure;

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Anybody.
    Public,
    /// Only its owner: mode 0600.
    Private,
}

impl Secrecy {
    fn mode(self) -> u32 {
        match self {
            Secrecy::Public => 0o644,
            Secrecy::Private => 0o600,
        }
    }
}

/// Makes a file that must not exist yet. Its mode is right from the first moment.
///
/// # Errors
/// The file exists, or cannot be made.
pub(crate) fn create_new(path: &Path, text: &str, secrecy: Secrecy) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(secrecy.mode()).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::file("create", path, &error),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| Failure::file("write", path, &error))
}

/// Replaces a private file as a whole: readers see the old or the new one.
///
/// # Errors
/// The file beside it, or its move over the old one, failed.
pub(crate) fn replace_private(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::file("remove", &beside, &error));
        }
        _ => {}
    }
    create_new(&beside, text, Secrecy::Private)?;
    fs::rename(&beside, path).map_err(|error| Failure::file("replace", path, &error))
}

/// Refuses if one of the files exists, so that a set of them is written whole or not at all.
///
/// # Errors
/// One exists.
pub(crate) fn refuse_existing<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
) -> Result<(), Failure> {
    match paths.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(exists(path)),
        None => Ok(()),
    }
}

/// Reads a text file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))
}

/// Makes a directory and those above it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn create_dir(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| Failure::file("create", path, &error))
}

fn exists(path: &Path) -> Failure {
    Failure::failed(
        format!("{} exists and is not overwritten", path.display()),
        "move it away first, or choose another place with `--out DIR`",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Goal: keys are private and nothing is overwritten. Method: write twice, look at mode and
    /// content.
    #[test]
    fn new_files_are_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create_new(&path, "one", Secrecy::Private).unwrap();
        assert!(create_new(&path, "two", Secrecy::Private).is_err());
        assert!(refuse_existing([path.as_path()]).is_err());
        assert_eq!(read(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        replace_private(&path, "three").unwrap();
        replace_private(&path, "four").unwrap();
        assert_eq!(read(&path).unwrap(), "four");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
