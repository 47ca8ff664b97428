//! The harness keeps its word about a real broker: it answers, can be frozen, killed and brought back, and ends.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use processor_integration_tests::broker::{ClusterConfig, KafkaCluster, process, test_dir};

fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(5))
}

#[test]
fn a_node_survives_pause_kill_and_restart_on_the_same_port() -> Result<()> {
    let kafka = KafkaCluster::start(ClusterConfig::single(test_dir("survives")?))?;
    let (port, first_life) = (kafka.port(1), kafka.pid(1).context("node 1 runs")?);
    assert_eq!(kafka.bootstrap_servers(), format!("127.0.0.1:{port}"));
    connect(port)?;

    kafka.pause(1)?;
    assert_eq!(process::state(first_life), Some('T'));
    kafka.resume(1)?;
    kafka.await_node(1)?;

    let mut client = connect(port)?;
    kafka.kill(1)?;
    assert_eq!(kafka.pid(1), None);
    assert_eq!(process::state(first_life), None);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)), "a killed broker holds no connection");
    assert!(connect(port).is_err(), "a killed broker accepts no connection");

    kafka.start_node(1)?;
    assert_eq!(kafka.port(1), port);
    let second_life = kafka.pid(1).context("node 1 runs again")?;
    assert_ne!(second_life, first_life);
    assert_eq!(process::find_kafka(&kafka.node_dir(1).join("server.properties")), Some(second_life));

    kafka.stop(1)?;
    assert_eq!(process::state(second_life), None);
    kafka.start_node(1)?;
    let third_life = kafka.pid(1).context("node 1 runs a third time")?;
    kafka.shutdown()?;
    assert_eq!(process::state(third_life), None);
    Ok(())
}

/// A test's thread ends before the test binary does: the broker it started must not end with it, and must end with its
/// owner, frozen or not.
#[test]
fn a_broker_outlives_the_thread_that_started_it_and_not_its_owner() -> Result<()> {
    let start = || KafkaCluster::start(ClusterConfig::single(test_dir("thread")?));
    let kafka = std::thread::spawn(start).join().expect("the starting thread does not panic")?;
    kafka.await_node(1)?;
    let pid = kafka.pid(1).context("node 1 runs")?;
    assert!(process::state(pid).is_some());
    kafka.pause(1)?;
    drop(kafka);
    assert_eq!(process::state(pid), None);
    Ok(())
}

#[test]
fn three_nodes_form_one_cluster_and_take_a_killed_one_back() -> Result<()> {
    let kafka = KafkaCluster::start(ClusterConfig::three(test_dir("three")?))?;
    assert_eq!(kafka.bootstrap_servers().split(',').count(), 3);
    kafka.kill(2)?;
    kafka.start_node(2)?;
    kafka.shutdown()
}

#[test]
fn a_broker_that_refuses_its_settings_says_why() -> Result<()> {
    let config = ClusterConfig::single(test_dir("refused")?).with("num.io.threads", "none");
    let error = format!("{:#}", KafkaCluster::start(config).expect_err("`none` is not a number of threads"));
    assert!(error.contains("num.io.threads"), "{error}");
    Ok(())
}
