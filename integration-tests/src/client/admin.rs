//! Topics: create, delete, describe, alter.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataPartition;

use super::{PATIENCE, REQUEST_TIMEOUT};

const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Creates a topic with the cluster's default replication factor and waits until every partition has a leader.
///
/// # Errors
/// The topic exists, a setting is refused, or the cluster does not answer in time.
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    for (setting, value) in config {
        topic = topic.set(setting, value);
    }
    let admin = admin(bootstrap)?;
    let created = block_on(admin.create_topics([&topic], &options())).context("create topics")?;
    for topic in created {
        topic.map_err(|(topic, code)| anyhow!("create topic {topic}: {code}"))?;
    }
    await_leaders(&admin, name, partitions)
}

/// Deletes a topic.
///
/// # Errors
/// There is no such topic, or the cluster does not answer in time.
pub fn delete_topic(bootstrap: &str, name: &str) -> Result<()> {
    let deleted = block_on(admin(bootstrap)?.delete_topics(&[name], &options())).context("delete topics")?;
    for topic in deleted {
        topic.map_err(|(topic, code)| anyhow!("delete topic {topic}: {code}"))?;
    }
    Ok(())
}

/// All settings of a topic, defaults included.
///
/// # Errors
/// There is no such topic, or the cluster does not answer in time.
pub fn describe_topic(bootstrap: &str, name: &str) -> Result<BTreeMap<String, String>> {
    let entries = entries(&admin(bootstrap)?, name)?;
    Ok(entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

/// Changes some settings of a topic and leaves its other ones as they are.
///
/// # Errors
/// There is no such topic, a setting is refused, or the cluster does not answer in time.
pub fn alter_topic(bootstrap: &str, name: &str, config: &[(&str, &str)]) -> Result<()> {
    let admin = admin(bootstrap)?;
    // The request replaces every setting of the topic, so it repeats those that were set before.
    let own = entries(&admin, name)?.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    let mut settings: BTreeMap<String, String> = own.filter_map(|entry| Some((entry.name, entry.value?))).collect();
    settings.extend(config.iter().map(|(setting, value)| ((*setting).to_owned(), (*value).to_owned())));

    let mut change = AlterConfig::new(ResourceSpecifier::Topic(name));
    for (setting, value) in &settings {
        change = change.set(setting, value);
    }
    let altered = block_on(admin.alter_configs([&change], &options())).context("alter settings")?;
    for topic in altered {
        topic.map_err(|(_, code)| anyhow!("alter topic {name}: {code}"))?;
    }
    Ok(())
}

type Admin = AdminClient<DefaultClientContext>;

fn admin(bootstrap: &str) -> Result<Admin> {
    let created = ClientConfig::new().set("bootstrap.servers", bootstrap).set("client.id", "oracle-admin").create();
    created.with_context(|| format!("create an admin client for {bootstrap}"))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn entries(admin: &Admin, topic: &str) -> Result<Vec<ConfigEntry>> {
    let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()));
    let resource = described.context("describe settings")?.into_iter().next();
    let resource = resource.context("describe settings: no answer for the topic")?;
    resource.map(|resource| resource.entries).map_err(|code| anyhow!("describe topic {topic}: {code}"))
}

/// The leader of each partition, -1 where there is none.
fn leaders(admin: &Admin, topic: &str) -> Result<Vec<i32>> {
    let metadata = admin.inner().fetch_metadata(Some(topic), REQUEST_TIMEOUT).context("fetch metadata")?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.map(|found| found.partitions().iter().map(MetadataPartition::leader).collect()).unwrap_or_default())
}

/// A created topic is known to every broker only a little later.
fn await_leaders(admin: &Admin, topic: &str, partitions: i32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leaders = leaders(admin, topic);
        if let Ok(leaders) = &leaders
            && leaders.len() == partitions as usize
            && leaders.iter().all(|leader| *leader >= 0)
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("topic {topic} was created, but not all of its partitions got a leader: {leaders:?}");
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

/// Runs a future on this thread. rdkafka's admin futures are woken by its own thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
