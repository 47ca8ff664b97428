//! Questions at start-up.

use std::thread;

use anyhow::{Context, Result};
use processor_integration_tests::broker::{ClusterConfig, KafkaCluster, test_dir};
use processor_integration_tests::proxy::{ApiKey, Fault, Proxy, Rule};
use processor_runtime::kafka::KafkaErrorKind;
use processor_runtime::kafka::admin::Admin;
use processor_runtime::kafka::cluster::ClusterSettings;

use super::support::Corner;

#[test]
fn a_topic_is_made_once_and_described_with_its_id_and_settings() -> Result<()> {
    let corner = Corner::new("admin-topic", 2)?;
    let admin = Admin::connect(corner.cluster.settings())?;
    assert!(!admin.cluster_id()?.is_empty());
    assert_eq!(admin.describe_topic("admin-no-such-topic")?, None);

    let settings = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
    admin.create_topic("admin-compacted", 3, Some(1), &settings)?;
    let made = admin.describe_topic("admin-compacted")?.context("it was made")?;
    assert_eq!((made.partitions, made.configs["cleanup.policy"].as_str()), (3, "compact"));
    assert!(made.topic_id.len() >= 20 && made.topic_id != "AAAAAAAAAAAAAAAAAAAAAA", "{}", made.topic_id);
    admin.create_topic("admin-compacted", 3, Some(1), &settings)?;
    assert_eq!(admin.describe_topic("admin-compacted")?.context("it is still there")?.topic_id, made.topic_id);

    let nonsense = [("no.such.setting".to_owned(), "1".to_owned())].into();
    let error = admin.create_topic("admin-nonsense", 1, None, &nonsense).expect_err("there is no such setting");
    assert_eq!(error.kind, KafkaErrorKind::Config, "{error}");
    assert!(error.message.contains("no.such.setting"), "{error}");
    let error = admin.create_topic("admin-wide", 1, Some(5), &[].into()).expect_err("there is one broker");
    assert_eq!(error.kind, KafkaErrorKind::Config, "{error}");
    Ok(())
}

#[test]
fn a_broker_tells_whether_it_verifies_transactions() -> Result<()> {
    let corner = Corner::new("admin-broker", 1)?;
    let settings = Admin::connect(corner.cluster.settings())?.broker_config(1)?;
    assert_eq!(settings.get("transaction.partition.verification.enable").map(String::as_str), Some("true"));
    Ok(())
}

/// A worker that starts while connections break waits for an answer, as it does where no broker is there.
#[test]
fn a_question_whose_connection_is_lost_is_asked_again() -> Result<()> {
    const DESCRIBE_CONFIGS: ApiKey = ApiKey(32);
    let proxy = Proxy::bind()?;
    let config =
        ClusterConfig { proxy_ports: vec![proxy.port()], ..ClusterConfig::single(test_dir("admin-connections")?) };
    let kafka = KafkaCluster::start(config)?;
    proxy.forward_to(kafka.ports(1).behind_proxy);
    let corner = Corner::at(&proxy.bootstrap(), "admin-connections", 1, |_| ())?;
    let admin = Admin::connect(corner.cluster.settings())?;
    // The brokers are listed by a metadata request; others the client sends for itself.
    for api_key in [ApiKey::METADATA, DESCRIBE_CONFIGS] {
        for nth in 1..=5 {
            proxy.inject(Rule::new(api_key, Fault::ResetAfterForward).nth(nth));
        }
    }
    assert_eq!(admin.broker_ids()?, [1]);
    assert!(!admin.broker_config(1)?.is_empty());
    proxy.assert_all_fired();
    Ok(())
}

/// The workers of a new application start at once: one of them makes a topic, and another one asks brokers that may not have
/// heard of it yet. They are not to stop for that.
#[test]
fn a_topic_that_somebody_else_has_just_made_is_described() -> Result<()> {
    const TOPICS: u32 = 60;
    let kafka = KafkaCluster::start(ClusterConfig::three(test_dir("admin-three")?))?;
    let corner = Corner::new("admin-races", 1)?;
    let settings =
        ClusterSettings { bootstrap_servers: kafka.bootstrap_servers(), ..corner.cluster.settings().clone() };
    let asker = Admin::connect(&settings)?;
    let topics = || (0..TOPICS).map(|number| format!("admin-race-{number}"));
    thread::scope(|scope| {
        let making = scope.spawn(|| {
            let maker = Admin::connect(&settings)?;
            topics().try_for_each(|topic| maker.create_topic(&topic, 4, None, &[].into()))
        });
        for topic in topics() {
            while asker.describe_topic(&topic)?.is_none() && !making.is_finished() {}
        }
        Ok(making.join().expect("it has no panic of its own")?)
    })
}
