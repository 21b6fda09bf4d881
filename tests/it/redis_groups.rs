//! Servers that belong together: a Cluster, a Sentinel group. It does not know how
//! a single one is started.

use std::{fs, process::Child, sync::LazyLock};

use tempfile::TempDir;

use crate::redis::{Options, Redis, answers, cli, end_with_us, eventually, free_port, spawn};

/// Three primaries that share the slots.
pub struct Cluster {
    /// The nodes, in the order of their slots.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts them and waits until each sees the cluster whole.
    pub fn start() -> Self {
        Self::patient(1_000)
    }

    /// The same, of nodes that take each other for failed after so long.
    fn patient(timeout_ms: u32) -> Self {
        let nodes: Vec<Redis> = (0..3).map(|_| cluster_node(timeout_ms)).collect();
        for (node, slots) in
            nodes
                .iter()
                .zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
        {
            assert_eq!(
                node.cli(&["cluster", "addslotsrange", slots.0, slots.1]),
                "OK"
            );
        }
        let first = &nodes[0];
        for (epoch, node) in nodes.iter().enumerate() {
            node.cli(&["cluster", "set-config-epoch", &(epoch + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let bus = node.cli(&["config", "get", "cluster-port"]);
            let bus = bus.lines().last().unwrap();
            assert_eq!(
                first.cli(&[
                    "cluster",
                    "meet",
                    "127.0.0.1",
                    &node.port().to_string(),
                    bus
                ]),
                "OK"
            );
        }
        for node in &nodes {
            eventually("the cluster is whole", || {
                let info = node.cli(&["cluster", "info"]);
                info.contains("cluster_state:ok")
                    && info.contains("cluster_known_nodes:3")
                    && info.contains("cluster_slots_ok:16384")
            });
        }
        Self { nodes }
    }

    /// Adds a node without slots; its number.
    pub fn join(&mut self) -> usize {
        let node = cluster_node(1_000);
        let bus = self.nodes[0].cli(&["config", "get", "cluster-port"]);
        let bus = bus.lines().last().unwrap();
        let port = self.nodes[0].port().to_string();
        assert_eq!(
            node.cli(&["cluster", "meet", "127.0.0.1", &port, bus]),
            "OK"
        );
        self.nodes.push(node);
        let all = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            eventually("the new node is known", || {
                let info = node.cli(&["cluster", "info"]);
                info.contains("cluster_state:ok") && info.contains(&all)
            });
        }
        self.nodes.len() - 1
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let others: Vec<String> = self.nodes[1..]
            .iter()
            .map(|node| format!("node=127.0.0.1:{}", node.port()))
            .collect();
        format!(
            "redis-cluster://127.0.0.1:{}?{}",
            self.nodes[0].port(),
            others.join("&")
        )
    }
}

/// Marks a slot as moving from one node to another, as redis-cli begins it.
pub fn mark(slot: &str, from: &Redis, to: &Redis) {
    let id = |node: &Redis| node.cli(&["cluster", "myid"]);
    to.cli(&["cluster", "setslot", slot, "importing", &id(from)]);
    from.cli(&["cluster", "setslot", slot, "migrating", &id(to)]);
}

/// Carries what is in a slot so marked over, and gives the slot away.
pub fn carry(slot: &str, from: &Redis, to: &Redis) {
    let port = to.port().to_string();
    let keys = from.cli(&["cluster", "getkeysinslot", slot, "1000"]);
    for key in keys.lines().filter(|key| !key.is_empty()) {
        from.cli(&["migrate", "127.0.0.1", &port, key, "0", "5000"]);
    }
    let id = to.cli(&["cluster", "myid"]);
    for node in [to, from] {
        node.cli(&["cluster", "setslot", slot, "node", &id]);
    }
}

fn cluster_node(timeout_ms: u32) -> Redis {
    let bus = free_port().to_string();
    Options::new()
        .with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            &timeout_ms.to_string(),
            "--cluster-port",
            &bus,
        ])
        .with(&["--cluster-announce-ip", "127.0.0.1"])
        .start()
}

/// A primary, a replica, and three Sentinels that watch them under the name
/// `main`.
pub struct Sentinels {
    /// The server that is primary at the start.
    pub primary: Redis,
    /// The server that follows it.
    pub replica: Redis,
    sentinels: Vec<(Child, u16)>,
    _folder: TempDir,
}

impl Sentinels {
    /// Starts them and waits until each Sentinel knows the others and the replica.
    pub fn start() -> Self {
        Self::patient(500)
    }

    /// The same, where a primary is taken for failed after so long.
    fn patient(down_after_ms: u32) -> Self {
        let primary = Redis::start();
        let replica = Options::new()
            .with(&["--replicaof", "127.0.0.1", &primary.port().to_string()])
            .start();
        let folder = tempfile::Builder::new()
            .prefix("sentinels-")
            .tempdir()
            .unwrap();
        end_with_us(folder.path());
        let mut group = Self {
            primary,
            replica,
            sentinels: Vec::new(),
            _folder: folder,
        };
        for number in 0..3 {
            let folder = group._folder.path().join(number.to_string());
            fs::create_dir(&folder).unwrap();
            let file = folder.join("sentinel.conf");
            let watched = group.primary.port();
            fs::write(
                &file,
                format!(
                    "sentinel monitor main 127.0.0.1 {watched} 2\nsentinel down-after-milliseconds main {down_after_ms}\n\
                     sentinel failover-timeout main 3000\n"
                ),
            )
            .unwrap();
            let port = free_port();
            let mut child = spawn(
                &folder,
                port,
                &["--sentinel".into()],
                &[file.to_str().unwrap()],
            );
            let up = answers(&mut child, port);
            group.sentinels.push((child, port));
            assert!(
                up,
                "a Sentinel did not start: {}",
                fs::read_to_string(folder.join("log")).unwrap_or_default()
            );
        }
        for (_, port) in &group.sentinels {
            eventually("the Sentinels know each other", || {
                let info = cli(*port, None, &["info", "sentinel"]);
                info.contains("slaves=1") && info.contains("sentinels=3")
            });
        }
        group
    }

    /// Their URL.
    pub fn url(&self) -> String {
        let others: Vec<String> = self.sentinels[1..]
            .iter()
            .map(|(_, port)| format!("node=127.0.0.1:{port}"))
            .collect();
        format!(
            "redis-sentinel://127.0.0.1:{}?sentinelServiceName=main&{}",
            self.sentinels[0].1,
            others.join("&")
        )
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for (child, _) in &mut self.sentinels {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How long servers that are shared may take to answer each other: on a machine so
/// busy that all stand still, none is taken for failed.
const PATIENCE_MS: u32 = 120_000;

/// A Cluster that the tests of this process share, each with spaces and names of its
/// own; nobody may stop a node or move a slot of it.
pub fn shared_cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::patient(PATIENCE_MS));
    &CLUSTER
}

/// The same behind Sentinels.
pub fn shared_sentinels() -> &'static Sentinels {
    static SENTINELS: LazyLock<Sentinels> = LazyLock::new(|| Sentinels::patient(PATIENCE_MS));
    &SENTINELS
}

#[test]
fn a_cluster_and_sentinels_come_up() {
    let cluster = Cluster::start();
    assert!(
        cluster.nodes[2]
            .cli(&["cluster", "nodes"])
            .contains("10923-16383")
    );
    let group = Sentinels::start();
    assert!(
        group
            .replica
            .cli(&["info", "replication"])
            .contains("role:slave")
    );
}
