//! What must hold at the end of a segment, when everything that was produced is processed: every oracle, over every record.
//!
//! The load ends; the offsets reach the end of the input; no transaction stays open (O7); the workers stop cleanly; what
//! the watchers saw all the time (O3, O4) is judged; and then outputs, changelog and every copy of every store must say
//! what the input says (O1, O2; a record of an aborted transaction that became visible, O5, would be a second output or a
//! batch twice). Last, what the brokers' files say of each transaction (O8).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::cluster::Cluster;
use super::segment::{PARTITIONS, STUCK, Segment, ensure_alive};
use super::{Wrong, panic_text, wrong};
use crate::broker::{RawLog, RawRecords};
use crate::lab::interrupt::Interrupt;
use crate::oracle::{self, TaskFiles};
use crate::scene::{Scene, copy_directory};

/// How long a transaction may stay open when nothing is left to do: markers may wait for a broker that has just come back.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
/// So often at least the concurrent reader must have stood behind new batches, for what it has seen to count.
const ENDS_MIN: u64 = 20;

impl Segment {
    /// Ends the segment and verifies it; how many records of the ledger and of the bank that were.
    pub(super) fn prove(mut self, cluster: &Cluster, interrupt: &Interrupt) -> Result<[u64; 2]> {
        let proved = self.end_and_verify(cluster, interrupt).or_else(|error| Err(self.blamed(error, cluster)?));
        self.with_stacks(proved)
    }

    /// Where the brokers have committed a part of a transaction and aborted the rest, nobody's outputs are right, and what the
    /// oracles say proves nothing.
    fn blamed(&self, error: anyhow::Error, cluster: &Cluster) -> Result<anyhow::Error> {
        if !error.is::<Wrong>() {
            return Ok(error);
        }
        let torn = cluster.torn_by_brokers(&[&self.scene.name])?;
        Ok(if torn.is_empty() {
            error
        } else {
            anyhow!(
                "the brokers have committed a part of a transaction that they aborted, at {}; so this proves nothing: {error}",
                torn.join(", ")
            )
        })
    }

    fn end_and_verify(&mut self, cluster: &Cluster, interrupt: &Interrupt) -> Result<[u64; 2]> {
        self.mend_what_is_damaged(interrupt)?;
        let load = self.load.take().expect("a segment is proved once");
        self.scene.produced += load.finish()?;
        judged("the input of the ledger", || self.scene.count_input())?;
        let transfers = self.bank.prove(interrupt)?;
        let crew = &mut self.crew;
        await_processed(&mut self.scene, interrupt, || crew.iter_mut().try_for_each(ensure_alive))?;
        self.await_closed(interrupt)?;
        for member in &mut self.crew {
            if member.worker.is_some() {
                member.stop()?;
            }
        }
        self.take_out_of_disks()?;
        let watch = self.watch.take().expect("a segment is proved once");
        judged("what was seen meanwhile", || watch.finish(ENDS_MIN))?;
        self.await_answers(interrupt)?;
        let names: Vec<&str> = self.crew.iter().map(|member| member.name.as_str()).collect();
        judged("what is there at the end", || self.scene.verify(&names))?;
        self.verify_transactions(cluster, interrupt)?;
        Ok([self.scene.produced, transfers])
    }

    /// O8.
    fn verify_transactions(&self, cluster: &Cluster, interrupt: &Interrupt) -> Result<()> {
        let (input, output, changelog) = (self.scene.input(), self.scene.output(), self.scene.changelog());
        let read = |partition| {
            let read = |topic| cluster.kafka.raw_log(topic, partition, RawRecords::Unread);
            Ok((partition, read(&output)?, read(&changelog)?))
        };
        let files: Vec<(i32, RawLog, RawLog)> = (0..PARTITIONS).map(read).collect::<Result<_>>()?;
        let tasks: Vec<TaskFiles<'_>> = files
            .iter()
            .map(|(partition, output, changelog)| TaskFiles { partition: *partition, output, changelog })
            .collect();
        let mut offsets = RawLog::default();
        interrupt.wait_until(CLOSED_WITHIN, || {
            offsets = cluster.offsets_of(&self.scene.name)?;
            Ok(!offsets.has_an_open_transaction())
        })?;
        judged("O8: what the brokers' files say", || {
            let verdict = oracle::check_transactions(&self.scene.name, &input, &offsets, &tasks);
            verdict.assert_ok();
            assert_eq!(verdict.outputs, self.scene.produced, "{verdict}");
        })
    }

    /// O7.
    fn await_closed(&mut self, interrupt: &Interrupt) -> Result<()> {
        for topic in self.scene.written() {
            let mut open = Vec::new();
            let closed = interrupt.wait_until(CLOSED_WITHIN, || {
                open = self.scene.kafka.open_transactions(&topic)?;
                Ok(open.is_empty())
            })?;
            if !closed {
                let text =
                    format!("O7: {CLOSED_WITHIN:?} after the last record transactions are open in {topic} {open:?}");
                return Err(wrong(text));
            }
        }
        Ok(())
    }

    /// Clients that saw brokers die may be slow to find them again, and the oracles ask once.
    fn await_answers(&mut self, interrupt: &Interrupt) -> Result<()> {
        self.scene.reconnect();
        let input = self.scene.input();
        let answered = interrupt.wait_until(STUCK, || Ok(self.scene.kafka.committed_offsets(&input, true).is_ok()))?;
        if answered { Ok(()) } else { Err(wrong(format!("after {STUCK:?} nobody says what is committed of {input}"))) }
    }

    /// The oracles look where the directories would be without disks of their own.
    fn take_out_of_disks(&self) -> Result<()> {
        for member in &self.crew {
            if let Some(disk) = &member.disk {
                let outside = self.scene.state_dir(&member.name);
                let written = fs::read_dir(&outside).context("the place of a disk")?.next().is_some();
                anyhow::ensure!(!written, "{} was written outside of its disk", outside.display());
                copy_directory(&disk.path(), &outside);
            }
        }
        Ok(())
    }
}

/// Waits until the offsets say that everything is processed.
pub(super) fn await_processed(
    scene: &mut Scene,
    interrupt: &Interrupt,
    mut ensure_all_run: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    let all = interrupt.wait_until(STUCK, || {
        ensure_all_run()?;
        // Clients that saw brokers die may be slow to find them again.
        match scene.kafka.committed_offsets(&scene.input(), false) {
            Ok(offsets) => done = offsets.values().map(|(offset, _)| (*offset).max(0) as u64).sum(),
            Err(_) => scene.reconnect(),
        }
        Ok(done >= scene.produced)
    })?;
    if all {
        Ok(())
    } else {
        Err(wrong(format!("after {STUCK:?} {done} of {} records of {} are processed", scene.produced, scene.name)))
    }
}

/// What an oracle says in a panic.
pub(super) fn judged<T>(what: &str, judge: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(judge)).map_err(|panic| wrong(format!("{what}: {}", panic_text(&*panic))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::campaign::Wrong;

    #[test]
    fn what_an_oracle_says_is_a_violation_in_its_words() {
        let found = judged("the end", || assert_eq!(1, 2, "a record is doubled")).expect_err("it panics");
        assert!(found.is::<Wrong>() && found.to_string().contains("a record is doubled"), "{found:#}");
        assert!(judged("the end", || 7).is_ok_and(|seven| seven == 7));
    }
}
