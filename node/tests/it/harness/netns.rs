//! Hosts of their own for nodes: network namespaces on a bridge, and what can happen to their links.
//!
//! The test itself stays outside, on the bridge: it reaches every node while the nodes do not reach
//! each other. All names carry the process id, so that two runs do not meet, and what a run that was
//! killed has left is removed by the next.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::holmd::Holmd;
use super::pki::Pki;
use super::skip;

/// Ports inside a namespace, where nobody else is.
const QUIC_PORT: u16 = 7400;
const HTTP_PORT: u16 = 7480;

/// More bridges than one process has at a time.
const BRIDGES_MAX: u32 = 256;

/// Numbers the bridges of this process.
static BRIDGES: AtomicU32 = AtomicU32::new(0);

/// See the module's head. Dropping it removes everything; the nodes must have ended.
#[derive(Debug)]
pub(crate) struct Hosts {
    bridge: String,
    names: Vec<String>,
    /// The bridge's end of each host's link.
    links: Vec<String>,
    /// The first three numbers of all addresses.
    net: [u8; 3],
}

/// Which way packets are lost, as a host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
    Both,
}

impl Hosts {
    /// So many hosts. `None`, with the reason on standard error, where there can be none.
    pub(crate) fn make(count: usize) -> Option<Hosts> {
        sweep();
        let number = BRIDGES.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}x{number}", std::process::id());
        let net = free_net(number);
        let mut hosts =
            Hosts { bridge: format!("hb{tag}"), names: Vec::new(), links: Vec::new(), net };
        match hosts.build(&tag, count) {
            Ok(()) => Some(hosts),
            Err(why) => {
                skip(&format!("network namespaces and nft are needed, which take root: {why}"));
                None
            }
        }
    }

    fn build(&mut self, tag: &str, count: usize) -> Result<(), String> {
        let [a, b, c] = self.net;
        let bridge = self.bridge.clone();
        run(&["ip", "link", "add", &bridge, "type", "bridge"])?;
        run(&["ip", "addr", "add", &format!("{a}.{b}.{c}.254/24"), "dev", &bridge])?;
        run(&["ip", "link", "set", &bridge, "up"])?;
        for at in 0..count {
            let (name, veth) = (format!("holm-{tag}-{at}"), format!("hv{tag}-{at}"));
            run(&["ip", "netns", "add", &name])?;
            self.names.push(name.clone());
            let pair = ["ip", "link", "add", &veth, "type", "veth", "peer", "name", "eth0"];
            run(&[&pair[..], &["netns", &name]].concat())?;
            self.links.push(veth.clone());
            run(&["ip", "link", "set", &veth, "master", &bridge, "up"])?;
            let addr = format!("{}/24", self.addr(at));
            run(&["ip", "-n", &name, "addr", "add", &addr, "dev", "eth0"])?;
            run(&["ip", "-n", &name, "link", "set", "eth0", "up"])?;
            run(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
        }
        (0..count).try_for_each(|at| self.reset(at))
    }

    /// The address of a host, counted from 0.
    pub(crate) fn addr(&self, at: usize) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, at as u8 + 1)
    }

    /// A node on a host.
    pub(crate) fn node(&self, (pki, dir): (&Pki, &Path), id: u64, flags: &[&str]) -> Holmd {
        let at = id as usize - 1;
        let quic = SocketAddr::from((self.addr(at), QUIC_PORT));
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT));
        let mut node = Holmd::at(pki, dir, id, flags, (quic, http));
        node.launcher = ["ip", "netns", "exec", &self.names[at]].map(str::to_owned).to_vec();
        node.pages_through = node.launcher.clone();
        node
    }

    /// Loses all packets between a host and others.
    pub(crate) fn cut(&self, at: usize, others: &[usize], way: Way) {
        self.harm(at, others, way, "");
    }

    /// Loses a part of the packets between a host and others.
    pub(crate) fn lose(&self, at: usize, others: &[usize], percent: u32) {
        self.harm(at, others, Way::Both, &format!("numgen random mod 100 < {percent}"));
    }

    /// Loses packets between a host and others that are longer than this, without a word.
    pub(crate) fn swallow_long(&self, at: usize, others: &[usize], bytes: u32) {
        self.harm(at, others, Way::Both, &format!("meta length > {bytes}"));
    }

    /// Lets a host send no more than this, whomever to.
    pub(crate) fn narrow(&self, at: usize, rate: &str) {
        let limit = ["root", "tbf", "rate", rate, "burst", "32kb", "latency", "300ms"];
        let words = ["tc", "-n", &self.names[at], "qdisc", "replace", "dev", "eth0"];
        run(&[&words[..], &limit].concat()).unwrap();
    }

    /// Everything as it was.
    pub(crate) fn heal(&self) {
        for at in 0..self.names.len() {
            self.reset(at).unwrap();
            // Fails if there is no limit.
            let _ = run(&["tc", "-n", &self.names[at], "qdisc", "del", "dev", "eth0", "root"]);
        }
    }

    /// Packets are dropped where they arrive: dropped where they leave, the sender would be told.
    fn harm(&self, at: usize, others: &[usize], way: Way, which: &str) {
        for &other in others {
            if way != Way::Out {
                self.drop_from(at, other, which);
            }
            if way != Way::In {
                self.drop_from(other, at, which);
            }
        }
    }

    fn drop_from(&self, at: usize, from: usize, which: &str) {
        let rule =
            format!("add rule inet holm coming ip saddr {} {which} counter drop", self.addr(from));
        self.nft(at, &rule).unwrap();
    }

    /// How many packets were dropped since all was as it was.
    pub(crate) fn dropped(&self) -> u64 {
        let count = |at| {
            let listed = self.nft(at, "list table inet holm").unwrap();
            let counts = listed.split("counter packets ").skip(1);
            counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum::<u64>()
        };
        (0..self.names.len()).map(count).sum()
    }

    /// Removes all rules of a host.
    fn reset(&self, at: usize) -> Result<(), String> {
        let rules = "table inet holm\n\
            delete table inet holm\n\
            table inet holm { chain coming { type filter hook input priority 0; }; }\n";
        self.nft(at, rules).map(drop)
    }

    fn nft(&self, at: usize, rules: &str) -> Result<String, String> {
        feed(&["ip", "netns", "exec", &self.names[at], "nft", "-f", "-"], rules)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for link in &self.links {
            let _ = run(&["ip", "link", "del", link]);
        }
        for name in &self.names {
            let _ = run(&["ip", "netns", "del", name]);
        }
        let _ = run(&["ip", "link", "del", &self.bridge]);
    }
}

