//! A cluster and a disk in memory, behind the runtime's seams, for tests that drive the real loop on one thread.
//!
//! [`FakeCluster`] is what the test holds: it makes topics and workers' connections, writes input, reads what is
//! visible, and says what goes wrong and when. [`FakeKafka`] is what a worker holds: the runtime's `Kafka`.
//! [`FakeDirectory`] is a worker's disk. Nothing here reads a clock, sleeps or draws a random number: the order of the
//! calls decides everything, so a schedule that fails once fails always.
//!
//! A crash is what happens to a worker that is no longer called: [`FakeCluster::crash`] cuts its connections,
//! [`FakeDirectory::crash`] takes away the newest batches, and the test drops the thread. The cluster does not
//! notice by itself: the test ends its session, and the timeout of its transaction, when it likes.

mod brokers;
mod changelog;
mod clock;
pub mod cluster;
mod consumer;
pub mod group;
pub mod log;
mod plan;
mod producer;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processor_core::ids::{Offset, Partition, Timestamp, TopicPartition};
use processor_runtime::kafka::{
    Isolation, Kafka, KafkaError, KafkaErrorKind, Member, TransactionalId, TxnError, TxnErrorKind,
};

use cluster::Model;
use consumer::committed_from;
use log::{Entry, Log, Written};

pub use changelog::FakeChangelog;
pub use clock::FakeClock;
pub use cluster::{Fault, Happened};
pub use consumer::{FakeConsumer, FakeMetadata, FakeRecord};
pub use plan::{initialised, thread_plan};
pub use producer::FakeProducer;
pub use state::{Entries, FakeDirectory, FakeTask};

/// The cluster as the test sees it. Clones are the same cluster.
#[derive(Clone, Debug, Default)]
pub struct FakeCluster {
    model: Shared,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Model>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeCluster {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, offsets are taken without a look at the transaction that they should belong to
    /// (`transaction.partition.verification.enable=false`).
    pub fn verify_nothing(&self) {
        self.model.lock().lenient = true;
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        self.model.lock().create_topic(topic, partitions);
    }

    /// The connection of a worker. One that crashed gets a new one by asking again.
    pub fn worker(&self, name: &str) -> FakeKafka {
        let name: Arc<str> = Arc::from(name);
        let life = self.model.lock().crashes.get(&name).copied().unwrap_or(0);
        FakeKafka { handle: Handle { model: self.model.clone(), worker: name, life } }
    }

    /// Writes a record outside transactions; returns its offset.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn produce(&self, topic: &str, partition: i32, key: &[u8], value: &[u8], timestamp: i64) -> i64 {
        let written = Written {
            key: Some(key.to_vec()),
            value: Some(value.to_vec()),
            timestamp: Timestamp::new(timestamp),
            headers: Vec::new(),
        };
        self.write(topic, partition, written)
    }

