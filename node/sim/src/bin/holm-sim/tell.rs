//! What is said of a plan that broke a rule, besides the report: a smaller one, in a file.

use std::path::Path;

use holm_sim::plan::Plan;
use holm_sim::schedule;
use holm_sim::shrink::{Limits, Shrunk, Size, shrink};

use crate::figures::expecting_panics;

/// Shrinks a plan that broke a rule, writes what is left to a file in `directory`, and tells.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn shrunk(plan: &Plan, directory: &Path) -> Result<String, String> {
    let Some(small) = expecting_panics(|| shrink(plan, Limits::default())) else {
        return Ok(
            "  it breaks no rule when it is played again: the simulator is at fault".to_owned()
        );
    };
    let Shrunk { plan: smaller, violation, cost } = &small;
    let bug = plan.tamper.map_or(String::new(), |tamper| format!("-{tamper:?}"));
    let file = directory.join(format!("seed-{}{bug}.schedule", plan.seed));
    let from = match plan.tamper {
        Some(tamper) => format!("cargo xtask sim --seed {} --tamper {tamper:?}", plan.seed),
        None => format!("cargo xtask sim --seed {}", plan.seed),
    };
    let (name, invariant) = (violation.property.name, violation.property.invariant);
    let head = format!("# breaks: {name} ({invariant})\n# shrunk from: {from}\n");
    write(&file, &schedule::with_comment(smaller, &head))?;
    let shown = std::path::absolute(&file).unwrap_or(file);
    Ok(format!(
        "  shrunk: {}; became {} ({} runs)\n  seen: {}\n  play: cargo xtask sim --replay {} --trace",
        Size::of(plan),
        Size::of(smaller),
        cost.runs,
        violation.how,
        shown.display(),
    ))
}

/// Writes a file, and the directory it is in.
///
/// # Errors
/// Which file, and why not.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), String> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(file, text))
        .map_err(|error| format!("cannot write {}: {error}", file.display()))
}
