//! What can be late, how, and when it arrives.

use std::fmt;

use serde::Serialize;

use crate::proxy::{ApiKey, Fault, Rule};

/// The request that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum LateRequest {
    /// `EndTxn` that commits.
    Commit,
    /// `EndTxn` that aborts.
    Abort,
    /// The offsets.
    TxnOffsetCommit,
    /// The transaction's partitions.
    AddPartitionsToTxn,
    /// The transaction's group.
    AddOffsetsToTxn,
    /// Records.
    Produce,
}

impl LateRequest {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Commit,
        Self::Abort,
        Self::TxnOffsetCommit,
        Self::AddPartitionsToTxn,
        Self::AddOffsetsToTxn,
        Self::Produce,
    ];

    /// Whether it ends its transaction.
    pub fn ends(self) -> bool {
        matches!(self, Self::Commit | Self::Abort)
    }

    /// Whether a late copy always taints its producer. Records do not where their transaction committed: one that is
    /// there already is acknowledged once more, all else has the wrong sequence or epoch.
    pub fn taints(self) -> bool {
        self != Self::Produce
    }

    /// A rule for the first request of this kind.
    pub fn rule(self, fault: Fault) -> Rule {
        match self {
            Self::Commit => Rule::end_txn(true, fault),
            Self::Abort => Rule::end_txn(false, fault),
            Self::TxnOffsetCommit => Rule::new(ApiKey::TXN_OFFSET_COMMIT, fault),
            Self::AddPartitionsToTxn => Rule::new(ApiKey::ADD_PARTITIONS_TO_TXN, fault),
            Self::AddOffsetsToTxn => Rule::new(ApiKey::ADD_OFFSETS_TO_TXN, fault),
            Self::Produce => Rule::new(ApiKey::PRODUCE, fault),
        }
    }
}

impl fmt::Display for LateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "EndTxn commit",
            Self::Abort => "EndTxn abort",
            Self::TxnOffsetCommit => "TxnOffsetCommit",
            Self::AddPartitionsToTxn => "AddPartitionsToTxn",
            Self::AddOffsetsToTxn => "AddOffsetsToTxn",
            Self::Produce => "Produce",
        })
    }
}

/// Why it is late, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Failure {
    /// Its answer does not come in time.
    TimeOut,
    /// Its connection is lost.
    Reset,
}

impl Failure {
    /// Both.
    pub const ALL: [Self; 2] = [Self::TimeOut, Self::Reset];

    /// What the proxy does.
    pub fn fault(self) -> Fault {
        match self {
            Self::TimeOut => Fault::HoldAndTimeout,
            Self::Reset => Fault::HoldAndReset,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimeOut => "time-out",
            Self::Reset => "reset",
        })
    }
}

/// When the late copy arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Point {
    /// Inside the next transaction, which is open at the broker.
    NextTransaction,
    /// When its transaction is over, its retry answered, and the new producer not initialised; without the taint rule,
    /// and so without a new producer: before the next transaction begins.
    BeforeRebuild,
    /// When the new producer is initialised and its first transaction has not begun.
    AfterRebuild,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NextTransaction, Self::BeforeRebuild, Self::AfterRebuild];
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextTransaction => "inside the next transaction",
            Self::BeforeRebuild => "between retry and rebuild",
            Self::AfterRebuild => "after the rebuild",
        })
    }
}

/// Where the next transaction stands when the late copy arrives: which of its requests is held meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// All records are there, the offsets are not.
    AddOffsets,
    /// The group is in the transaction, the offsets are not.
    Offsets,
    /// Everything is there.
    Commit,
    /// Everything is there, and the transaction is about to abort.
    Abort,
}

/// Variants that are so far apart are at the same gate.
pub const VARIANTS_OF_A_GATE: u32 = 4;

/// One late request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is late.
    pub request: LateRequest,
    /// Why.
    pub failure: Failure,
    /// When it arrives.
    pub point: Point,
    /// Which of several of the kind, and at which gate: the first variant does the most harm where nothing holds it off.
    pub variant: u32,
}

impl Case {
    /// Every combination, in this variant.
    pub fn matrix(variant: u32) -> Vec<Self> {
        let mut cases = Vec::new();
        for request in LateRequest::ALL {
            for failure in Failure::ALL {
                cases.extend(Point::ALL.map(|point| Self { request, failure, point, variant }));
            }
        }
        cases
    }

    /// Why there is no such case.
    ///
    /// # Errors
    /// There is none.
    pub fn exists(self, with_rule: bool) -> Result<(), &'static str> {
        if !with_rule && self.point == Point::AfterRebuild {
            return Err("without the rule no producer is rebuilt");
        }
        Ok(())
    }

    /// The n-th request of the kind is hit.
    pub fn nth(self) -> u32 {
        1 + self.variant / VARIANTS_OF_A_GATE % 3
    }

    /// Where the next transaction stands.
    pub fn gate(self) -> Gate {
        let gates = match self.request {
            // A commit makes what is about to abort visible; it is redone.
            LateRequest::Commit => [Gate::Abort, Gate::AddOffsets, Gate::Offsets, Gate::Commit],
            // An abort takes the records away, and the offsets behind them are committed.
            LateRequest::Abort => [Gate::AddOffsets, Gate::Offsets, Gate::Commit, Gate::Abort],
            // Old offsets replace new ones.
            LateRequest::TxnOffsetCommit => [Gate::Commit, Gate::AddOffsets, Gate::Offsets, Gate::Abort],
            LateRequest::AddPartitionsToTxn | LateRequest::AddOffsetsToTxn | LateRequest::Produce => {
                [Gate::Commit, Gate::AddOffsets, Gate::Offsets, Gate::Abort]
            }
        };
        gates[(self.variant % VARIANTS_OF_A_GATE) as usize]
    }

    /// Whether the transaction that is hit must abort. Records taint only then.
    pub fn aborts(self, with_rule: bool) -> bool {
        let rebuilt = with_rule && self.point != Point::NextTransaction;
        self.request == LateRequest::Abort || (self.request == LateRequest::Produce && rebuilt)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, failure, point, variant } = self;
        write!(f, "{request}, {failure}, {point}, variant {variant}")?;
        if *point == Point::NextTransaction { write!(f, " ({:?} held)", self.gate()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_every_combination_once() {
        let mut cells: Vec<_> = Case::matrix(0).iter().map(|case| (case.request, case.failure, case.point)).collect();
        cells.sort();
        cells.dedup();
        assert_eq!(cells.len(), LateRequest::ALL.len() * Failure::ALL.len() * Point::ALL.len());
    }

    #[test]
    fn four_variants_stand_at_four_gates() {
        for request in LateRequest::ALL {
            let case = |variant| Case { request, failure: Failure::Reset, point: Point::NextTransaction, variant };
            for first in 0..VARIANTS_OF_A_GATE {
                assert!((first + 1..VARIANTS_OF_A_GATE).all(|second| case(first).gate() != case(second).gate()));
                assert_eq!(case(first).gate(), case(first + VARIANTS_OF_A_GATE).gate());
            }
        }
    }
}