    /// As [`produce`](Self::produce), any record.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn write(&self, topic: &str, partition: i32, written: Written) -> i64 {
        let partition = TopicPartition::new(topic, Partition::new(partition));
        self.model.lock().log_mut(&partition).expect("the partition exists").append(written, None)
    }

    /// Copies a partition of another cluster, as it is.
    ///
    /// # Panics
    /// If one of them has no such partition.
    pub fn copy_partition(&self, from: &Self, partition: &TopicPartition) {
        let log = from.model.lock().log(partition).expect("the partition exists").clone();
        *self.model.lock().log_mut(partition).expect("the partition exists") = log;
    }

    /// From now on, what workers write to a topic goes to a new one of this name, and nobody reads it.
    ///
    /// # Panics
    /// If there is one of this name.
    pub fn divert(&self, topic: &str, into: &str) {
        self.model.lock().divert(topic, into);
    }

    /// How many partitions a topic has; none, if there is no such topic.
    pub fn partitions(&self, topic: &str) -> i32 {
        self.model.lock().partitions(topic)
    }

    /// What a `read_committed` reader sees of a topic now: partition, offset, record.
    ///
    /// # Panics
    /// If there is no such topic.
    pub fn read_committed(&self, topic: &str) -> Vec<(Partition, Offset, Written)> {
        let model = self.model.lock();
        assert!(model.partitions(topic) > 0, "there is no topic '{topic}', but {}", model.topics().join(", "));
        let mut records = Vec::new();
        for partition in model.partitions_of(topic) {
            let log = model.log(&partition).expect("it was just listed");
            let visible = committed_from(log, log.start());
            let owned =
                |(offset, written): (i64, &Written)| (partition.partition, Offset::new(offset), written.clone());
            records.extend(visible.map(owned));
        }
        records
    }

    /// All that stands in a partition, with offsets.
    pub fn entries(&self, topic: &str, partition: i32) -> Vec<(i64, Entry)> {
        self.with_log(topic, partition, |log| {
            log.from(log.start()).map(|(offset, entry)| (offset, entry.clone())).collect()
        })
    }

    /// As [`entries`](Self::entries).
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn entries_of(&self, partition: &TopicPartition) -> Vec<(i64, Entry)> {
        self.entries(&partition.topic, partition.partition.get())
    }

    /// Whether there is such an entry in a partition, from an offset on.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn any_from(&self, partition: &TopicPartition, from: i64, is_it: impl Fn(&Entry) -> bool) -> bool {
        let model = self.model.lock();
        let log = model.log(partition).expect("the partition exists");
        log.from(from).any(|(_, entry)| is_it(entry))
    }

    /// The offset behind the last entry of a partition.
    pub fn high_watermark(&self, topic: &str, partition: i32) -> i64 {
        self.with_log(topic, partition, Log::high_watermark)
    }

    /// The offset up to which no transaction is open in a partition.
    pub fn last_stable_offset(&self, topic: &str, partition: i32) -> i64 {
        self.with_log(topic, partition, Log::last_stable_offset)
    }

    fn with_log<T>(&self, topic: &str, partition: i32, look: impl FnOnce(&Log) -> T) -> T {
        let partition = TopicPartition::new(topic, Partition::new(partition));
        look(self.model.lock().log(&partition).expect("the partition exists"))
    }

    /// The committed offsets of the group, with their metadata.
    pub fn committed(&self) -> BTreeMap<TopicPartition, (Offset, String)> {
        self.model.lock().group.all_committed().clone()
    }

    /// The transactional ids whose transaction is open, or decided and not through.
    pub fn open_transactions(&self) -> Vec<TransactionalId> {
        self.model.lock().open_transactions()
    }

    /// The partitions in which the open transaction of an id has written.
    pub fn written_in_transaction(&self, id: &TransactionalId) -> Vec<TopicPartition> {
        self.model.lock().partitions_written(id)
    }

    /// How often a transactional id was initialised, or timed out: each time takes an epoch.
    ///
    /// # Panics
    /// If it never was.
    pub fn epoch(&self, id: &TransactionalId) -> i32 {
        self.model.lock().epoch(id)
    }

    /// Whether a client knows what it owns now, and does not only believe that it owns what it was given up for.
    pub fn is_up_to_date(&self, client_id: &str) -> bool {
        self.model.lock().group.is_up_to_date(client_id)
    }

    /// The client ids of the group's members.
    pub fn members(&self) -> Vec<String> {
        self.model.lock().group.client_ids()
    }

    /// Something goes wrong, once, at the next call it fits, of whichever producer. Scripted faults of the same call
    /// strike in the order they were asked for.
    pub fn script(&self, fault: Fault) {
        self.model.lock().script(None, fault);
    }

    /// As [`script`](Self::script), for the producers of the thread with this id.
    pub fn script_for(&self, id: &TransactionalId, fault: Fault) {
        self.model.lock().script(Some(id.of_both()), fault);
    }

    /// How many scripted faults have not struck yet.
    pub fn faults_left(&self) -> usize {
        self.model.lock().scripted()
    }

    /// What has happened so far.
    pub fn happened(&self) -> Happened {
        let model = self.model.lock();
        Happened { rebalances: model.group.generations(), ..model.happened.clone() }
    }

    /// From now on, questions are answered so many polls after they were asked, as things were when they were asked.
    pub fn delay_answers(&self, polls: usize) {
        self.delay_answers_between(polls, polls);
    }

    /// As [`delay_answers`](Self::delay_answers), each question's by another number of polls.
    pub fn delay_answers_between(&self, polls_min: usize, polls_max: usize) {
        let mut model = self.model.lock();
        (model.answer_delay_min, model.answer_delay) = (polls_min, polls_max);
    }

    /// Ends the session of a client: it is no longer a member, and finds out at its next poll or `send_offsets`.
    pub fn expire_session(&self, client_id: &str) {
        let mut model = self.model.lock();
        for member in model.group.members_of(client_id) {
            model.group.remove(&member);
        }
    }

    /// Ends the session of a client, which notices and then does nothing any more, as librdkafka can when it has lost its
    /// last broker. Only a new client helps.
    pub fn hang_member(&self, client_id: &str) {
        self.model.lock().hanging.insert(client_id.to_owned());
        self.expire_session(client_id);
    }

    /// The client goes through its next rebalance behind the application's back: it has a place in the new generation
    /// so many polls before it tells that the old one is over. librdkafka can do so where an assignment waits to be served.
    pub fn overtake(&self, client_id: &str, polls: u32) {
        self.model.lock().overtaken.insert(client_id.to_owned(), polls);
    }

    /// Makes all members come back, as when partitions were added.
    pub fn rebalance(&self) {
        self.model.lock().group.begin_rebalance();
    }

    /// `transaction.timeout.ms` of an id is over: its open transaction is aborted, its producer fenced. Says whether it
    /// had one.
    pub fn time_out_transaction(&self, id: &TransactionalId) -> bool {
        self.model.lock().time_out(id)
    }

    /// Ends what hangs of an id in the group's partition, as a person does with `kafka-transactions.sh abort`.
    pub fn abort_hanging(&self, id: &TransactionalId) {
        self.model.lock().abort_hanging(id);
    }

    /// Writes the markers that [`Fault::CommitHoldsMarkers`] has held back.
    pub fn release_markers(&self) {
        self.model.lock().release_markers();
    }

    /// Writes one of them, the so-manieth: they come in any order.
    pub fn release_marker(&self, nth: usize) {
        self.model.lock().release_marker(nth);
    }

    /// A broker is away, until [`elect`](Self::elect): the one before is back, if there was one. `decides`: it has decided
    /// the ends of transactions that it is asked for and does not answer.
    pub fn lose_broker(&self, broker: usize, decides: bool) {
        let mut model = self.model.lock();
        model.happened.brokers_lost += 1;
        model.brokers.lose(broker, decides);
    }

    /// Somebody leads every partition, and coordinates every transaction and the group.
    pub fn elect(&self) {
        self.model.lock().brokers.elect();
    }

    /// Whether a broker is away.
    pub fn lacks_a_broker(&self) -> bool {
        self.model.lock().brokers.is_any_away()
    }

    /// Lets copies of requests arrive that faults have left under way; returns how many changed something.
    pub fn deliver_late_requests(&self) -> usize {
        self.model.lock().deliver_late()
    }

    /// Retention: forgets what is before an offset, up to the last stable one.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let partition = TopicPartition::new(topic, Partition::new(partition));
        self.model.lock().log_mut(&partition).expect("the partition exists").delete_before(before);
    }

    /// Forgets every committed offset of the group.
    pub fn forget_offsets(&self) {
        self.model.lock().group.forget_offsets();
    }

    /// Commits an offset as a person does with `kafka-consumer-groups --reset-offsets`.
    pub fn set_offset(&self, topic: &str, partition: i32, offset: i64) {
        let partition = TopicPartition::new(topic, Partition::new(partition));
        self.model.lock().commit(partition, Offset::new(offset));
    }

    /// A worker has died: every client it made is of no use from now on. What it left in the cluster stays.
    pub fn crash(&self, worker: &str) {
        *self.model.lock().crashes.entry(Arc::from(worker)).or_default() += 1;
    }
}

