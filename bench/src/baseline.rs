//! `holm-bench baseline`: what the machine can do without holm.
//!
//! A write at level `quorum` in a cluster of three puts into three RocksDBs and crosses QUIC; so
//! these two say how far from the ground a cluster's figures are, on this machine, in this minute.

pub(crate) mod quic;
pub(crate) mod rocks;

use serde::Serialize;

use crate::cli::{BaselineCommand, Output};
use crate::failure::Failure;
use crate::measured::Measured;
use crate::text;
use crate::worker::Worker;

/// A row of the report.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    #[serde(flatten)]
    measured: Measured,
}

/// Runs `holm-bench baseline`.
///
/// # Errors
/// The database or the socket.
pub(crate) async fn run(output: Output, command: BaselineCommand) -> Result<(), Failure> {
    let rows = match command {
        BaselineCommand::Rocksdb(args) => {
            let found = beside("rocksdb", move |stop| rocks::measure(&args, stop)).await?;
            vec![
                Row { name: "rocksdb_put", measured: found.single },
                Row { name: "rocksdb_put_batch16", measured: found.batched },
            ]
        }
        BaselineCommand::Quic(args) => {
            let measured = beside("quic-client", move |stop| quic::measure(&args, stop)).await?;
            vec![Row { name: "quic_echo", measured }]
        }
    };
    text::print(output, &rows, || {
        let mut table = vec![vec![String::new()]];
        table[0].extend(Measured::head());
        for row in &rows {
            let mut cells = vec![row.name.to_owned()];
            cells.extend(row.measured.cells());
            table.push(cells);
        }
        text::table(&table)
    })
}

/// Measures on a thread of its own, so that the runtime can still be interrupted.
///
/// # Errors
/// What the measurement says, or that there is no thread for it.
pub(crate) async fn beside<T: Send + 'static>(
    name: &str,
    measure: impl FnOnce(&std::sync::atomic::AtomicBool) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let worker = Worker::start(name, measure).map_err(Failure::io("start a thread"))?;
    worker.finish().await.unwrap_or(Err(Failure::Interrupted))
}
