//! The demo's cluster: its processes, the rules of its links, and a client with the role `admin`.
//!
//! Link rules live in a node's memory only, so a node that starts is told them again before it
//! counts as started.

use std::time::Duration;

use holm_client::{Client, NodeStatus};
use holm_protocol::bucket::{BucketKind, BucketPolicy};
use holm_protocol::ids::NodeId;

use super::control::Order;
use super::home::{Control, Home, State};
use super::links::Links;
use super::plan::Plan;
use super::processes::{ProcessId, Processes};
use super::setup;
use super::wait::until;
use crate::config::find_holmd;
use crate::failure::Failure;
use crate::layout;
use crate::layout::file::LayoutFile;
use crate::output::Spinner;
use crate::text;

/// How long the nodes may take to start, or to connect to each other: nine processes share two
/// cores in the smallest machine this is meant for.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long one request may take: well above the longest round trip.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The bucket of the story and of the hints: concurrent writes stay, as siblings.
pub(super) const CARTS: &str = "carts";
/// A bucket where the last write wins, for comparison.
const PROFILES: &str = "profiles";

/// The demo's cluster.
pub(super) struct Cluster {
    home: Home,
    state: State,
    links: Links,
    processes: Processes,
    /// There once a node answered.
    client: Option<Client>,
}

impl Cluster {
    /// Writes the files of a plan, unless they are those of a demo taken up again. Starts nothing.
    ///
    /// # Errors
    /// `holmd` is not there, or a file cannot be written.
    pub(super) fn prepare(home: Home, plan: Plan, is_kept: bool) -> Result<Cluster, Failure> {
        let holmd = find_holmd()?;
        let own = ProcessId::own().ok_or_else(|| {
            Failure::failed("cannot read /proc/self/stat", "`holm demo` needs Linux with /proc")
        })?;
        let state = State::new(own, plan);
        home.save(&state)?;
        if !is_kept {
            setup::write_all(home.dir(), &state.plan)?;
        }
        let processes = Processes::new(holmd, home.dir());
        Ok(Cluster { home, state, links: Links::default(), processes, client: None })
    }

    /// What the demo consists of.
    pub(super) fn plan(&self) -> &Plan {
        &self.state.plan
    }

    /// Where its files are.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// Starts all nodes and returns when the cluster takes requests.
    ///
    /// # Errors
    /// A node dies, or something takes too long.
    pub(super) async fn bring_up(&mut self, spinner: &Spinner) -> Result<(), Failure> {
        let nodes: Vec<NodeId> = self.plan().nodes.iter().map(|node| node.id).collect();
        spinner.say(format!("starting {}", text::count(nodes.len(), "node")));
        for node in &nodes {
            self.processes.start(*node)?;
        }
        self.save_processes()?;
        let client = self.connect().await?;
        for node in &nodes {
            spinner.say(format!("waiting for {node}"));
            self.wait_for(*node, |_| Ok(())).await?;
        }
        if client.admin().view().await?.layout_version == 0 {
            spinner.say("applying the layout");
            self.apply_layout(&client).await?;
        }
        for node in &nodes {
            spinner.say(format!("waiting until {node} knows all others"));
            let others = nodes.len() - 1;
            self.wait_for(*node, |status| settled(status, others)).await?;
        }
        spinner.say("moving the regions apart");
        self.set_links().await?;
        spinner.say("creating buckets");
        for (name, kind) in [(CARTS, BucketKind::Siblings), (PROFILES, BucketKind::Lww)] {
            self.create_bucket(&client, name, kind).await?;
        }
        Ok(())
    }

    /// Connects to whichever node answers first.
    async fn connect(&mut self) -> Result<Client, Failure> {
        let path = setup::cluster_path(self.home.dir());
        let processes = &mut self.processes;
        let connected = until(START_PATIENCE, POLL, || {
            let dead = processes.obituary();
            let path = &path;
            async move {
                if let Some(obituary) = dead {
                    return Ok(Err(obituary));
                }
                let builder = Client::builder().cluster_file(path)?;
                let builder = builder.name("holm-demo").timeout(TIMEOUT).connect_timeout(TIMEOUT);
                Ok::<_, Failure>(Ok(builder.connect().await?))
            }
        });
        let client = connected.await??;
        self.client = Some(client.clone());
        Ok(client)
    }

    fn client(&self) -> Result<&Client, Failure> {
        self.client.as_ref().ok_or_else(|| {
            Failure::unavailable("the demo is still starting", "repeat it in a moment")
        })
    }

    /// Waits until a node answers and its status passes the test.
    async fn wait_for(
        &mut self,
        node: NodeId,
        test: impl Fn(&NodeStatus) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let client = self.client()?.clone();
        let processes = &mut self.processes;
        let waited = until(START_PATIENCE, POLL, || {
            let dead = processes.obituary();
            let (client, test) = (&client, &test);
            async move {
                if let Some(obituary) = dead {
                    return Ok(Err(obituary));
                }
                match client.admin().status(node).await {
                    Ok(status) => test(&status).map(Ok),
                    Err(error) => Err(error.to_string()),
                }
            }
        });
        waited.await.unwrap_or_else(|why| {
            Err(Failure::unavailable(
                format!("{node} is not ready after {} s: {why}", START_PATIENCE.as_secs()),
                format!("see {}", setup::log_file(self.home.dir(), node).display()),
            ))
        })
    }

