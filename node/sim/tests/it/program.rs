//! The program `holm-sim` as somebody runs it: other processes, files, exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use holm_sim::plan::{Mode, Plan};
use holm_sim::sim::Sim;

fn holm_sim(line: &str) -> Output {
    let args: Vec<&str> = line.split_whitespace().collect();
    let program = env!("CARGO_BIN_EXE_holm-sim");
    Command::new(program).args(args).output().expect("holm-sim starts")
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("holm-sim exits")
}

/// A new directory for one test. Its path has no spaces where the target directory has none.
fn directory(test: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory");
    path
}

/// Goal: the same seed takes the same steps in another process (I12): nothing leaks in from hash
/// seeds, addresses, clocks or threads. Method: seeds of every mode, each in two processes and in
/// this one; every line of the trace and the digest of all steps are equal.
#[test]
fn a_seed_is_one_run_in_every_process() {
    let mut modes = [false; 4];
    for seed in 0..24 {
        let plan = Plan::from_seed(seed);
        let mode = match plan.mode {
            Mode::Calm => 0,
            Mode::Nemesis(_) => 1,
            Mode::Pair(..) => 2,
            Mode::Swarm => 3,
        };
        modes[mode] = true;
        let line = format!("--seed {seed} --trace");
        let (one, two) = (holm_sim(&line), holm_sim(&line));
        assert_eq!(code(&one), 0, "seed {seed}: {}", told(&one));
        assert!(told(&one) == told(&two), "seed {seed}: two processes, two traces");
        let report = Sim::new(plan, true).run();
        let trace = report.trace.join("\n");
        assert!(!trace.is_empty() && told(&one).contains(&trace), "seed {seed}");
        assert!(told(&one).contains(&format!("digest {:016x}", report.digest)), "seed {seed}");
    }
    assert_eq!(modes, [true; 4], "all modes");
}

/// Goal: many seeds are told the same, however they are shared out among threads. Method: twice,
/// without the last line, which has times.
#[test]
fn many_seeds_are_told_alike() {
    let lines = |output: Output| -> Vec<String> {
        let mut lines: Vec<String> = told(&output).lines().map(str::to_owned).collect();
        assert!(lines.pop().is_some_and(|last| last.contains("seeds and")), "{lines:?}");
        lines
    };
    let (one, two) = (holm_sim("--seeds 60 --from 100"), holm_sim("--seeds 60 --from 100"));
    assert_eq!(code(&one), 0);
    let (one, two) = (lines(one), lines(two));
    assert_eq!(one, two);
    assert!(one.iter().any(|line| line.contains("60 runs count, 0 bad")), "{one:?}");
}

/// Goal: a recorded run can be played from its file, and is the same run.
#[test]
fn what_is_recorded_can_be_replayed() {
    let file = directory("record").join("plan");
    let file = file.display();
    let recorded = holm_sim(&format!("--seed 21 --trace --record {file}"));
    let replayed = holm_sim(&format!("--replay {file} --trace"));
    let recorded = told(&recorded).replace(&format!("recorded in {file}\n"), "");
    assert_eq!(recorded, told(&replayed));
    assert!(recorded.contains("digest "));
}

/// Goal: a violation leaves a smaller plan in a file, says where, and the file breaks the same rule.
/// Method: a bug put back at the first seed that finds it, as somebody would go on from there.
#[test]
fn a_violation_leaves_a_schedule() {
    let directory = directory("shrunk");
    let bug = "RepairOverwrites";
    let broken = (0..500).find_map(|seed| {
        let line = format!("--seed {seed} --tamper {bug} --schedules {}", directory.display());
        let output = holm_sim(&line);
        (code(&output) == 1).then(|| (seed, told(&output)))
    });
    let (seed, told_first) = broken.expect("a seed that finds it");
    let file = directory.join(format!("seed-{seed}-{bug}.schedule"));
    for part in ["broke a rule: ", "  rule: ", "  seen: ", "shrunk: ", "bug put back: "] {
        assert!(told_first.contains(part), "{part}: {told_first}");
    }
    assert!(told_first.contains(&format!("--replay {} --trace", file.display())), "{told_first}");
    let rule = |told: &str| {
        let line = told.lines().find_map(|line| line.split_once("broke a rule: "));
        line.map(|(_, rule)| rule.to_owned())
    };
    let replayed = holm_sim(&format!("--replay {}", file.display()));
    assert_eq!(code(&replayed), 1);
    assert!(rule(&told_first).is_some());
    assert_eq!(rule(&told(&replayed)), rule(&told_first));
    let text = std::fs::read_to_string(&file).expect("the schedule");
    assert!(text.contains(&format!("# shrunk from: cargo xtask sim --seed {seed} --tamper {bug}")));
}

/// Goal: what broke a rule once breaks none any more. Method: the schedules that were kept, each
/// shrunk from the seed that found a bug of the core or a gap of the referee; their first lines say which rule
/// broke.
#[test]
fn kept_schedules_are_clean() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schedules");
    let files = std::fs::read_dir(directory).expect("the kept schedules");
    let files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    assert!(files.len() >= 2);
    for file in files {
        let output = holm_sim(&format!("--replay {}", file.display()));
        assert_eq!(code(&output), 0, "{}: {}", file.display(), told(&output));
    }
}

/// Goal: what is wrong is told on standard error, with exit code 2, and nothing is played.
#[test]
fn refusals_are_told() {
    let bad = directory("bad").join("bad.schedule");
    let text = format!("holm-sim-schedule {}\nplan seed=x\n", holm_sim::schedule::VERSION);
    std::fs::write(&bad, text).expect("a file");
    for (line, words) in [
        ("--sede 1".to_owned(), "what is `--sede`?"),
        ("--replay /nowhere/plan".to_owned(), "cannot read /nowhere/plan"),
        (format!("--replay {}", bad.display()), "line 2: seed=x"),
        ("--seed 1 --record /proc/plan".to_owned(), "cannot write /proc/plan"),
    ] {
        let output = holm_sim(&line);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 2, "{line}: {error}");
        assert!(error.contains(words), "{line}: {error}");
        assert!(output.stdout.is_empty(), "{line}: {}", told(&output));
    }
    let help = holm_sim("--help");
    assert_eq!(code(&help), 0);
    assert!(told(&help).starts_with("usage: holm-sim"));
}

/// Goal: a run by time ends, counts what it played and says how fast it was.
#[test]
fn time_is_a_budget() {
    let output = holm_sim("--minutes 0.02");
    assert_eq!(code(&output), 0, "{}", told(&output));
    let last = told(&output).lines().last().map(str::to_owned).unwrap_or_default();
    for part in ["seeds and", "simulated hours a minute", "MiB of memory at most"] {
        assert!(last.contains(part), "{last}");
    }
}
