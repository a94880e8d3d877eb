//! `cargo xtask fuzz`: libFuzzer over the targets of `holm-fuzz`.
//!
//! The programs are built by cargo-fuzz without a sanitizer, which a stable compiler can, into a
//! directory of their own: their flags would build everything else anew. Two run at a time, at the
//! lowest priority. What libFuzzer finds worth keeping grows in the cache; the corpus in the clone
//! is only read, and changes when `--keep` asks for it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use crate::place::{Place, entries};
use crate::run::{Child, Failure};
use crate::tool::Tool;

const TOOL: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
    version_args: &["--version"],
    compatible: "cargo-fuzz 0.13.",
};
/// Seconds for each target when nothing is said: enough to find what a change of a decoder breaks.
const SECONDS: u64 = 60;
/// Targets at a time: libFuzzer uses one core.
const AT_ONCE: usize = 2;
/// Seconds and MiB that one input may take. An input takes microseconds; a loop without end or a
/// length that is believed takes all there is.
const INPUT_LIMITS: [&str; 2] = ["-timeout=20", "-rss_limit_mb=1024"];
/// The longest input that is kept in the clone, and how many of a target.
const KEPT_BYTES_MAX: u64 = 2048;
const KEPT_FILES_MAX: usize = 100;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target: Option<String>,
    seconds: u64,
    /// An input to be repeated.
    input: Option<PathBuf>,
    keep: bool,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Wanted, Failure> {
        let usage = |what: String| Failure::new(what, "see `cargo xtask help`");
        let mut wanted = Wanted { target: None, seconds: SECONDS, input: None, keep: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => {
                    let number = args.next().and_then(|text| text.parse().ok());
                    wanted.seconds = number
                        .filter(|&number| number > 0)
                        .ok_or_else(|| usage("--seconds needs a number, at least 1".to_owned()))?;
                }
                "--keep" => wanted.keep = true,
                flag if flag.starts_with('-') => return Err(usage(format!("no flag `{flag}`"))),
                name if wanted.target.is_none() => wanted.target = Some(name.to_owned()),
                file if wanted.input.is_none() => wanted.input = Some(file.into()),
                more => return Err(usage(format!("`{more}` is one argument too many"))),
            }
        }
        Ok(wanted)
    }
}

/// Where everything about fuzzing is.
struct Bench {
    /// `node/fuzz`.
    sources: PathBuf,
    /// Builds, growing corpora, logs, inputs that failed.
    cache: PathBuf,
    /// The triple of this machine, for which they are built.
    platform: String,
}

impl Bench {
    fn new(place: &Place) -> Result<Bench, Failure> {
        let said = Child::new("rustc", &["-vV"]).directory(&place.root).output()?;
        let platform = host(&said)
            .ok_or_else(|| Failure::new("`rustc -vV` names no host", "install Rust with rustup"))?;
        let (sources, cache) = (place.root.join("node/fuzz"), place.cache.join("fuzz"));
        Ok(Bench { sources, cache, platform })
    }

    fn program(&self, target: &str) -> PathBuf {
        self.cache.join(&self.platform).join("release").join(target)
    }

    fn kept(&self, target: &str) -> PathBuf {
        self.sources.join("corpus").join(target)
    }

    fn grown(&self, target: &str) -> PathBuf {
        self.cache.join("corpus").join(target)
    }

    fn failures(&self, target: &str) -> PathBuf {
        self.cache.join("failures").join(target)
    }

    fn log(&self, target: &str) -> PathBuf {
        self.cache.join("logs").join(format!("{target}.log"))
    }
}

/// The platform that a compiler runs on, from what it says of itself.
fn host(said: &str) -> Option<String> {
    said.lines().find_map(|line| line.strip_prefix("host: ")).map(|host| host.trim().to_owned())
}

