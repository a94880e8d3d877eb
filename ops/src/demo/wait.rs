//! Waiting for conditions, never for time to pass.

use std::time::{Duration, Instant};

/// Tries until it succeeds, with a pause between attempts; gives up after `patience` with what the
/// last attempt said. The first attempt is made at once, and one always is.
///
/// # Errors
/// The last attempt's, once the time is up.
pub(super) async fn until<T, E, F: Future<Output = Result<T, E>>>(
    patience: Duration,
    pause: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(pause).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: success ends the waiting, the deadline ends it with the last reason. Method: succeed
    /// at the third attempt; never succeed.
    #[tokio::test]
    async fn waiting_ends() {
        let mut attempts = 0;
        let (patience, pause) = (Duration::from_secs(5), Duration::from_millis(1));
        let third = until(patience, pause, || {
            attempts += 1;
            let attempt = attempts;
            async move { if attempt == 3 { Ok(attempt) } else { Err(()) } }
        });
        assert_eq!(third.await, Ok(3));
        let never: Result<(), &str> = until(Duration::ZERO, pause, || async { Err("no") }).await;
        assert_eq!(never, Err("no"));
    }
}
