//! What can be done to workers, brokers and the network: each fault's name, what it is, how often it is chosen, how soon
//! work must go on, and whether this machine allows it. How each is carried out is in `strike`.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::clock::SettableClock;
use super::network::Network;
use crate::disk::Disk;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    WorkerKill,
    WorkerGone,
    WorkerPause,
    WorkerFailpoint,
    WorkerStop,
    RollingRestart,
    Scale,
    BrokerKill,
    BrokerStop,
    BrokerPause,
    CoordinatorKill,
    BrokersRoll,
    BrokersDown,
    NetworkCut,
    NetworkStorm,
    NetworkPartition,
    AnswerLost,
    CommitLate,
    DiskFull,
    StateDamage,
    StateLost,
    StateStale,
    ClockJump,
}

/// What the table says of a fault.
struct Entry {
    name: &'static str,
    meaning: &'static str,
    /// How often it is chosen, compared with the others.
    weight: u64,
    bound: Duration,
}

impl Fault {
    pub(super) const ALL: [Self; 23] = [
        Self::WorkerKill,
        Self::WorkerGone,
        Self::WorkerPause,
        Self::WorkerFailpoint,
        Self::WorkerStop,
        Self::RollingRestart,
        Self::Scale,
        Self::BrokerKill,
        Self::BrokerStop,
        Self::BrokerPause,
        Self::CoordinatorKill,
        Self::BrokersRoll,
        Self::BrokersDown,
        Self::NetworkCut,
        Self::NetworkStorm,
        Self::NetworkPartition,
        Self::AnswerLost,
        Self::CommitLate,
        Self::DiskFull,
        Self::StateDamage,
        Self::StateLost,
        Self::StateStale,
        Self::ClockJump,
    ];

    fn entry(self) -> Entry {
        let entry =
            |name, weight, seconds, meaning| Entry { name, meaning, weight, bound: Duration::from_secs(seconds) };
        match self {
            Self::WorkerKill => {
                entry("worker-kill", 10, 3, "SIGKILL of a worker; the same static member comes back at once")
            }
            Self::WorkerGone => {
                entry("worker-gone", 3, 8, "SIGKILL of a worker that stays away for longer than its session")
            }
            Self::WorkerPause => {
                entry("worker-pause", 2, 10, "SIGSTOP of a worker for 1 to 20 s; counted from SIGCONT")
            }
            Self::WorkerFailpoint => {
                entry("worker-failpoint", 8, 3, "a worker dies at a named place of its turn; back at once")
            }
            Self::WorkerStop => entry("worker-stop", 6, 3, "SIGTERM of a worker, which is started again"),
            Self::RollingRestart => {
                entry("rolling-restart", 1, 3, "SIGTERM and start of every worker, one after the other")
            }
            Self::Scale => entry("scale", 2, 5, "a fourth worker joins, works, and leaves"),
            Self::BrokerKill => {
                entry("broker-kill", 2, 15, "SIGKILL of a broker that leads partitions; started again at once")
            }
            Self::BrokerStop => {
                entry("broker-stop", 1, 15, "a clean stop of a broker that leads partitions, and its start")
            }
            Self::BrokerPause => {
                entry("broker-pause", 1, 15, "SIGSTOP of a broker for 5 to 15 s; counted from SIGCONT")
            }
            Self::CoordinatorKill => entry(
                "coordinator-kill",
                2,
                20,
                "SIGKILL of the broker that coordinates a worker's transaction, at its commit",
            ),
            Self::BrokersRoll => {
                entry("brokers-roll", 1, 20, "SIGKILL of every broker, each when the one before is back")
            }
            Self::BrokersDown => entry(
                "brokers-down",
                1,
                15,
                "SIGKILL of two of three brokers for 5 to 15 s; counted from when both answer again",
            ),
            Self::NetworkCut => {
                entry("network-cut", 6, 15, "every connection of the workers to one broker, or to all, is closed")
            }
            Self::NetworkStorm => entry(
                "network-storm",
                2,
                15,
                "no connection of the workers lasts, for 1 to 8 s; counted from the end of that",
            ),
            Self::NetworkPartition => entry(
                "network-partition",
                4,
                15,
                "packets between the workers and one broker, or all, vanish, one way or both, for 2 to 12 s; counted from the \
                 end of that",
            ),
            Self::AnswerLost => entry("answer-lost", 4, 15, "a worker's commit takes effect, and its answer is lost"),
            Self::CommitLate => entry(
                "commit-late",
                4,
                15,
                "a worker's commit is held back, its connection closed, and it arrives much later",
            ),
            Self::DiskFull => {
                entry("disk-full", 1, 10, "a worker's disk is full until that is seen; counted from when there is room")
            }
            Self::StateDamage => {
                entry("state-damage", 2, 10, "SIGKILL of a worker, and files of its state are damaged")
            }
            Self::StateLost => entry("state-lost", 2, 10, "SIGKILL of a worker, and its state directory is lost"),
            Self::StateStale => entry(
                "state-stale",
                2,
                10,
                "SIGKILL of a worker, and its state directory is what it was thousands of records ago",
            ),
            Self::ClockJump => {
                entry("clock-jump", 1, 10, "the wall clock of a worker is set an hour ahead or behind while it works")
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.entry().name
    }

    pub(super) fn meaning(self) -> &'static str {
        self.entry().meaning
    }

    pub(super) fn weight(self) -> u64 {
        self.entry().weight
    }

    /// Within this time every partition that the victim owned must show an output of a record that was produced after the
    /// strike, or after its end where the meaning says so.
    pub(super) fn bound(self) -> Duration {
        self.entry().bound
    }

    /// Whether a broker is the victim.
    pub(super) fn hits_brokers(self) -> bool {
        matches!(
            self,
            Self::BrokerKill
                | Self::BrokerStop
                | Self::BrokerPause
                | Self::CoordinatorKill
                | Self::BrokersRoll
                | Self::BrokersDown
        )
    }

    /// Why it cannot be done here.
    pub(super) fn why_not(self, means: &Means) -> Option<&str> {
        match self {
            Self::DiskFull => means.small_disk.as_ref().err().map(String::as_str),
            Self::ClockJump => means.clock.as_ref().err().map(String::as_str),
            _ => None,
        }
    }
}

/// What this machine allows.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) small_disk: Result<(), String>,
    pub(super) clock: Result<SettableClock, String>,
    pub(super) network: Network,
}

impl Means {
    /// Tries it out, in a directory of ours.
    pub(super) fn find(directory: &Path, network: Network) -> Self {
        let small_disk =
            Disk::new(&directory.join("try-disk"), 1 << 20).map(drop).map_err(|error| format!("{error:#}"));
        let clock = SettableClock::new(directory).map_err(|error| format!("{error:#}"));
        Self { small_disk, clock, network }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own_and_can_be_chosen() {
        let names: BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        assert!(Fault::ALL.iter().all(|fault| fault.weight() > 0 && !fault.bound().is_zero()));
    }

    #[test]
    fn what_the_machine_lacks_is_left_out_with_the_reason() {
        let means = Means {
            small_disk: Err("no rights".to_owned()),
            clock: Err("not installed".to_owned()),
            network: Network::Shared("not allowed".to_owned()),
        };
        let left_out: Vec<_> = Fault::ALL.into_iter().filter_map(|fault| fault.why_not(&means)).collect();
        assert_eq!(left_out, ["no rights", "not installed"]);
    }
}