/// Runs what is asked for.
///
/// # Errors
/// The programs cannot be built, or an input fails.
pub(crate) fn run(place: &Place, args: &[String]) -> Result<(), Failure> {
    let wanted = Wanted::parse(args)?;
    let bench = Bench::new(place)?;
    let name = |path: &PathBuf| path.file_name().map(|it| it.to_string_lossy().into_owned());
    let mut targets: Vec<String> =
        entries(&bench.sources.join("corpus")).iter().filter_map(name).collect();
    if let Some(one) = &wanted.target {
        if !targets.contains(one) {
            let what = format!("there is no target `{one}`");
            return Err(Failure::new(what, format!("one of: {}", targets.join(", "))));
        }
        targets.retain(|target| target == one);
    }
    let directory = bench.sources.join("libfuzzer");
    let args = ["build", "--sanitizer", "none", "--target", &bench.platform, "--fuzz-dir", "."];
    Child::new(TOOL.install(place)?, &args)
        .directory(&directory)
        .env("CARGO_TARGET_DIR", &bench.cache)
        .run("fix the errors above")?;
    if let Some(input) = &wanted.input {
        let input = std::path::absolute(input).unwrap_or_else(|_| input.clone());
        return Child::new(bench.program(&targets[0]), &[input])
            .run("mend what it shows, and keep the input in node/fuzz/corpus");
    }
    let failed = fuzz_all(&bench, &targets, wanted.seconds)?;
    if !failed.is_empty() {
        let what = format!("{} of {} targets failed", failed.len(), targets.len());
        return Err(Failure::new(what, failed.join("\n  ")));
    }
    if wanted.keep {
        for target in &targets {
            keep(&bench, target)?;
        }
    }
    Ok(())
}

/// Runs every target for so long, a few at a time. Gives, for each that failed, how to repeat it.
fn fuzz_all(bench: &Bench, targets: &[String], seconds: u64) -> Result<Vec<String>, Failure> {
    let waiting = Mutex::new(targets.iter().collect::<VecDeque<_>>());
    let failed = Mutex::new(Vec::new());
    println!(
        "{:<14} {:>11} {:>8} {:>7} {:>7} {:>8}",
        "target", "executions", "per s", "cov", "ft", "corpus"
    );
    let outcome = std::thread::scope(|scope| {
        let worker = || -> Result<(), Failure> {
            loop {
                let next = waiting.lock().map(|mut it| it.pop_front()).unwrap_or_default();
                let Some(target) = next else { return Ok(()) };
                let (line, repeat) = fuzz(bench, target, seconds)?;
                println!("{target:<14} {line}");
                if let (Some(repeat), Ok(mut failed)) = (repeat, failed.lock()) {
                    failed.push(repeat);
                }
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let mut joined = workers.into_iter().map(|worker| worker.join());
        let stopped = |_| Failure::new("a thread of xtask panicked", "report it");
        joined.try_for_each(|it| it.map_err(stopped).and_then(|it| it))
    });
    outcome.map(|()| failed.into_inner().unwrap_or_default())
}

/// Runs one target. Gives its figures, and how to repeat an input that failed.
fn fuzz(bench: &Bench, target: &str, seconds: u64) -> Result<(String, Option<String>), Failure> {
    let (grown, failures) = (bench.grown(target), bench.failures(target));
    let log = bench.log(target);
    for directory in [&grown, &failures, &bench.cache.join("logs")] {
        fs::create_dir_all(directory).map_err(|error| unusable(directory, &error))?;
    }
    let mut args: Vec<OsString> = vec![
        format!("-max_total_time={seconds}").into(),
        format!("-artifact_prefix={}/", failures.display()).into(),
        "-print_final_stats=1".into(),
    ];
    args.extend(INPUT_LIMITS.map(OsString::from));
    // What is new goes into the first corpus; the second is read.
    args.extend([grown.into(), bench.kept(target).into()]);
    let status = logged(&bench.program(target), &args, &log)?;
    let said = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    let figures = Figures::read(&said);
    if status.success() {
        return Ok((figures.line(), None));
    }
    let input = said.lines().find_map(|line| line.split("Test unit written to ").nth(1));
    let repeat = match input {
        Some(input) => format!("repeat it with: cargo xtask fuzz {target} {input}"),
        None => format!("{target} ended with {status}: see {}", log.display()),
    };
    Ok((format!("{} FAILED, see {}", figures.line(), log.display()), Some(repeat)))
}

fn logged(program: &Path, args: &[OsString], log: &Path) -> Result<ExitStatus, Failure> {
    let file = File::create(log).map_err(|error| unusable(log, &error))?;
    Command::new("nice")
        .args(["-n", "19"])
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|error| Failure::new(format!("cannot run nice: {error}"), "is it installed?"))
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()), "make it writable")
}