/// The cluster as a worker sees it.
#[derive(Clone, Debug)]
pub struct FakeKafka {
    handle: Handle,
}

impl Kafka for FakeKafka {
    type Consumer = FakeConsumer;
    type Producer = FakeProducer;
    type Changelog = FakeChangelog;

    fn consumer(&self, member: &Member, inputs: &[Arc<str>]) -> Result<FakeConsumer, KafkaError> {
        self.handle.alive()?;
        Ok(FakeConsumer::new(self.handle.clone(), member.clone(), inputs.to_vec()))
    }

    fn producer(&self, id: &TransactionalId, topics: &[Arc<str>]) -> Result<FakeProducer, KafkaError> {
        self.handle.alive()?;
        Ok(FakeProducer::new(self.handle.clone(), id.clone(), topics.to_vec()))
    }

    fn changelog(&self, _client_id: &str, isolation: Isolation) -> Result<FakeChangelog, KafkaError> {
        self.handle.alive()?;
        Ok(FakeChangelog::new(self.handle.clone(), isolation))
    }
}

/// The way of one life of a worker to the cluster.
#[derive(Clone, Debug)]
struct Handle {
    model: Shared,
    worker: Arc<str>,
    life: u64,
}

impl Handle {
    /// The model, while the worker has not crashed.
    fn alive(&self) -> Result<Shared, KafkaError> {
        let crashes = self.model.lock().crashes.get(&self.worker).copied().unwrap_or(0);
        if crashes == self.life {
            return Ok(self.model.clone());
        }
        Err(kafka_error(KafkaErrorKind::Fatal, format!("worker {} has crashed; drop its clients", self.worker)))
    }

    fn alive_txn(&self, call: &'static str) -> Result<Shared, TxnError> {
        self.alive().map_err(|error| TxnError {
            kind: TxnErrorKind::Fatal,
            call,
            code: "CRASHED".to_owned(),
            message: error.message,
        })
    }
}

fn kafka_error(kind: KafkaErrorKind, message: String) -> KafkaError {
    KafkaError { kind, message }
}
