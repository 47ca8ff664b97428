//! A task with several inputs merges them by time, also where one of them arrives late (`max.task.idle`): in the real loop
//! on a cluster in memory, and on a real Kafka.

use std::sync::Arc;
use std::time::Duration;

use processor_core::prelude::*;
use processor_integration_tests::broker;
use processor_integration_tests::client::{Observer, Pace, PacedProducer, create_topic};
use processor_integration_tests::in_process::{Application, await_outputs};
use processor_runtime::config::Config;
use processor_runtime::kafka::{
    DeliveryTag, Kafka, ProducerRecord, RecordHeaders, RecordNumber, TransactionalId, TransactionalProducer as _,
};
use processor_runtime::stream_thread::StreamThread;
use processor_simulator::fake::{FakeClock, FakeCluster, FakeDirectory, FakeKafka, initialised, thread_plan};

/// Reads two topics and writes each record, its timestamp unchanged, to the same partition of one.
fn merging(left: &str, right: &str, out: &str) -> Topology {
    let mut topology = Topology::builder();
    let codecs = || (Utf8, JavaLong);
    let source = topology.source("both", [left, right], codecs());
    source.map_values(|value: i64| value).named("same").sink("out", out, codecs()).to_source_partition();
    topology.build().expect("it is right")
}

/// The topology on one worker of a cluster in memory.
struct Stage {
    cluster: FakeCluster,
    clock: FakeClock,
    thread: StreamThread<FakeKafka, FakeDirectory, FakeClock>,
}

impl Stage {
    fn new(max_task_idle: Duration) -> Self {
        let topology = merging("left", "right", "out").for_application("app").expect("it is right");
        let cluster = FakeCluster::new();
        for topic in ["left", "right", "out"] {
            cluster.create_topic(topic, 1);
        }
        let mut plan = thread_plan("w", topology, 1);
        plan.max_task_idle = max_task_idle;
        let kafka = Arc::new(cluster.worker("w"));
        let clock = FakeClock::ticking(Duration::from_micros(10));
        let producers = initialised(&plan, &kafka, &clock);
        let directory = Arc::new(FakeDirectory::new());
        let thread = StreamThread::new(plan, kafka, directory, clock.clone(), producers);
        Self { cluster, clock, thread: thread.expect("the worker lives") }
    }

    fn produce(&self, topic: &str, timestamps: impl Iterator<Item = i64>) {
        for timestamp in timestamps {
            self.cluster.produce(topic, 0, b"k", &timestamp.to_be_bytes(), timestamp);
        }
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.thread.turn().expect("the worker goes on");
        }
    }

    /// The timestamps of what was written, in the order of the log.
    fn written(&self) -> Vec<i64> {
        self.cluster.read_committed("out").iter().map(|(_, _, written)| written.timestamp.get()).collect()
    }

    /// Writes a record of this time to `right` in a transaction, and leaves it open.
    fn begin(&self, timestamp: i64) -> impl FnOnce() + use<> {
        let (id, topics) = (TransactionalId(Arc::from("upstream")), [Arc::from("right")]);
        let mut producer = self.cluster.worker("u").producer(&id, &topics).expect("the worker lives");
        producer.init(Duration::ZERO).expect("nothing is in the way");
        producer.begin().expect("it is ready");
        let record = ProducerRecord {
            topic: processor_core::ids::OutputIndex::new(0),
            partition: processor_core::record::TargetPartition::Exactly(Partition::new(0)),
            timestamp: Timestamp::new(timestamp),
            key: Some(b"k"),
            value: Some(&timestamp.to_be_bytes()),
            headers: RecordHeaders::None,
            tag: DeliveryTag::UNTRACKED,
            number: RecordNumber::NONE,
        };
        producer.send(&record).expect("the log takes it");
        producer.drain(Duration::ZERO).expect("the log took it");
        move || producer.commit(Duration::ZERO).expect("nothing is in the way")
    }
}

const MANY: i64 = 300;

/// The consumer gives the records of one partition after the other, so more of `left` than a batch may have come first.
#[test]
fn records_of_all_inputs_are_merged_by_time() {
    let mut stage = Stage::new(Duration::from_secs(5));
    stage.produce("left", (0..MANY).map(|n| 1_000 + 2 * n));
    stage.produce("right", (0..MANY).map(|n| 1_001 + 2 * n));
    stage.turns(2_000);
    let written = stage.written();
    assert_eq!(written.len(), 2 * MANY as usize);
    assert!(written.is_sorted(), "{written:?}");
}

