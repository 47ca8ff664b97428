//! Schedules of the simulation: thousands of orders in which things can go wrong, on one thread and without Kafka. A seed
//! that fails prints itself: `PROCESSOR_SEED=<n>` runs it alone.

use std::collections::BTreeMap;

use processor_core::protocol::outcome::TxnErrorKind;
use processor_integration_tests::fake::Fault;
use processor_integration_tests::simulation::{Blow, Brokers, Ended, World, run};

/// A client that has lost its place and never says anything again is replaced, and everything goes on.
#[test]
fn a_member_that_hangs_is_replaced() {
    let mut world = World::new(1, Brokers::Verify);
    world.start(0);
    world.produce(0, "a", 1);
    while !world.is_done() {
        assert_eq!(world.turn(0), None);
    }
    world.cluster.hang_member(&World::id(0).to_string());
    world.produce(1, "b", 2);
    world.finish();
    world.verify();
}

#[test]
fn every_schedule_ends_exactly_once() {
    if let Ok(seed) = std::env::var("PROCESSOR_SEED") {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().without_time().init();
        run(seed.parse().expect("PROCESSOR_SEED is a number"));
        return;
    }
    let (mut failed, mut toll) = (Vec::new(), Toll::default());
    let schedules = 2_000;
    for seed in 0..schedules {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(ended) => toll.add(&ended),
            Err(_) => failed.push(seed),
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {schedules} schedules failed; run one alone with PROCESSOR_SEED={}: {failed:?}",
        failed.len(),
        failed[0]
    );
    toll.assert_hurts(schedules);
}

/// The faults that a schedule can ask for.
const SCRIPTED: [Fault; 11] = [
    Fault::CommitTimesOut { took_effect: true },
    Fault::CommitTimesOut { took_effect: false },
    Fault::CommitFails(TxnErrorKind::Fatal),
    Fault::CommitLeavesLateCopy,
    Fault::CommitHoldsMarkers,
    Fault::SendFails(TxnErrorKind::Fatal),
    Fault::DrainFails(TxnErrorKind::Fatal),
    Fault::SendOffsetsFails(TxnErrorKind::Fatal),
    Fault::AbortFails(TxnErrorKind::Fatal),
    Fault::AbortLeavesLateCopy,
    Fault::SendOffsetsLeavesLateCopy,
];
const BLOWS: [Blow; 6] =
    [Blow::Died, Blow::SessionExpired, Blow::TransactionTimedOut, Blow::Hung, Blow::DirectoryLost, Blow::DiskRefused];

/// What the schedules have done to the workers: what was only asked for shows nothing.
#[derive(Debug, Default)]
struct Toll {
    struck: BTreeMap<&'static str, u64>,
    blows: BTreeMap<Blow, u64>,
    rebalances: u64,
    replayed: u64,
    late: u64,
    late_ends_taken: u64,
    late_offsets_taken: u64,
}

impl Toll {
    fn add(&mut self, ended: &Ended) {
        let happened = &ended.happened;
        happened.struck.iter().for_each(|(kind, times)| *self.struck.entry(kind).or_default() += times);
        ended.blows.iter().for_each(|(blow, times)| *self.blows.entry(*blow).or_default() += times);
        self.rebalances += happened.rebalances;
        self.replayed += happened.replayed;
        self.late += happened.late;
        self.late_ends_taken += happened.late_ends_taken;
        self.late_offsets_taken += happened.late_offsets_taken;
    }

    /// Everything that a schedule can ask for has struck again and again. No late end has ever ended anything; late
    /// offsets were taken where nothing verifies them, and came to nothing.
    fn assert_hurts(&self, schedules: u64) {
        for kind in SCRIPTED.map(Fault::kind) {
            let times = self.struck.get(kind).copied().unwrap_or(0);
            assert!(times > schedules / 10, "{kind} struck {times} times: {self:?}");
        }
        for blow in BLOWS {
            let times = self.blows.get(&blow).copied().unwrap_or(0);
            assert!(times > schedules / 100, "{blow:?} happened {times} times: {self:?}");
        }
        assert!(self.rebalances > schedules && self.replayed > schedules && self.late > schedules / 10, "{self:?}");
        assert_eq!(self.late_ends_taken, 0, "EO-11: a late copy never meets a transaction of its own epoch: {self:?}");
        assert!(self.late_offsets_taken > 0, "a cluster that verifies nothing takes late offsets: {self:?}");
    }
}

/// EO-7: the same records, state and time give the same writes, to the byte.
#[test]
fn a_schedule_that_runs_twice_writes_the_same_twice() {
    for seed in 0..50 {
        assert!(run(seed) == run(seed), "PROCESSOR_SEED={seed} came out differently the second time");
    }
}
