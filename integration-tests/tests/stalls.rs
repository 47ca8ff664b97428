//! Brokers that stall, and clients that do not get over it by themselves.

use processor_integration_tests::broker::{self, ClusterConfig, KafkaCluster};
use processor_integration_tests::proxy::{ApiKey, Fault, Proxy, Rule};
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::await_condition;

/// How many `Metadata` answers in a row name no broker: enough for every client of the worker to get one.
const BLIND_ANSWERS: u32 = 6;

/// A broker that wakes from a long pause can answer a `Metadata` request without naming any broker, itself included.
/// librdkafka 2.12 drops every broker that such an answer does not name, and with the last one its way back: the member
/// leaves the group without a word, and never comes back. It is replaced, and so is the producer; nothing is lost.
#[test]
fn a_worker_whose_clients_lost_every_broker_comes_back() {
    let proxy = Proxy::bind().expect("a free port");
    let dir = broker::test_dir("stalls").expect("the target directory can be written");
    let config = ClusterConfig { proxy_ports: vec![proxy.port()], ..ClusterConfig::single(dir) };
    let cluster = KafkaCluster::start(config).expect("the broker starts");
    proxy.forward_to(cluster.ports(1).behind_proxy);
    let mut scene = Scene::behind("blind", &cluster.bootstrap_servers(), &proxy.bootstrap());
    let worker = scene.worker("one").with("session-timeout-ms", 3_000).with("heartbeat-interval-ms", 1_000);
    // Every client asks once a second.
    let worker = worker.with("kafka", "topic.metadata.refresh.interval.ms=1000").with("pause-us", 500);
    let load = scene.load(500);
    let worker = worker.start().expect("the worker starts");
    scene.await_outputs(2_000, &[&worker]);

    let blind: Vec<_> = (1..=BLIND_ANSWERS)
        .map(|nth| Rule::new(ApiKey::METADATA, Fault::HideBrokers).client_id_contains("blind:").nth(nth))
        .map(|rule| proxy.inject(rule))
        .collect();
    assert!(blind[0].wait_fired(PATIENCE), "no client asked; the worker's log:\n{}", worker.log_tail(40));
    let lost = || worker.log_since_start().contains("revoked lost=true");
    await_condition("the member to lose its place", PATIENCE, || Ok(lost())).expect("it knows no broker");
    let done = scene.offsets_done();
    scene.await_outputs(done + 3_000, &[&worker]);
    let log = worker.log_since_start();
    let waited = log.lines().filter(|line| line.contains("a new client joins")).count();
    eprintln!("{} blind answers; {waited} member(s) replaced", blind.iter().filter(|rule| rule.fired()).count());
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
    assert!(waited > 0, "the client found its way back by itself: is this test still needed?\n{log}");
}
