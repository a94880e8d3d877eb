//! Tables and numbers for people.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::Output;
use crate::failure::Failure;

/// Prints a result in the form that was asked for.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn print<T: Serialize>(
    output: Output,
    result: &T,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Table => table(),
        Output::Json => {
            let json = serde_json::to_string_pretty(result).map_err(io::Error::other);
            format!("{}\n", json.map_err(Failure::io("write JSON"))?)
        }
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::io("write to standard output"))
}

/// Lines up rows; the first row is the head, the first column is left-aligned.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                line.push_str(&format!("{cell:<width$}"));
            } else {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A rate or count, with separators.
pub(crate) fn count(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds, in a unit that fits.
pub(crate) fn micros(us: f64) -> String {
    match us {
        us if us < 100.0 => format!("{us:.1} µs"),
        us if us < 10_000.0 => format!("{us:.0} µs"),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Bytes, in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: numbers read as people write them.
    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0.4), "0");
        assert_eq!(count(1234.6), "1,235");
        assert_eq!(count(1_234_567.0), "1,234,567");
        assert_eq!(micros(48.04), "48.0 µs");
        assert_eq!(micros(1500.0), "1500 µs");
        assert_eq!(micros(34_000.0), "34.0 ms");
        assert_eq!(micros(2_500_000.0), "2.50 s");
        assert_eq!(mib(150 << 20), "150 MiB");
    }

    /// Goal: columns line up, also with letters of several bytes.
    #[test]
    fn tables_line_up() {
        let rows = [vec!["name".into(), "p50".into()], vec!["a".into(), "4.0 µs".into()]];
        assert_eq!(table(&rows), "name     p50\na     4.0 µs\n");
    }
}
