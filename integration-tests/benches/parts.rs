//! What the parts cost by themselves, without a broker: `./x cargo bench --profile dev --bench parts`.
//!
//! A figure is the time of one record, one entry or one key, as criterion counts them.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use processor_core::ids::{BatchId, ChangelogOffset, OutputIndex, StoreIndex, TaskId};
use processor_core::prelude::*;
use processor_core::record::{BatchInfo, InputRecord, TargetPartition};
use processor_core::store::{Base, BaseError, StoreKey, ValueFormat};
use processor_core::task::{ChangeSet, Outcome, PartitionGroup, Task, TaskSettings};
use processor_runtime::clock::Clock as _;
use processor_runtime::kafka::{DeliveryTag, Kafka, ProducerRecord, RecordHeaders, RecordNumber, TransactionalId};
use processor_runtime::state::{
    Layout, Permit, Positions, RocksDirectory, RocksTask, StateDirectory, StateSettings, StoreLayout, TaskState,
};
use processor_runtime::transaction::{CommitReceipt, Initialised, Initialising};
use processor_simulator::fake::{FakeClock, FakeCluster};

const WINDOW: KeyValueStoreDef<String, Vec<f64>> = KeyValueStoreDef::new("window");
const STORE: StoreIndex = StoreIndex::new(0);
const KEYS: u64 = 10_000;

/// A reading of a sensor.
struct Reading {
    key: String,
    value: [u8; 8],
    offset: i64,
}

impl InputRecord for Reading {
    fn key(&self) -> Option<&[u8]> {
        Some(self.key.as_bytes())
    }
    fn value(&self) -> Option<&[u8]> {
        Some(&self.value)
    }
    fn timestamp(&self) -> Option<Timestamp> {
        Some(Timestamp::new(1_000 + self.offset))
    }
    fn offset(&self) -> Offset {
        Offset::new(self.offset)
    }
    fn visit_headers(&self, _visit: &mut dyn FnMut(&str, Option<&[u8]>)) {}
}

fn key(number: u64) -> String {
    format!("sensor-{number:07}")
}

/// Each key comes once in `keys` readings, in an order that no cache likes.
fn reading(offset: i64, keys: u64) -> Reading {
    let number = (offset as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys;
    Reading { key: key(number), value: (offset as f64).to_be_bytes(), offset }
}

/// Nothing is committed.
struct Empty;

impl Base for Empty {
    fn get(&self, _store: StoreIndex, _key: &[u8], _value: &mut Vec<u8>) -> Result<bool, BaseError> {
        Ok(false)
    }
    fn range(
        &self,
        _store: StoreIndex,
        _from: std::ops::Bound<&[u8]>,
        _to: std::ops::Bound<&[u8]>,
        _reverse: bool,
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        Ok(())
    }
    fn approximate_len(&self, _store: StoreIndex) -> Result<u64, BaseError> {
        Ok(0)
    }
}

fn averages() -> Task {
    let mut topology = Topology::builder();
    topology
        .source("readings", "readings", (Utf8, JavaDouble))
        .each("average", |record: Record<String, f64>, ctx: &mut Context<'_, String, f64>| {
            let mean = ctx.store(&WINDOW).update(&record.key, |window| {
                window.push(record.value);
                if window.len() > 10 {
                    window.remove(0);
                }
                window.iter().sum::<f64>() / window.len() as f64
            })?;
            ctx.forward(record.with_value(mean))
        })
        .with_store(&WINDOW)
        .sink("averages", "averages", (Utf8, JavaDouble))
        .to_source_partition();
    let topology = topology.build().and_then(|topology| topology.for_application("parts")).expect("it is right");
    let settings = TaskSettings { cache_bytes_max: 64 << 20, output_partitions: [1].into() };
    let mut task = topology.task(&TaskId::new("readings", Partition::new(0)), &settings);
    let from: Vec<_> = task.inputs().map(|input| (input, Offset::new(0))).collect();
    task.start(&from, None, Timestamp::new(0)).expect("operators open");
    task
}

