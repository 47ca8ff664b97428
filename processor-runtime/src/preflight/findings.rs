//! From facts to findings: a pure function, one rule for each kind of trouble.

use std::fmt;
use std::time::Duration;

use super::facts::{ClusterFacts, IN_SYNC, TopicFacts, TopicRole, UNCLEAN};
use crate::kafka::cluster::GroupProtocol;
use crate::topics::{TIMESTAMP_BOUND, VERIFICATION, verifies_transactions};

/// The replicas of a partition that survive the loss of one broker while another is being serviced.
const REPLICAS_MIN: usize = 3;
/// The replicas that must have a record before it counts as written.
const IN_SYNC_MIN: usize = 2;

/// Something about the cluster that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is so, and where.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What mends it; empty where nothing needs to be.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot work: the start is refused.
    Broken,
    /// It can lose records or stop the application: warned of, and refused with `strict`.
    Risk,
    /// It is good to know.
    Note,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

type Rule = fn(&ClusterFacts) -> Option<Finding>;

const RULES: [Rule; 10] = [
    transaction_timeout_above_the_brokers,
    few_replicas,
    few_in_sync_replicas,
    no_spare_replica,
    unclean_leader_election,
    unverified_transactions,
    changelog_timestamps,
    unreadable,
    offsets_retention,
    brokers_session,
];

/// All findings, the worst first.
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    RULES.iter().filter_map(|rule| rule(facts)).collect()
}

fn transaction_timeout_above_the_brokers(facts: &ClusterFacts) -> Option<Finding> {
    const SETTING: &str = "transaction.max.timeout.ms";
    let allowed = broker_numbers(facts, SETTING).min()?;
    let ours = facts.transaction_timeout.as_millis();
    (ours > u128::from(allowed)).then(|| Finding {
        severity: Severity::Broken,
        what: format!("transaction.timeout is {ours} ms and the brokers allow {allowed} ms ({SETTING})"),
        why: "no transaction could begin",
        remedy: format!(
            "lower transaction.timeout to {}, or raise {SETTING} in server.properties of every broker and restart them",
            humantime::format_duration(Duration::from_millis(allowed))
        ),
    })
}

fn few_replicas(facts: &ClusterFacts) -> Option<Finding> {
    let few = select(facts, |topic| topic.replicas.filter(|replicas| *replicas < REPLICAS_MIN));
    let plan = format!(
        "give every partition three replicas: kafka-reassign-partitions --bootstrap-server {} --topics-to-move-json-file <topics> \
         --broker-list <ids> --generate, add replicas to its plan, then --reassignment-json-file <plan> --execute",
        facts.bootstrap_servers
    );
    let more =
        if (1..REPLICAS_MIN).contains(&facts.brokers.len()) { "add brokers until there are three, then " } else { "" };
    risk(
        &few,
        "replication factor under 3",
        "when a broker is lost, acknowledged records can be lost with it",
        format!(
            "{more}{}",
            made_or_not(
                &few,
                plan,
                "default.replication.factor, offsets.topic.replication.factor and transaction.state.log.replication.factor",
                "3"
            )
        ),
    )
}

fn few_in_sync_replicas(facts: &ClusterFacts) -> Option<Finding> {
    let few = select(facts, |topic| in_sync(topic).filter(|in_sync| *in_sync < IN_SYNC_MIN));
    let alone = few.iter().any(|(topic, _)| topic.replicas.is_some_and(|replicas| replicas < IN_SYNC_MIN));
    let first = if alone { "when they have three replicas, " } else { "" };
    let command = alter(facts, &few, "min.insync.replicas=2");
    risk(
        &few,
        "min.insync.replicas under 2",
        "a record counts as written while a single broker has it",
        format!("{first}{}", made_or_not(&few, command, "min.insync.replicas and transaction.state.log.min.isr", "2")),
    )
}

fn no_spare_replica(facts: &ClusterFacts) -> Option<Finding> {
    let tight = |topic: &TopicFacts| {
        let in_sync = in_sync(topic).filter(|in_sync| *in_sync >= IN_SYNC_MIN)?;
        topic.replicas.filter(|replicas| topic.is_made && *replicas <= in_sync)
    };
    let tight = select(facts, tight);
    let command = alter(facts, &tight, "min.insync.replicas=<replication factor - 1>");
    risk(&tight, "as many in-sync replicas demanded as there are", "the stop of one broker halts all writing", command)
}

fn unclean_leader_election(facts: &ClusterFacts) -> Option<Finding> {
    let unclean = select(facts, |topic| config(topic, UNCLEAN).filter(|value| *value == "true"));
    let command = alter(facts, &unclean, "unclean.leader.election.enable=false");
    risk(
        &unclean,
        UNCLEAN,
        "a replica that lags may become leader, and acknowledged records are gone",
        made_or_not(&unclean, command, UNCLEAN, "false"),
    )
}

