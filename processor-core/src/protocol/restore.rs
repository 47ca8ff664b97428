//! From what is committed, what is stored and where the changelog ends to what must be replayed: "Getting a partition" of
//! `ARCHITECTURE.md` as pure functions.
//!
//! The order in which the facts are gathered is part of the proof: all committed offsets **C** of a task, stable and
//! after its assignment, then the changelog's ends **E**, read uncommitted. Then everything that was committed before C
//! was read lies below E, and replaying up to E, read committed, misses none of it.

use crate::ids::{BatchId, ChangelogOffset, Offset, Timestamp};

/// What is known about one store before it is restored.
///
/// ```
/// use processor_core::ids::ChangelogOffset;
/// use processor_core::protocol::restore::{StoreFacts, plan};
///
/// let facts = StoreFacts {
///     committed: true,
///     named_end: Some(ChangelogOffset::new(90)),
///     log_start: ChangelogOffset::new(10),
///     log_end: ChangelogOffset::new(100),
///     stored: None, // a new disk
///     stored_age_ms: 0,
///     delete_retention_ms: 86_400_000,
/// };
/// assert_eq!(plan(&facts).map(|plan| plan.from), Ok(facts.log_start));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFacts {
    /// Whether the group has committed an offset for the task.
    pub committed: bool,
    /// The changelog's end: the highest that the commit of any of the task's inputs names.
    pub named_end: Option<ChangelogOffset>,
    /// The first offset of the changelog partition.
    pub log_start: ChangelogOffset,
    /// Its high watermark (E).
    pub log_end: ChangelogOffset,
    /// How far local state contains it.
    pub stored: Option<ChangelogOffset>,
    /// How long ago, in milliseconds, local state was last written.
    pub stored_age_ms: i64,
    /// `delete.retention.ms` of the changelog: for so long a tombstone is kept for those who have not read it.
    pub delete_retention_ms: i64,
}

/// How to restore a store.
///
/// ```
/// # use processor_core::ids::ChangelogOffset;
/// use processor_core::protocol::restore::{StoreFacts, StorePlan, plan};
///
/// # let at = ChangelogOffset::new;
/// # let facts = StoreFacts {
/// #     committed: true,
/// #     named_end: Some(at(90)),
/// #     log_start: at(10),
/// #     log_end: at(100),
/// #     stored: Some(at(80)),
/// #     stored_age_ms: 0,
/// #     delete_retention_ms: 86_400_000,
/// # };
/// // State at 80; the last commit ends at 90, the log at 100.
/// let rest = StorePlan { wipe: None, from: at(80), until: at(100), lacks_records: true };
/// assert_eq!(plan(&facts), Ok(rest));
/// // Behind the last commit lie its marker and what has died: no record is missing.
/// let plan = plan(&StoreFacts { stored: Some(at(90)), ..facts })?;
/// assert!(!plan.lacks_records);
/// # Ok::<(), processor_core::protocol::restore::RestoreRefusal>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorePlan {
    /// Whether, and why, local state is emptied first.
    pub wipe: Option<WipeReason>,
    /// Where to begin reading.
    pub from: ChangelogOffset,
    /// The position that must be reached.
    pub until: ChangelogOffset,
    /// Whether local state lacks records: then it must not be older than tombstones are kept when the replay *ends*, or
    /// keys deleted meanwhile would come back.
    pub lacks_records: bool,
}

/// Why local state cannot be continued and is restored in full.
///
/// ```
/// # use processor_core::ids::ChangelogOffset;
/// # use processor_core::protocol::restore::{RestoreRefusal, StoreFacts, WipeReason, plan};
/// # let at = ChangelogOffset::new;
/// # let facts = StoreFacts {
/// #     committed: true,
/// #     named_end: Some(at(90)),
/// #     log_start: at(10),
/// #     log_end: at(100),
/// #     stored: Some(at(80)),
/// #     stored_age_ms: 0,
/// #     delete_retention_ms: 86_400_000,
/// # };
/// // The changelog was made again: it ends before the position of local state.
/// let plan = plan(&StoreFacts { stored: Some(at(101)), ..facts })?;
/// assert_eq!((plan.wipe, plan.from), (Some(WipeReason::BeyondEnd), facts.log_start));
/// let said = WipeReason::BeyondEnd.to_string(); // in the log
/// assert_eq!(said, "its position lies beyond the end of the changelog");
/// # Ok::<(), RestoreRefusal>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WipeReason {
    /// Its position lies beyond the changelog's end: the topic was made again, or lost records.
    BeyondEnd,
    /// Its position lies before the changelog's start: records it has not seen were deleted.
    BeforeStart,
    /// It is older than tombstones are kept: keys deleted meanwhile would come back.
    TooOld,
}

