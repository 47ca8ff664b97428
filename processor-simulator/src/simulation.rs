//! A simulation of a topology, as a test writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use processor_core::codec::Codec;
use processor_core::partition;
use processor_core::topology::{ApplicationTopology, Topology, TopologyError};

use crate::random::SplitMix64;
use crate::reference;
use crate::schedule::{Ended, InputRecord, Workload, run};
use crate::search::{Search, Wrong, search};
use crate::world::World;

/// The application that a topology is simulated as: its internal topics begin with this name.
const APPLICATION_ID: &str = "simulated";
/// Enough for each of three workers to have a task.
const PARTITIONS: u32 = 3;
/// The seed that is run alone, in words.
const SEED: &str = "PROCESSOR_SEED";

type MakeRecord = Box<dyn Fn(&mut SplitMix64) -> (Option<Vec<u8>>, Option<Vec<u8>>) + Send + Sync>;
type Check = Box<dyn Fn(&World) + Send + Sync>;

/// Runs a topology through schedules in which everything goes wrong that the model knows: workers die between two steps of a
/// turn, hang, lose their state or their machine; commits get no answer, requests arrive late, brokers are lost, the group
/// rebalances. Each ends with everything healed, and must leave what a run without faults leaves: outputs (O1), stores and
/// changelogs (O2), offsets (O3). Each runs twice, and must write the same bytes twice (EO-7).
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
/// let told = Simulation::new(&topology.build()?)?
///     .input("orders", (Utf8, JavaLong), |random| (format!("customer-{}", random.below(5)), random.below(100) as i64))
///     .run(50);
/// assert!(told.schedules == 50 && told.deaths > 0, "{told}");
/// # Ok::<(), TopologyError>(())
/// ```
///
/// The comparison holds where a task's results depend on its input records and their order alone. They do not where a task reads
/// several topics (their records are merged as they arrive), where something happens by the time of day, or where an operator
/// uses the number or the size of the batch. Say [`without_reference`](Self::without_reference) then, and what must hold
/// instead with [`check`](Self::check); stores are still compared with their changelogs.
pub struct Simulation {
    topology: ApplicationTopology,
    partitions: u32,
    inputs: BTreeMap<String, MakeRecord>,
    checks: Vec<Check>,
    has_reference: bool,
}

/// What schedules have come to.
///
/// See [`Simulation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// How many schedules were run, each twice.
    pub schedules: u64,
    /// Faults of single requests that have struck.
    pub faults: u64,
    /// How often a worker has died, or something has happened to its machine or its session.
    pub deaths: u64,
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

    /// Makes the records of an input topic: a key and a value from a seeded generator, encoded by these codecs. A record goes to
    /// the partition that Kafka's producers choose for its key; one without a key to any.
    ///
    /// # Panics
    /// If the topology does not read the topic, or makes it itself.
    #[must_use]
    pub fn input<K, V, KC: Codec<K>, VC: Codec<V>>(
        mut self,
        topic: &str,
        codecs: (KC, VC),
        make: impl Fn(&mut SplitMix64) -> (K, V) + Send + Sync + 'static,
    ) -> Self {
        let inputs = self.external_inputs();
        assert!(
            inputs.iter().any(|input| input == topic),
            "the topology does not read '{topic}', but {}",
            inputs.join(", ")
        );
        let make = move |random: &mut SplitMix64| {
            let (key, value) = make(random);
            (encoded(&codecs.0, &key, "key"), encoded(&codecs.1, &value, "value"))
        };
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
    ///         let count = |topic: &str| world.cluster.read_committed(topic).len();
    ///         assert_eq!(count("in"), count("out"));
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

    /// Runs so many schedules, from seed 0, on all cores; with `PROCESSOR_SEED=<n>` in the environment that one alone, and every step
    /// of it in the log.
    ///
    /// # Panics
    /// If one goes wrong: with its seed, and what was wrong. If an input has no records.
    pub fn run(&self, schedules: u64) -> Told {
        for input in self.external_inputs() {
            assert!(
                self.inputs.contains_key(&input),
                "the input '{input}' has no records: say what is in it with .input"
            );
        }
        if let Ok(seed) = std::env::var(SEED) {
            let seed = seed.parse().unwrap_or_else(|_| panic!("{SEED} is a number, and not '{seed}'"));
            return self.run_in_words(seed);
        }
        let looking = Search {
            first: 0,
            schedules,
            time: Duration::MAX,
            twice: true,
            stop_at_first: true,
            threads: std::thread::available_parallelism().map_or(1, Into::into),
        };
        let all = Mutex::new(Ok(Told::default()));
        search(
            &looking,
            |seed| run(self, seed),
            |_, outcome| {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *all, outcome) {
                    (Ok(told), Ok(ended)) => told.add(ended),
                    (Ok(_), Err(wrong)) => *all = Err(wrong.clone()),
                    (Err(_), _) => {}
                }
            },
        );
        all.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(|Wrong { seed, what }| {
            panic!("seed {seed}: {what}\nsee every step of it with {SEED}={seed} in the environment of this test")
        })
    }

    fn run_in_words(&self, seed: u64) -> Told {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env();
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("debug"));
        let log =
            tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().without_time().with_target(false);
        // A test that has a log of its own keeps it.
        let _ = log.try_init();
        let mut told = Told::default();
        told.add(&run(self, seed));
        told
    }

    fn external_inputs(&self) -> Vec<String> {
        let is_internal = |topic: &str| self.topology.internal_topics().iter().any(|it| *it.topic == *topic);
        self.topology.inputs().iter().filter(|topic| !is_internal(topic)).map(ToString::to_string).collect()
    }
}

fn encoded<T>(codec: &impl Codec<T>, of: &T, what: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match codec.encode(of, &mut bytes) {
        Ok(is_there) => is_there.then_some(bytes),
        Err(error) => panic!("a record's {what} cannot be encoded: {error}"),
    }
}

impl Workload for Simulation {
    fn topology(&self) -> &ApplicationTopology {
        &self.topology
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn record(&self, topic: &str, random: &mut SplitMix64) -> InputRecord {
        let (key, value) = self.inputs[topic](random);
        let partition = match &key {
            Some(key) => partition::of_key(key, self.partitions).get(),
            None => random.below(u64::from(self.partitions)) as i32,
        };
        InputRecord { partition, key, value }
    }

    fn verify(&self, world: &World) {
        if self.has_reference {
            reference::verify(world, self.partitions);
        }
        self.checks.iter().for_each(|check| check(world));
    }
}

impl Told {
    fn add(&mut self, ended: &Ended) {
        self.schedules += 1;
        self.faults += ended.happened.struck.values().sum::<u64>();
        self.deaths += ended.blows.values().sum::<u64>() + ended.struck.values().sum::<u64>();
        self.rebalances += ended.happened.rebalances;
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, faults, deaths, rebalances } = self;
        write!(
            f,
            "{schedules} schedules, {faults} faults of requests, {deaths} deaths and losses, {rebalances} rebalances"
        )
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("topology", &self.topology).finish_non_exhaustive()
    }
}