fn unverified_transactions(facts: &ClusterFacts) -> Option<Finding> {
    let silent = facts.brokers.iter().filter(|broker| !verifies_transactions(broker));
    let silent: Vec<String> = silent.map(|broker| broker.id.to_string()).collect();
    if silent.is_empty() && !facts.brokers.is_empty() {
        return None;
    }
    let which = if silent.is_empty() { String::new() } else { format!(" {}", silent.join(", ")) };
    Some(Finding {
        severity: Severity::Risk,
        what: format!("the brokers{which} do not say that {VERIFICATION}=true"),
        why: "a record of a dead producer that arrives late could still be taken, so the guarantee is weaker here (fence \
              transactions keep late offsets out)",
        remedy: format!(
            "set it to true (the default since Kafka 3.6) and allow this application to see it: kafka-acls --bootstrap-server {} --add \
             --allow-principal User:<application> --operation DescribeConfigs --cluster",
            facts.bootstrap_servers
        ),
    })
}

/// Changelog records carry stream time: a topic that stamps them anew loses it, and one that takes no timestamps of the
/// future refuses the state that follows from one input record with such a timestamp, which stops the task for good.
fn changelog_timestamps(facts: &ClusterFacts) -> Option<Finding> {
    let is_bound = |value: &&str| value.parse::<i64>().is_ok_and(|bound| bound < i64::MAX);
    let wrong = select(facts, |topic| {
        let stamps_anew = config(topic, "message.timestamp.type").filter(|value| *value != "CreateTime");
        let wrong = stamps_anew.or_else(|| config(topic, TIMESTAMP_BOUND).filter(is_bound));
        wrong.filter(|_| topic.role == TopicRole::Changelog)
    });
    let command = alter(facts, &wrong, &format!("message.timestamp.type=CreateTime,{TIMESTAMP_BOUND}={}", i64::MAX));
    risk(
        &wrong,
        "changelogs that do not keep every timestamp",
        "state would lose its stream time, or an input record of the future would stop its task",
        command,
    )
}

fn unreadable(facts: &ClusterFacts) -> Option<Finding> {
    let hidden = |topic: &&TopicFacts| topic.replicas.is_none() || topic.configs.is_none();
    let names: Vec<&str> = facts.topics.iter().filter(hidden).map(|topic| &*topic.name).collect();
    (!names.is_empty()).then(|| Finding {
        severity: Severity::Note,
        what: format!("not checked, because their settings cannot be read: {}", names.join(", ")),
        why: "the application has no right to Describe and DescribeConfigs them, or the broker did not answer",
        remedy: format!(
            "kafka-acls --bootstrap-server {} --add --allow-principal User:<application> --operation Describe --operation DescribeConfigs \
             --topic <name>",
            facts.bootstrap_servers
        ),
    })
}

fn offsets_retention(facts: &ClusterFacts) -> Option<Finding> {
    let minutes = broker_numbers(facts, "offsets.retention.minutes").min()?;
    let kept = humantime::format_duration(Duration::from_secs(minutes.saturating_mul(60)));
    Some(Finding {
        severity: Severity::Note,
        what: format!(
            "the brokers keep the offsets of a stopped application for {kept} (offsets.retention.minutes={minutes})"
        ),
        why: "after a longer pause state without its offset is refused, not guessed",
        remedy: String::new(),
    })
}

/// Where the broker assigns, nobody else says how long a dead worker's partitions wait.
fn brokers_session(facts: &ClusterFacts) -> Option<Finding> {
    const SETTING: &str = "group.consumer.session.timeout.ms";
    let longest = broker_numbers(facts, SETTING).max().filter(|_| facts.group_protocol == GroupProtocol::Consumer)?;
    let session = humantime::format_duration(Duration::from_millis(longest));
    Some(Finding {
        severity: Severity::Note,
        what: format!("the partitions of a worker that dies wait for {session} ({SETTING}={longest})"),
        why: "group.protocol is consumer, and under it the session is the brokers' setting",
        remedy: format!(
            "for this group alone: kafka-configs --bootstrap-server {} --alter --entity-type groups --entity-name <application.id> \
             --add-config consumer.session.timeout.ms=<ms>",
            facts.bootstrap_servers
        ),
    })
}

/// Topics, each with what is wrong about it.
type Selected<'a> = Vec<(&'a TopicFacts, String)>;

