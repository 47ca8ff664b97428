//! A simulation of a topology, as a test writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use processor_core::codec::Codec;
use processor_core::ids::Timestamp;
use processor_core::partition;
use processor_core::record::Record;
use processor_core::topology::{ApplicationTopology, Topology, TopologyError};

use crate::fake::log::Written;
use crate::random::SplitMix64;
use crate::reference;
use crate::schedule::{Ended, run};
use crate::search::{Search, Wrong, search};
use crate::workload::{InputRecord, Workload};
use crate::world::World;

/// The application that a topology is simulated as: its internal topics begin with this name.
const APPLICATION_ID: &str = "simulated";
/// Enough for each of three workers to have a task.
const PARTITIONS: u32 = 3;
/// The seed that is run alone, in words.
const SEED: &str = "PROCESSOR_SEED";

/// Makes a key, a value and a time; without a time it is the next one.
type Make = Box<dyn Fn(&mut SplitMix64) -> Made + Send + Sync>;
type Check = Box<dyn Fn(&World) + Send + Sync>;

struct Made {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Option<Timestamp>,
}

/// Runs a topology through schedules in which things go wrong, in an order that a seed decides: workers die between two steps of a
/// turn, hang, lose their place in the group, their state or their machine; disks refuse and are damaged; commits get no answer,
/// requests arrive late, markers come late, brokers are lost; the group rebalances. Each schedule ends with everything healed, and
/// must leave what a run without faults leaves. Each runs twice, and must write the same bytes twice.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_simulator::Simulation;
///
/// const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals");
///
/// let mut topology = Topology::builder();
/// topology
///     .source("orders", "orders", (Utf8, JavaLong))
///     .each("total", |order, ctx| {
///         let total = ctx.store(&TOTALS).update(&order.key, |total| {
///             *total += order.value;
///             *total
///         })?;
///         ctx.forward(order.with_value(total))
///     })
///     .with_store(&TOTALS)
///     .sink("totals", "totals", (Utf8, JavaLong));
///
/// let summary = Simulation::new(&topology.build()?)?
///     .input("orders", (Utf8, JavaLong), |random| (format!("customer-{}", random.below(5)), random.below(100) as i64))
///     .run(50);
/// assert!(summary.strokes > 50, "{summary}");
/// # Ok::<(), TopologyError>(())
/// ```
///
/// # What is compared
/// With every task run alone on what its inputs hold at the end: its outputs, and their order among themselves (O1); its changelogs
/// (O2); its offsets (O3). And every copy of a store with its changelog, on disks and in memory (O2, EO-4). The names are those
/// of docs/guarantees.md, and a schedule that goes wrong says which it breaks. It all must come to its end, and no worker may stop
/// (O6), no transaction stay open (O7).
///
/// What goes wrong without faults, too, is not seen: the reference runs the same operators. That is what
/// [`TopologyTestDriver`](processor_core::testing::TopologyTestDriver) is for.
///
/// # Where the reference does not hold
/// The results of a task must depend on its input records and their order, and on nothing else. They do not where its records are
/// merged from several topics as they arrive, where something happens by the time of day (a wall-clock schedule,
/// `wall_clock_timestamps`), where an operator looks at the number or the size of the batch, or where it keeps something outside its
/// stores that other tasks or other schedules share. A store without a changelog may lose what it holds. Say
/// [`without_reference`](Self::without_reference) then, and what must hold instead with [`check`](Self::check).
///
/// # What does not happen
/// Records that a broker refuses for what they are, retention and purging, changes of the topology.
///
/// The crate belongs into `[dev-dependencies]`: it compiles the places where a worker can die into the runtime.
pub struct Simulation {
    topology: ApplicationTopology,
    partitions: u32,
    partitions_of: BTreeMap<String, u32>,
    inputs: BTreeMap<String, Make>,
    checks: Vec<Check>,
    has_reference: bool,
}

/// What schedules have come to.
///
/// See [`Simulation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// How many schedules were run, each twice.
    pub schedules: u64,
    /// How often a single call has failed, was not answered, or left a copy of its request under way.
    pub faults: u64,
    /// What has happened to workers: deaths and stops, lost sessions, machines, disks and state, transactions that timed out.
    pub strokes: u64,
    /// How often the group was shared out anew.
    pub rebalances: u64,
}

