//! Every input that is kept, through the target it was found with: without libFuzzer, on every run
//! of the tests.

mod hostile;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use holm_fuzz::TARGETS;

/// What the corpus of one target may take: it is part of every clone.
const FILES_MAX: usize = 200;
const BYTES_MAX: usize = 200 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Goal: no input that was ever worth keeping breaks a promise: among them are the inputs of every
/// failure that was found and mended.
#[test]
fn kept_inputs_keep_the_promises() {
    for target in TARGETS {
        let directory = corpus().join(target.name);
        for name in names(&directory) {
            let input = fs::read(directory.join(&name)).unwrap();
            eprintln!("{}/{name}: {} bytes", target.name, input.len());
            (target.run)(&input);
        }
    }
}

/// Goal: the corpus stays small, and each target has one. Method: the directories are the targets.
#[test]
fn every_target_has_a_small_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&corpus()), targets);
    for target in TARGETS {
        let directory = corpus().join(target.name);
        let sizes: Vec<u64> = names(&directory)
            .iter()
            .map(|name| fs::metadata(directory.join(name)).unwrap().len())
            .collect();
        assert!(sizes.len() <= FILES_MAX, "{}: {} files", target.name, sizes.len());
        let bytes: u64 = sizes.iter().sum();
        assert!(!sizes.is_empty() && bytes <= BYTES_MAX as u64, "{}: {bytes} bytes", target.name);
    }
}

/// Goal: each target has its program for libFuzzer, and no other is left. Method: names of files.
#[test]
fn every_target_has_its_program() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/src");
    let programs: BTreeSet<String> = TARGETS.iter().map(|it| format!("{}.rs", it.name)).collect();
    assert_eq!(names(&sources), programs);
}
