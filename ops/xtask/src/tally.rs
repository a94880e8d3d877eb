//! Counts what the test harness reports, over all test binaries of a run.

/// Sums of the `test result:` lines seen so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Tally {
    /// Takes in one line of output; lines that report no result change nothing.
    pub(crate) fn take(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(formatter, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    /// Goal: results add up over binaries, and other lines do not count.
    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.take("running 3 tests");
        tally.take("test a::b ... ok");
        tally.take("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally
            .take("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 9 filtered out");
        assert_eq!(tally, Tally { passed: 5, failed: 4, ignored: 1 });
        assert_eq!(tally.to_string(), "5 passed, 4 failed, 1 ignored");
    }
}
