//! `holm-bench`: how fast a holm cluster is, next to what the machine can do.
//!
//! | command | what it does |
//! | --- | --- |
//! | `run` | loads a cluster that is already there, or nothing at all (`null`: the harness's own cost) |
//! | `baseline` | measures RocksDB and QUIC alone: where the time of a node must go at least |
//! | `local` | starts a cluster of its own and measures it between two runs of the baselines |
//!
//! Every load is a closed loop: `concurrency` tasks on one thread, each with one operation in
//! flight ([`driver`]). Absolute figures belong to the machine and the minute; so `local` prints
//! ratios to a baseline of the same run, and CPU seconds per million operations beside every rate.
#![forbid(unsafe_code)]

mod baseline;
mod certs;
mod cli;
mod driver;
mod failure;
mod keyspace;
mod local;
mod measured;
mod procfs;
mod run;
mod target;
mod text;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Dropping the work ends its threads and child processes.
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = dispatch(cli) => outcome,
            () = interrupted() => Err(Failure::Interrupted),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run(args) => run::run(cli.output, &args).await,
        Command::Baseline(command) => baseline::run(cli.output, command).await,
        Command::Local(args) => local::run(cli.output, &args).await,
    }
}

/// Ends when somebody wants this process to end.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the default action ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
