//! Import directions: `protocol <- core <- node`, `protocol <- client <- {bench, ops}`,
//! `core <- sim <- fuzz`. Nothing depends on `node` but its own binary and its tests.

use super::Finding;
use super::tree::Tree;

/// What one crate of the workspace may import of the others.
struct Rule {
    package: &'static str,
    imports: &'static [&'static str],
    /// In tests and examples, besides `imports`.
    tests_import: &'static [&'static str],
    /// Whether it may depend on crates from outside.
    is_open: bool,
}

const RULES: [Rule; 10] = [
    rule("holm-protocol", &[]),
    rule("holm-core", &["holm-protocol"]),
    rule("holm-client", &["holm-protocol"]),
    // A node is tested end to end through the client, and by the simulator's clients and referee.
    Rule {
        tests_import: &["holm-client", "holm-sim"],
        ..rule("holm-node", &["holm-core", "holm-protocol"])
    },
    rule("holm-sim", &["holm-core", "holm-protocol"]),
    // Nothing depends on these two.
    rule("holm-fuzz", &["holm-client", "holm-core", "holm-protocol", "holm-sim"]),
    rule("holm-libfuzzer", &["holm-fuzz"]),
    rule("holm-bench", &["holm-client", "holm-protocol"]),
    rule("holm", &["holm-client", "holm-protocol"]),
    // Builds in seconds on a machine that has nothing yet.
    Rule { is_open: false, ..rule("xtask", &[]) },
];

const fn rule(package: &'static str, imports: &'static [&'static str]) -> Rule {
    Rule { package, imports, tests_import: &[], is_open: true }
}

/// Checks every manifest of the workspace.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.ending("Cargo.toml")
        .filter(|(path, _)| path.contains('/'))
        .flat_map(|(path, text)| manifest(path, text))
        .collect()
}

fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = value(text, "package", "name").unwrap_or_default();
    let Some(rule) = RULES.iter().find(|rule| rule.package == name) else {
        let what = format!("say in ops/xtask/src/tidy/manifests.rs what `{name}` may import");
        return vec![Finding::new(path, None, what)];
    };
    if value(text, "lints", "workspace") != Some("true") {
        findings.push(Finding::new(path, None, "add `[lints]` with `workspace = true`"));
    }
    for (line, section, dependency) in dependencies(text) {
        let is_ours = RULES.iter().any(|rule| rule.package == dependency);
        let is_test = section.contains("dev-dependencies");
        let is_allowed = if is_ours {
            rule.imports.contains(&dependency)
                || (is_test && rule.tests_import.contains(&dependency))
        } else {
            rule.is_open
        };
        if !is_allowed {
            let what = format!("`{name}` must not import `{dependency}` (directions of imports)");
            findings.push(Finding::new(path, line, what));
        }
    }
    findings
}

/// The text of a section header such as `[dependencies]`.
fn header(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.split(']').next()
}

/// The plain value of a key in a section.
fn value<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().skip_while(|line| header(line) != Some(section)).skip(1);
    lines.by_ref().take_while(|line| header(line).is_none()).find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}

/// Every dependency with its line and section, in the forms `name = ...`, `name.workspace = true`
/// and `[dependencies.name]`, for all targets. A renamed one counts under the package's name.
fn dependencies(text: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    let mut section = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = header(line) {
            section = name;
            let parent = section.rsplit_once('.');
            if let Some((parent, dependency)) = parent.filter(|it| it.0.ends_with("dependencies")) {
                found.push((index + 1, parent, dependency.trim_matches('"')));
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
            let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
            found.push((index + 1, section, renamed.unwrap_or(key)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, rest: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{name}\"\n\n[lints]\nworkspace = true\n{rest}");
        let tree = Tree::sample(&[("Cargo.toml", "[workspace]"), ("x/Cargo.toml", &text)]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    /// Goal: an import against the direction is found in each form a manifest can give it.
    #[test]
    fn a_wrong_direction_is_found() {
        for form in [
            "[dependencies]\nholm-node.workspace = true",
            "[dependencies]\nholm-node = { path = \"../node\" }",
            "[dependencies]\nshell = { package = \"holm-node\", path = \"../node\" }",
            "[dependencies.holm-node]\npath = \"../node\"",
            "[build-dependencies]\nholm-node.workspace = true",
            "[target.'cfg(unix)'.dependencies]\nholm-node.workspace = true",
        ] {
            assert_eq!(findings("holm-core", form).len(), 1, "{form}");
        }
        assert_eq!(findings("xtask", "[dependencies]\nserde = \"1\"").len(), 1);
    }

    /// Goal: tests may import more than the crate does.
    #[test]
    fn tests_have_their_own_direction() {
        assert!(
            findings("holm-node", "[dev-dependencies]\nholm-client.workspace = true").is_empty()
        );
        assert_eq!(findings("holm-node", "[dependencies]\nholm-client.workspace = true").len(), 1);
        assert!(findings("holm-core", "[dependencies]\nholm-protocol.workspace = true").is_empty());
    }

    /// Goal: a new crate needs a rule, and every crate the lints of the workspace.
    #[test]
    fn unknown_crates_and_missing_lints_are_found() {
        assert_eq!(findings("holm-new", "").len(), 1);
        let text = "[package]\nname = \"holm-core\"\n";
        assert_eq!(check(&Tree::sample(&[("core/Cargo.toml", text)])).len(), 1);
    }
}
