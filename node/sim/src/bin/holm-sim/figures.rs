//! What the program measures of itself: time, cores, memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Whether panics are worth a line: while bugs are put back or plans shrunk, they are expected.
static PANICS_EXPECTED: AtomicBool = AtomicBool::new(false);

#[expect(clippy::disallowed_methods, reason = "times the run; nothing in it sees the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Threads that play runs: as many as cores.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory this process ever had, mebibytes; `None` where the system does not say.
pub(crate) fn memory_mib_max() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib.div_ceil(1024))
}

/// How long this process' first thread was on a core, seconds; `None` where the system does not say.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanoseconds: u64 = stat.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// As [`memory_mib_max`], in words.
pub(crate) fn memory() -> String {
    memory_mib_max().map_or("unknown".to_owned(), |mib| format!("{mib} MiB"))
}

/// A panic of the core breaks a rule and is told with the run. When it happens, one line says where;
/// a backtrace for each would bury the rest.
pub(crate) fn keep_panics_short() {
    std::panic::set_hook(Box::new(|panic| {
        if !PANICS_EXPECTED.load(Ordering::Relaxed) {
            eprintln!("{panic}");
        }
    }));
}

/// Says nothing of panics in `work`.
pub(crate) fn expecting_panics<T>(work: impl FnOnce() -> T) -> T {
    let before = PANICS_EXPECTED.swap(true, Ordering::Relaxed);
    let done = work();
    PANICS_EXPECTED.store(before, Ordering::Relaxed);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the memory is that of this process. Method: more is used, and shows.
    #[test]
    fn memory_grows() {
        let before = memory_mib_max().expect("Linux says");
        // Hidden from the optimiser, which would leave it out.
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(memory_mib_max().is_some_and(|after| after > before), "{} bytes", block.len());
    }
}
