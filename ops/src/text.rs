//! How bytes, times and lists look in tables and in JSON.

use holm_protocol::ids::Hlc;
use serde_json::{Value, json};

/// Bytes for a table: text with control characters escaped, or `0x...` if they are no text.
pub(crate) fn bytes_for_people(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let mut out = String::with_capacity(text.len());
            for character in text.chars() {
                match character {
                    control if control.is_control() => out.extend(control.escape_default()),
                    other => out.push(other),
                }
            }
            out
        }
        Err(_) => format!("0x{}", hex(bytes)),
    }
}

/// Bytes for a script: the text, or its hexadecimal digits, and which of them it is.
pub(crate) fn bytes_for_scripts(bytes: &[u8]) -> (Value, &'static str) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (json!(text), "utf8"),
        Err(_) => (json!(hex(bytes)), "hex"),
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A clock reading as UTC, to the millisecond.
pub(crate) fn utc(hlc: Hlc) -> String {
    let nanos = i128::from(hlc.wall_ms()) * 1_000_000;
    match time::OffsetDateTime::from_unix_timestamp_nanos(nanos) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond(),
        ),
        // 48 bits of milliseconds reach the year 10889; the calendar ends before.
        Err(_) => format!("{} ms", hlc.wall_ms()),
    }
}

/// A duration in seconds as people say it: `4 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Items with commas between them, or a dash.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

/// `1 replica`, `2 replicas`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no value can draw on the terminal or break a table. Method: text, control
    /// characters, bytes that are no text.
    #[test]
    fn values_cannot_break_a_table() {
        assert_eq!(bytes_for_people("bücher".as_bytes()), "bücher");
        assert_eq!(bytes_for_people(b"a\n\x1b[2J"), "a\\n\\u{1b}[2J");
        assert_eq!(bytes_for_people(&[0xff, 0x01]), "0xff01");
        assert_eq!(bytes_for_scripts(&[0xff, 0x01]), (json!("ff01"), "hex"));
        assert_eq!(bytes_for_scripts(b"x"), (json!("x"), "utf8"));
    }

    /// Goal: times are the calendar's, for every reading. Method: a known one and the ends.
    #[test]
    fn times_are_utc() {
        assert_eq!(utc(Hlc::new(1_700_000_000_123, 7)), "2023-11-14T22:13:20.123Z");
        assert_eq!(utc(Hlc(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(Hlc(u64::MAX)), "281474976710655 ms");
    }

    /// Goal: durations stay short. Method: one of each unit.
    #[test]
    fn durations_are_short() {
        let got: Vec<String> = [0, 119, 120, 7_200, 172_800].into_iter().map(seconds).collect();
        assert_eq!(got, ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
