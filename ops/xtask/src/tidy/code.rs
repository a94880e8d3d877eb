//! Just enough of Rust's syntax for the rules: code without its comments and strings, and the full
//! paths below `std` that it names, also inside grouped imports.

/// The text with comments, strings and character literals blanked. Line breaks stay, so line
/// numbers are those of the text.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = opaque_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        for &blanked in &chars[at..end] {
            code.push(if blanked == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none does.
fn opaque_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|&it| it == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment_end(chars, at),
        ['"', ..] => string_end(chars, at),
        ['\'', '\\', _, after @ ..] => {
            at + 3 + after.iter().position(|&it| it == '\'').map_or(after.len(), |quote| quote + 1)
        }
        ['\'', _, '\'', ..] => at + 3,
        ['r', ..] if at == 0 || !is_name(chars[at - 1]) || chars[at - 1] == 'b' => {
            raw_string_end(chars, at)
        }
        _ => at,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < chars.len() {
        match &chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&it| it == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    let mut at = open + 1;
    while at < chars.len() {
        let closes = chars[at] == '"'
            && chars[at + 1..].iter().take_while(|&&it| it == '#').count() >= hashes;
        if closes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

fn is_name(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

/// Every path below `std` in `code` (see [`code_only`]) with its line. A grouped import gives one
/// path for each leaf; a renamed, whole or external `std` gives `std::*`.
pub(super) fn std_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("std") {
        let before = code[..at].trim_end();
        let is_part_of_name = code[..at].ends_with(is_name) || code[at + 3..].starts_with(is_name);
        // `other::std` is not ours; `::std` is.
        let is_inside_path = before.strip_suffix("::").is_some_and(|path| path.ends_with(is_name));
        if is_part_of_name || is_inside_path {
            continue;
        }
        let line = 1 + code[..at].matches('\n').count();
        let after: Vec<char> = code[at + 3..].chars().filter(|it| !it.is_whitespace()).collect();
        let last_word = before.rsplit(|it: char| !is_name(it)).next().unwrap_or_default();
        if after.starts_with(&[':', ':']) {
            let mut leaves = Vec::new();
            use_tree("std", &after, 2, &mut leaves);
            found.extend(leaves.into_iter().map(|path| (line, path)));
        } else if matches!(last_word, "use" | "crate") {
            found.push((line, "std::*".to_owned()));
        }
    }
    found
}

/// Reads one use tree at `at` (blanks already removed) and returns where it ends.
fn use_tree(prefix: &str, chars: &[char], mut at: usize, leaves: &mut Vec<String>) -> usize {
    match chars.get(at) {
        Some('{') => {
            at += 1;
            while at < chars.len() && chars[at] != '}' {
                let next = use_tree(prefix, chars, at, leaves);
                at = if chars.get(next) == Some(&',') { next + 1 } else { next.max(at + 1) };
            }
            return at + 1;
        }
        Some('*') => {
            leaves.push(format!("{prefix}::*"));
            return at + 1;
        }
        _ => {}
    }
    let name: String = chars[at..].iter().take_while(|&&it| is_name(it)).collect();
    at += name.chars().count();
    if name.is_empty() {
        leaves.push(prefix.to_owned());
        return at;
    }
    let path = format!("{prefix}::{name}");
    if chars[at..].starts_with(&[':', ':']) {
        return use_tree(&path, chars, at + 2, leaves);
    }
    leaves.push(path);
    at
}

#[cfg(test)]
mod tests {
    use super::{code_only, std_paths};

    fn paths(text: &str) -> Vec<String> {
        std_paths(&code_only(text)).into_iter().map(|(_, path)| path).collect()
    }

    /// Goal: what is commented out or quoted is not code, and what follows it is.
    #[test]
    fn comments_and_literals_are_blank() {
        let text =
            "a // b\n/* c /* d */ e */ f \"g \\\" h\" i r#\"j \" k\"# 'l' '\\'' m<'n> br\"o\" p";
        let code = code_only(text);
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "f", "i", "m<'n>", "b", "p"]);
        assert_eq!(code.matches('\n').count(), 1);
    }

    /// Goal: every way to write a path below `std` is seen, and nothing else is.
    #[test]
    fn paths_below_std_are_found() {
        assert_eq!(paths("let t = std::time::Instant::now();"), ["std::time::Instant::now"]);
        assert_eq!(
            paths("use std::{fs, time::{Duration, Instant as Now}, io::*};"),
            ["std::fs", "std::time::Duration", "std::time::InstantasNow", "std::io::*"]
        );
        assert_eq!(paths("use ::std::env as e;"), ["std::envase"]);
        assert_eq!(paths("use std as s; extern crate std;"), ["std::*", "std::*"]);
        assert_eq!(paths("use core::fmt; my_std::x(); a::std::fs; // std::fs\n"), [""; 0]);
        assert_eq!(paths("std :: \n thread :: spawn(f)"), ["std::thread::spawn"]);
        assert_eq!(std_paths("\n\nuse std::fs;")[0].0, 3);
    }
}
