//! Rules of the protocol that a test may switch off, one at a time, to show that they are needed and that the oracles
//! see what happens without them. Only with the feature `seeded-bugs`; otherwise every rule is a constant `true`.

/// A rule that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// EO-11: a tainted producer is replaced before the next transaction.
    TaintedProducerIsReplaced,
}

#[cfg(feature = "seeded-bugs")]
mod switches {
    use super::Rule;
    use std::sync::atomic::{AtomicU32, Ordering};

    static OFF: AtomicU32 = AtomicU32::new(0);

    /// Switches a rule off in this process, for good.
    pub fn switch_off(rule: Rule) {
        OFF.fetch_or(1 << rule as u32, Ordering::Relaxed);
    }

    /// Whether the rule holds.
    pub(crate) fn holds(rule: Rule) -> bool {
        OFF.load(Ordering::Relaxed) & (1 << rule as u32) == 0
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use switches::holds;
#[cfg(feature = "seeded-bugs")]
pub use switches::switch_off;

/// Whether the rule holds.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn holds(_rule: Rule) -> bool {
    true
}
