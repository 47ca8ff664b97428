//! Which fault comes next: a seed decides, and the weights of those that can be done here.

use processor_simulator::SplitMix64;

use super::faults::Fault;

/// Chooses faults.
#[derive(Debug)]
pub(super) struct Schedule {
    faults: Vec<Fault>,
    /// Those that have not come in this round: a short run shall have seen as many kinds as it has faults.
    fresh: Vec<Fault>,
}

impl Schedule {
    /// Of these faults.
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        assert!(!faults.is_empty(), "there is nothing to choose from");
        Self { fresh: faults.clone(), faults }
    }

    /// The next one: each of them once, in any order, and from then on by weight.
    pub(super) fn next(&mut self, random: &mut SplitMix64) -> Fault {
        if !self.fresh.is_empty() {
            let at = random.below(self.fresh.len() as u64) as usize;
            return self.fresh.swap_remove(at);
        }
        let mut left = random.below(self.faults.iter().map(|fault| fault.weight()).sum());
        for fault in &self.faults {
            match left.checked_sub(fault.weight()) {
                Some(rest) => left = rest,
                None => return *fault,
            }
        }
        unreachable!("the number lies below the sum of the weights")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_comes_once_before_one_comes_twice() {
        let (mut schedule, mut random) = (Schedule::new(Fault::ALL.to_vec()), SplitMix64::new(3));
        let mut first: Vec<Fault> = Fault::ALL.iter().map(|_| schedule.next(&mut random)).collect();
        first.sort_unstable();
        assert_eq!(first, Fault::ALL);
    }

    #[test]
    fn a_heavy_fault_comes_more_often_and_the_same_seed_gives_the_same_schedule() {
        let drawn = |seed| {
            let (mut schedule, mut random) = (Schedule::new(Fault::ALL.to_vec()), SplitMix64::new(seed));
            (0..1_000).map(|_| schedule.next(&mut random)).collect::<Vec<_>>()
        };
        let faults = drawn(1);
        let count = |fault| faults.iter().filter(|drawn| **drawn == fault).count();
        assert!(count(Fault::WorkerKill) > count(Fault::BrokersRoll), "{faults:?}");
        assert_eq!(faults, drawn(1));
        assert_ne!(faults, drawn(2));
    }
}
