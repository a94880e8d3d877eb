//! The same network on a simulated machine: real QUIC, TLS, lanes and reconnects, but sockets in
//! memory, a paused clock and one seed that decides everything. Minutes of black-out take
//! milliseconds, and a failure is repeated by its seed.
//!
//! Every scenario is run for many seeds ([`explore`]). `HOLM_NET_SEEDS` says how many, and
//! `HOLM_NET_SEED` runs a single one. A failure prints the command that repeats it and the last
//! packets.
//!
//! Those that are about one kind of harm also check, over all seeds, that it was done.
//!
//! What a seed decides: packets' fates, QUIC's and the network's random numbers, the workload. What
//! it does not: keys, and with them the contents of packets; their sizes are the same, because
//! certificates are of a kind whose signatures have one length. [`trace`] holds this to account.

mod black_outs;
mod callers;
mod dials;
mod lanes;
mod members;
mod mtu;
mod network;
mod strangers;
mod trace;
mod world;

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::support::Pki;
use crate::config::TlsConfig;
use network::{Sent, SimNet};
use world::Sim;

/// The longest that a scenario may take, simulated.
const LONGEST: Duration = Duration::from_secs(900);

/// Packets shown of a failure.
const SHOWN: usize = 30;

/// Who is who, for all seeds of a scenario: keys are slow to make.
pub(super) struct Ca {
    pki: Pki,
    nodes: RefCell<BTreeMap<u64, TlsConfig>>,
}

impl Ca {
    fn new() -> Ca {
        Ca { pki: Pki::with(&rcgen::PKCS_ED25519), nodes: RefCell::default() }
    }

    /// The files of a node: the same whenever it starts.
    fn node(&self, id: u64) -> TlsConfig {
        let write =
            || self.pki.write(&format!("node{id}"), &self.pki.node(id, super::support::VALID));
        self.nodes.borrow_mut().entry(id).or_insert_with(write).clone()
    }
}

/// What came of one seed.
struct Ran {
    simulated: Duration,
    trace: Vec<Sent>,
}

/// Runs a scenario for `usual` seeds, or as many as the environment says; how many.
fn explore(scenario: &str, usual: u64, run: impl AsyncFn(&Sim)) -> u64 {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    let seeds = match number("HOLM_NET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("HOLM_NET_SEEDS").unwrap_or(usual) + 1,
    };
    let count = seeds.end - seeds.start;
    if count == 1 {
        show_log();
    }
    let ca = Rc::new(Ca::new());
    let started = std::time::Instant::now();
    let (mut simulated, mut packets, mut harmed) = (Duration::ZERO, 0, 0);
    for seed in seeds {
        let net = RefCell::new(None);
        let ran = catch_unwind(AssertUnwindSafe(|| simulate(&ca, seed, &net, &run)))
            .unwrap_or_else(|panic| fail(scenario, seed, net.take(), panic));
        simulated += ran.simulated;
        packets += ran.trace.len();
        harmed += ran.trace.iter().filter(|sent| sent.fate != network::Fate::Delivered).count();
    }
    assert!(harmed > 0, "the network did no harm to any packet: this was no test");
    let took = started.elapsed();
    say(&format!(
        "{scenario}: {count} seeds, {packets} packets ({harmed} harmed), {:.0} s simulated in {:.2} s: {:.0} x real time",
        simulated.as_secs_f64(),
        took.as_secs_f64(),
        simulated.as_secs_f64() / took.as_secs_f64(),
    ));
    count
}

fn simulate(
    ca: &Rc<Ca>,
    seed: u64,
    shown: &RefCell<Option<SimNet>>,
    run: &impl AsyncFn(&Sim),
) -> Ran {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let sim = Sim::new(ca.clone(), seed);
        shown.replace(Some(sim.net.clone()));
        timeout(LONGEST, run(&sim)).await.expect("the scenario ends in time");
        Ran { simulated: sim.elapsed(), trace: sim.net.trace() }
    })
}

fn fail(scenario: &str, seed: u64, net: Option<SimNet>, panic: Box<dyn Any + Send>) -> ! {
    let trace = net.map(|net| net.trace()).unwrap_or_default();
    for sent in &trace[trace.len().saturating_sub(SHOWN)..] {
        say(&sent.to_string());
    }
    say(&format!(
        "{scenario} failed; repeat: HOLM_NET_SEED={seed} cargo test --release --workspace {scenario}"
    ));
    resume_unwind(panic)
}

/// The log of a single seed is worth reading: `RUST_LOG=holm=debug` and the like.
fn show_log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let log = tracing_subscriber::fmt().without_time().with_writer(std::io::stderr);
    // Another scenario of this process may have done so already.
    let _ = log.with_env_filter(filter).try_init();
}

/// Past the test harness, which keeps what is printed to itself.
fn say(line: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}
