//! Where results and notes go.
//!
//! Results go to standard output, as a table or as one JSON value. Notes go to standard error, and
//! not at all with `-q`. Progress is drawn only on a terminal and leaves nothing behind.

mod table;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

pub(crate) use table::Table;

use crate::cli::Format;
use crate::failure::Failure;

/// How often a spinner turns: often enough to look alive.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// The way this run talks.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    /// As the command line says.
    pub(crate) fn new(format: Format, quiet: bool) -> Output {
        Output { format, quiet }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result, in the form that was asked for. Only that form is made.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn result(
        &self,
        json: impl FnOnce() -> Value,
        table: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.raw(format!("{}\n", json()).as_bytes()),
            Format::Table => self.raw(table().as_bytes()),
        }
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| {
            Failure::failed(
                format!("cannot write to standard output: {error}"),
                "the command itself was carried out",
            )
        })
    }

    /// Says something that is not a result. If even standard error is closed, nobody listens.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Says what went wrong, on standard error; with `-o json` as one line of JSON.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = match self.format {
            Format::Table => failure.to_string(),
            Format::Json => json!({
                "error": failure.what,
                "hint": failure.hint,
                "exit_code": failure.status as u8,
            })
            .to_string(),
        };
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Shows that something takes a while, if a person is watching.
    pub(crate) fn spinner(&self, doing: impl Into<String>) -> Spinner {
        if self.quiet || !std::io::stderr().is_terminal() {
            return Spinner(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_style(
            ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.set_message(doing.into());
        bar.enable_steady_tick(SPINNER_TICK);
        Spinner(bar)
    }
}

/// Progress that vanishes when it is dropped.
#[derive(Debug)]
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    /// Says what is being done now.
    pub(crate) fn say(&self, doing: impl Into<String>) {
        self.0.set_message(doing.into());
    }

    /// Prints something without the progress in between.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