impl std::fmt::Display for WipeReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BeyondEnd => "its position lies beyond the end of the changelog",
            Self::BeforeStart => "its position lies before the start of the changelog",
            Self::TooOld => "it is older than the changelog's delete.retention.ms, so deleted keys could come back",
        })
    }
}

/// Why a task must not start; a person decides.
///
/// ```
/// # use processor_core::ids::ChangelogOffset;
/// # use processor_core::protocol::restore::{RestoreRefusal, StoreFacts, WipeReason, plan};
/// # let at = ChangelogOffset::new;
/// # let facts = StoreFacts {
/// #     committed: true,
/// #     named_end: Some(at(90)),
/// #     log_start: at(10),
/// #     log_end: at(100),
/// #     stored: Some(at(80)),
/// #     stored_age_ms: 0,
/// #     delete_retention_ms: 86_400_000,
/// # };
/// // The commit says 120, but the changelog ends at 100.
/// let lost = plan(&StoreFacts { named_end: Some(at(120)), ..facts });
/// let refusal = RestoreRefusal::ChangelogLost { named_end: at(120), log_end: at(100) };
/// assert_eq!(lost, Err(refusal));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreRefusal {
    /// The changelog ends before the end that a commit names: it has lost committed records.
    ChangelogLost {
        /// The end that the commit names.
        named_end: ChangelogOffset,
        /// Where the log ends.
        log_end: ChangelogOffset,
    },
    /// There is state, but no committed offset that it belongs to: offsets were reset, or have expired.
    OffsetsLost,
}

/// Plans the restore of one store.
///
/// ```
/// # use processor_core::ids::ChangelogOffset;
/// # use processor_core::protocol::restore::{RestoreRefusal, StoreFacts, WipeReason, plan};
/// # let at = ChangelogOffset::new;
/// # let facts = StoreFacts {
/// #     committed: true,
/// #     named_end: Some(at(90)),
/// #     log_start: at(10),
/// #     log_end: at(100),
/// #     stored: Some(at(80)),
/// #     stored_age_ms: 0,
/// #     delete_retention_ms: 86_400_000,
/// # };
/// // State at 80 of a changelog from 10 to 100.
/// let kept = plan(&facts)?;
/// assert_eq!((kept.wipe, kept.from, kept.until), (None, at(80), at(100)));
/// // The changelog has lost records that this state has not seen.
/// let emptied = plan(&StoreFacts { log_start: at(85), ..facts })?;
/// assert_eq!((emptied.wipe, emptied.from), (Some(WipeReason::BeforeStart), at(85)));
/// # Ok::<(), RestoreRefusal>(())
/// ```
///
/// # Errors
/// The facts contradict each other in a way that continuing would make wrong.
///
/// # Panics
/// If the log starts behind its end.
pub fn plan(facts: &StoreFacts) -> Result<StorePlan, RestoreRefusal> {
    if let Some(named_end) = facts.named_end
        && named_end > facts.log_end
    {
        return Err(RestoreRefusal::ChangelogLost { named_end, log_end: facts.log_end });
    }
    if !facts.committed && facts.stored.is_some() {
        return Err(RestoreRefusal::OffsetsLost);
    }
    let lacks_records = facts.stored.is_some_and(|stored| lacks_records(facts, stored));
    let wipe = facts.stored.and_then(|stored| wipe_reason(facts, stored, lacks_records));
    let from = match (facts.stored, wipe) {
        (Some(stored), None) => stored.max(facts.log_start),
        (None, _) | (_, Some(_)) => facts.log_start,
    };
    assert!(from <= facts.log_end, "EO-4: replay starts at or before the changelog's end");
    Ok(StorePlan { wipe, from, until: facts.log_end, lacks_records: lacks_records && wipe.is_none() })
}

/// Whether the changelog has, or had, committed records that local state has not seen. Behind the end that the last
/// commit names there are none: control records, and what transactions have left that died.
fn lacks_records(facts: &StoreFacts, stored: ChangelogOffset) -> bool {
    stored < facts.named_end.unwrap_or(facts.log_end)
}

