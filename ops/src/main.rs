//! `holm`: the command line of a holm cluster, for its users and its operators.
//!
//! One module per verb. [`cli`] says what can be asked, [`session`] finds the cluster file and
//! connects, [`output`] writes tables or JSON to standard output, [`failure`] writes what went wrong
//! to standard error, with a hint, and chooses the exit code.
//!
//! Rules that every verb keeps, because scripts rely on them:
//! - results, and nothing else, go to standard output; notes, progress and errors do not;
//! - JSON only ever gains fields;
//! - the exit code tells what did not happen from what may have ([`failure::Status`]).
#![forbid(unsafe_code)]

mod bucket;
mod cert;
mod cli;
mod cluster_file;
mod config;
mod demo;
mod explain;
mod failure;
mod files;
mod kv;
mod layout;
mod output;
mod repair;
mod session;
mod shell;
mod status;
mod text;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.output, cli.global.quiet);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(cli, &output)),
        Err(error) => Err(Failure::failed(
            format!("cannot start the runtime: {error}"),
            "is the limit on threads or open files reached? see `ulimit -a`",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.status.into()
        }
    }
}

async fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Put(args) => kv::put(global, output, args).await,
        Command::Get(args) => kv::get(global, output, args).await,
        Command::Del(args) => kv::del(global, output, args).await,
        Command::Bucket(command) => bucket::run(global, output, command).await,
        Command::Layout(command) => layout::run(global, output, command).await,
        Command::Status(args) => status::run(global, &args, output).await,
        Command::Repair(args) => repair::run(global, output, &args).await,
        Command::Explain(args) => explain::run(global, output, args).await,
        Command::Cert(command) => cert::run(output, command),
        Command::Config(args) => config::run(args),
        Command::Demo(args) => demo::run(global, output, args).await,
        Command::Completions { shell } => shell::completions(output, shell),
        Command::Man { out } => shell::man(output, out.as_deref()),
    }
}
