//! holmd: runs one node of a holm cluster.
//!
//! A panic anywhere ends the process: what a thread leaves behind half done is known to nobody, and
//! a node that steps aside and is started again does less harm than one that goes on (I11).

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use holm_node::config::cli::Invocation;
use holm_node::config::{Config, ConfigError, LogFormat};
use holm_node::node::{Node, NodeError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

// One heap for Rust and RocksDB's C++.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How often to look whether a thread could not go on.
const WATCH: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let config = match Config::load(std::env::args_os()) {
        Ok(Invocation::Run(config)) => *config,
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(ConfigError::Usage(usage)) => usage.exit(),
        Err(error) => return fail(&error),
    };
    if let Err(error) = log_to_stderr(&config) {
        return fail(error.as_ref());
    }
    abort_on_panic();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => return fail(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "holmd ends");
            fail(&error)
        }
    }
}

async fn run(config: Config) -> Result<(), NodeError> {
    let handler = |kind| {
        let name = "signals".to_owned();
        signal(kind).map_err(|source| NodeError::Thread { name, source })
    };
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut reload = handler(SignalKind::hangup())?;
    let node = Node::start(config).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => node.reload(),
            () = tokio::time::sleep(WATCH) => {
                if node.is_broken() {
                    break;
                }
            }
        }
    }
    node.stop().await
}

/// Has a panic logged and the process aborted, whichever thread or task it strikes.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload();
        let message = message
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| message.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(message, location, thread, %backtrace, "panic: the node steps aside");
        std::process::abort();
    }));
}

fn log_to_stderr(config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_new(&config.log.filter)
        .map_err(|error| format!("log.filter `{}`: {error}", config.log.filter))?;
    // Colours are for people, not for files.
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => lines.json().init(),
        LogFormat::Text => lines.init(),
    }
    Ok(())
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("holmd: {error}");
    ExitCode::FAILURE
}