fn wipe_reason(facts: &StoreFacts, stored: ChangelogOffset, lacks_records: bool) -> Option<WipeReason> {
    if stored > facts.log_end {
        Some(WipeReason::BeyondEnd)
    } else if stored < facts.log_start && lacks_records {
        Some(WipeReason::BeforeStart)
    } else if facts.stored_age_ms > facts.delete_retention_ms && lacks_records {
        Some(WipeReason::TooOld)
    } else {
        None
    }
}

/// Whether the stores without a changelog may go on from local state: only if that is exactly what the last commit left.
///
/// Nothing can be replayed into them. So what a crash took from them, or what another worker committed meanwhile, would
/// be missing; they begin empty then. A commit is known by its batch, and by the stream time, as batches are counted anew
/// where somebody has reset the offsets.
///
/// ```
/// use processor_core::ids::{BatchId, Timestamp};
/// use processor_core::protocol::restore::is_as_committed;
///
/// let of = |batch, time| (BatchId::new(batch), Some(Timestamp::new(time)));
/// assert!(is_as_committed(of(7, 1_000), of(7, 1_000)));
/// assert!(!is_as_committed(of(6, 900), of(7, 1_000))); // a crash took the seventh
/// assert!(!is_as_committed(of(7, 900), of(7, 1_000))); // another seventh, after a reset
/// ```
pub fn is_as_committed(stored: (BatchId, Option<Timestamp>), committed: (BatchId, Option<Timestamp>)) -> bool {
    stored == committed
}

/// Where a task that never committed begins to read an input.
///
/// ```
/// use processor_core::ids::Offset;
/// use processor_core::protocol::restore::{StartRule, start_offset};
///
/// let start = |rule| start_offset(None, rule, Offset::new(5), Offset::new(50));
/// assert_eq!(start(StartRule::Earliest), Some(Offset::new(5)));
/// assert_eq!(start(StartRule::Latest), Some(Offset::new(50)));
/// assert_eq!(start(StartRule::Refuse), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRule {
    /// At the first record that is still there.
    Earliest,
    /// Behind the last one.
    Latest,
    /// Nowhere: a person decides.
    Refuse,
}

/// Resolves the start of an input: what is committed, else by the rule, as a number that the first
/// transaction commits. `None`: nothing is committed, and the rule leaves it to a person.
///
/// ```
/// # use processor_core::ids::Offset;
/// # use processor_core::protocol::restore::{StartRule, start_offset};
/// let (first, end) = (Offset::new(5), Offset::new(50)); // of the input's log
/// let start = |committed| start_offset(committed, StartRule::Latest, first, end);
/// assert_eq!(start(Some(Offset::new(7))), Some(Offset::new(7)));
/// assert_eq!(start(None), Some(end));
/// ```
pub fn start_offset(committed: Option<Offset>, rule: StartRule, log_start: Offset, log_end: Offset) -> Option<Offset> {
    match (committed, rule) {
        (Some(offset), _) => Some(offset),
        (None, StartRule::Earliest) => Some(log_start),
        (None, StartRule::Latest) => Some(log_end),
        (None, StartRule::Refuse) => None,
    }
}

