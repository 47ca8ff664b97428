//! The client properties: what the guarantee needs, what is only a default, and what the user may not set.
//!
//! A user's property goes to every client; with the prefix `consumer.` or `producer.` it goes to one kind only, and then
//! wins over one without. Defaults give way to both. What the guarantee rests on is refused by name, with the reason.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client_properties::PropertyValue;
use super::cluster::{ClusterSettings, GroupProtocol};
use super::stable_ends::TOLD_EVERY;
use super::{Isolation, KafkaError, KafkaErrorKind, Member, TransactionalId};

/// What a client is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role<'a> {
    /// The group member.
    Consumer(&'a Member),
    /// The producer of one transactional id.
    Producer(&'a TransactionalId),
    /// The changelog reader.
    Changelog { client_id: &'a str, isolation: Isolation },
    /// Start-up questions.
    Admin,
}

/// The properties that the user may not set, and why. Aliases of librdkafka are listed beside the name.
const REFUSED: &[(&[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], "it has its own setting, `bootstrap.servers`"),
    (&["client.id"], "it is made from the application id, the instance id and the thread"),
    (&["group.id"], "the group is the application id: committed offsets and state belong together"),
    (&["group.instance.id"], "it is made from the instance id and the thread"),
    (&["transactional.id"], "it is made from the application id, the instance id and the thread"),
    (&["transaction.timeout.ms"], "it has its own setting, `transaction.timeout`"),
    (&["session.timeout.ms"], "it has its own setting, `session.timeout`"),
    (&["heartbeat.interval.ms"], "it has its own setting, `heartbeat.interval`"),
    (&["max.poll.interval.ms"], "it has its own setting, `max.poll.interval`"),
    (&["enable.idempotence"], "a producer without it can write a record twice"),
    (&["acks", "request.required.acks"], "a record counts as written only when all in-sync replicas have it"),
    (&["delivery.report.only.error"], "the recovery points of stores come from the reports of successes"),
    (&["enable.auto.commit", "auto.commit.enable"], "offsets are committed only inside the transaction (EO-1)"),
    (&["enable.auto.offset.store"], "offsets are committed only inside the transaction (EO-1)"),
    (&["isolation.level"], "records of aborted transactions must not be read"),
    (
        &["auto.offset.reset"],
        "a lost offset must stop the task, not skip input; the first start has its own setting, `auto.offset.reset`",
    ),
    (&["enable.partition.eof"], "the batch poll of librdkafka 2.12 miscounts positions with it"),
    (&["partition.assignment.strategy"], "inputs that are joined need `range`, and the protocol the eager rebalance"),
    (&["group.protocol"], "it has its own setting, `group.protocol`"),
    (
        &["group.remote.assignor"],
        "inputs that are joined need `range`, which gives same-numbered partitions to one member",
    ),
    (&["partitioner"], "keys must go where Kafka's Java clients put them (murmur2)"),
    (&["allow.auto.create.topics"], "a topic made by accident has the wrong number of partitions"),
    (&["queuing.strategy"], "records of a partition must stay in order"),
];

/// Properties with a limit, by name.
const IN_FLIGHT: &[&str] = &["max.in.flight", "max.in.flight.requests.per.connection"];
const IN_FLIGHT_MAX: u64 = 5;

fn config(message: String) -> KafkaError {
    KafkaError { kind: KafkaErrorKind::Config, message }
}

/// Checks the user's properties and the relations between the time-outs.
pub(super) fn check(settings: &ClusterSettings) -> Result<(), KafkaError> {
    for (name, value) in settings.properties.iter() {
        check_property(name, value, settings.transaction_timeout)?;
    }
    check_relations(settings)
}

/// The property's name without the prefix that addresses one kind of client.
pub(super) fn bare(name: &str) -> &str {
    name.strip_prefix("consumer.").or_else(|| name.strip_prefix("producer.")).unwrap_or(name)
}

/// Whether the guarantee allows a property to have this value.
pub(super) fn check_property(
    name: &str,
    value: &PropertyValue,
    transaction_timeout: Duration,
) -> Result<(), KafkaError> {
    let (bare, value) = (bare(name), value.expose());
    if let Some((_, reason)) = REFUSED.iter().find(|(names, _)| names.contains(&bare)) {
        return Err(config(format!("the property {name} cannot be set: {reason}; remove it")));
    }
    let number = || value.parse::<u64>().map_err(|_| config(format!("the property {name} = {value} is not a number")));
    if IN_FLIGHT.contains(&bare) && number()? > IN_FLIGHT_MAX {
        let reason = "more requests in flight than the broker remembers can write a record twice";
        return Err(config(format!("the property {name} = {value} is above {IN_FLIGHT_MAX}: {reason}; lower it")));
    }
    let transaction_ms = u64::try_from(transaction_timeout.as_millis()).unwrap_or(u64::MAX);
    if ["message.timeout.ms", "delivery.timeout.ms"].contains(&bare) && !(1..=transaction_ms).contains(&number()?) {
        return Err(config(format!(
            "the property {name} = {value} must lie between 1 and the transaction time-out of {transaction_ms} ms: \
             a record that is older cannot be in the transaction any more"
        )));
    }
    Ok(())
}

/// The time-outs must nest: heartbeat < session < poll interval, and transaction < poll interval. Where the broker has the
/// session and the heartbeat, those two are not ours to compare, or to set.
fn check_relations(settings: &ClusterSettings) -> Result<(), KafkaError> {
    let ClusterSettings { session_timeout, heartbeat_interval, max_poll_interval, transaction_timeout, .. } = settings;
    let is_classic = settings.group_protocol == GroupProtocol::Classic;
    let defaults = ClusterSettings::new("", "");
    let given = (*session_timeout, *heartbeat_interval);
    if !is_classic && given != (defaults.session_timeout, defaults.heartbeat_interval) {
        return Err(config(
            "session.timeout and heartbeat.interval are the brokers' where group.protocol is consumer \
             (group.consumer.session.timeout.ms, group.consumer.heartbeat.interval.ms): remove them, or set group.protocol to classic"
                .to_owned(),
        ));
    }
    let rules = [
        (
            *heartbeat_interval * 3 <= *session_timeout,
            format!(
                "the heartbeat interval {heartbeat_interval:?} is over a third of the session time-out {session_timeout:?}"
            ),
            "a member would be given up after one or two lost heartbeats",
        ),
        (
            session_timeout <= max_poll_interval || !is_classic,
            format!("the session time-out {session_timeout:?} is over the poll interval {max_poll_interval:?}"),
            "the broker would hold on to a member that the client has given up",
        ),
        (
            transaction_timeout < max_poll_interval,
            format!(
                "the transaction time-out {transaction_timeout:?} is not under the poll interval {max_poll_interval:?}"
            ),
            "the member would lose its partitions while its transaction is still open",
        ),
        (
            *transaction_timeout >= Duration::from_secs(1) && *session_timeout >= Duration::from_secs(1),
            format!(
                "the transaction time-out {transaction_timeout:?} or the session time-out {session_timeout:?} is under 1 s"
            ),
            "an ordinary pause of the machine would end it",
        ),
    ];
    for (holds, what, why) in rules {
        if !holds {
            return Err(config(format!("{what}: {why}; change one of the two")));
        }
    }
    Ok(())
}

/// All properties of a client: defaults, then the user's, then what the guarantee needs.
pub(super) fn resolve(settings: &ClusterSettings, role: Role<'_>) -> BTreeMap<String, String> {
    let mut resolved = BTreeMap::new();
    put(&mut resolved, DEFAULTS_ALL);
    let prefix = match role {
        Role::Consumer(_) | Role::Changelog { .. } => {
            put(&mut resolved, DEFAULTS_CONSUMER);
            Some("consumer.")
        }
        Role::Producer(_) => {
            put(&mut resolved, DEFAULTS_PRODUCER);
            Some("producer.")
        }
        Role::Admin => None,
    };
    if matches!(role, Role::Changelog { .. }) {
        put(&mut resolved, DEFAULTS_CHANGELOG);
    }
    if matches!(role, Role::Consumer(_)) && settings.measures {
        put(&mut resolved, &[TOLD_EVERY]);
    }
    let prefixed = |name: &str| name.starts_with("consumer.") || name.starts_with("producer.");
    let properties = &settings.properties;
    for (name, value) in properties.iter().filter(|(name, _)| !prefixed(name)) {
        resolved.insert(name.to_owned(), value.expose().to_owned());
    }
    for (name, value) in properties.iter().filter(|(name, _)| prefixed(name)) {
        if let Some(bare) = prefix.and_then(|prefix| name.strip_prefix(prefix)) {
            resolved.insert(bare.to_owned(), value.expose().to_owned());
        }
    }
    resolved.insert("bootstrap.servers".to_owned(), settings.bootstrap_servers.clone());
    resolved.extend(needed(settings, role));
    resolved
}

fn put(into: &mut BTreeMap<String, String>, table: &[(&str, &str)]) {
    into.extend(table.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
}

const DEFAULTS_ALL: &[(&str, &str)] = &[
    // Ending a client would wait for a last report of its metrics.
    ("enable.metrics.push", "false"),
    // A broker that comes back is found again soon.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "2000"),
];

const DEFAULTS_CONSUMER: &[(&str, &str)] = &[
    // A broker answers at once when it has data; this bounds how long a new `fetch` waits behind an idle request.
    ("fetch.wait.max.ms", "50"),
    // The default of 1 s is what a consumer waits when its queue is full.
    ("fetch.queue.backoff.ms", "5"),
    // A small record costs about 400 bytes in the queue, so the count bounds the memory, not the kilobytes.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "16384"),
    ("max.partition.fetch.bytes", "262144"),
    // What is awaited from the group's coordinator is worth asking again soon.
    ("retry.backoff.ms", "20"),
];

const DEFAULTS_CHANGELOG: &[(&str, &str)] = &[
    // The end of an idle partition is told with the answer to an idle request.
    ("fetch.wait.max.ms", "20"),
];

const DEFAULTS_PRODUCER: &[(&str, &str)] = &[
    // The default of 100 ms is what send_offsets waits for the markers of the transaction before.
    ("retry.backoff.ms", "5"),
    // Only delays in the middle of a batch of records: the drain ignores it.
    ("linger.ms", "5"),
    ("compression.type", "lz4"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "65536"),
];

/// What the guarantee rests on.
fn needed(settings: &ClusterSettings, role: Role<'_>) -> BTreeMap<String, String> {
    let mut needed = BTreeMap::new();
    let mut set = |name: &str, value: &str| needed.insert(name.to_owned(), value.to_owned());
    let millis = |duration: Duration| duration.as_millis().to_string();
    match role {
        Role::Consumer(member) => {
            set("client.id", &member.client_id);
            set("group.id", &settings.application_id);
            if let Some(instance) = &member.group_instance_id {
                set("group.instance.id", instance);
            }
            set("max.poll.interval.ms", &millis(settings.max_poll_interval));
            match settings.group_protocol {
                GroupProtocol::Classic => {
                    set("session.timeout.ms", &millis(settings.session_timeout));
                    set("heartbeat.interval.ms", &millis(settings.heartbeat_interval));
                    set("partition.assignment.strategy", "range");
                }
                // Session and heartbeats are the broker's, and librdkafka refuses them here.
                GroupProtocol::Consumer => {
                    set("group.protocol", "consumer");
                    set("group.remote.assignor", "range");
                }
            }
            set("isolation.level", "read_committed");
            set("enable.partition.eof", "false");
        }
        Role::Changelog { client_id, isolation } => {
            set("client.id", client_id);
            // librdkafka wants one; it is never joined, and the application has the right to it.
            set("group.id", &settings.application_id);
            let level = match isolation {
                Isolation::ReadCommitted => "read_committed",
                Isolation::ReadUncommitted => "read_uncommitted",
            };
            set("isolation.level", level);
            set("enable.partition.eof", "true");
        }
        Role::Producer(id) => {
            set("client.id", &id.0);
            set("transactional.id", &id.0);
            set("transaction.timeout.ms", &millis(settings.transaction_timeout));
            set("enable.idempotence", "true");
            set("partitioner", "murmur2_random");
            set("allow.auto.create.topics", "false");
        }
        Role::Admin => {
            set("client.id", &format!("{}-admin", settings.application_id));
        }
    }
    if matches!(role, Role::Consumer(_) | Role::Changelog { .. }) {
        set("enable.auto.commit", "false");
        set("enable.auto.offset.store", "false");
        set("auto.offset.reset", "error");
        set("allow.auto.create.topics", "false");
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> ClusterSettings {
        let mut settings = ClusterSettings::new("localhost:9092", "app");
        settings.properties =
            properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings
    }

    fn member() -> Member {
        Member { client_id: "app-i-0".to_owned(), group_instance_id: None }
    }

    #[test]
    fn the_defaults_pass_their_own_checks() {
        check(&settings(&[])).expect("the defaults are consistent");
    }

    #[test]
    fn what_the_guarantee_rests_on_is_refused_by_name_with_the_reason() {
        for (names, reason) in REFUSED {
            for name in *names {
                for prefix in ["", "consumer.", "producer."] {
                    let full = format!("{prefix}{name}");
                    let error = check(&settings(&[(&full, "1")])).expect_err("the property is the runtime's");
                    assert_eq!(error.kind, KafkaErrorKind::Config);
                    assert!(error.message.contains(&full) && error.message.contains(reason), "{error}");
                }
            }
        }
    }

    #[test]
    fn every_property_that_is_set_for_the_guarantee_is_refused_from_the_user() {
        let settings = settings(&[]);
        let member = Member { group_instance_id: Some("i-0".to_owned()), ..member() };
        let id = TransactionalId("app|i|0".into());
        let consumer_protocol = ClusterSettings { group_protocol: GroupProtocol::Consumer, ..settings.clone() };
        let of_consumer = needed(&consumer_protocol, Role::Consumer(&member));
        for name in of_consumer.keys() {
            assert!(REFUSED.iter().any(|(names, _)| names.contains(&name.as_str())), "{name} is not refused");
        }
        let roles = [
            Role::Consumer(&member),
            Role::Producer(&id),
            Role::Changelog { client_id: "c", isolation: Isolation::ReadCommitted },
            Role::Admin,
        ];
        for role in roles {
            for name in needed(&settings, role).keys() {
                assert!(REFUSED.iter().any(|(names, _)| names.contains(&name.as_str())), "{name} is not refused");
            }
        }
    }

    #[test]
    fn more_requests_in_flight_than_the_broker_remembers_are_refused() {
        check(&settings(&[("max.in.flight", "5")])).expect("five are remembered");
        check(&settings(&[("producer.max.in.flight", "6")])).expect_err("six are not");
        check(&settings(&[("max.in.flight.requests.per.connection", "lots")])).expect_err("not a number");
    }

    #[test]
    fn a_record_may_not_outlive_its_transaction() {
        check(&settings(&[("message.timeout.ms", "10000")])).expect("as long as the transaction");
        check(&settings(&[("message.timeout.ms", "10001")])).expect_err("longer");
        check(&settings(&[("delivery.timeout.ms", "0")])).expect_err("0 means for ever");
    }

    #[test]
    fn time_outs_nest() {
        let broken = |change: fn(&mut ClusterSettings)| {
            let mut settings = settings(&[]);
            change(&mut settings);
            check(&settings).expect_err("the time-outs do not nest").message
        };
        assert!(broken(|it| it.heartbeat_interval = Duration::from_secs(3)).contains("heartbeat"));
        assert!(broken(|it| it.session_timeout = Duration::from_mins(10)).contains("session"));
        assert!(broken(|it| it.transaction_timeout = it.max_poll_interval).contains("transaction"));
        assert!(broken(|it| it.transaction_timeout = Duration::from_millis(10)).contains("under 1 s"));
    }

    #[test]
    fn the_session_is_the_brokers_where_the_broker_assigns() {
        let mut settings = settings(&[]);
        settings.group_protocol = GroupProtocol::Consumer;
        settings.max_poll_interval = Duration::from_secs(5); // under our session, which does not count
        settings.transaction_timeout = Duration::from_secs(4);
        check(&settings).expect("nothing of the broker's is set");
        let member = member();
        let consumer = resolve(&settings, Role::Consumer(&member));
        assert_eq!((&*consumer["group.protocol"], &*consumer["group.remote.assignor"]), ("consumer", "range"));
        for name in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
            assert!(!consumer.contains_key(name), "{name}");
        }
        settings.session_timeout = Duration::from_secs(4);
        let refused = check(&settings).expect_err("a setting that would count for nothing").message;
        assert!(refused.contains("group.consumer.session.timeout.ms") && refused.contains("remove"), "{refused}");
    }

    #[test]
    fn a_prefix_addresses_one_kind_and_wins_over_none() {
        let settings = settings(&[
            ("security.protocol", "ssl"),
            ("linger.ms", "7"),
            ("producer.linger.ms", "9"),
            ("consumer.fetch.wait.max.ms", "99"),
        ]);
        let (member, id) = (member(), TransactionalId("t".into()));
        let consumer = resolve(&settings, Role::Consumer(&member));
        let producer = resolve(&settings, Role::Producer(&id));
        assert_eq!(consumer["security.protocol"], "ssl");
        assert_eq!(producer["security.protocol"], "ssl");
        assert_eq!(consumer["linger.ms"], "7");
        assert_eq!(producer["linger.ms"], "9");
        assert_eq!(consumer["fetch.wait.max.ms"], "99");
        assert!(!producer.contains_key("fetch.wait.max.ms"));
        assert!(!resolve(&settings, Role::Admin).contains_key("producer.linger.ms"));
    }

    #[test]
    fn the_guarantee_wins_over_everything() {
        let (member, id) = (member(), TransactionalId("app|i|0".into()));
        let settings = settings(&[]);
        let consumer = resolve(&settings, Role::Consumer(&member));
        assert_eq!(consumer["isolation.level"], "read_committed");
        assert_eq!(consumer["auto.offset.reset"], "error");
        assert_eq!(consumer["partition.assignment.strategy"], "range");
        assert_eq!(consumer["enable.auto.commit"], "false");
        assert!(!consumer.contains_key("group.instance.id"));
        let producer = resolve(&settings, Role::Producer(&id));
        assert_eq!(producer["transactional.id"], "app|i|0");
        assert_eq!(producer["enable.idempotence"], "true");
        assert_eq!(producer["partitioner"], "murmur2_random");
    }
}
