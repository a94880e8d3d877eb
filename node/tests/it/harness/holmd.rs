//! One `holmd` process and its files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use holm_protocol::ids::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pki::{Identity, Pki, VALID};
use super::until;

/// The cluster's name in all tests.
pub(crate) const CLUSTER: &str = "test";

/// The program under test.
const HOLMD: &str = env!("CARGO_BIN_EXE_holmd");

/// Ports are taken from here up. Below the range that the kernel gives to clients, so that none of
/// them takes a node's port while it is being restarted.
const PORT_MIN: u16 = 15_000;
/// As many ports as there are.
const PORTS: u16 = 16_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A loopback address that nobody else has, in this process or, as far as can be seen, in another.
pub(crate) fn free_addr() -> SocketAddr {
    for _ in 0..PORTS {
        // Test processes that run at the same time start far apart.
        let start = (std::process::id() as u16).wrapping_mul(97);
        let next = start.wrapping_add(NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_MIN + next % PORTS));
        if UdpSocket::bind(addr).is_ok() && TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no free port");
}

/// See the module's head. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Holmd {
    pub(crate) id: NodeId,
    /// For clients and nodes.
    pub(crate) quic: SocketAddr,
    http: SocketAddr,
    home: PathBuf,
    flags: Vec<String>,
    /// What it is started with besides, in its environment.
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// A command that starts it and leaves it its process id; empty for none.
    pub(crate) launcher: Vec<String>,
    /// A command through which its pages are read, if they cannot be reached from here.
    pub(crate) pages_through: Vec<String>,
    child: Option<Child>,
}

impl Holmd {
    /// Writes a node's files below `dir`; `flags` override the small configuration of all tests.
    pub(crate) fn new(pki: &Pki, dir: &Path, id: u64, flags: &[&str]) -> Holmd {
        Holmd::at(pki, dir, id, flags, (free_addr(), free_addr()))
    }

    /// The same at these addresses: for clients and nodes, and for its pages.
    pub(crate) fn at(
        pki: &Pki,
        dir: &Path,
        id: u64,
        flags: &[&str],
        (quic, http): (SocketAddr, SocketAddr),
    ) -> Holmd {
        let home = dir.join(format!("node-{id}"));
        fs::create_dir_all(&home).unwrap();
        let node = Holmd {
            id: NodeId(id),
            quic,
            http,
            home,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            env: Vec::new(),
            launcher: Vec::new(),
            pages_through: Vec::new(),
            child: None,
        };
        fs::write(node.file("ca.pem"), pki.ca_pem()).unwrap();
        node.write_identity(&pki.node(id, VALID));
        fs::write(node.file("holm.toml"), node.config()).unwrap();
        node
    }

    fn config(&self) -> String {
        let (id, quic, http) = (self.id.0, self.quic, self.http);
        // Small where small limits are met sooner, short where a test waits.
        format!(
            r#"
[node]
id = {id}
data_dir = "data"
[cluster]
id = "{CLUSTER}"
[listen]
quic = "{quic}"
http = "{http}"
[tls]
ca = "ca.pem"
cert = "node.pem"
key = "node.key"
[store]
cache_bytes = 8388608
write_buffer_bytes = 8388608
min_free_bytes = 1048576
[net]
idle_timeout_ms = 3000
keepalive_ms = 500
handshake_timeout_ms = 3000
stall_timeout_ms = 3000
reconnect_max_ms = 200
[log]
format = "text"
"#
        )
    }

    /// A file in the node's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Gives the node another certificate, from its next start or reload on.
    pub(crate) fn write_identity(&self, identity: &Identity) {
        fs::write(self.file("node.pem"), &identity.cert).unwrap();
        fs::write(self.file("node.key"), &identity.key).unwrap();
    }

    /// Starts the process. It is not ready yet.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.id);
        let log = File::options().create(true).append(true).open(self.file("log")).unwrap();
        let mut words = self.launcher.iter().map(String::as_str).chain([HOLMD]);
        let mut command = Command::new(words.next().unwrap_or(HOLMD));
        command.args(words).arg("--config").arg(self.file("holm.toml")).args(&self.flags);
        // The test's own files decide; a setting left in this shell must not.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOLM_") {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts the process and waits until it answers.
    pub(crate) async fn start(&mut self) {
        let refused = self.try_start().await;
        assert!(refused.is_none(), "{} ended while starting:\n{}", self.id, self.log());
    }

    /// Starts the process and waits until it answers, or ends: then with which status.
    pub(crate) async fn try_start(&mut self) -> Option<ExitStatus> {
        self.spawn();
        let mut ended = None;
        until("the node is live or ends", async || {
            ended = self.ended();
            ended.is_some() || self.try_get("/livez").await.is_some_and(|(code, _)| code == 200)
        })
        .await;
        ended
    }

    /// How the process ended by itself, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// Whether the process runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the node runs"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Ends it as a crash would. Several nodes can be sent this before one is waited for.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails if it is dead already, which is as good.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Asks it to stop, and waits.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().unwrap();
        let mut status = None;
        until("the node has stopped", async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// All it has logged in all its runs.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("log")).unwrap_or_default()).into_owned()
    }

    /// Memory in RAM, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let pid = self.child.as_ref().expect("the node runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    /// Status and body of one of its pages. A node that is starting is waited for.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut page = None;
        until(path, async || {
            page = self.try_get(path).await;
            page.is_some()
        })
        .await;
        page.unwrap()
    }

    /// The same, if it answers.
    pub(crate) async fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let answer = match self.pages_through.is_empty() {
            true => ask(self.http, &request).await?,
            false => ask_through(&self.pages_through, self.http, &request).await?,
        };
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    }

    /// A metric, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics").await;
        metric(&page, name).unwrap_or_else(|| panic!("no metric {name} in:\n{page}"))
    }

    /// Waits until a metric is there and at least this. What is counted per peer is not there before
    /// a node knows of one.
    pub(crate) async fn until_metric(&self, name: &str, least: f64) {
        let is_there =
            async || metric(&self.get("/metrics").await.1, name).is_some_and(|it| it >= least);
        until(name, is_there).await;
    }

    /// Waits until it serves requests as it should.
    pub(crate) async fn until_ready(&self) {
        until("the node is ready", async || self.get("/readyz").await.0 == 200).await;
    }
}

impl Drop for Holmd {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("--- end of the log of {} ---\n{}", self.id, &log[from..]);
        }
    }
}

/// Sends a request over TCP and reads to the end.
async fn ask(addr: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// The same in a process that a command starts where the address can be reached.
async fn ask_through(command: &[String], addr: SocketAddr, request: &str) -> Option<String> {
    let (ip, port) = (addr.ip(), addr.port());
    let script = format!("exec 3<>/dev/tcp/{ip}/{port} && printf %s \"$1\" >&3 && cat <&3");
    let (program, words) = command.split_first()?;
    let mut asking = Command::new(program);
    asking.args(words).args(["bash", "-c", &script, "ask", request]);
    asking.stdin(Stdio::null()).stderr(Stdio::null());
    let output = tokio::task::spawn_blocking(move || asking.output()).await.ok()?.ok()?;
    String::from_utf8(output.stdout).ok()
}

/// A metric on a page, summed over its labels.
pub(crate) fn metric(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once("} ")?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.parse::<f64>().ok()
    });
    values.reduce(|sum, value| sum + value)
}