/// Whether local state of this age may be continued to the end of a restore that ends now.
///
/// ```
/// use processor_core::ids::Timestamp;
/// use processor_core::protocol::restore::still_young;
///
/// let day_ms = 86_400_000; // delete.retention.ms
/// let written_at = Timestamp::new(1_000);
/// assert!(still_young(written_at, Timestamp::new(1_000 + day_ms), day_ms));
/// assert!(!still_young(written_at, Timestamp::new(1_001 + day_ms), day_ms));
/// ```
pub fn still_young(written_at: Timestamp, now: Timestamp, delete_retention_ms: i64) -> bool {
    now.get().saturating_sub(written_at.get()) <= delete_retention_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: i64) -> ChangelogOffset {
        ChangelogOffset::new(offset)
    }

    const FACTS: StoreFacts = StoreFacts {
        committed: true,
        named_end: Some(ChangelogOffset::new(90)),
        log_start: ChangelogOffset::new(10),
        log_end: ChangelogOffset::new(100),
        stored: Some(ChangelogOffset::new(80)),
        stored_age_ms: 0,
        delete_retention_ms: 1_000,
    };

    #[test]
    fn only_the_tail_is_replayed() {
        assert_eq!(plan(&FACTS), Ok(StorePlan { wipe: None, from: at(80), until: at(100), lacks_records: true }));
    }

    #[test]
    fn without_state_everything_is_replayed() {
        let plan = plan(&StoreFacts { stored: None, ..FACTS });
        assert_eq!(plan, Ok(StorePlan { wipe: None, from: at(10), until: at(100), lacks_records: false }));
    }

    #[test]
    fn a_position_that_the_log_cannot_continue_is_wiped() {
        let cases = [
            (StoreFacts { stored: Some(at(101)), ..FACTS }, WipeReason::BeyondEnd),
            (StoreFacts { stored: Some(at(9)), ..FACTS }, WipeReason::BeforeStart),
            (StoreFacts { stored_age_ms: 1_001, ..FACTS }, WipeReason::TooOld),
        ];
        for (facts, reason) in cases {
            let from_the_start = StorePlan { wipe: Some(reason), from: at(10), until: at(100), lacks_records: false };
            assert_eq!(plan(&facts), Ok(from_the_start));
        }
    }

    /// Behind the last commit's end stand its marker and what died: state that reaches that end is complete, however old
    /// it is and whatever the log has lost since.
    #[test]
    fn complete_state_is_kept_at_any_age() {
        let old = StoreFacts { stored_age_ms: 1_001, stored: Some(at(90)), ..FACTS };
        assert_eq!(plan(&old), Ok(StorePlan { wipe: None, from: at(90), until: at(100), lacks_records: false }));
        let emptied = StoreFacts { log_start: at(100), ..old };
        assert_eq!(plan(&emptied), Ok(StorePlan { wipe: None, from: at(100), until: at(100), lacks_records: false }));
    }

    #[test]
    fn a_changelog_that_lost_committed_records_stops_the_task() {
        let facts = StoreFacts { named_end: Some(at(101)), ..FACTS };
        assert_eq!(plan(&facts), Err(RestoreRefusal::ChangelogLost { named_end: at(101), log_end: at(100) }));
    }

    #[test]
    fn state_without_a_committed_offset_stops_the_task() {
        let facts = StoreFacts { committed: false, named_end: None, ..FACTS };
        assert_eq!(plan(&facts), Err(RestoreRefusal::OffsetsLost));
    }

    #[test]
    fn local_state_goes_on_only_where_it_is_what_was_committed() {
        let at = |batch, time| (BatchId::new(batch), Some(Timestamp::new(time)));
        assert!(is_as_committed(at(7, 100), at(7, 100)));
        assert!(!is_as_committed(at(6, 90), at(7, 100)), "a batch was lost, or processed elsewhere");
        assert!(!is_as_committed(at(7, 90), at(7, 100)), "another seventh batch, after a reset");
        assert!(!is_as_committed(at(7, 100), (BatchId::NONE, None)), "offsets that were set by hand vouch for nothing");
    }

    #[test]
    fn a_missing_offset_is_resolved_to_a_number_once() {
        let resolve = |committed, rule| start_offset(committed, rule, Offset::new(5), Offset::new(50));
        assert_eq!(resolve(Some(Offset::new(7)), StartRule::Refuse), Some(Offset::new(7)));
        assert_eq!(resolve(None, StartRule::Earliest), Some(Offset::new(5)));
        assert_eq!(resolve(None, StartRule::Latest), Some(Offset::new(50)));
        assert_eq!(resolve(None, StartRule::Refuse), None);
    }

    proptest! {
        /// EO-4: a plan never continues from a position that the changelog does not hold, and always ends at E.
        #[test]
        fn a_plan_stays_inside_the_log(
            committed in any::<bool>(), named in prop::option::of(0..200_i64), start in 0..100_i64, len in 0..100_i64,
            stored in prop::option::of(0..250_i64), age in 0..2_000_i64,
        ) {
            let facts = StoreFacts {
                committed, named_end: named.map(at), log_start: at(start), log_end: at(start + len),
                stored: stored.map(at), stored_age_ms: age, delete_retention_ms: 1_000,
            };
            if let Ok(plan) = plan(&facts) {
                prop_assert!(facts.log_start <= plan.from && plan.from <= facts.log_end);
                prop_assert_eq!(plan.until, facts.log_end);
                let continues = facts.stored.is_none_or(|stored| plan.from == stored.max(facts.log_start));
                prop_assert!(plan.wipe.is_some() || continues);
                // A replay that skips what the log does not hold any more skips nothing that was committed.
                let skips = plan.wipe.is_none() && facts.stored.is_some_and(|stored| stored < plan.from);
                prop_assert!(!skips || facts.stored >= facts.named_end && facts.named_end.is_some());
            }
        }
    }
}
