//! `lab hand-loop`: the moving average as one would write it by hand, exactly once but for what makes it survive.
//!
//! One thread: poll, update a hash map, send the average; about every 100 ms one transaction ends, holding the averages,
//! a changelog record for each key that changed, and the offsets. It uses the same thin clients as the processor, with
//! librdkafka's own queue sizes, and leaves out everything else: no local store, no restore, no rebalance, no retry. So
//! its rate is what Kafka and the clients allow on this machine, and the processor is measured against it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use processor_core::ids::{Offset, OutputIndex, Partition, Timestamp, TopicPartition};
use processor_core::record::{InputRecord, TargetPartition};
use processor_runtime::kafka::cluster::{Cluster, ClusterSettings};
use processor_runtime::kafka::consumer::{ConsumedRecord, Consumer};
use processor_runtime::kafka::producer::Producer;
use processor_runtime::kafka::{
    DeliveryTag, GroupConsumer, GroupEvent, Kafka, Member, OffsetToCommit, PolledRecord, ProducerRecord, Progress,
    RecordHeaders, RecordNumber, TransactionalId, TransactionalProducer,
};

const OUTPUT: OutputIndex = OutputIndex::new(0);
const CHANGELOG: OutputIndex = OutputIndex::new(1);
const POLL_WAIT: Duration = Duration::from_millis(100);
const POLL_RECORDS_MAX: usize = 10_000;
const POLL_BYTES_MAX: usize = 1 << 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What librdkafka has by itself, where the processor asks for less to keep its memory small.
const PROPERTIES: [(&str, &str); 4] = [
    ("consumer.queued.min.messages", "100000"),
    ("consumer.queued.max.messages.kbytes", "65536"),
    ("consumer.max.partition.fetch.bytes", "1048576"),
    ("producer.compression.type", "none"),
];

/// Run the hand-written loop (for `lab bench`).
#[derive(Args, Debug)]
pub struct HandLoopArgs {
    #[arg(long)]
    bootstrap_servers: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    #[arg(long)]
    changelog: String,
    #[arg(long, default_value_t = 10)]
    window: usize,
    /// How long a transaction collects, in milliseconds.
    #[arg(long, default_value_t = 100)]
    transaction_ms: u64,
}

/// Runs `lab hand-loop` until somebody ends the process.
///
/// # Errors
/// Anything at all that goes wrong.
pub fn run(args: &HandLoopArgs) -> Result<()> {
    let mut turns = Loop::new(args)?;
    loop {
        turns.turn()?;
    }
}

struct Loop {
    input: Arc<str>,
    window: usize,
    transaction_time: Duration,
    consumer: Consumer,
    producer: Producer,
    /// Where a key's window is in `windows`.
    places: HashMap<Vec<u8>, usize>,
    windows: Vec<Window>,
    /// When the open transaction began.
    open_since: Option<Instant>,
    /// The windows that it has changed.
    changed: Vec<usize>,
    /// What it has read up to.
    offsets: HashMap<Partition, Offset>,
    records: Vec<ConsumedRecord>,
}

/// The last values of a key, oldest first.
struct Window {
    key: Vec<u8>,
    partition: Partition,
    values: VecDeque<f64>,
    changed: bool,
}

impl Loop {
    fn new(args: &HandLoopArgs) -> Result<Self> {
        let mut settings = ClusterSettings::new(&args.bootstrap_servers, &args.group);
        settings.properties = PROPERTIES.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let cluster = Cluster::new(settings)?;
        let input: Arc<str> = args.input.as_str().into();
        let member = Member { client_id: args.group.clone(), group_instance_id: None };
        let consumer = cluster.consumer(&member, std::slice::from_ref(&input))?;
        let topics = [args.output.as_str().into(), args.changelog.as_str().into()];
        let mut producer = cluster.producer(&TransactionalId(args.group.as_str().into()), &topics)?;
        while producer.init(CALL_TIMEOUT)? == Progress::Pending {}
        Ok(Self {
            input,
            window: args.window,
            transaction_time: Duration::from_millis(args.transaction_ms),
            consumer,
            producer,
            places: HashMap::new(),
            windows: Vec::new(),
            open_since: None,
            changed: Vec::new(),
            offsets: HashMap::new(),
            records: Vec::new(),
        })
    }

