//! A thread that does blocking work beside the runtime and ends when it is no longer wanted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// A running thread. Dropping it asks the thread to stop and waits until it has.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    stop: Arc<AtomicBool>,
    done: oneshot::Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread. The work must look at the flag often and end when it is set.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(
        name: &str,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> io::Result<Worker<T>> {
        let stop = Arc::new(AtomicBool::new(false));
        let (send, done) = oneshot::channel();
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = send.send(work(&flag));
        })?;
        Ok(Worker { stop, done, thread: Some(thread) })
    }

    /// Waits for the work's end. `None` if it panicked.
    pub(crate) async fn finish(mut self) -> Option<T> {
        (&mut self.done).await.ok()
    }

    /// Asks the work to end and waits for it. `None` if it panicked.
    pub(crate) async fn stop(self) -> Option<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish().await
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
