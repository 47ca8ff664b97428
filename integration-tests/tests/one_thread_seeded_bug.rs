//! A rule of the protocol is switched off, and the simulation must see it: an oracle that cannot fail proves nothing. The
//! switch holds for a whole process, so this has a test binary of its own.

use processor_integration_tests::simulation::run;
use processor_runtime::seeded_bugs::{Rule, switch_off};

/// EO-11: a producer with a request that may still arrive begins another transaction, and the late copy ends it too
/// early: outputs are lost or doubled.
#[test]
fn without_the_taint_rule_a_schedule_goes_wrong() {
    switch_off(Rule::TaintedProducerIsReplaced);
    let wrong = (0..5_000).find_map(|seed| {
        let panic = std::panic::catch_unwind(|| run(seed)).err()?;
        let said = panic.downcast_ref::<String>()?;
        said.contains("partition ").then(|| (seed, said.clone()))
    });
    let (seed, said) = wrong.expect("the oracle sees a late commit or abort that hits a later transaction");
    eprintln!("seed {seed}: {}", said.lines().next().unwrap_or_default());
}