    fn turn(&mut self) -> Result<()> {
        let wait = self.open_since.map_or(POLL_WAIT, |since| self.transaction_time.saturating_sub(since.elapsed()));
        let mut events = Vec::new();
        self.consumer.poll(wait, POLL_RECORDS_MAX, POLL_BYTES_MAX, &mut self.records, &mut events)?;
        for event in events {
            self.follow(event)?;
        }
        let records = std::mem::take(&mut self.records);
        for record in &records {
            self.average(record)?;
        }
        self.records = records;
        self.records.clear();
        if self.open_since.is_some_and(|since| since.elapsed() >= self.transaction_time) {
            self.commit()?;
        }
        Ok(())
    }

    /// It is alone in its group and begins at the beginning.
    fn follow(&mut self, event: GroupEvent) -> Result<()> {
        match event {
            GroupEvent::Assigned { partitions, .. } => {
                let starts: Vec<_> = partitions.into_iter().map(|partition| (partition, Offset::new(0))).collect();
                Ok(self.consumer.fetch(&starts)?)
            }
            GroupEvent::Revoked { .. } => bail!("the hand-written loop has lost its partitions"),
            GroupEvent::OutOfRange { reason, .. } => bail!("the input is gone: {reason}"),
        }
    }

    fn average(&mut self, record: &ConsumedRecord) -> Result<()> {
        if self.open_since.is_none() {
            self.producer.begin()?;
            self.open_since = Some(Instant::now());
        }
        let key = record.key().context("a reading has a key")?;
        let value = record.value().and_then(|value| value.try_into().ok()).context("a reading has 8 bytes")?;
        let partition = record.partition();
        let place = self.place(key, partition);
        let window = &mut self.windows[place];
        if window.values.len() == self.window {
            window.values.pop_front();
        }
        window.values.push_back(f64::from_be_bytes(value));
        if !window.changed {
            window.changed = true;
            self.changed.push(place);
        }
        let sum = window.values.iter().fold(0.0, |sum, value| sum + value);
        let mean = (sum / window.values.len() as f64).to_be_bytes();
        let timestamp = record.timestamp().context("a reading has a timestamp")?;
        self.producer.send(&to(OUTPUT, partition, timestamp, key, &mean))?;
        self.offsets.insert(partition, record.offset().next());
        Ok(())
    }

    fn place(&mut self, key: &[u8], partition: Partition) -> usize {
        if let Some(place) = self.places.get(key) {
            return *place;
        }
        let place = self.windows.len();
        self.places.insert(key.to_vec(), place);
        self.windows.push(Window { key: key.to_vec(), partition, values: VecDeque::new(), changed: false });
        place
    }

    fn commit(&mut self) -> Result<()> {
        let mut value = Vec::new();
        for place in self.changed.drain(..) {
            let window = &mut self.windows[place];
            window.changed = false;
            value.clear();
            value.extend(window.values.iter().flat_map(|value| value.to_be_bytes()));
            self.producer.send(&to(CHANGELOG, window.partition, Timestamp::new(1), &window.key, &value))?;
        }
        self.producer.drain(CALL_TIMEOUT)?;
        let named = |(partition, offset): (&Partition, &Offset)| {
            (TopicPartition::new(Arc::clone(&self.input), *partition), *offset)
        };
        let named: Vec<(TopicPartition, Offset)> = self.offsets.iter().map(named).collect();
        let offsets: Vec<OffsetToCommit<'_>> = named
            .iter()
            .map(|(partition, offset)| OffsetToCommit { partition, offset: *offset, metadata: "" })
            .collect();
        self.producer.send_offsets(&offsets, &self.consumer.group_metadata()?, CALL_TIMEOUT)?;
        self.producer.commit(CALL_TIMEOUT)?;
        self.open_since = None;
        Ok(())
    }
}

fn to<'a>(
    topic: OutputIndex,
    partition: Partition,
    timestamp: Timestamp,
    key: &'a [u8],
    value: &'a [u8],
) -> ProducerRecord<'a> {
    let partition = TargetPartition::Exactly(partition);
    ProducerRecord {
        topic,
        partition,
        timestamp,
        key: Some(key),
        value: Some(value),
        headers: RecordHeaders::None,
        tag: DeliveryTag::UNTRACKED,
        number: RecordNumber::NONE,
    }
}