/// Replaces the corpus in the clone by the smallest inputs that reach what is reached by all that
/// were ever found. Inputs of failures that were mended are kept whatever they reach: their names
/// begin with `mended-`.
fn keep(bench: &Bench, target: &str) -> Result<(), Failure> {
    let (kept, merged) = (bench.kept(target), bench.cache.join("merged").join(target));
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged).map_err(|error| unusable(&merged, &error))?;
    // What is reached, not how often: that would keep thousands.
    let flags = ["-set_cover_merge=1", "-use_counters=0"];
    let mut args: Vec<OsString> = flags.map(OsString::from).into();
    args.push(merged.clone().into());
    args.extend([bench.grown(target).into(), kept.clone().into()]);
    let status = logged(&bench.program(target), &args, &bench.log(target))?;
    if !status.success() {
        let what = format!("the corpus of {target} cannot be merged: {status}");
        return Err(Failure::new(what, format!("see {}", bench.log(target).display())));
    }
    let is_mended = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mended-"))
    };
    for old in entries(&kept).iter().filter(|path| !is_mended(path)) {
        fs::remove_file(old).map_err(|error| unusable(old, &error))?;
    }
    let size = |path: &PathBuf| path.metadata().map_or(u64::MAX, |it| it.len());
    let mut small = entries(&merged);
    small.retain(|path| size(path) <= KEPT_BYTES_MAX);
    // The larger ones reach the most.
    small.sort_by_key(|path| std::cmp::Reverse(size(path)));
    small.truncate(KEPT_FILES_MAX);
    for new in &small {
        let to = kept.join(new.file_name().unwrap_or_default());
        fs::copy(new, &to).map_err(|error| unusable(&to, &error))?;
    }
    println!("{target}: {} inputs kept", small.len());
    Ok(())
}

/// What libFuzzer says of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: u64,
    per_second: u64,
    coverage: u64,
    features: u64,
    corpus: String,
}

impl Figures {
    /// From its log: the last line of progress, and the final statistics, which a failure lacks.
    fn read(log: &str) -> Figures {
        let mut figures = Figures::default();
        for line in log.lines() {
            if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
                figures.executions = number.trim().parse().unwrap_or(figures.executions);
            }
            let Some(rest) = line.strip_prefix('#') else { continue };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let after = |name| words.iter().skip_while(|it| **it != name).nth(1).copied();
            let number = |name| after(name).and_then(|text| text.parse::<u64>().ok());
            let Some(coverage) = number("cov:") else { continue };
            figures.executions =
                words.first().and_then(|it| it.parse().ok()).unwrap_or(figures.executions);
            figures.coverage = coverage;
            figures.features = number("ft:").unwrap_or(0);
            figures.per_second = number("exec/s:").unwrap_or(0);
            figures.corpus = after("corp:").unwrap_or_default().to_owned();
        }
        figures
    }

    fn line(&self) -> String {
        let Figures { executions, per_second, coverage, features, corpus } = self;
        format!("{executions:>11} {per_second:>8} {coverage:>7} {features:>7} {corpus:>8}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: figures are those of the end, also of a run that failed before its statistics.
    #[test]
    fn figures_are_read() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 30Mb\n\
            #4096\tpulse  cov: 70 ft: 80 corp: 9/100b lim: 4 exec/s: 2048 rss: 31Mb\n";
        let figures = Figures::read(log);
        assert_eq!((figures.executions, figures.per_second), (4096, 2048));
        assert_eq!((figures.coverage, figures.features, &figures.corpus[..]), (70, 80, "9/100b"));
        let ended = format!("{log}stat::number_of_executed_units: 5000\n");
        assert_eq!(Figures::read(&ended).executions, 5000);
        assert_eq!(Figures::read("nothing"), Figures::default());
    }

    /// Goal: programs are built for the machine they run on.
    #[test]
    fn the_host_is_read() {
        let said = "rustc 1.88.0\nhost: aarch64-unknown-linux-gnu\nrelease: 1.88.0\n";
        assert_eq!(host(said).as_deref(), Some("aarch64-unknown-linux-gnu"));
        assert_eq!(host("rustc 1.88.0\n"), None);
    }

    /// Goal: the command line is read strictly.
    #[test]
    fn arguments_are_read() {
        let parse = |line: &str| {
            Wanted::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
        };
        let all = parse("--seconds 5 shard file --keep").unwrap();
        assert_eq!((all.target.as_deref(), all.seconds, all.keep), (Some("shard"), 5, true));
        assert_eq!(all.input, Some("file".into()));
        assert_eq!(parse("").unwrap().seconds, SECONDS);
        for wrong in ["--seconds", "--seconds 0", "--seconds x", "--what", "a b c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
