//! EO-9, as a property: a topology that meets failing records leaves what one leaves that never saw them, whatever the
//! policy that passes them over, and but for their dead letters.

use std::time::Duration;

use processor_core::prelude::*;
use processor_core::protocol::failure::Policy;
use processor_core::testing::{TopologyTestDriver, millis};
use proptest::prelude::*;

use crate::driver;

const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");
const LAST: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("last");

/// How a record ends, after it has written, forwarded and changed schedules.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Well,
    Error,
    Panic,
    /// Fails behind the operator, in another node.
    Behind,
    /// Its bytes are not what the source reads.
    Undecodable,
    /// The operator swallows the failure of the node behind it.
    Swallowed,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    key: u8,
    value: i8,
    time: u16,
    schedule: Option<u8>,
    cancel: bool,
    end: End,
}

/// Sums, remembers, forwards and schedules as the value tells it.
struct Busy {
    made: Vec<ScheduleId>,
}

impl Operator for Busy {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        self.made.push(ctx.schedule(Duration::from_millis(100), Clock::StreamTime));
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        let step = unpacked(record.value);
        let sum = ctx.store(&SUMS).update(&record.key, |sum| {
            *sum += i64::from(step.value);
            *sum
        })?;
        if step.value % 3 == 0 {
            ctx.store(&SUMS).delete(&record.key);
        }
        ctx.store(&LAST).put(&u32::from(step.key), format!("{sum}"));
        if step.cancel {
            ctx.cancel(self.made[0]);
        }
        if let Some(every) = step.schedule {
            ctx.schedule(Duration::from_millis(u64::from(every) + 1), Clock::StreamTime);
        }
        ctx.request_commit();
        let forwarded = ctx.forward(record.with_value(if step.end == End::Behind { i64::MIN } else { sum }));
        match step.end {
            End::Well | End::Undecodable | End::Behind => forwarded,
            End::Error => Err(OperatorError::message("error")),
            End::Panic => panic!("panic"),
            End::Swallowed => {
                let swallowed = ctx.forward(Record::new(String::new(), i64::MIN, millis(0)));
                swallowed.or(Ok(()))
            }
        }
    }

    fn punctuate(&mut self, punctuation: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
        let key = format!("{:?}", punctuation.schedule);
        ctx.store(&SUMS).update(&key, |fired| *fired += 1)?;
        ctx.forward(Record::new(key, punctuation.due.get(), punctuation.now))
    }
}

fn packed(step: Step) -> i64 {
    let end = step.end as i64;
    let schedule = step.schedule.map_or(0, |every| i64::from(every) + 1);
    i64::from(step.value as u8) | i64::from(step.key) << 8 | i64::from(step.cancel) << 16 | schedule << 24 | end << 40
}

fn unpacked(value: i64) -> Step {
    let ends = [End::Well, End::Error, End::Panic, End::Behind, End::Undecodable, End::Swallowed];
    let schedule = (value >> 24) & 0xffff;
    Step {
        key: (value >> 8) as u8,
        value: value as i8,
        time: 0,
        schedule: (schedule > 0).then(|| (schedule - 1) as u8),
        cancel: (value >> 16) & 1 == 1,
        end: ends[((value >> 40) & 7) as usize],
    }
}

fn busy(policy: Policy) -> TopologyTestDriver {
    driver(|topology| {
        topology.on_failure(policy);
        topology
            .source("in", "in", (Utf8, JavaLong))
            .process("busy", || Busy { made: Vec::new() })
            .with_store(&SUMS)
            .with_store(&LAST)
            .each("behind", |record, ctx| {
                ctx.forward(record.clone())?;
                if record.value == i64::MIN { Err(OperatorError::message("behind")) } else { Ok(()) }
            })
            .sink("out", "out", (Utf8, JavaLong));
    })
}

/// What is left of a run: outputs with their timestamps, both stores, and how many records were passed over.
type Left = (Vec<(String, i64, i64)>, Vec<(String, i64)>, Vec<(u32, String)>, usize);

fn run(policy: Policy, steps: &[Step]) -> Left {
    let mut driver = busy(policy);
    let input = driver.input::<String, i64>("in");
    for step in steps {
        let (time, key) = (millis(i64::from(step.time)), format!("k{}", step.key % 4));
        let piped = match step.end {
            End::Undecodable => input.try_pipe_bytes(Some(time), Some(key.as_bytes()), Some(b"short")),
            End::Well | End::Error | End::Panic | End::Behind | End::Swallowed => {
                input.try_pipe_at(time, key, packed(*step))
            }
        };
        piped.expect("every failure is passed over");
        driver.advance_wall_clock(Duration::from_secs(1)).expect("every failure is passed over");
        driver.advance_wall_clock(Duration::from_secs(1)).expect("every failure is passed over");
    }
    let outputs = driver.output::<String, i64>("out").records();
    let outputs = outputs.into_iter().map(|record| (record.key, record.value, record.timestamp.get())).collect();
    let passed_over = driver.dead_letters().len() + driver.skipped().len();
    (outputs, driver.store(&SUMS).entries(), driver.store(&LAST).entries(), passed_over)
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        3 => Just(End::Well),
        1 => Just(End::Error),
        1 => Just(End::Panic),
        1 => Just(End::Behind),
        1 => Just(End::Undecodable),
        1 => Just(End::Swallowed),
    ];
    let fields =
        (any::<u8>(), any::<i8>(), 0..2_000_u16, proptest::option::weighted(0.2, any::<u8>()), any::<bool>(), end);
    fields.prop_map(|(key, value, time, schedule, cancel, end)| {
        // Cancelling is rare, or nothing would fire.
        Step { key, value, time, schedule, cancel: cancel && key > 230, end }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_that_are_passed_over_leave_nothing_else(steps in proptest::collection::vec(step(), 1..25)) {
        let well: Vec<Step> = steps.iter().copied().filter(|step| step.end == End::Well).collect();
        let expected = run(FailurePolicy::skip().into(), &well);
        let retry = || FailurePolicy::retry(2, Duration::from_millis(300));
        let policies: [Policy; 4] = [
            FailurePolicy::skip().into(),
            FailurePolicy::dead_letter("failed").into(),
            retry().then(FailurePolicy::skip()).into(),
            retry().then(FailurePolicy::dead_letter("failed")).into(),
        ];
        for policy in policies {
            let (outputs, sums, last, passed_over) = run(policy, &steps);
            prop_assert_eq!(passed_over, steps.len() - well.len());
            prop_assert_eq!((&outputs, &sums, &last), (&expected.0, &expected.1, &expected.2));
        }
    }
}
