//! The text of a node's `server.properties`.

use std::fmt::Write;
use std::path::Path;

use super::{ClusterConfig, NodePorts};

/// The settings of node `index + 1`. `config.broker_properties` come last, and Kafka lets the last one win.
pub(super) fn server_properties(index: usize, ports: &[NodePorts], data: &Path, config: &ClusterConfig) -> String {
    let mut text = String::from("# Written by the harness at every start of the cluster: edits are lost.\n");
    let mut line = |key: &str, value: &str| writeln!(text, "{key}={value}").expect("writing into a String cannot fail");
    for (key, value) in identity(index, ports, data, config) {
        line(key, &value);
    }
    for (key, value) in replication(config.nodes) {
        line(key, &value.to_string());
    }
    for (key, value) in SMALL_AND_FAST {
        line(key, value);
    }
    for (key, value) in &config.broker_properties {
        line(key, value);
    }
    text
}

fn identity(index: usize, ports: &[NodePorts], data: &Path, config: &ClusterConfig) -> Vec<(&'static str, String)> {
    let own = ports[index];
    let mut listeners = vec![listener("CLIENT", own.client), listener("CONTROLLER", own.controller)];
    let mut advertised = vec![listener("CLIENT", own.client)];
    if let Some(proxy) = config.proxy_ports.get(index) {
        listeners.push(listener("PROXIED", own.behind_proxy));
        advertised.push(listener("PROXIED", *proxy));
    }
    let voters = ports.iter().zip(1..).map(|(node, id)| format!("{id}@127.0.0.1:{}", node.controller));
    let protocols = "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT";
    vec![
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", (index + 1).to_string()),
        ("controller.quorum.voters", voters.collect::<Vec<_>>().join(",")),
        ("listeners", listeners.join(",")),
        ("advertised.listeners", advertised.join(",")),
        ("listener.security.protocol.map", protocols.to_owned()),
        ("inter.broker.listener.name", "CLIENT".to_owned()),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("log.dirs", data.display().to_string()),
    ]
}

fn listener(name: &str, port: u16) -> String {
    format!("{name}://127.0.0.1:{port}")
}

fn replication(nodes: u16) -> [(&'static str, u16); 8] {
    let (factor, in_sync_min) = if nodes == 1 { (1, 1) } else { (3, 2) };
    [
        ("default.replication.factor", factor),
        ("min.insync.replicas", in_sync_min),
        ("offsets.topic.replication.factor", factor),
        ("transaction.state.log.replication.factor", factor),
        ("transaction.state.log.min.isr", in_sync_min),
        ("share.coordinator.state.topic.replication.factor", factor),
        ("share.coordinator.state.topic.min.isr", in_sync_min),
        ("num.partitions", 1),
    ]
}

/// Fewer internal partitions and threads start faster; bounds are opened so that a test may choose short timeouts.
/// A killed broker may register again only when its session is over, so that decides how fast it is back (4 s, Kafka's
/// default is 9 s), as the sweep for transactions that took too long decides when one is aborted (Kafka sweeps every 10 s).
/// What decides about correctness, such as the transaction timeouts, keeps Kafka's defaults.
const SMALL_AND_FAST: [(&str, &str); 20] = [
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500"),
    ("broker.session.timeout.ms", "4000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("auto.create.topics.enable", "false"),
    // Tests stamp their records with times long ago, which retention would delete a minute later.
    ("log.retention.ms", "-1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "2"),
    ("num.replica.fetchers", "1"),
    ("log.cleaner.dedupe.buffer.size", "4194304"),
    ("log.cleaner.threads", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    // Members of such a group cannot choose theirs.
    ("group.consumer.session.timeout.ms", "3000"),
    ("group.consumer.heartbeat.interval.ms", "500"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(config: &ClusterConfig) -> String {
        let ports: Vec<NodePorts> = (0..config.nodes)
            .map(|n| NodePorts { client: 100 + n, controller: 200 + n, behind_proxy: 300 + n })
            .collect();
        server_properties(0, &ports, Path::new("/data"), config)
    }

    #[test]
    fn a_single_node_replicates_nothing() {
        let text = text(&ClusterConfig::single("/cluster"));
        assert!(text.contains("\ncontroller.quorum.voters=1@127.0.0.1:200\n"));
        assert!(text.contains("\ntransaction.state.log.replication.factor=1\n"));
        assert!(text.contains("\nlog.dirs=/data\n"));
        assert!(!text.contains("PROXIED://"));
    }

    #[test]
    fn three_nodes_vote_and_keep_two_in_sync() {
        let text = text(&ClusterConfig::three("/cluster"));
        assert!(text.contains("voters=1@127.0.0.1:200,2@127.0.0.1:201,3@127.0.0.1:202\n"));
        assert!(text.contains("\ntransaction.state.log.min.isr=2\n"));
    }

    #[test]
    fn every_listener_is_on_loopback() {
        let config = ClusterConfig { proxy_ports: vec![400], ..ClusterConfig::single("/cluster") };
        let text = text(&config);
        assert_eq!(text.matches("://").count(), text.matches("://127.0.0.1:").count());
        assert!(text.contains(",PROXIED://127.0.0.1:300\n"));
        assert!(text.contains(",PROXIED://127.0.0.1:400\n"));
    }

    #[test]
    fn properties_of_the_caller_come_last() {
        let text = text(&ClusterConfig::single("/cluster").with("num.io.threads", "9"));
        assert!(text.ends_with("\nnum.io.threads=9\n"));
    }
}
