//! Faults from a seed: the same seed gives the same rules, so what a script has broken can be broken again.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use processor_simulator::SplitMix64;

use super::{ApiKey, Fault, Rule};

/// Rules that nobody has to release.
#[derive(Clone, Debug)]
pub struct Script {
    seed: u64,
    rules: Vec<Rule>,
}

impl Script {
    /// So many rules, each for one of the first `within` requests of one of these kinds. No two are for the same request:
    /// only one would fire.
    ///
    /// # Panics
    /// There are fewer requests than rules.
    pub fn from_seed(seed: u64, kinds: &[ApiKey], count: usize, within: u32) -> Self {
        assert!(count <= kinds.len() * within as usize, "{count} rules need as many requests");
        let mut random = SplitMix64::new(seed);
        let (mut taken, mut rules) = (BTreeSet::new(), Vec::with_capacity(count));
        while rules.len() < count {
            let kind = kinds[random.below(kinds.len() as u64) as usize];
            let nth = 1 + random.below(u64::from(within)) as u32;
            let fault = fault(&mut random);
            if taken.insert((kind, nth)) {
                rules.push(Rule::new(kind, fault).nth(nth));
            }
        }
        Self { seed, rules }
    }

    /// Only for requests of clients whose `client.id` contains this.
    #[must_use]
    pub fn client_id_contains(self, part: &str) -> Self {
        let rules = self.rules.into_iter().map(|rule| rule.client_id_contains(part)).collect();
        Self { rules, ..self }
    }

    /// The rules, to be installed in this order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "script of seed {}", self.seed)?;
        self.rules.iter().try_for_each(|rule| write!(f, "\n  {}. of {:?}: {:?}", rule.nth, rule.api_key, rule.fault))
    }
}

fn fault(random: &mut SplitMix64) -> Fault {
    let mut time = || Duration::from_millis(1 + random.below(200));
    let (time, pause) = (time(), time() / 20);
    match random.below(7) {
        0 => Fault::Duplicate,
        1 => Fault::CutInPieces { pieces: 2 + random.below(20) as usize, pause },
        2 => Fault::DropRequest,
        3 => Fault::Delay(time),
        4 => Fault::DropResponse,
        5 => Fault::ResetAfterForward,
        _ => Fault::DelayResponse(time),
    }
}
