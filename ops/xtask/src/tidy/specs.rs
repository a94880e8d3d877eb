//! Rules for the specifications and what is written of them: `tla/README.md` names every module,
//! model and file of mutations, and no model that is gone; what it and the simulator's rules say of
//! the code and of the modules exists. `tla/RULES.md` names every model that must fail.

use super::Finding;
use super::tree::Tree;

const README: &str = "tla/README.md";
const RULES: &str = "tla/RULES.md";

/// Checks the specifications' page and every mention of a specification's invariant.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(readme) = tree.text(README) else { return findings };
    for (path, _) in tree.texts().filter(|(path, _)| path.starts_with("tla/")) {
        let file = path.rsplit('/').next().unwrap_or_default();
        let name = file.rsplit_once('.').map_or(file, |(name, _)| name);
        let is_named = path == README || readme.contains(&format!("`{name}`"));
        if !is_named {
            findings.push(Finding::new(README, None, format!("does not name `{name}` ({path}): `cargo xtask tla NAME --record` writes the models")));
        }
    }
    for (index, line) in readme.lines().enumerate() {
        let line_number = index + 1;
        if let Some(model) = line.strip_prefix("| `").and_then(|it| it.split('`').next())
            && model.contains('-')
            && !model.contains(' ')
            && !tree.has(&format!("tla/models/{model}.cfg"))
        {
            findings.push(Finding::new(README, line_number, format!("no model `{model}`")));
        }
        for cell in line.split('|') {
            for (function, file) in functions(cell) {
                let has = tree.text(file).is_some_and(|text| defines(text, function));
                if !has {
                    let what = format!("there is no `{function}` in `{file}`");
                    findings.push(Finding::new(README, line_number, what));
                }
            }
        }
    }
    findings.extend(check_rules(tree));
    for (path, text) in tree.texts().filter(|(path, _)| is_source(path)) {
        for (index, line) in text.lines().enumerate() {
            for (module, name) in mentions(line) {
                let text = tree.text(module).unwrap_or_default();
                let head = |line: &str| line.split("==").next().unwrap_or_default().trim() == name;
                if !text.lines().any(|line| line.contains("==") && head(line)) {
                    let what = format!("`{module}` does not define `{name}`");
                    findings.push(Finding::new(path, index + 1, what));
                }
            }
        }
    }
    findings
}

/// A mistake that a model shows is told where the rule stands that it breaks.
fn check_rules(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rules = tree.text(RULES).unwrap_or_default();
    for (index, line) in rules.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_model =
                quoted.contains('-') && quoted.starts_with(|it: char| it.is_ascii_uppercase());
            if is_model && !tree.has(&format!("tla/models/{quoted}.cfg")) {
                findings.push(Finding::new(RULES, index + 1, format!("no model `{quoted}`")));
            }
        }
    }
    for (path, text) in tree.texts() {
        let model = path.strip_prefix("tla/models/").and_then(|it| it.strip_suffix(".cfg"));
        if let Some(model) = model
            && text.contains("kind: must fail")
            && !rules.contains(&format!("`{model}`"))
        {
            let what =
                format!("does not name `{model}`, which must fail: say which rule it breaks");
            findings.push(Finding::new(RULES, None, what));
        }
    }
    findings
}

fn is_source(path: &str) -> bool {
    path.ends_with(".md") || (path.ends_with(".rs") && path.starts_with("node/sim/src/check"))
}

/// In "`f`, `g` in `file.rs`" each function with its file.
fn functions(cell: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut waiting: Vec<&str> = Vec::new();
    for quoted in cell.split('`').skip(1).step_by(2) {
        if quoted.ends_with(".rs") {
            found.extend(waiting.drain(..).map(|function| (function, quoted)));
        } else if quoted
            .chars()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
        {
            waiting.push(quoted);
        }
    }
    found
}

fn defines(text: &str, function: &str) -> bool {
    let head = format!("fn {function}");
    text.match_indices(&head).any(|(at, _)| {
        let next = text[at + head.len()..].chars().next();
        next.is_some_and(|next| next == '(' || next == '<')
    })
}

/// `tla/Module.tla!Name`: the file and the name.
fn mentions(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("tla/") {
        let rest = &line[at..];
        let end = rest.find(|it: char| !(it.is_alphanumeric() || "/.!".contains(it)));
        let word = &rest[..end.unwrap_or(rest.len())];
        if let Some((module, name)) = word.split_once('!')
            && module.ends_with(".tla")
        {
            found.push((module, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a rule that names a model which is gone, and a mistake that no rule names, are found.
    #[test]
    fn untrue_rules() {
        for rules in ["1. `A-wrong`, `A-gone`.", "1. Right."] {
            let wrong = ("tla/models/A-wrong.cfg", "\\* kind: must fail\n");
            assert_eq!(check_rules(&Tree::sample(&[wrong, (RULES, rules)])).len(), 1, "{rules}");
        }
    }

    fn findings(readme: &str) -> Vec<String> {
        let tree = Tree::sample(&[
            (README, readme),
            ("tla/A.tla", "Safe == TRUE"),
            ("tla/models/A-small.cfg", ""),
            ("tla/models/A-wrong.cfg", "\\* kind: must fail\n"),
            (RULES, "1. Right (`A-wrong`).\n"),
            ("node/core/src/a.rs", "pub(crate) fn join<T>() {}\n"),
        ]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    /// Goal: a page that names all there is, and only that, is well.
    #[test]
    fn a_true_page() {
        let page = "`A` `RULES`\n| `A-small` | x |\n| `A-wrong` | x |\n| `join` in `node/core/src/a.rs` | `tla/A.tla!Safe` |";
        assert_eq!(findings(page), [""; 0]);
    }

    /// Goal: a model or module that is not named, a model that is gone, a function that is not in
    /// its file, and an invariant that is not defined are each found.
    #[test]
    fn untrue_pages() {
        let page = "`A` `RULES`\n| `A-small` | x |\n| `A-wrong` | x |\n";
        for bad in [
            "`A` `RULES`\n| `A-wrong` | x |\n".to_owned(),
            "`RULES`\n| `A-small` | x |\n| `A-wrong` | x |\n".to_owned(),
            format!("{page}| `A-gone` | x |"),
            format!("{page}`joins` in `node/core/src/a.rs`"),
            format!("{page}`join` in `node/core/src/b.rs`"),
            format!("{page}tla/A.tla!Safer"),
            format!("{page}`tla/B.tla!Safe`"),
        ] {
            assert_eq!(findings(&bad).len(), 1, "{bad}");
        }
    }
}
