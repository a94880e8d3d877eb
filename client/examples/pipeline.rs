//! Many requests at a time on one thread: they share a few packets, and answers come in any order.
//!
//! ```text
//! cargo run --release -p holm-client --example pipeline -- demo/cluster.toml BUCKET 10000
//! ```

use std::error::Error;
use std::time::Instant;

use holm_client::{Client, Outcome};
use tokio::task::JoinSet;

/// Requests under way at the same time.
const CONCURRENCY: u64 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(bucket), Some(puts)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: pipeline CLUSTER_FILE BUCKET PUTS".into());
    };
    let puts: u64 = puts.parse()?;
    let client = Client::builder().cluster_file(file)?.connect().await?;
    let bucket = client.bucket(&bucket).await?;
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..CONCURRENCY {
        let bucket = bucket.clone();
        workers.spawn(async move {
            let (mut refused, mut unknown) = (0u64, 0u64);
            for put in (worker..puts).step_by(CONCURRENCY as usize) {
                // `send` is what awaiting does, without an allocation.
                match bucket.put(format!("key-{put}"), "value").send().await {
                    Ok(_) => {}
                    Err(error) if error.outcome() == Outcome::MayHaveHappened => unknown += 1,
                    Err(_) => refused += 1,
                }
            }
            (refused, unknown)
        });
    }
    let (mut refused, mut unknown) = (0, 0);
    for (r, u) in workers.join_all().await {
        refused += r;
        unknown += u;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{puts} puts in {seconds:.2} s; {refused} did not happen, {unknown} unknown");
    client.close().await;
    Ok(())
}
