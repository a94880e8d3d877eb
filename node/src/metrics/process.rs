//! What the operating system says of this process. Figures that it does not give are left out.

use std::fs;

/// Clock ticks a second in `/proc`: `USER_HZ`, 100 on every Linux that holm is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory of the process that is in RAM, bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    parse_resident(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Processor time the process has used, in user and kernel mode, seconds.
pub(super) fn cpu_seconds() -> Option<f64> {
    parse_cpu(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Files, sockets and the like that the process has open.
pub(super) fn open_files() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

/// The soft limit of [`open_files`].
pub(super) fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn parse_cpu(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, with whatever spaces it likes.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some((user + kernel) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the fields are found, also behind a hostile program name, and nonsense is no figure.
    #[test]
    fn fields_are_found() {
        let stat = "7 (a) b 9) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(parse_cpu(stat), Some(2.0));
        assert_eq!(parse_cpu("7 (holmd) S 1"), None);
        assert_eq!(parse_resident("VmHWM:\t 9 kB\nVmRSS:\t    1024 kB\n"), Some(1 << 20));
        assert_eq!(parse_resident("VmRSS: many kB"), None);
    }

    /// Goal: on this machine there are figures, and they are plausible.
    #[test]
    fn this_process_is_seen() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(cpu_seconds().is_some());
        assert!(open_files().is_some_and(|files| files >= 3));
    }
}
