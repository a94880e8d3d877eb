//! Tells chapters and claims, keeps them for the JSON report, and stops at the first claim that
//! does not hold.

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Output, Spinner};

/// What a claim was and whether it was observed.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    chapter: String,
    claim: String,
    figures: Value,
    held: bool,
}

/// Tells the story.
pub(super) struct Teller<'a> {
    output: &'a Output,
    spinner: Option<Spinner>,
    chapter: String,
    claims: Vec<Claim>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(output: &'a Output) -> Teller<'a> {
        Teller { output, spinner: None, chapter: String::new(), claims: Vec::new() }
    }

    /// Begins a chapter: a heading, and what is done in it.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(super) fn chapter(&mut self, heading: &str, what: &str) -> Result<(), Failure> {
        self.spinner = None;
        self.chapter = heading.to_owned();
        self.line(&format!("\n{heading}\n  {what}"))?;
        self.spinner = Some(self.output.spinner(heading));
        Ok(())
    }

    /// Says what is being done now, if somebody is watching.
    pub(super) fn doing(&self, what: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.say(what);
        }
    }

    /// A claim that was observed, with its figures in words and for scripts.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(super) fn holds(
        &mut self,
        claim: &str,
        words: &str,
        figures: Value,
    ) -> Result<(), Failure> {
        self.keep(claim, figures, true);
        let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
        self.line(&format!("  ok    {claim}{words}"))
    }

    /// A claim that is observed if `observed` is fine, and else ends the story with the reason.
    ///
    /// # Errors
    /// It was not observed.
    pub(super) fn claim<T>(
        &mut self,
        claim: &str,
        words: &str,
        figures: Value,
        observed: Result<T, String>,
    ) -> Result<T, Failure> {
        match observed {
            Ok(observed) => {
                self.holds(claim, words, figures)?;
                Ok(observed)
            }
            Err(why) => {
                self.keep(claim, json!({ "seen": why }), false);
                self.line(&format!("  FAIL  {claim}: {why}"))?;
                Err(Failure::failed(
                    format!("a claim of the story did not hold: {claim}: {why}"),
                    "the nodes' logs say more; the claim before it held",
                ))
            }
        }
    }

    /// Prints a line of the story, unless the report is JSON.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        if self.output.is_json() {
            return Ok(());
        }
        let print = || self.output.raw(format!("{text}\n").as_bytes());
        match &self.spinner {
            Some(spinner) => spinner.aside(print),
            None => print(),
        }
    }

    /// Ends the story: the verdict, or the whole report in JSON.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(super) fn finish(mut self, told: &Result<(), Failure>) -> Result<(), Failure> {
        self.spinner = None;
        let observed = self.claims.iter().filter(|claim| claim.held).count();
        let verdict = match told {
            Ok(()) => format!("\nAll {observed} claims were observed.\n"),
            Err(_) => format!("\n{observed} claims were observed, then the story broke.\n"),
        };
        let claims = self.claims.iter().map(|claim| {
            json!({
                "chapter": claim.chapter,
                "claim": claim.claim,
                "held": claim.held,
                "figures": claim.figures,
            })
        });
        self.output.result(
            || json!({ "passed": told.is_ok(), "claims": claims.collect::<Vec<_>>() }),
            || verdict,
        )
    }

    fn keep(&mut self, claim: &str, figures: Value, held: bool) {
        let chapter = self.chapter.clone();
        self.claims.push(Claim { chapter, claim: claim.to_owned(), figures, held });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;

    /// Goal: a claim that does not hold fails the story and is in the report. Method: one of each.
    #[test]
    fn broken_claims_fail() {
        let output = Output::new(Format::Json, true);
        let mut teller = Teller::new(&output);
        teller.chapter("One", "something is done").unwrap();
        assert_eq!(teller.claim("it holds", "", Value::Null, Ok(7)), Ok(7));
        let broken = teller.claim::<()>("it holds too", "", Value::Null, Err("it did not".into()));
        assert!(broken.unwrap_err().what.ends_with("it holds too: it did not"));
        let held: Vec<bool> = teller.claims.iter().map(|claim| claim.held).collect();
        assert_eq!(held, [true, false]);
    }
}
