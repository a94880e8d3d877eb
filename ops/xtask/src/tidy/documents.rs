//! Rules for what people read: links lead somewhere, the code map names files that exist, the
//! README has the two commands, and nothing names a directory of somebody's machine.

use super::Finding;
use super::tree::Tree;

/// What a newcomer types first.
const COMMANDS: [&str; 2] = ["cargo xtask demo", "cargo xtask test"];
/// Where a file in backquotes is a claim that it exists.
const MAPS: [&str; 2] = ["ARCHITECTURE.md", "README.md"];
/// Directories of one machine. Split, so that this file does not name them either.
const MACHINE: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "holm/"),
    concat!("../sha", "red"),
];
/// The build server's own script may know its surroundings.
const SERVER: &str = ".ci/";

/// Checks every document, and every text file for machine paths.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        for (line, target) in links(text) {
            link(tree, (path, line), target, &mut findings);
        }
        if MAPS.contains(&path) {
            for (line, file) in named_files(text) {
                if !tree.has(file) {
                    findings.push(Finding::new(path, line, format!("there is no `{file}`")));
                }
            }
        }
    }
    let readme = tree.text("README.md").unwrap_or_default();
    for command in COMMANDS.iter().filter(|command| !readme.contains(**command)) {
        findings.push(Finding::new("README.md", None, format!("does not mention `{command}`")));
    }
    for (path, text) in tree.texts().filter(|(path, _)| !path.starts_with(SERVER)) {
        for (index, line) in text.lines().enumerate() {
            for machine in MACHINE.iter().filter(|machine| has_path(line, machine)) {
                let what = format!("`{machine}` exists on one machine only");
                findings.push(Finding::new(path, index + 1, what));
            }
        }
    }
    findings
}

/// Whether `line` has the path from its beginning: `net` before it makes it another one.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|it: char| it.is_alphanumeric() || "_.-*}".contains(it))
    })
}

fn link(tree: &Tree, (path, line): (&str, usize), target: &str, findings: &mut Vec<Finding>) {
    if target.contains("://") || target.starts_with("mailto:") {
        return;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let resolved = if file.is_empty() { Some(path.to_owned()) } else { resolve(path, file) };
    let Some(resolved) = resolved.filter(|resolved| tree.has(resolved)) else {
        findings.push(Finding::new(path, line, format!("the link to `{target}` leads nowhere")));
        return;
    };
    let document = tree.text(&resolved).filter(|_| resolved.ends_with(".md"));
    let is_lost = |text: &str| !anchor.is_empty() && !headings(text).any(|it| it == anchor);
    if document.is_some_and(is_lost) {
        let what = format!("`{resolved}` has no heading for `#{anchor}`");
        findings.push(Finding::new(path, line, what));
    }
}

/// `target` seen from the directory of `from`, as a path from the root; `None` above the root.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Lines of a document outside its code blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)` and `[name]: target`.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let spoken = line.split('`').step_by(2);
        for inline in spoken.flat_map(|part| part.split("](").skip(1)) {
            let target = inline.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.trim_matches(['<', '>'])));
        }
        let reference = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = reference {
            found.push((number, target.split(' ').next().unwrap_or_default()));
        }
    }
    found
}

/// How a heading is linked to: lower case, without punctuation, `-` for blanks.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        line.trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|&it| it.is_alphanumeric() || " -_".contains(it))
            .map(|it| if it == ' ' { '-' } else { it })
            .collect()
    })
}

/// Paths of sources in backquotes.
fn named_files(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_plain =
                !quoted.contains([' ', '*', '{', '<', '$', '~']) && !quoted.starts_with('/');
            if is_plain && quoted.contains('/') && quoted.ends_with(".rs") {
                found.push((number, quoted));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "# holm\nRun `cargo xtask demo`, `cargo xtask test`.\n## How it works\n";

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut files = vec![("README.md", README), ("node/src/a.rs", "")];
        files.retain(|(it, _)| *it != path);
        files.push((path, text));
        check(&Tree::sample(&files)).iter().map(ToString::to_string).collect()
    }

    /// Goal: links to missing files and headings are found, from any directory; good ones are not.
    #[test]
    fn links_lead_somewhere() {
        let good = "[a](../README.md) [b](../node/src/) [c](https://x.org/y) [d](#top)\n\
                    [e](../README.md#how-it-works) `[f](no)`\n# Top\n```\n[g](no)\n```\n";
        assert_eq!(findings("ops/a.md", good), [""; 0]);
        for bad in ["[a](no.md)", "[a](#no)", "[a](../README.md#no)", "[a](../../x)", "[a]: no.md"]
        {
            assert_eq!(findings("ops/a.md", bad).len(), 1, "{bad}");
        }
    }

    /// Goal: the code map cannot name a file that is gone.
    #[test]
    fn the_code_map_is_true() {
        assert_eq!(findings("ARCHITECTURE.md", "`node/src/a.rs`"), [""; 0]);
        assert_eq!(findings("ARCHITECTURE.md", "see `node/src/gone.rs`").len(), 1);
    }

    /// Goal: a README without a command is found, and so is a tree without a README.
    #[test]
    fn the_readme_has_both_commands() {
        assert_eq!(findings("README.md", "cargo xtask demo").len(), 1);
        assert_eq!(check(&Tree::sample(&[])).len(), 2);
    }

    /// Goal: machine paths are found anywhere but in the build server's script.
    #[test]
    fn machine_paths() {
        for machine in MACHINE {
            let text = format!("see {machine}x");
            assert_eq!(findings("ops/a.txt", &text).len(), 1, "{machine}");
            assert_eq!(findings(".ci/run", &text).len(), 0, "{machine}");
        }
        assert!(findings("ops/a.txt", concat!("net/wo", "rk/x")).is_empty());
    }
}
