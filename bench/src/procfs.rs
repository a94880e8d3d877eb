//! What Linux says about processes: CPU time and memory, from `/proc`.

use std::time::Duration;

/// Units of CPU time in `/proc/PID/stat`, per second. Part of the kernel's interface to programs on
/// every architecture that RocksDB is built for here, whatever the timer's own frequency.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time that a process and its threads have used, user and system. `None` if it is gone.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|(_, cpu)| cpu)
}

/// CPU time that this process has used.
pub(crate) fn own_cpu_time() -> Duration {
    cpu_time(std::process::id()).unwrap_or_default()
}

/// CPU time of several processes together. `None` if there are none or one is gone.
pub(crate) fn cpu_time_of_all(pids: &[u32]) -> Option<Duration> {
    if pids.is_empty() {
        return None;
    }
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

/// CPU time of each thread of a process, by name; threads of one name together.
pub(crate) fn thread_cpu_times(pid: u32) -> Vec<(String, Duration)> {
    let mut times: Vec<(String, Duration)> = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return times };
    for task in tasks.filter_map(Result::ok) {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((name, cpu)) = parse_stat(&stat) else { continue };
        match times.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += cpu,
            None => times.push((name, cpu)),
        }
    }
    times.sort();
    times
}

/// Memory of a process that is in RAM, bytes. `None` if it is gone.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    parse_resident(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Name and CPU time from a `stat` file. The name is in parentheses and may itself contain
/// parentheses and blanks; user and system time are the 12th and 13th field after it.
fn parse_stat(stat: &str) -> Option<(String, Duration)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user.checked_add(system)?;
    Some((name.to_owned(), Duration::from_millis(ticks.checked_mul(1000 / TICKS_PER_SECOND)?)))
}

/// `VmRSS` from a `status` file, which counts in KiB.
fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: CPU time is found whatever the process is called. Method: a real line, with a name that
    /// tries to mislead.
    #[test]
    fn stat_is_read_behind_the_name() {
        let stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 899 0 0 0 123 45 6 7 20 0 9 0 5521";
        let want = ("a) b (c".to_owned(), Duration::from_millis(1680));
        assert_eq!(parse_stat(stat), Some(want));
        for bad in ["", "1 (x", "1 (x) S 1 2", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 a b"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    /// Goal: memory is in bytes.
    #[test]
    fn status_is_read_in_bytes() {
        let status = "Name:\tholmd\nVmHWM:\t  9000 kB\nVmRSS:\t  1234 kB\nThreads:\t9\n";
        assert_eq!(parse_resident(status), Some(1234 * 1024));
        assert_eq!(parse_resident("Name:\tkthreadd\n"), None);
    }

    /// Goal: the kernel of this machine is understood. Method: ask about this very process.
    #[test]
    fn own_process_is_found() {
        let pid = std::process::id();
        assert!(cpu_time(pid).is_some() && !thread_cpu_times(pid).is_empty());
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 100 << 10));
        assert_eq!(cpu_time_of_all(&[]), None);
    }
}