/// What the test above sees is not there by itself.
#[test]
fn without_the_wait_they_are_not() {
    let mut stage = Stage::new(Duration::ZERO);
    stage.produce("left", (0..MANY).map(|n| 1_000 + 2 * n));
    stage.produce("right", (0..MANY).map(|n| 1_001 + 2 * n));
    stage.turns(2_000);
    let written = stage.written();
    assert_eq!(written.len(), 2 * MANY as usize, "order is all that it costs");
    assert!(!written.is_sorted());
}

#[test]
fn an_input_with_an_open_transaction_is_waited_for_once_and_no_longer_than_said() {
    const IDLE: Duration = Duration::from_secs(5);
    let mut stage = Stage::new(IDLE);
    let commit = stage.begin(1_000);
    stage.produce("left", 1_001..1_044);
    stage.turns(100);
    assert_eq!(stage.written(), [0; 0], "an older record is on its way");
    stage.clock.advance(IDLE);
    stage.turns(1);
    let first = stage.written().len();
    stage.turns(20);
    assert!((1..43).contains(&first), "it takes several batches");
    assert_eq!(
        stage.written(),
        (1_001..1_044).collect::<Vec<_>>(),
        "what was waited for in vain is not waited for again"
    );
    commit();
    stage.turns(100);
    assert_eq!(stage.written().last(), Some(&1_000), "late, and not lost");
}

#[test]
fn an_older_record_that_is_committed_in_time_comes_first() {
    let mut stage = Stage::new(Duration::from_secs(5));
    let commit = stage.begin(1_000);
    stage.produce("left", 1_001..1_004);
    stage.turns(100);
    commit();
    stage.turns(100);
    assert_eq!(stage.written(), [1_000, 1_001, 1_002, 1_003]);
}

/// EO-5: a batch is bounded also where more has been held back than it may have.
#[test]
fn what_was_held_back_is_processed_in_batches() {
    let mut stage = Stage::new(Duration::from_secs(5));
    let commit = stage.begin(900);
    stage.produce("left", 1_000..1_030);
    stage.turns(200);
    commit();
    let before = stage.cluster.committed();
    stage.turns(1);
    assert!(stage.written().len() <= 5, "the first batch has 5 records: {:?}", stage.written());
    assert_eq!(before.len(), 0);
    stage.turns(200);
    assert_eq!(stage.written().len(), 31);
    assert!(stage.written().is_sorted());
}

/// On a real Kafka the records of the inputs come as the brokers send them: at most a mebibyte of one partition, then of
/// the next.
#[test]
fn a_backlog_of_two_topics_is_merged_by_time() {
    const EACH: i64 = 60_000;
    let servers = broker::shared().bootstrap_servers();
    let (left, right, out) = ("merge-left", "merge-right", "merge-out");
    for topic in [left, right, out] {
        create_topic(&servers, topic, 1, &[]).expect("the broker makes topics");
    }
    let now = 1_700_000_000_000;
    for (topic, first) in [(left, now), (right, now + 1)] {
        let mut producer =
            PacedProducer::new(&servers, topic, 1, Pace { rate: None, linger_ms: 5 }).expect("the settings are sound");
        for number in 0..EACH {
            let timestamp = first + 2 * number;
            producer.send("k", &timestamp.to_be_bytes(), timestamp).expect("the broker takes records");
        }
        producer.finish().expect("the broker takes records");
    }
    let directory = broker::test_dir("merge").expect("the target directory can be written");
    let mut config = Config::new("merge", &servers, &directory);
    config.max_task_idle = Duration::from_secs(10);
    let application = Application::start(config, merging(left, right, out));
    let observer = Observer::new(&servers, "merge").expect("the settings are sound");
    await_outputs(&observer, out, 2 * EACH as usize);
    application.stop();
    let logs = observer.read_committed(out).expect("the topic can be read");
    let timestamps: Vec<i64> = logs[0].records.iter().map(|record| record.timestamp).collect();
    assert_eq!(timestamps.len() as i64, 2 * EACH);
    let breaks = timestamps.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert_eq!(breaks, 0, "records that come after a later one");
}