impl Simulation {
    /// A simulation of a topology on topics with three partitions.
    ///
    /// The example of the type shows it.
    ///
    /// # Errors
    /// The topology does not fit an application.
    pub fn new(topology: &Topology) -> Result<Self, TopologyError> {
        Ok(Self {
            topology: topology.for_application(APPLICATION_ID)?,
            partitions: PARTITIONS,
            partitions_of: BTreeMap::new(),
            inputs: BTreeMap::new(),
            checks: Vec::new(),
            has_reference: true,
        })
    }

    /// How many partitions the topics have, but for internal ones that say otherwise.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        self.partitions = partitions;
        self
    }

    /// How many partitions one topic has.
    ///
    /// # Panics
    /// If it is 0, or the topology neither reads nor writes the topic, or makes it itself.
    #[must_use]
    pub fn partitions_of(mut self, topic: &str, partitions: u32) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        let known = self.topology.inputs().iter().chain(self.topology.outputs());
        let known: Vec<&str> = known.filter(|topic| !self.topology.is_internal(topic)).map(|topic| &**topic).collect();
        assert!(known.contains(&topic), "the topology has no topic '{topic}', but {}", known.join(", "));
        self.partitions_of.insert(topic.to_owned(), partitions);
        self
    }

    /// Makes the records of an input topic: a key and a value from a seeded generator, encoded by these codecs, each a millisecond
    /// after the one before it in its partition. A record goes to the partition that Kafka's producers choose for its key; one
    /// without a key to any.
    ///
    /// # Panics
    /// If the topology does not read the topic, or makes it itself.
    #[must_use]
    pub fn input<K, V>(
        self,
        topic: &str,
        codecs: (impl Codec<K>, impl Codec<V>),
        make: impl Fn(&mut SplitMix64) -> (K, V) + Send + Sync + 'static,
    ) -> Self {
        self.made(topic, move |random| {
            let (key, value) = make(random);
            Made { key: encoded(&codecs.0, &key), value: encoded(&codecs.1, &value), timestamp: None }
        })
    }

    /// As [`input`](Self::input), with times of their own: late ones, equal ones, ones that make a stream-time schedule fire.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_simulator::Simulation;
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let simulation = Simulation::new(&topology.build()?)?;
    /// let simulation = simulation.input_records("in", (Utf8, JavaLong), |random| {
    ///     let second = 1 + random.below(600) as i64;
    ///     Record::new(random.below(9).to_string(), 1, Timestamp::new(second * 1_000))
    /// });
    /// # simulation.run(4);
    /// # Ok::<(), TopologyError>(())
    /// ```
    ///
    /// # Panics
    /// If the topology does not read the topic, or makes it itself.
    #[must_use]
    pub fn input_records<K, V>(
        self,
        topic: &str,
        codecs: (impl Codec<K>, impl Codec<V>),
        make: impl Fn(&mut SplitMix64) -> Record<K, V> + Send + Sync + 'static,
    ) -> Self {
        self.made(topic, move |random| {
            let Record { key, value, timestamp } = make(random);
            Made { key: encoded(&codecs.0, &key), value: encoded(&codecs.1, &value), timestamp: Some(timestamp) }
        })
    }

    fn made(mut self, topic: &str, make: impl Fn(&mut SplitMix64) -> Made + Send + Sync + 'static) -> Self {
        let inputs: Vec<&str> = self.external_inputs().map(|input| &**input).collect();
        assert!(inputs.contains(&topic), "the topology does not read '{topic}', but {}", inputs.join(", "));
        self.inputs.insert(topic.to_owned(), Box::new(make));
        self
    }

    /// What must hold at the end, beside the comparison: `check` panics where it does not.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_simulator::Simulation;
    /// let mut topology = Topology::builder();
    /// topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// Simulation::new(&topology.build()?)?
    ///     .input("in", (Utf8, JavaLong), |random| (random.below(9).to_string(), 1))
    ///     .check(|world| {
    ///         let sum = |topic: &str| world.records(topic, (Raw, JavaLong)).iter().map(|record| record.value).sum::<i64>();
    ///         assert_eq!(sum("in"), sum("out"));
    ///     })
    ///     .run(20);
    /// # Ok::<(), TopologyError>(())
    /// ```
    #[must_use]
    pub fn check(mut self, check: impl Fn(&World) + Send + Sync + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }

    /// Does not compare with a run without faults.
    ///
    /// The type says where that is needed.
    #[must_use]
    pub fn without_reference(mut self) -> Self {
        self.has_reference = false;
        self
    }

    /// Runs so many schedules, from seed 0, on all cores; with `PROCESSOR_SEED=<n>` in the environment that one alone, with every step
    /// of it in the log.
    ///
    /// # Panics
    /// If a schedule goes wrong: with its seed, and what is wrong. If there is no schedule, an input has no records, or a store's
    /// loss makes the reference meaningless. With `PROCESSOR_SEED`, in any case: a test is not passed by one schedule.
    pub fn run(&self, schedules: u64) -> Summary {
        assert!(schedules > 0, "no schedule shows nothing");
        for input in self.external_inputs() {
            assert!(
                self.inputs.contains_key(&**input),
                "the input '{input}' has no records: say what is in it with .input"
            );
        }
        let mut specs = self.topology.subtopologies().iter().flat_map(|part| &part.store_specs);
        if let Some(spec) = specs.find(|spec| self.has_reference && spec.changelog.is_none()) {
            panic!(
                "the store '{}' has no changelog, so it may lose what it holds, and what comes of that is not what comes without faults: \
                 say .without_reference(), and what must hold with .check",
                spec.name
            );
        }
        let threads = std::thread::available_parallelism().map_or(1, Into::into);
        let all = Search { first: 0, schedules, time: Duration::MAX, twice: true, stop_at_first: true, threads };
        match std::env::var(SEED) {
            Ok(seed) => {
                let first = seed.parse().unwrap_or_else(|_| panic!("{SEED} is a number, and not '{seed}'"));
                write_every_step();
                self.search(&Search { first, schedules: 1, threads: 1, ..all });
                panic!("seed {first} ends as it must; without {SEED} the test runs all its seeds");
            }
            Err(_) => self.search(&all),
        }
    }

    fn search(&self, looking: &Search) -> Summary {
        let all = Mutex::new(Ok(Summary::default()));
        search(
            looking,
            |seed| run(&Subject(self), seed),
            |_, outcome| {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *all, outcome) {
                    (Ok(summary), Ok(ended)) => summary.add(ended),
                    (Ok(_), Err(wrong)) => *all = Err(wrong.clone()),
                    (Err(known), Err(wrong)) if wrong < known => *all = Err(wrong.clone()),
                    (Err(_), _) => {}
                }
            },
        );
        all.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(|Wrong { seed, what }| {
            panic!("seed {seed}: {what}\nsee every step of it with {SEED}={seed} in the environment of this test")
        })
    }

    fn external_inputs(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topology.inputs().iter().filter(|topic| !self.topology.is_internal(topic))
    }
}

