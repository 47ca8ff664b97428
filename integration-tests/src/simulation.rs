//! The application that is simulated by the hundred thousand schedules: it adds up and counts by key, in stores of every kind,
//! and its oracle is plain sums over what was produced, which share nothing with the engine.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use processor_core::prelude::*;
use processor_core::topology::ApplicationTopology;
use processor_simulator::fake::Entries;
use processor_simulator::fake::log::Written;
use processor_simulator::{Brokers, Ended, InputRecord, Members, SplitMix64, Workload, World};

const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");
const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts").in_memory().with_json_values();
/// A record with this value deletes the sum of its key.
const FORGETS: i64 = -30;
/// A record with a value above this changes no store: its commit leaves nothing in a changelog.
const LOOKS_ABOVE: i64 = 45;
/// Counts since it was last empty; under the empty key, the offset at which that was.
const LOCAL: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("local").without_changelog();
const INPUT: &str = "in";
const OUTPUT: &str = "out";
/// The changelog of the sums.
pub const CHANGELOG: &str = "app-sums-changelog";
const COUNTS_CHANGELOG: &str = "app-counts-changelog";
/// How many partitions every topic has.
pub const PARTITIONS: i32 = 3;
const KEYS: u64 = 7;

/// Adds up and counts by key, in stores of every kind; the output says which record it comes from.
struct Sum;

/// Adds one and says how many that makes.
fn count(mut store: Store<'_, String, i64>, key: &String) -> Result<i64, StoreError> {
    store.update(key, |count| {
        *count += 1;
        *count
    })
}

impl Operator for Sum {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = Vec<u8>;

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, Vec<u8>>,
    ) -> Result<(), OperatorError> {
        let from = ctx.metadata().expect("a record is in process").offset.get();
        if record.value > LOOKS_ABOVE {
            let sum = ctx.store(&SUMS).get(&record.key)?.unwrap_or(0);
            let counted = ctx.store(&COUNTS).get(&record.key)?.unwrap_or(0);
            let local = ctx.store(&LOCAL).get(&record.key)?.unwrap_or(0);
            let since = ctx.store(&LOCAL).get(&String::new())?.unwrap_or(from);
            return ctx.forward(output(record, [from, sum, counted, since, local]));
        }
        let mut sums = ctx.store(&SUMS);
        let sum = if record.value == FORGETS {
            sums.delete(&record.key);
            0
        } else {
            sums.update(&record.key, |sum| {
                *sum += record.value;
                *sum
            })?
        };
        let counted = count(ctx.store(&COUNTS), &record.key)?;
        let local = count(ctx.store(&LOCAL), &record.key)?;
        let since = ctx.store(&LOCAL).modify(&String::new(), |since| *since.get_or_insert(from))?;
        ctx.forward(output(record, [from, sum, counted, since, local]))
    }
}

fn output(record: Record<String, i64>, numbers: [i64; 5]) -> Record<String, Vec<u8>> {
    record.with_value(numbers.map(i64::to_be_bytes).concat())
}

fn topology() -> ApplicationTopology {
    let mut topology = Topology::builder();
    topology
        .source("numbers", INPUT, (Utf8, JavaLong))
        .process("sum", || Sum)
        .with_store(&SUMS)
        .with_store(&COUNTS)
        .with_store(&LOCAL)
        .sink("sums", OUTPUT, (Utf8, Raw))
        .to_source_partition();
    topology.build().and_then(|topology| topology.for_application("app")).expect("the topology is right")
}

/// The workload.
#[derive(Debug)]
pub struct Sums(ApplicationTopology);

impl Sums {
    /// It is the same one always.
    pub fn get() -> &'static Self {
        static SUMS: OnceLock<Sums> = OnceLock::new();
        SUMS.get_or_init(|| Self(topology()))
    }
}

impl Workload for Sums {
    fn topology(&self) -> &ApplicationTopology {
        &self.0
    }

    fn partitions(&self, _topic: &str) -> u32 {
        PARTITIONS.unsigned_abs()
    }

    fn record(&self, world: &World, _topic: &str, random: &mut SplitMix64) -> InputRecord {
        let partition = random.below(PARTITIONS as u64) as i32;
        let (key, value) = (format!("k{}", random.below(KEYS)), random.below(100) as i64 - 30);
        InputRecord { partition, record: number(world, partition, &key, value) }
    }

    fn verify(&self, world: &World) {
        verify_sums(world);
    }
}

/// Runs one schedule.
///
/// # Panics
/// If it ends wrong.
pub fn run(seed: u64) -> Ended {
    processor_simulator::run(Sums::get(), seed)
}

/// A world with so many workers, none of which runs yet.
pub fn world(workers: usize, brokers: Brokers, members: Members) -> World {
    World::new(topology(), |_| PARTITIONS.unsigned_abs(), workers, brokers, members)
}

/// Writes a record into the input.
pub fn produce(world: &World, partition: i32, key: &str, value: i64) {
    world.cluster.write(INPUT, partition, number(world, partition, key, value));
}

