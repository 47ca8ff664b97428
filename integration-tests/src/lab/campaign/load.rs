//! Entries for the ledger at a steady pace. Each has the wall clock's time at which it was due to be handed over as its
//! timestamp, and so has its output: whoever sees the output knows how long the record has been on its way. Nothing waits
//! for brokers or workers that are away, so what they delay is counted in full.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use processor_simulator::SplitMix64;

use crate::client::{Pace, PacedProducer};
use crate::scene::Scene;

const LINGER_MS: u64 = 5;

/// Records that are produced until it is told to finish.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Load {
    /// So many records a second into the scene's input.
    pub(super) fn start(scene: &Scene, rate: u64, seed: u64) -> Result<Self> {
        let pace = Pace { rate: Some(rate), linger_ms: LINGER_MS };
        let mut producer = PacedProducer::new(&scene.bootstrap, &scene.input(), scene.partitions, pace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, keys, mut random) = (Arc::clone(&stop), scene.keys, SplitMix64::new(seed));
        let produce = move || {
            let (mut sent, mut millisecond, mut said) = (0, 0, HashSet::new());
            while !stopped.load(Ordering::SeqCst) {
                let (account, delta) = (random.below(keys), random.below(1_001) as i64 - 500);
                let now = now_ms();
                if now != millisecond {
                    millisecond = now;
                    said.clear();
                }
                // No two are alike, so that one that stands twice in the log is known.
                if said.insert((account, delta)) {
                    producer.send(&format!("account-{account}"), &delta.to_be_bytes(), now)?;
                    sent += 1;
                }
            }
            producer.finish()?;
            Ok(sent)
        };
        let thread =
            thread::Builder::new().name("campaign-load".to_owned()).spawn(produce).context("start the load")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, and waits until everything is acknowledged; how many records that are.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("finish consumes the load, so its thread is taken once");
        thread.join().map_err(|_| anyhow!("the load panicked"))?.context("the load could not be produced")
    }

    /// Fails if it has ended by itself.
    pub(super) fn ensure_runs(&self) -> Result<()> {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        ensure!(!ended, "the load has ended by itself: brokers took nothing for five minutes");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// The wall clock, in milliseconds.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis() as i64
}