/// Three numbers with which no address of this machine begins, for the bridge of this number: what is
/// taken for one bridge of this process is taken for no other, also before it has its address.
fn free_net(number: u32) -> [u8; 3] {
    let taken = run(&["ip", "-4", "-o", "addr"]).unwrap_or_default();
    let start = std::process::id().wrapping_mul(97).wrapping_add(number % BRIDGES_MAX);
    for n in (0..0x4000 / BRIDGES_MAX).map(|step| start.wrapping_add(step * BRIDGES_MAX)) {
        let net = [10, 64 + (n >> 8) as u8 % 64, n as u8];
        let [a, b, c] = net;
        if !taken.contains(&format!(" {a}.{b}.{c}.")) {
            return net;
        }
    }
    panic!("all networks are taken");
}

/// Whether this is the tag of a process that is no more: its id, and the number of its bridge.
fn is_left(tag: &str) -> bool {
    tag.split_once('x').is_some_and(|(pid, number)| {
        is_number(pid) && is_number(number) && !Path::new("/proc").join(pid).exists()
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Removes what test processes have left that are no more. A name that is not just as [`Hosts::make`]
/// makes it is somebody else's.
fn sweep() {
    for name in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let parts = name.strip_prefix("holm-").and_then(|rest| rest.rsplit_once('-'));
        if parts.is_some_and(|(tag, at)| is_left(tag) && is_number(at)) {
            let _ = run(&["ip", "netns", "del", &name]);
        }
    }
    for link in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = link.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("hb").is_some_and(is_left) {
            let _ = run(&["ip", "link", "del", &name]);
        }
    }
}

fn run(words: &[&str]) -> Result<String, String> {
    feed(words, "")
}

/// Runs a command to its end. What it said, or why it failed.
fn feed(words: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let told = |output: Output| {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = String::from_utf8_lossy(&output.stderr).into_owned();
        let why = || format!("{}: {}", words.join(" "), failed.trim());
        output.status.success().then_some(said).ok_or_else(why)
    };
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", words[0]))?;
    // It may end without reading; then its status says more.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    told(child.wait_with_output().map_err(|error| error.to_string())?)
}

/// Goal: no name but the rig's own is taken for its leavings. Method: tags of a process that cannot be,
/// of this one, and of others' making.
#[test]
fn only_our_own_leavings_are_swept() {
    assert!(is_left("4294967295x0"), "no process has this id");
    assert!(!is_left(&format!("{}x0", std::process::id())), "this process lives");
    for others in ["4294967295", "x0", "4294967295x", "4294967295x0y", "4294967295-0", ""] {
        assert!(!is_left(others), "{others}");
    }
}