fn select<'a, T: ToString>(facts: &'a ClusterFacts, wrong: impl Fn(&'a TopicFacts) -> Option<T>) -> Selected<'a> {
    facts.topics.iter().filter_map(|topic| Some((topic, wrong(topic)?.to_string()))).collect()
}

/// A risk that these topics share; none without a topic.
fn risk(topics: &Selected<'_>, what: &str, why: &'static str, remedy: String) -> Option<Finding> {
    let names: Vec<String> = topics.iter().map(|(topic, value)| format!("{} ({value})", topic.name)).collect();
    let what = format!("{what}: {}", names.join(", "));
    (!topics.is_empty()).then_some(Finding { severity: Severity::Risk, what, why, remedy })
}

fn config<'a>(topic: &'a TopicFacts, name: &str) -> Option<&'a str> {
    topic.configs.as_ref()?.get(name).map(String::as_str)
}

fn in_sync(topic: &TopicFacts) -> Option<usize> {
    config(topic, IN_SYNC)?.parse().ok()
}

fn broker_numbers(facts: &ClusterFacts, name: &str) -> impl Iterator<Item = u64> {
    facts.brokers.iter().filter_map(move |broker| broker.configs.as_ref()?.get(name)?.parse().ok())
}

/// The command that changes a setting of topics that are there.
fn alter(facts: &ClusterFacts, topics: &Selected<'_>, change: &str) -> String {
    let made: Vec<&str> = topics.iter().filter(|(topic, _)| topic.is_made).map(|(topic, _)| &*topic.name).collect();
    let command = |name: &str| {
        format!(
            "kafka-configs --bootstrap-server {} --alter --entity-type topics --entity-name {name} --add-config {change}",
            facts.bootstrap_servers
        )
    };
    match made.as_slice() {
        [one] => command(one),
        several => format!("for topic in {}; do {}; done", several.join(" "), command("$topic")),
    }
}

