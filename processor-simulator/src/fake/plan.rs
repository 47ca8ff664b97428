//! The plan of a stream thread on a cluster in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use processor_core::protocol::batch::BatchBounds;
use processor_core::protocol::restore::StartRule;
use processor_core::topology::ApplicationTopology;
use processor_runtime::config::{member, transactional_id};
use processor_runtime::kafka::PRODUCERS;
use processor_runtime::stream_thread::{ThreadPlan, producers};
use processor_runtime::transaction::{Clean, Initialised, Initialising};

use super::{FakeClock, FakeKafka, FakeProducer};

/// Plans the only thread of a worker. The application's outputs have so many partitions each; stores are up to the caller.
pub fn thread_plan(worker: &str, topology: ApplicationTopology, partitions: u32) -> ThreadPlan {
    let id = transactional_id(topology.application_id(), worker, 0);
    ThreadPlan {
        output_partitions: topology.outputs().iter().map(|_| partitions).collect(),
        topology,
        member: member(worker, false, 0, &id, None),
        transactional_id: id,
        changelogs: BTreeMap::new(),
        layouts: BTreeMap::new(),
        start_rule: StartRule::Earliest,
        batch: BatchBounds { records_start: 5, records_max: 40, turn_max: Duration::from_secs(1) },
        poll_records_max: 7,
        batch_bytes_max: 1 << 20,
        max_task_idle: Duration::from_millis(100),
        transaction_timeout: Duration::from_secs(10),
        rebalance_wait: Duration::from_secs(12),
        lost_wait: Duration::from_secs(22),
        outside_wait: Duration::from_mins(1),
        fence_after_rebuild: false,
        cache_bytes_max: 600,
        leave_on_stop: true,
    }
}

/// A thread's producers, initialised where nothing is in the way.
///
/// # Panics
/// If something is.
pub fn initialised(plan: &ThreadPlan, kafka: &FakeKafka, clock: &FakeClock) -> [Clean<FakeProducer>; PRODUCERS] {
    producers(plan, kafka).expect("the worker lives").map(|producer| {
        let step = Initialising::new(producer, clock).step(clock, Duration::ZERO, Duration::from_secs(1));
        let Ok(Initialised::Done(producer)) = step else { panic!("something is in the way") };
        producer
    })
}