/// Decode, overlay, operator, encode, outbox: what a record costs between being polled and being sent.
fn records(criterion: &mut Criterion) {
    const BATCH: u64 = 50_000;
    let mut group = criterion.benchmark_group("task");
    group.throughput(Throughput::Elements(BATCH)).sample_size(20);
    let (mut task, mut next) = (averages(), 0);
    let mut changes = ChangeSet::default();
    let mut batch = |task: &mut Task, readings: &[Reading]| {
        for (reading, index) in readings.iter().zip(0..) {
            let info = BatchInfo { id: BatchId::new(1), index, size: BATCH as u32, now: Timestamp::new(0) };
            let outcome = task.process(0, reading, info, &Empty);
            assert!(matches!(outcome, Outcome::Done));
            black_box(task.outbox().records().count());
            task.outbox().clear();
        }
        changes.clear();
        task.collect_changes(&mut changes).expect("numbers can be encoded");
        black_box(changes.bytes_len());
        task.applied();
    };
    group.bench_function(BenchmarkId::new("moving average", KEYS), |bencher| {
        let readings = || {
            let readings: Vec<_> = (next..next + BATCH as i64).map(|offset| reading(offset, KEYS)).collect();
            next += BATCH as i64;
            readings
        };
        bencher.iter_batched(readings, |readings| batch(&mut task, &readings), BatchSize::PerIteration);
    });
    group.finish();
}

fn codecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    let window: Vec<f64> = (0..10).map(f64::from).collect();
    let mut bytes = Vec::new();
    group.bench_function("encode a window of 10 doubles (store value)", |bencher| {
        bencher.iter(|| {
            bytes.clear();
            ValueFormat::Bincode.encode(black_box(&window), &mut bytes).expect("doubles can be encoded");
        });
    });
    group.bench_function("decode a window of 10 doubles (store value)", |bencher| {
        bencher.iter(|| ValueFormat::decode::<Vec<f64>>(black_box(&bytes)).expect("it was encoded"));
    });
    let text = key(7);
    group.bench_function("encode a text key (store key)", |bencher| {
        let mut bytes = Vec::new();
        bencher.iter(|| {
            bytes.clear();
            black_box(&text).encode(&mut bytes);
        });
    });
    group.bench_function("decode text", |bencher| {
        bencher.iter(|| -> String { Utf8.decode(Some(black_box(text.as_bytes()))).expect("it is text") });
    });
    group.bench_function("decode a Java double", |bencher| {
        bencher.iter(|| -> f64 { JavaDouble.decode(Some(black_box(&[0; 8]))).expect("8 bytes") });
    });
    group.finish();
}

/// The changes of a batch are written into one buffer, and read from it twice: for the changelog and for the base.
fn changelog(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("changelog");
    group.throughput(Throughput::Elements(KEYS));
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let mut changes = ChangeSet::default();
    group.bench_function("collect and read", |bencher| {
        bencher.iter(|| {
            changes.clear();
            for key in &keys {
                changes.push(STORE, key.as_bytes(), Some(&[7; 81]));
            }
            black_box(changes.changes().map(|change| change.key.len()).sum::<usize>())
        });
    });
    group.finish();
}