/// What to do where the topics are there, and what before others are made.
fn made_or_not(topics: &Selected<'_>, command: String, setting: &str, value: &str) -> String {
    let (made, unmade): (Vec<_>, Vec<_>) = topics.iter().partition(|(topic, _)| topic.is_made);
    let unmade: Vec<&str> = unmade.iter().map(|(topic, _)| &*topic.name).collect();
    let before = format!("before {} is made, set {setting} to {value} in server.properties", unmade.join(" or "));
    match (made.is_empty(), unmade.is_empty()) {
        (_, true) => command,
        (true, false) => before,
        (false, false) => format!("{command}; {before}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kafka::admin::BrokerInfo;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn topic(name: &str, role: TopicRole) -> TopicFacts {
        let configs = map(&[
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("message.timestamp.type", "CreateTime"),
            (TIMESTAMP_BOUND, "9223372036854775807"),
        ]);
        TopicFacts { name: name.into(), role, is_made: true, replicas: Some(3), configs: Some(configs) }
    }

    fn broker(id: i32) -> BrokerInfo {
        let configs = map(&[
            (VERIFICATION, "true"),
            ("transaction.max.timeout.ms", "900000"),
            ("offsets.retention.minutes", "10080"),
            ("group.consumer.session.timeout.ms", "45000"),
        ]);
        BrokerInfo { id, configs: Some(configs) }
    }

    /// A cluster as it should be.
    fn sound() -> ClusterFacts {
        let topics = [
            ("in", TopicRole::Input),
            ("out", TopicRole::Output),
            ("app-s-changelog", TopicRole::Changelog),
            ("__consumer_offsets", TopicRole::Internal),
            ("__transaction_state", TopicRole::Internal),
        ];
        ClusterFacts {
            bootstrap_servers: "host:9092".to_owned(),
            transaction_timeout: Duration::from_secs(10),
            group_protocol: GroupProtocol::Classic,
            topics: topics.into_iter().map(|(name, role)| topic(name, role)).collect(),
            brokers: (1..=3).map(broker).collect(),
        }
    }

    fn set(topic: &mut TopicFacts, name: &str, value: &str) {
        topic.configs.get_or_insert_default().insert(name.to_owned(), value.to_owned());
    }

    /// What is found beside the notes.
    fn found(change: impl FnOnce(&mut ClusterFacts)) -> Vec<Finding> {
        let mut facts = sound();
        change(&mut facts);
        findings(&facts).into_iter().filter(|finding| finding.severity != Severity::Note).collect()
    }

    /// The one finding, which is a risk that holds these words.
    fn assert_risk(found: &[Finding], words: &[&str]) {
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].severity, Severity::Risk);
        for word in words {
            assert!(found[0].to_string().contains(word), "'{word}' is not in: {}", found[0]);
        }
    }

    #[test]
    fn a_sound_cluster_has_only_the_retention_of_offsets_to_tell() {
        let findings = findings(&sound());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Note);
        assert!(findings[0].what.contains("7days (offsets.retention.minutes=10080)"), "{}", findings[0]);
    }

    #[test]
    fn the_brokers_session_is_told_where_it_counts() {
        let findings = findings(&ClusterFacts { group_protocol: GroupProtocol::Consumer, ..sound() });
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert_eq!(findings[1].severity, Severity::Note);
        assert!(findings[1].to_string().contains("wait for 45s"), "{}", findings[1]);
    }

    #[test]
    fn each_risk_is_one_finding_with_its_topics_and_the_command_that_mends_it() {
        let few = found(|facts| facts.topics[..2].iter_mut().for_each(|topic| topic.replicas = Some(2)));
        let tight = few.iter().filter(|finding| finding.what.starts_with("as many")).count();
        assert_eq!((few.len(), tight), (2, 1), "two replicas are few, and both must be in sync: {few:?}");
        assert_risk(&few[..1], &["under 3: in (2), out (2)", "kafka-reassign-partitions --bootstrap-server host:9092"]);

        let in_sync =
            found(|facts| facts.topics[..2].iter_mut().for_each(|topic| set(topic, "min.insync.replicas", "1")));
        let command = "for topic in in out; do kafka-configs --bootstrap-server host:9092 --alter --entity-type topics \
                       --entity-name $topic --add-config min.insync.replicas=2; done";
        assert_risk(&in_sync, &["under 2: in (1), out (1)", command]);

        let tight = found(|facts| set(&mut facts.topics[1], "min.insync.replicas", "3"));
        assert_risk(&tight, &["out (3)", "halts all writing", "--entity-name out"]);

        let unclean = found(|facts| set(&mut facts.topics[0], "unclean.leader.election.enable", "true"));
        assert_risk(&unclean, &["in (true)", "--entity-name in --add-config unclean.leader.election.enable=false"]);

        let stamped = found(|facts| set(&mut facts.topics[2], "message.timestamp.type", "LogAppendTime"));
        assert_risk(&stamped, &["app-s-changelog (LogAppendTime)", "message.timestamp.type=CreateTime"]);
        let bound = found(|facts| set(&mut facts.topics[2], TIMESTAMP_BOUND, "3600000"));
        assert_risk(&bound, &["app-s-changelog (3600000)", "after.max.ms=9223372036854775807"]);
        assert_eq!(found(|facts| set(&mut facts.topics[0], TIMESTAMP_BOUND, "3600000")), [], "an input may");

        let unverified = found(|facts| facts.brokers[1].configs = Some(map(&[(VERIFICATION, "false")])));
        assert_risk(&unverified, &["the brokers 2 do not say", "kafka-acls"]);
        assert_risk(&found(|facts| facts.brokers.clear()), &["the brokers do not say", "kafka-acls"]);
    }

    #[test]
    fn a_transaction_time_out_that_brokers_refuse_is_broken() {
        let found = found(|facts| facts.transaction_timeout = Duration::from_secs(901));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Broken);
        assert!(found[0].to_string().contains("901000 ms and the brokers allow 900000 ms"), "{}", found[0]);
    }

    /// On one broker all topics have one replica: one line for the replicas, one for those in sync.
    #[test]
    fn a_single_node_gives_two_lines() {
        let found = found(|facts| {
            facts.brokers.truncate(1);
            for topic in &mut facts.topics {
                topic.replicas = Some(1);
                set(topic, "min.insync.replicas", "1");
            }
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert_risk(
            &found[..1],
            &["in (1), out (1), app-s-changelog (1), __consumer_offsets (1)", "add brokers until"],
        );
        assert_risk(&found[1..], &["when they have three replicas, for topic in in out"]);
    }

    #[test]
    fn what_may_not_be_read_is_a_note_and_no_risk() {
        let mut facts = sound();
        facts.topics[0].configs = None;
        facts.topics[3].configs = None;
        facts.topics[3].replicas = None;
        let findings = findings(&facts);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:?}");
        let text = findings[0].to_string();
        assert!(text.contains("in, __consumer_offsets") && text.contains("--operation DescribeConfigs"), "{text}");
    }

    #[test]
    fn a_topic_that_kafka_has_yet_to_make_is_judged_by_the_brokers_settings() {
        let found = found(|facts| {
            facts.topics[4].is_made = false;
            facts.topics[4].replicas = Some(1);
        });
        assert_risk(&found, &["__transaction_state (1)", "before __transaction_state is made", "server.properties"]);
        assert!(!found[0].remedy.contains("kafka-reassign"), "{}", found[0]);
    }
}