fn number(world: &World, partition: i32, key: &str, value: i64) -> Written {
    Written {
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.to_be_bytes().to_vec()),
        timestamp: world.next_timestamp(INPUT, partition),
        headers: Vec::new(),
    }
}

/// How many records a partition of the input holds.
pub fn produced(world: &World, partition: i32) -> i64 {
    world.cluster.high_watermark(INPUT, partition)
}

/// What a schedule does at its end.
///
/// # Panics
/// If something is wrong.
pub fn verify(world: &World) {
    world.verify_stores();
    verify_sums(world);
}

/// The oracle: plain sums over what was produced. Every record has one output, in order (EO-6).
fn verify_sums(world: &World) {
    for partition in 0..PARTITIONS {
        let records = visible(world, INPUT, partition);
        let records: Vec<(String, i64)> = records
            .into_iter()
            .map(|(key, value)| (key, i64::from_be_bytes(value.try_into().expect("it has 8 bytes"))))
            .collect();
        let (mut sums, mut counts) = (BTreeMap::<&str, i64>::new(), BTreeMap::<&str, i64>::new());
        let expected = records.iter().zip(0_i64..).map(|((key, value), offset)| {
            if *value > LOOKS_ABOVE {
                let of = |map: &BTreeMap<&str, i64>| map.get(key.as_str()).copied().unwrap_or(0);
                return (key.as_str(), [offset, of(&sums), of(&counts)]);
            }
            let count = counts.entry(key).or_default();
            *count += 1;
            let sum = if *value == FORGETS {
                sums.remove(key.as_str());
                0
            } else {
                let sum = sums.entry(key).or_default();
                *sum += value;
                *sum
            };
            (key.as_str(), [offset, sum, *count])
        });
        let expected: Vec<_> = expected.collect();
        let outputs = outputs(world, partition);
        assert_eq!(outputs.len(), expected.len(), "O1: partition {partition}: outputs and inputs differ in number");
        for ((key, [offset, sum, count, since, local]), expected) in outputs.iter().zip(expected) {
            assert_eq!((key.as_str(), [*offset, *sum, *count]), expected, "O1: partition {partition}: outputs");
            assert!((0..=*offset).contains(since), "O2: partition {partition}@{offset}: the local store is of {since}");
            let seen = &records[*since as usize..=*offset as usize];
            let seen = seen.iter().filter(|(of, value)| of == key && *value <= LOOKS_ABOVE).count() as i64;
            assert_eq!(*local, seen, "O2: partition {partition}@{offset}: the local store is exact since {since}");
        }
        let by_bytes = |map: BTreeMap<&str, i64>| map.into_iter().map(|(key, n)| (key.into(), n)).collect();
        let (sums, counts): (BTreeMap<Vec<u8>, _>, BTreeMap<_, _>) = (by_bytes(sums), by_bytes(counts));
        let decoded = |fold: &Entries| fold.iter().map(|(key, value)| (key.clone(), decode(value))).collect();
        let fold = |changelog| world.fold(changelog, Partition::new(partition));
        assert_eq!(sums, decoded(&fold(CHANGELOG)), "O2: partition {partition}: changelog of sums");
        assert_eq!(counts, decoded(&fold(COUNTS_CHANGELOG)), "O2: partition {partition}: changelog of counts");
    }
}

/// What was written for each record of a partition: key; offset, sum, count, and since when the local store counts what.
pub fn outputs(world: &World, partition: i32) -> Vec<(String, [i64; 5])> {
    let decoded = visible(world, OUTPUT, partition).into_iter().map(|(key, value)| {
        let (numbers, rest) = value.as_chunks::<8>();
        assert!(rest.is_empty(), "the sink writes whole numbers");
        let numbers: Vec<_> = numbers.iter().map(|bytes| i64::from_be_bytes(*bytes)).collect();
        (key, numbers.try_into().expect("the sink writes five numbers"))
    });
    decoded.collect()
}

/// Keys and values of a partition, as a `read_committed` reader sees them.
fn visible(world: &World, topic: &str, partition: i32) -> Vec<(String, Vec<u8>)> {
    let records = world.cluster.read_committed(topic).into_iter().filter(|(of, _, _)| of.get() == partition);
    let decoded = records.map(|(_, _, written)| {
        let key = String::from_utf8(written.key.unwrap_or_default()).expect("keys are UTF-8");
        (key, written.value.unwrap_or_default())
    });
    decoded.collect()
}

fn decode(value: &[u8]) -> i64 {
    if value[0] == b' ' {
        return std::str::from_utf8(value)
            .ok()
            .and_then(|json| json.trim_start().parse().ok())
            .expect("JSON of a number");
    }
    // Format 1, then bincode's zigzag varint; sums here stay below its one-byte bound or take the two-byte form.
    assert_eq!(value[0], 1);
    let zigzag = match value[1] {
        251 => u64::from(u16::from_le_bytes([value[2], value[3]])),
        252 => u64::from(u32::from_le_bytes([value[2], value[3], value[4], value[5]])),
        small => u64::from(small),
    };
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}
