//! What must hold at the end of a segment, when everything that was produced is processed: every oracle, over every record.
//!
//! The load ends; the offsets reach the end of the input; no transaction stays open (O7); the workers stop cleanly; what
//! the watchers saw all the time (O3, O4) is judged; and then outputs, changelog and every copy of every store must say
//! what the input says (O1, O2; a record of an aborted transaction that became visible, O5, would be a second output or a
//! batch twice).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::{Context, Result};

use super::segment::{STUCK, Segment};
use super::{panic_text, wrong};
use crate::client::Observer;
use crate::lab::interrupt::Interrupt;
use crate::scene::copy_directory;

/// How long a transaction may stay open when nothing is left to do: markers may wait for a broker that has just come back.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
/// So often at least the concurrent reader must have stood behind new batches, for what it has seen to count.
const ENDS_MIN: u64 = 20;

impl Segment {
    /// Ends the segment and verifies it; how many records that were.
    pub(super) fn prove(mut self, interrupt: &Interrupt) -> Result<u64> {
        let load = self.load.take().expect("a segment is proved once");
        self.scene.produced += load.finish()?;
        self.await_processed(interrupt)?;
        self.await_closed(interrupt)?;
        for member in &mut self.crew {
            if member.worker.is_some() {
                member.stop()?;
            }
        }
        self.take_out_of_disks()?;
        let watch = self.watch.take().expect("a segment is proved once");
        judged("what was seen meanwhile", || watch.finish(ENDS_MIN))?;
        let names: Vec<&str> = self.crew.iter().map(|member| member.name.as_str()).collect();
        judged("what is there at the end", || self.scene.verify(&names))?;
        Ok(self.scene.produced)
    }

    fn await_processed(&mut self, interrupt: &Interrupt) -> Result<()> {
        let produced = self.scene.produced;
        let mut done = 0;
        let all = interrupt.wait_until(STUCK, || {
            self.ensure_all_run()?;
            // Clients that saw brokers die may be slow to find them again.
            match self.scene.kafka.committed_offsets(&self.scene.input(), false) {
                Ok(offsets) => done = offsets.values().map(|(offset, _)| (*offset).max(0) as u64).sum(),
                Err(_) => self.scene.kafka = Observer::new(&self.scene.bootstrap, &self.scene.name)?,
            }
            Ok(done >= produced)
        })?;
        if all { Ok(()) } else { Err(wrong(format!("after {STUCK:?} {done} of {produced} records are processed"))) }
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

/// What an oracle says in a panic.
fn judged<T>(what: &str, judge: impl FnOnce() -> T) -> Result<T> {
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
