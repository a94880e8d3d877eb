//! Where the CPU time of quorum writes goes.
//!
//! The load runs once more, not counted in the table, because a profiler takes its share. The file
//! has two parts: CPU seconds by thread, from `/proc`, always; and the functions that took most,
//! from `perf` (samples of the CPU clock over all nodes and the client), where `perf` is installed
//! and may be used.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::driver::{self, Plan};
use crate::failure::Failure;
use crate::keyspace::Keyspace;
use crate::measured::Measured;
use crate::procfs;
use crate::target::Target;
use crate::text;

/// Samples a second and CPU: enough for three digits, and no multiple of any timer's period.
const SAMPLE_HZ: &str = "497";
/// Functions below this share are left out, percent.
const SHARE_MIN: &str = "0.4";

/// Runs the load under the profiler and writes what was seen.
///
/// # Errors
/// The file cannot be written, or the load cannot run.
pub(crate) async fn write(
    file: &Path,
    target: &Target,
    space: &Arc<Keyspace>,
    plan: Plan,
    pids: &[u32],
) -> Result<(), Failure> {
    let dir = crate::baseline::rocks::temporary(None)?;
    let data = dir.path().join("perf.data");
    let mut all = pids.to_owned();
    all.push(std::process::id());
    let before = threads(pids);
    let perf = Perf::start(&data, &all);
    let measured = driver::drive(target, space, plan, pids).await?;
    let functions = match perf {
        Ok(perf) => perf.stop(&data),
        Err(error) => Err(error),
    };
    let functions = functions.unwrap_or_else(|error| format!("perf cannot be used: {error}\n"));
    let text = format!(
        "# CPU seconds by thread\n{}\n# Functions (perf, CPU clock, {SAMPLE_HZ} Hz)\n{functions}",
        by_thread(&before, &threads(pids), &measured),
    );
    std::fs::write(file, text).map_err(Failure::io(format!("write {}", file.display())))
}

type Threads = BTreeMap<String, Duration>;

/// CPU time of the nodes' threads by name, all nodes together, and of this process.
fn threads(pids: &[u32]) -> Threads {
    let mut threads = Threads::new();
    for (name, cpu) in pids.iter().flat_map(|pid| procfs::thread_cpu_times(*pid)) {
        *threads.entry(format!("holmd {name}")).or_default() += cpu;
    }
    threads.insert("holm-bench (client)".to_owned(), procfs::own_cpu_time());
    threads
}

fn by_thread(before: &Threads, after: &Threads, measured: &Measured) -> String {
    let mut rows: Vec<(Duration, &str)> = after
        .iter()
        .map(|(name, cpu)| {
            (cpu.saturating_sub(before.get(name).copied().unwrap_or_default()), name.as_str())
        })
        .filter(|(cpu, _)| !cpu.is_zero())
        .collect();
    rows.sort_by(|a, b| b.cmp(a));
    let all: f64 = rows.iter().map(|(cpu, _)| cpu.as_secs_f64()).sum();
    let mut table = vec![["thread", "CPU s", "share"].map(str::to_owned).to_vec()];
    for (cpu, name) in rows {
        let cpu = cpu.as_secs_f64();
        let share = format!("{:.1} %", 100.0 * cpu / all);
        table.push(vec![name.to_owned(), format!("{cpu:.2}"), share]);
    }
    let rate = text::count(measured.per_second);
    format!("{}(with warm-up and profiler; {rate} operations per second)\n", text::table(&table))
}

/// A running `perf record`; killed when dropped.
struct Perf(Child);

impl Perf {
    fn start(data: &Path, pids: &[u32]) -> std::io::Result<Perf> {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let child = Command::new("perf")
            .args(["record", "--quiet", "--event", "cpu-clock", "--freq", SAMPLE_HZ, "--pid"])
            .arg(pids.join(","))
            .arg("--output")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Perf(child))
    }

    /// Ends the recording and reports it.
    fn stop(mut self, data: &Path) -> std::io::Result<String> {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // Interrupted, it writes what it has; if it is gone, the report says why not.
            let _ = kill_process(pid, Signal::INT);
        }
        self.0.wait()?;
        let report = Command::new("perf")
            .args(["report", "--stdio", "--no-children", "--sort", "dso,comm,symbol"])
            .args(["--percent-limit", SHARE_MIN, "--input"])
            .arg(data)
            .stdin(Stdio::null())
            .output()?;
        if !report.status.success() {
            let why = String::from_utf8_lossy(&report.stderr).into_owned();
            return Err(std::io::Error::other(why));
        }
        let text = String::from_utf8_lossy(&report.stdout);
        Ok(text.lines().filter_map(report_line).collect())
    }
}

/// One function of `perf`'s report, without its padding; `None` for a heading. The columns after
/// the symbol are always empty (`-`) here.
fn report_line(line: &str) -> Option<String> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    while words.last() == Some(&"-") {
        words.pop();
    }
    match words.as_slice() {
        [share, dso, thread, symbol @ ..] if share.ends_with('%') => {
            Some(format!("{share:>7}  {dso:<18}  {thread:<16}  {}\n", symbol.join(" ")))
        }
        _ => None,
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: functions are kept, headings and padding are not.
    #[test]
    fn report_lines_are_short() {
        let line = "  9.69%  holmd    shard-0  [.] a::b<c const&>      -      -    ";
        let want = "  9.69%  holmd               shard-0           [.] a::b<c const&>\n";
        assert_eq!(report_line(line).as_deref(), Some(want));
        assert_eq!(report_line("# Overhead  Command"), None);
        assert_eq!(report_line(""), None);
    }

    /// Goal: threads are sorted by what they took in between, with shares of that.
    #[test]
    fn threads_are_sorted_by_what_they_took() {
        let threads = |a, b| {
            let s = Duration::from_secs;
            Threads::from([("a".to_owned(), s(a)), ("b".to_owned(), s(b)), ("c".to_owned(), s(9))])
        };
        let measured = crate::measured::Window::open(&[]).close(&crate::measured::Recorder::new());
        let text = by_thread(&threads(5, 1), &threads(6, 4), &measured);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..3], ["b        3.00  75.0 %", "a        1.00  25.0 %"]);
        assert_eq!(lines.len(), 4);
    }
}