    async fn apply_layout(&self, client: &Client) -> Result<(), Failure> {
        let file = LayoutFile::read(&setup::layout_path(self.home.dir()))?;
        let proposal = file.proposal(1, Some(self.plan().replication))?;
        layout::apply(client, &proposal).await?;
        let late = layout::wait_until_spread(client, &proposal, START_PATIENCE).await;
        if late.is_empty() {
            return Ok(());
        }
        Err(Failure::unavailable(
            format!("the layout did not reach {}", text::list(late)),
            format!("see the logs below {}", self.home.dir().display()),
        ))
    }

    async fn create_bucket(
        &self,
        client: &Client,
        name: &str,
        kind: BucketKind,
    ) -> Result<(), Failure> {
        if client.admin().view().await?.buckets.iter().all(|bucket| bucket.name != name) {
            let policy = BucketPolicy { kind, ..BucketPolicy::default() };
            client.admin().create_bucket(name, policy).await?;
        }
        for node in &self.plan().nodes {
            let known = until(START_PATIENCE, POLL, || async {
                let view = client.admin().view_on(node.id).await.map_err(Failure::from)?;
                let known = view.buckets.iter().any(|bucket| bucket.name == name);
                known.then_some(()).ok_or_else(|| {
                    Failure::unavailable(
                        format!("bucket {name} did not reach {}", node.id),
                        format!("see {}", setup::log_file(self.home.dir(), node.id).display()),
                    )
                })
            });
            known.await?;
        }
        Ok(())
    }

    /// Tells every running node the rules in force.
    async fn set_links(&self) -> Result<(), Failure> {
        for (node, _) in self.processes.ids() {
            self.set_links_of(node).await?;
        }
        Ok(())
    }

    async fn set_links_of(&self, node: NodeId) -> Result<(), Failure> {
        let rules = self.links.rules(self.plan(), node);
        Ok(self.client()?.admin().links(node, rules).await?)
    }

    /// Opens the desk's address to the sub-commands.
    ///
    /// # Errors
    /// The state file cannot be written.
    pub(super) fn announce(&mut self, control: Control) -> Result<(), Failure> {
        self.state.control = Some(control);
        self.home.save(&self.state)
    }

    fn save_processes(&mut self) -> Result<(), Failure> {
        self.state.nodes = self.processes.ids();
        self.home.save(&self.state)
    }

    /// Carries out an order and says what was done.
    ///
    /// # Errors
    /// It names what is not there, or a node does not do its part.
    pub(super) async fn obey(&mut self, order: Order) -> Result<String, Failure> {
        match order {
            Order::Cut { a, b } => self.cut(&a, b.as_deref()).await,
            Order::Heal => self.heal().await,
            Order::Kill { node } => self.kill(NodeId(node)).await,
            Order::Start { node } => self.start(NodeId(node)).await,
        }
    }

    /// Cuts a region off from another, or from all others.
    ///
    /// # Errors
    /// As [`Cluster::obey`].
    pub(super) async fn cut(&mut self, a: &str, b: Option<&str>) -> Result<String, Failure> {
        let cut = self.links.cut(&self.state.plan, a, b)?;
        self.set_links().await?;
        Ok(match b {
            _ if cut.is_empty() => "nothing to do: that is cut already".to_owned(),
            Some(b) => format!("{a} and {b} no longer reach each other"),
            None => format!("{a} is cut off from all other regions"),
        })
    }

    /// Undoes all cuts.
    ///
    /// # Errors
    /// As [`Cluster::obey`].
    pub(super) async fn heal(&mut self) -> Result<String, Failure> {
        let healed = self.links.heal();
        self.set_links().await?;
        Ok(match healed {
            0 => "nothing to do: nothing was cut".to_owned(),
            pairs => format!("healed {}", text::count(pairs, "cut")),
        })
    }

    /// Kills a node at once.
    ///
    /// # Errors
    /// As [`Cluster::obey`].
    pub(super) async fn kill(&mut self, node: NodeId) -> Result<String, Failure> {
        self.plan().node(node)?;
        self.processes.kill(node).await?;
        self.save_processes()?;
        Ok(format!("killed node {}; start it again with `holm demo start {}`", node.0, node.0))
    }

    /// Starts a node again, and returns when it answers and knows its distances.
    ///
    /// # Errors
    /// As [`Cluster::obey`].
    pub(super) async fn start(&mut self, node: NodeId) -> Result<String, Failure> {
        self.plan().node(node)?;
        self.processes.start(node)?;
        self.save_processes()?;
        self.wait_for(node, |_| Ok(())).await?;
        self.set_links_of(node).await?;
        Ok(format!("node {} is running again", node.0))
    }

    /// Nodes that died since this was last asked, and how.
    pub(super) fn deaths(&mut self) -> Vec<(NodeId, String)> {
        self.processes.reap()
    }

    /// Stops everything. The files stay.
    pub(super) async fn stop(mut self) -> Home {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
        self.processes.stop().await;
        // From here on the state is stale; that it still names dead processes harms nobody.
        let _ = self.save_processes();
        self.home
    }
}

/// Ready, and connected to every other node.
fn settled(status: &NodeStatus, others: usize) -> Result<(), String> {
    status.ready.clone()?;
    if status.peers.len() < others {
        return Err(format!("it knows {} of {others} other nodes", status.peers.len()));
    }
    let missing = status.peers.iter().filter(|peer| !peer.connected).map(|peer| peer.node);
    let missing: Vec<NodeId> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("it has no connection to {}", text::list(missing)))
}