fn partition_group(criterion: &mut Criterion) {
    const RECORDS: i64 = 10_000;
    let mut group = criterion.benchmark_group("partition group");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for inputs in [1, 2, 8] {
        group.bench_function(BenchmarkId::new("push and pop", inputs), |bencher| {
            let mut waiting = PartitionGroup::new(inputs);
            let readings = || (0..RECORDS).map(|offset| reading(offset, KEYS)).collect::<Vec<_>>();
            bencher.iter_batched(
                readings,
                |readings| {
                    for (place, reading) in readings.into_iter().enumerate() {
                        waiting.push(place % inputs, reading);
                    }
                    while let Some(next) = waiting.pop(|_, reading| Timestamp::new(reading.offset)) {
                        black_box(next);
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A commit, of a model Kafka: only a commit lets state be written.
fn receipt() -> CommitReceipt {
    let (cluster, clock) = (FakeCluster::new(), FakeClock::ticking(Duration::ZERO));
    cluster.create_topic("out", 1);
    let id = TransactionalId("parts".into());
    let producer = cluster.worker("parts").producer(&id, &["out".into()]).expect("a new producer");
    let initialised = Initialising::new(producer, &clock).step(&clock, Duration::ZERO, Duration::MAX);
    let Ok(Initialised::Done(producer)) = initialised else { panic!("the model is ready at once: {initialised:?}") };
    let mut transaction = producer.begin(&clock, Duration::from_mins(1)).expect("nothing is in its way");
    let record = ProducerRecord {
        topic: OutputIndex::new(0),
        partition: TargetPartition::Exactly(Partition::new(0)),
        timestamp: clock.wall(),
        key: None,
        value: Some(b"it happened"),
        headers: RecordHeaders::None,
        tag: DeliveryTag(0),
        number: RecordNumber::NONE,
    };
    transaction.send(&record).expect("the model takes it");
    transaction.drain(&clock).expect("the model acknowledges");
    let prepared = transaction.prepare_without_offsets(&clock).expect("all was acknowledged");
    prepared.commit(&clock).expect("the model answers").0
}

/// State of so many keys in RocksDB, all of it written and none in memory but what RocksDB keeps there.
fn state(directory: &RocksDirectory, task: &TaskId, keys: u64) -> RocksTask {
    let layout = Layout {
        stores: vec![StoreLayout {
            name: Arc::from("window"),
            in_memory: false,
            changelog_topic_id: Some("id".to_owned()),
        }],
        cluster_id: "parts".to_owned(),
    };
    let mut state = directory.open(task, &layout).expect("the directory is ours").expect("nobody has it open");
    let receipt = receipt();
    for (first, batch) in (0..keys).step_by(10_000).zip(1..) {
        let mut changes = ChangeSet::default();
        for number in first..(first + 10_000).min(keys) {
            let mut bytes = Vec::new();
            key(number).encode(&mut bytes);
            changes.push(STORE, &bytes, Some(&[1; 81]));
        }
        let positions = Positions {
            changelogs: vec![Some(ChangelogOffset::new(batch * 10_000))],
            batch: BatchId::new(batch as u64),
            ..Positions::empty(1)
        };
        state.apply(Permit::committed(&receipt), &changes, &positions).expect("the disk has room");
    }
    drop(state); // writes what waits
    directory.open(task, &layout).expect("the directory is ours").expect("nobody has it open")
}

/// The keys of a poll batch, one by one and together.
fn look_ups(criterion: &mut Criterion) {
    const TOGETHER: u64 = 10_000;
    let mut group = criterion.benchmark_group("state");
    group.throughput(Throughput::Elements(TOGETHER)).sample_size(20);
    for keys in [100_000, 1_000_000] {
        let scratch = tempfile::tempdir().expect("a place for throw-away data");
        let settings = StateSettings { memory_budget_bytes: 64 << 20, ..StateSettings::default() };
        let directory = RocksDirectory::open(scratch.path(), "parts", settings).expect("a new directory");
        let state = state(&directory, &TaskId::new("readings", Partition::new(0)), keys);
        let wanted: Vec<Vec<u8>> = (0..TOGETHER as i64)
            .map(|offset| {
                let mut bytes = Vec::new();
                reading(offset, keys).key.encode(&mut bytes);
                bytes
            })
            .collect();
        let mut sorted: Vec<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut value = Vec::new();
        group.bench_function(BenchmarkId::new("one by one, of", keys), |bencher| {
            bencher.iter(|| {
                for key in &wanted {
                    value.clear();
                    assert!(state.get(STORE, key, &mut value).expect("it can be read"));
                }
            });
        });
        group.bench_function(BenchmarkId::new("together, of", keys), |bencher| {
            bencher.iter(|| {
                let mut found = 0;
                let count = &mut |_, value: Option<&[u8]>| {
                    found += usize::from(value.is_some());
                    ControlFlow::Continue(())
                };
                state.get_many(STORE, &sorted, count).expect("it can be read");
                assert_eq!(found, sorted.len());
            });
        });
    }
    group.finish();
}

criterion_group!(parts, records, codecs, changelog, partition_group, look_ups);
criterion_main!(parts);