/// Unless the test has a log of its own.
fn write_every_step() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("debug"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().without_time().with_target(false);
    let _ = log.try_init();
}

fn encoded<T>(codec: &impl Codec<T>, of: &T) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let is_there = codec.encode(of, &mut bytes);
    is_there.unwrap_or_else(|error| panic!("a record that was made cannot be encoded: {error}")).then_some(bytes)
}

/// What a schedule sees of a simulation.
struct Subject<'a>(&'a Simulation);

impl Workload for Subject<'_> {
    fn topology(&self) -> &ApplicationTopology {
        &self.0.topology
    }

    fn partitions(&self, topic: &str) -> u32 {
        self.0.partitions_of.get(topic).copied().unwrap_or(self.0.partitions)
    }

    fn record(&self, world: &World, topic: &str, random: &mut SplitMix64) -> InputRecord {
        let Made { key, value, timestamp } = self.0.inputs[topic](random);
        let partitions = self.partitions(topic);
        let partition = match &key {
            Some(key) => partition::of_key(key, partitions).get(),
            None => random.below(u64::from(partitions)) as i32,
        };
        let timestamp = timestamp.unwrap_or_else(|| world.next_timestamp(topic, partition));
        InputRecord { partition, record: Written { key, value, timestamp, headers: Vec::new() } }
    }

    fn verify(&self, world: &World) {
        if self.0.has_reference {
            reference::verify(world);
        }
        self.0.checks.iter().for_each(|check| check(world));
    }
}

impl Summary {
    fn add(&mut self, ended: &Ended) {
        self.schedules += 1;
        self.faults += ended.happened.struck.values().sum::<u64>();
        self.strokes += ended.blows.values().sum::<u64>() + ended.struck.values().sum::<u64>();
        self.rebalances += ended.happened.rebalances;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, faults, strokes, rebalances } = self;
        write!(
            f,
            "{schedules} schedules: {faults} faults of calls, {strokes} strokes of fate for workers, {rebalances} rebalances"
        )
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("topology", &self.topology).finish_non_exhaustive()
    }
}
